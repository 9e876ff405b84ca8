// capture/pcap/live_capture.h - one interface, opened by libpcap.
// SPDX-License-Identifier: Apache-2.0
//
// In:      the name of an interface.   Out: packets, as libpcap hands them over; drops.
// Threads: one.
// Limits:  buffer_bytes of kernel memory; packets that find it full are lost and counted. The kernel hands a
//          block of packets over when it is full, or hand_over_ms old (no immediate mode: one wake-up a
//          packet costs more than the packet).
// Fails:   OsError in libpcap's words.
// libpcap's header stays inside: it and libbpf's cannot share a translation unit.
#pragma once

#include <cstdint>
#include <expected>
#include <memory>
#include <span>
#include <string>

#include "capture/engine.h"

namespace egresswatch::capture {

struct LiveOptions {
    std::uint64_t buffer_bytes = 32ULL << 20;  // at most 2 GiB - 1
    std::uint32_t snap_length = 256;
    bool promiscuous = true;
    std::string filter;  // pcap-filter(7)
};

struct LivePacket {
    std::span<const std::uint8_t> bytes;
    std::uint32_t wire_bytes = 0;
    std::uint64_t stamp_ns = 0;  // wall clock
};

class LiveCapture {
public:
    static constexpr int hand_over_ms = 100;

    [[nodiscard]] static std::expected<LiveCapture, OsError> open(const std::string& device,
                                                                  const LiveOptions& options);
    // An expression that no interface would take, with libpcap's own words.
    [[nodiscard]] static std::expected<void, OsError> check_filter(const std::string& filter);
    LiveCapture(LiveCapture&&) noexcept;
    LiveCapture& operator=(LiveCapture&&) noexcept;
    ~LiveCapture();

    [[nodiscard]] int fd() const noexcept;
    [[nodiscard]] std::uint32_t link_type() const noexcept;  // LINKTYPE_

    // Hands over what is there, at most `most` packets, one call each; does not wait. What a packet points at
    // dies when the call returns. Returns how many there were.
    using Take = void (*)(void* self, const LivePacket& packet);
    [[nodiscard]] std::expected<std::size_t, OsError> read(std::size_t most, Take take, void* self);

    // Since open(): buffer and device.
    [[nodiscard]] CaptureDrops drops() const;

private:
    struct State;
    explicit LiveCapture(std::unique_ptr<State> state);
    std::unique_ptr<State> state_;
};

}  // namespace egresswatch::capture
