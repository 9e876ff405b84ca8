// capture/pcap/live_capture.cpp
// SPDX-License-Identifier: Apache-2.0
#include "capture/pcap/live_capture.h"

#include <pcap/pcap.h>

#include <algorithm>
#include <cerrno>

namespace egresswatch::capture {
namespace {

struct Close {
    void operator()(pcap_t* handle) const noexcept { pcap_close(handle); }
};
using Handle = std::unique_ptr<pcap_t, Close>;

std::unexpected<OsError> refused(std::string operation, const std::string& object, pcap_t* handle, int code) {
    // The general words are worth little where libpcap has particular ones.
    const std::string particular = handle != nullptr ? pcap_geterr(handle) : "";
    std::string text = code == PCAP_ERROR || code == 0 ? "" : pcap_statustostr(code);
    if (!particular.empty()) text += (text.empty() ? "" : ": ") + particular;
    const bool forbidden = code == PCAP_ERROR_PERM_DENIED || code == PCAP_ERROR_PROMISC_PERM_DENIED;
    return std::unexpected(OsError{std::move(operation), object, forbidden ? EPERM : 0,
                                   forbidden ? text + "; CAP_NET_RAW is needed" : text});
}

std::expected<void, OsError> set_filter(pcap_t* handle, const std::string& device, const std::string& text) {
    if (text.empty()) return {};
    bpf_program program{};
    if (pcap_compile(handle, &program, text.c_str(), 1, PCAP_NETMASK_UNKNOWN) != 0)
        return refused("compile the filter \"" + text + "\"", device, handle, PCAP_ERROR);
    const int set = pcap_setfilter(handle, &program);
    pcap_freecode(&program);
    if (set != 0) return refused("set the filter", device, handle, set);
    return {};
}

}  // namespace

struct LiveCapture::State {
    Handle handle;
    std::string device;
    std::uint32_t link_type = 0;
    int fd = -1;
    // libpcap's counters are 32 bits wide.
    mutable std::uint32_t buffer_seen = 0, device_seen = 0;
    mutable CaptureDrops drops;
    // Of the read() that runs.
    Take take = nullptr;
    void* self = nullptr;

    static void on_packet(unsigned char* state, const pcap_pkthdr* header, const unsigned char* bytes);
};

void LiveCapture::State::on_packet(unsigned char* state, const pcap_pkthdr* header,
                                   const unsigned char* bytes) {
    auto& capture = *reinterpret_cast<State*>(state);
    LivePacket packet;
    packet.bytes = {bytes, header->caplen};
    packet.wire_bytes = std::max(header->len, header->caplen);
    // PCAP_TSTAMP_PRECISION_NANO: tv_usec holds nanoseconds.
    packet.stamp_ns = static_cast<std::uint64_t>(header->ts.tv_sec) * 1'000'000'000U +
                      static_cast<std::uint64_t>(header->ts.tv_usec);
    capture.take(capture.self, packet);
}

LiveCapture::LiveCapture(std::unique_ptr<State> state) : state_(std::move(state)) {}
LiveCapture::LiveCapture(LiveCapture&&) noexcept = default;
LiveCapture& LiveCapture::operator=(LiveCapture&&) noexcept = default;
LiveCapture::~LiveCapture() = default;

std::expected<LiveCapture, OsError> LiveCapture::open(const std::string& device, const LiveOptions& options) {
    char error[PCAP_ERRBUF_SIZE] = "";
    auto state = std::make_unique<State>();
    state->device = device;
    state->handle.reset(pcap_create(device.c_str(), error));
    pcap_t* handle = state->handle.get();
    if (handle == nullptr) return std::unexpected(OsError{"open for capture", device, 0, error});
    pcap_set_snaplen(handle, static_cast<int>(options.snap_length));
    pcap_set_promisc(handle, options.promiscuous ? 1 : 0);
    pcap_set_timeout(handle, hand_over_ms);
    pcap_set_immediate_mode(handle, 0);
    pcap_set_buffer_size(handle, static_cast<int>(options.buffer_bytes));
    pcap_set_tstamp_precision(handle, PCAP_TSTAMP_PRECISION_NANO);
    const int activated = pcap_activate(handle);
    if (activated < 0) return refused("open for capture", device, handle, activated);
    // Micro-seconds would be taken for nanoseconds.
    if (pcap_get_tstamp_precision(handle) != PCAP_TSTAMP_PRECISION_NANO)
        return std::unexpected(OsError{"open for capture", device, 0, "no nanosecond time stamps"});
    if (pcap_setnonblock(handle, 1, error) != 0)
        return std::unexpected(OsError{"open for capture", device, 0, error});
    if (auto set = set_filter(handle, device, options.filter); !set) return std::unexpected(set.error());
    state->link_type = static_cast<std::uint32_t>(pcap_datalink(handle));
    state->fd = pcap_get_selectable_fd(handle);
    if (state->fd < 0) return std::unexpected(OsError{"open for capture", device, 0, "it cannot be polled"});
    return LiveCapture(std::move(state));
}

std::expected<void, OsError> LiveCapture::check_filter(const std::string& filter) {
    if (filter.empty()) return {};
    const Handle handle(pcap_open_dead(DLT_EN10MB, 65535));
    bpf_program program{};
    if (pcap_compile(handle.get(), &program, filter.c_str(), 1, PCAP_NETMASK_UNKNOWN) != 0)
        return refused("compile the filter \"" + filter + "\"", "", handle.get(), PCAP_ERROR);
    pcap_freecode(&program);
    return {};
}

int LiveCapture::fd() const noexcept {
    return state_->fd;
}

std::uint32_t LiveCapture::link_type() const noexcept {
    return state_->link_type;
}

std::expected<std::size_t, OsError> LiveCapture::read(std::size_t most, Take take, void* self) {
    state_->take = take;
    state_->self = self;
    pcap_t* handle = state_->handle.get();
    const int count = pcap_dispatch(handle, static_cast<int>(most), State::on_packet,
                                    reinterpret_cast<unsigned char*>(state_.get()));
    if (count >= 0) return static_cast<std::size_t>(count);
    return refused("capture", state_->device, handle, count);
}

CaptureDrops LiveCapture::drops() const {
    pcap_stat now{};
    if (pcap_stats(state_->handle.get(), &now) == 0) {
        state_->drops.buffer += static_cast<std::uint32_t>(now.ps_drop - state_->buffer_seen);
        state_->drops.device += static_cast<std::uint32_t>(now.ps_ifdrop - state_->device_seen);
        state_->buffer_seen = now.ps_drop;
        state_->device_seen = now.ps_ifdrop;
    }
    return state_->drops;
}

}  // namespace egresswatch::capture
