// tests/corpus/oracle.h - what tshark says about each frame of a capture, and the list of known differences.
// SPDX-License-Identifier: Apache-2.0
//
// The columns of FILE.packets.tsv are defined by the program that made them: one row a frame, `o_` columns
// for the outermost IP layer that tshark dissects, `i_` for the innermost, each fragment a packet of its own.
#pragma once

#include <compare>
#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "classifier/address.h"

namespace egresswatch::test {

// One direction of a five-tuple; ports in host order.
struct Route {
    Address source;
    Address destination;
    std::uint8_t l4_proto = 0;
    std::uint16_t source_port = 0;
    std::uint16_t destination_port = 0;

    auto operator<=>(const Route&) const = default;
    [[nodiscard]] std::string to_string() const;
};

struct Volume {
    std::uint64_t packets = 0;
    std::uint64_t ip_bytes = 0;

    auto operator<=>(const Volume&) const = default;
};
using Routes = std::map<Route, Volume>;

enum class FrameStatus { counted, not_ip, malformed, truncated };
[[nodiscard]] const char* status_name(FrameStatus status);

// One frame, as egresswatch or as tshark sees it.
struct Frame {
    FrameStatus status = FrameStatus::not_ip;
    Route route;  // of the innermost IP layer; only where counted
    std::uint64_t ip_bytes = 0;
    std::uint64_t frame_bytes = 0;
};

struct OracleFrame {
    Frame frame;
    // tshark's "undecodable" stands for malformed and truncated, and for any protocol that is not IP and
    // ends early: what egresswatch may say of such a frame depends on whether an IP layer had begun.
    bool undecodable = false;
    bool ip_began = false;
    std::string chain;  // tshark's stack of protocols
    std::string flags;

    [[nodiscard]] bool agrees_on_status(FrameStatus ours) const;
};

[[nodiscard]] std::vector<OracleFrame> read_oracle(const std::filesystem::path& packets_tsv);

// tests/corpus/differences.tsv: capture, what, frames, reason.
struct Difference {
    std::string capture;
    // "status", "route", "bytes": of which frames; "frames": how many there are; "no packet": rows of
    // tshark's that stand for something else than a packet, and are left out before frames are compared.
    std::string what;
    std::string frames;  // "3,7-12"; for "frames" "ours/tshark's"

    auto operator<=>(const Difference&) const = default;
};
[[nodiscard]] std::map<Difference, std::string> read_differences(const std::filesystem::path& path);

// Removes tshark's rows of these frames, all of them or none (false).
[[nodiscard]] bool drop_rows(std::vector<OracleFrame>& rows, const std::string& frames);

[[nodiscard]] std::string frame_ranges(const std::vector<std::size_t>& ascending);

}  // namespace egresswatch::test
