// tests/fuzz/samples.h - payload samples as the bytes of a fuzz input, and back.
//
// Each sample: a head of six bytes (what and whose, TCP flags, sequence number, length) and its payload. Any
// bytes are a sequence of samples; what captures hold is written in the same way, as seeds.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <span>
#include <vector>

#include "classifier/payload_sample.h"

namespace egresswatch::testing {

struct FuzzSample {
    std::uint8_t flow = 0;  // 0 to 7: which of the flows that the target knows
    bool inbound = false;
    bool remote_connects = false;
    bool datagram = false;
    std::uint8_t action = 0;  // 0 to 3: beside the sample, of the target's choice
    std::uint8_t tcp_flags = 0;
    std::uint16_t sequence = 0;
    std::span<const std::uint8_t> payload;
};

inline constexpr std::size_t fuzz_head_bytes = 6;
inline constexpr std::size_t fuzz_payload_max = 4096;

// Takes the next one from `rest`; false: there is none.
inline bool take_sample(std::span<const std::uint8_t>& rest, FuzzSample& out) {
    if (rest.size() < fuzz_head_bytes) return false;
    const std::uint8_t what = rest[0];
    // The port of the flow in the low bits: an input of zeros is a question to a name server.
    out.flow = what & 7;
    out.inbound = (what & 8) != 0;
    out.remote_connects = (what & 16) != 0;
    out.datagram = (what & 32) != 0;
    out.action = what >> 6;
    out.tcp_flags = rest[1];
    out.sequence = static_cast<std::uint16_t>(rest[2] << 8 | rest[3]);
    const std::size_t wanted = static_cast<std::size_t>(rest[4] << 8 | rest[5]) % (fuzz_payload_max + 1);
    rest = rest.subspan(fuzz_head_bytes);
    const std::size_t size = std::min(wanted, rest.size());
    out.payload = rest.first(size);
    rest = rest.subspan(size);
    return true;
}

inline void put_sample(const FuzzSample& sample, std::vector<std::uint8_t>& out) {
    const std::size_t size = std::min(sample.payload.size(), fuzz_payload_max);
    out.push_back(static_cast<std::uint8_t>((sample.flow & 7) | (sample.inbound ? 8 : 0) |
                                            (sample.remote_connects ? 16 : 0) | (sample.datagram ? 32 : 0) |
                                            (sample.action & 3) << 6));
    out.push_back(sample.tcp_flags);
    for (const std::size_t number : {std::size_t{sample.sequence}, size}) {
        out.push_back(static_cast<std::uint8_t>(number >> 8));
        out.push_back(static_cast<std::uint8_t>(number));
    }
    out.insert(out.end(), sample.payload.begin(), sample.payload.begin() + static_cast<std::ptrdiff_t>(size));
}

// The far port of each flow.
inline constexpr std::uint16_t fuzz_ports[8] = {53, 443, 80, 22, 25, 3389, 51820, 6881};

// Not a sanitizer's matter, but wrong.
inline void must(bool holds) {
    if (!holds) std::abort();
}

}  // namespace egresswatch::testing
