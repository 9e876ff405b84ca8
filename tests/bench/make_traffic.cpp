// tests/bench/make_traffic.cpp - writes a capture of made-up traffic (traffic_mix.h) and says what is in it.
//
// Out: a classic pcap file; on standard output one JSON object, what a perfect observer would count.
// SPDX-License-Identifier: Apache-2.0
#include <CLI/CLI.hpp>
#include <cinttypes>
#include <cstdio>
#include <cstring>
#include <stdexcept>

#include "tests/bench/traffic_mix.h"

int main(int argc, char** argv) {
    using egresswatch::test::TrafficSpec;
    CLI::App app{"make_traffic: a capture of made-up traffic, the same bytes for the same options"};
    TrafficSpec spec;
    egresswatch::test::CaptureFormat format;
    std::string path;
    app.add_option("FILE", path, "the capture to write")->required();
    app.add_option("--packets", spec.packets)->capture_default_str();
    app.add_option("--flows", spec.flows)->capture_default_str();
    app.add_flag("--even", spec.even, "all flows have the same number of packets");
    app.add_option("--seed", spec.seed)->capture_default_str();
    app.add_option("--seconds", spec.seconds, "how much time the packets span")->capture_default_str();
    app.add_option("--snap", spec.snap_bytes, "bytes kept of each frame; 0: all")->capture_default_str();
    app.add_option("--ipv6-percent", spec.ipv6_percent)->check(CLI::Range(0, 100))->capture_default_str();
    app.add_option("--vlan-percent", spec.vlan_percent)->check(CLI::Range(0, 100))->capture_default_str();
    app.add_option("--odd", spec.odd_of_thousand,
                   "of a thousand flows, how many are tunnelled, fragmented, broken ...")
        ->check(CLI::Range(0, 1000))
        ->capture_default_str();
    app.add_flag("--nanoseconds", format.nanoseconds, "time stamps in nanoseconds");
    app.add_flag("--big-endian", format.big_endian, "file headers in the other byte order");
    CLI11_PARSE(app, argc, argv);
    try {
        egresswatch::test::TrafficMix mix(spec);
        if (const int error = egresswatch::test::write_capture(path, mix, spec.snap_bytes, format);
            error != 0) {
            std::fprintf(stderr, "make_traffic: %s: %s\n", path.c_str(), std::strerror(error));
            return 3;
        }
        const auto& truth = mix.truth();
        std::printf("{\"packets\":%" PRIu64 ",\"frame_bytes\":%" PRIu64 ",\"captured_bytes\":%" PRIu64
                    ",\"ip_bytes\":%" PRIu64 ",\"flows\":%" PRIu64 ",\"directed_flows\":%" PRIu64
                    ",\"odd_packets\":%" PRIu64 "}\n",
                    truth.packets, truth.frame_bytes, truth.captured_bytes, truth.ip_bytes, truth.flows,
                    truth.directed_flows, truth.odd_packets);
    } catch (const std::invalid_argument& wrong) {
        std::fprintf(stderr, "make_traffic: %s\n", wrong.what());
        return 2;
    }
    return 0;
}
