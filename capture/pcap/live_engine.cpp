// capture/pcap/live_engine.cpp
// SPDX-License-Identifier: Apache-2.0
#include "capture/pcap/live_engine.h"

#include <poll.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cerrno>
#include <cstring>
#include <functional>
#include <map>
#include <optional>
#include <utility>

#include "capture/ebpf/netlink.h"
#include "capture/pcap/packet_direction.h"
#include "capture/pcap/stamp_clock.h"
#include "classifier/link_type.h"
#include "classifier/region/region_table.h"

namespace egresswatch::capture {
namespace {

using std::chrono::milliseconds;
using Clock = std::chrono::steady_clock;

constexpr std::size_t PACKETS_A_CHUNK = 256;     // accounted together
constexpr std::size_t PACKETS_A_TURN = 4096;     // of one interface, before the next one's turn
constexpr std::size_t PACKETS_A_POLL = 1 << 16;  // then signals and control requests are looked at
constexpr std::uint64_t SETTLED_NS = 2'000'000ULL * LiveCapture::hand_over_ms;  // nothing older is under way
constexpr std::uint8_t BY_ADDRESS = 2;                                          // PacketInput::direction
constexpr std::uint32_t LINK_HEADER_MAX = 22;  // Ethernet with two VLAN tags, cooked captures
constexpr milliseconds STOP_MAX{500};
constexpr std::uint64_t BUFFER_MAX = 0x7fffffff;

bool begins_with_ip(std::uint32_t link_type) {
    return link_type == 12 || link_type == 101;  // LINKTYPE_RAW, under both its numbers
}

using TotalsWords = std::array<std::uint64_t, sizeof(datapath::iface_totals) / sizeof(std::uint64_t)>;

template <typename Operation>
datapath::iface_totals combine(const datapath::iface_totals& a, const datapath::iface_totals& b,
                               Operation operation) {
    TotalsWords result{};
    std::ranges::transform(std::bit_cast<TotalsWords>(a), std::bit_cast<TotalsWords>(b), result.begin(),
                           operation);
    return std::bit_cast<datapath::iface_totals>(result);
}

void add(CaptureDrops& to, const CaptureDrops& what) {
    to.buffer += what.buffer;
    to.device += what.device;
    to.memory += what.memory;
}

void add(datapath::traffic& to, const datapath::traffic& what) {
    to.packets += what.packets;
    to.bytes += what.bytes;
}

// An interface that is asked for.
struct Tap {
    LinkNews link;
    std::optional<LiveCapture> capture;
    std::string why_not;
    Clock::time_point retry_at{};
    std::uint32_t slot = 0;                // of FlowTable::interface_totals()
    datapath::iface_totals slot_before{};  // what earlier users of the slot counted
    CaptureDrops dropped_before;           // by captures of this interface that were closed
    datapath::traffic unsegmented{};
    std::uint64_t uncertain = 0;  // as InterfaceStatus::uncertain, without the drops

    [[nodiscard]] CaptureDrops dropped() const {
        CaptureDrops all = dropped_before;
        if (capture) add(all, capture->drops());
        return all;
    }
    void close(std::string why) {
        dropped_before = dropped();
        capture.reset();
        why_not = std::move(why);
        retry_at = Clock::now() + PcapEngine::retry_interval;
    }
};

}  // namespace

struct PcapEngine::State {
    PcapConfig config;
    FlowTable table;
    StampClock clock;
    std::optional<LinkWatcher> watcher;
    std::map<std::uint32_t, Tap> taps;  // by ifindex; wanted ones only
    std::vector<std::uint32_t> free_slots;
    std::uint32_t slots = 0;
    InterfaceStatus gone;  // what interfaces counted that are no more
    FlowSink* sink = nullptr;
    bool region_installed = false;
    // Packets of a chunk, copied: libpcap takes theirs back after each.
    std::vector<std::uint8_t> arena;
    std::size_t arena_used = 0;
    std::vector<PacketInput> chunk;
    Tap* reading = nullptr;
    std::vector<pollfd> waiting;  // reused

    explicit State(PcapConfig given)
        : config(std::move(given)),
          table(config.table),
          arena(PACKETS_A_CHUNK * std::size_t{config.live.snap_length}) {
        chunk.reserve(PACKETS_A_CHUNK);
        gone.name = "(gone)";
        gone.why_not_hooked = "interfaces that are no more";
    }
    void on_news(const LinkNews& link);
    void settle(const std::vector<LinkNews>& links);
    void remove(std::uint32_t ifindex);
    std::expected<void, OsError> open(Tap& tap);
    void open_again();
    std::expected<void, OsError> read_link_news();
    std::size_t read_some(Tap& tap);
    void take(const LivePacket& packet);
    void flush();
    [[nodiscard]] InterfaceStatus status_of(const Tap& tap) const;
    [[nodiscard]] datapath::iface_totals counted(std::uint32_t slot) const;
};

// ------------------------------------------------------------------------------------------- interfaces

datapath::iface_totals PcapEngine::State::counted(std::uint32_t slot) const {
    const auto all = table.interface_totals();
    return slot < all.size() ? all[slot] : datapath::iface_totals{};
}

std::expected<void, OsError> PcapEngine::State::open(Tap& tap) {
    tap.retry_at = Clock::now() + retry_interval;
    auto opened = LiveCapture::open(tap.link.name, config.live);
    if (!opened) {
        tap.why_not = opened.error().to_string();
        return std::unexpected(opened.error());
    }
    if (!link_type_supported(opened->link_type())) {
        tap.why_not = link_type_name(opened->link_type()) + " is not understood";
        return {};
    }
    tap.capture = std::move(*opened);
    tap.why_not.clear();
    return {};
}

void PcapEngine::State::on_news(const LinkNews& link) {
    const auto known = taps.find(link.ifindex);
    if (link.gone) {
        if (known != taps.end()) remove(link.ifindex);
        return;
    }
    if (known == taps.end()) {
        if (!interface_wanted(config.interfaces, link)) return;
        Tap tap;
        tap.link = link;
        if (free_slots.empty()) {
            tap.slot = slots++;
        } else {
            tap.slot = free_slots.back();
            free_slots.pop_back();
        }
        tap.slot_before = counted(tap.slot);
        (void)open(taps[link.ifindex] = std::move(tap));
        return;
    }
    // A renamed interface stays open: its traffic is what was asked for.
    known->second.link = link;
    if (!known->second.capture) (void)open(known->second);
}

void PcapEngine::State::remove(std::uint32_t ifindex) {
    const auto known = taps.find(ifindex);
    Tap& tap = known->second;
    // What it handed to the kernel before it went is still in the buffer.
    while (tap.capture && read_some(tap) != 0) continue;
    flush();
    const InterfaceStatus last = status_of(tap);
    gone.totals = combine(gone.totals, last.totals, std::plus<>{});
    add(gone.dropped, last.dropped);
    add(gone.unsegmented, last.unsegmented);
    free_slots.push_back(tap.slot);
    taps.erase(known);
}

void PcapEngine::State::settle(const std::vector<LinkNews>& links) {
    std::vector<std::uint32_t> vanished;
    for (const auto& [ifindex, tap] : taps)
        if (std::ranges::find(links, ifindex, &LinkNews::ifindex) == links.end()) vanished.push_back(ifindex);
    for (const std::uint32_t ifindex : vanished) remove(ifindex);
    for (const LinkNews& link : links) on_news(link);
}

std::expected<void, OsError> PcapEngine::State::read_link_news() {
    auto news = watcher->read();
    if (!news) return std::unexpected(news.error());
    for (const LinkNews& link : news->links) on_news(link);
    if (!news->missed) return {};
    auto links = watcher->all();
    if (!links) return std::unexpected(links.error());
    settle(*links);
    return {};
}

void PcapEngine::State::open_again() {
    const auto now = Clock::now();
    for (auto& [ifindex, tap] : taps)
        if (!tap.capture && now >= tap.retry_at) (void)open(tap);
}

InterfaceStatus PcapEngine::State::status_of(const Tap& tap) const {
    InterfaceStatus status;
    status.name = tap.link.name;
    status.ifindex = tap.link.ifindex;
    status.hooked = tap.capture.has_value();
    status.hook = "pcap";
    status.layer2 = !tap.capture || !begins_with_ip(tap.capture->link_type());
    status.why_not_hooked = tap.why_not;
    status.totals = combine(counted(tap.slot), tap.slot_before, std::minus<>{});
    status.dropped = tap.dropped();
    status.unsegmented = tap.unsegmented;
    status.sees_all_sent = config.live.filter.empty();
    status.uncertain = status.dropped.sum() + tap.uncertain;
    return status;
}

// ---------------------------------------------------------------------------------------------- packets

void PcapEngine::State::take(const LivePacket& packet) {
    Tap& tap = *reading;
    const std::uint32_t link_type = tap.capture->link_type();
    const std::size_t size = std::min<std::size_t>(packet.bytes.size(), config.live.snap_length);
    if (chunk.size() == PACKETS_A_CHUNK || arena_used + size > arena.size()) flush();
    std::uint8_t* copy = arena.data() + arena_used;
    std::memcpy(copy, packet.bytes.data(), size);
    arena_used += size;
    PacketInput input;
    input.bytes = {copy, size};
    input.wire_bytes = packet.wire_bytes;
    input.interface = tap.slot;
    input.ifindex = tap.link.ifindex;
    input.at_ns = clock.of_stamp(packet.stamp_ns);
    input.link = locate_link(link_type, input.bytes);
    input.direction = packet_direction(link_type, input.bytes, tap.link.address);
    if (packet.wire_bytes > tap.link.mtu + LINK_HEADER_MAX) {
        tap.unsegmented.packets++;
        tap.unsegmented.bytes += packet.wire_bytes;
        // A device that no software driver made counts the segments that it sends.
        if (input.direction != datapath::DIRECTION_IN && tap.link.kind.empty()) tap.uncertain++;
    }
    // Guests on a bridge, mirrored frames: the device may have sent what counts as come, or the other way.
    if (input.direction == BY_ADDRESS) tap.uncertain++;
    chunk.push_back(input);
}

void PcapEngine::State::flush() {
    if (!chunk.empty()) table.account(chunk, *sink);
    chunk.clear();
    arena_used = 0;
}

std::size_t PcapEngine::State::read_some(Tap& tap) {
    reading = &tap;
    const auto count = tap.capture->read(
        PACKETS_A_TURN, [](void* self, const LivePacket& packet) { static_cast<State*>(self)->take(packet); },
        this);
    flush();
    if (count) return *count;
    tap.close(count.error().to_string());
    return 0;
}

// ------------------------------------------------------------------------------------------------ engine

PcapEngine::PcapEngine(std::unique_ptr<State> state) : state_(std::move(state)) {}
PcapEngine::~PcapEngine() = default;

std::expected<std::unique_ptr<PcapEngine>, OsError> PcapEngine::make(PcapConfig config) {
    if (config.interfaces.empty())
        return os_error("use interfaces", "an empty list", 0, "name one, a pattern, or all-physical");
    if (config.live.buffer_bytes > BUFFER_MAX)
        return os_error("use the buffer size", std::to_string(config.live.buffer_bytes), 0,
                        "less than 2 GiB is possible");
    if (auto good = LiveCapture::check_filter(config.live.filter); !good)
        return std::unexpected(good.error());
    return std::unique_ptr<PcapEngine>(new PcapEngine(std::make_unique<State>(std::move(config))));
}

std::expected<void, OsError> PcapEngine::install_region(const RegionTable& table) {
    state_->table.install_region(table.block());
    state_->region_installed = true;
    return {};
}

std::expected<void, OsError> PcapEngine::start(FlowSink& sink) {
    State& state = *state_;
    if (!state.region_installed)
        return os_error("start the engine", "pcap", 0, "install a region table first");
    state.sink = &sink;
    state.clock.read();
    auto watcher = LinkWatcher::open();
    if (!watcher) return std::unexpected(watcher.error());
    state.watcher = std::move(*watcher);
    auto links = state.watcher->all();
    if (!links) return std::unexpected(links.error());
    state.settle(*links);
    // A missing capability does not come by waiting.
    for (auto& [ifindex, tap] : state.taps) {
        if (tap.capture) continue;
        if (auto opened = state.open(tap); !opened && opened.error().error == EPERM) {
            state.sink = nullptr;
            return opened;
        }
    }
    return {};
}

std::expected<void, OsError> PcapEngine::poll(milliseconds timeout) {
    State& state = *state_;
    if (state.sink == nullptr) return os_error("poll the engine", "pcap", 0, "it was not started");
    state.waiting.assign(1, {state.watcher->fd(), POLLIN, 0});
    for (const auto& [ifindex, tap] : state.taps)
        if (tap.capture) state.waiting.push_back({tap.capture->fd(), POLLIN, 0});
    if (::poll(state.waiting.data(), state.waiting.size(), static_cast<int>(timeout.count())) < 0 &&
        errno != EINTR)
        return os_error("wait for packets", "pcap", errno);
    state.clock.read();
    std::size_t packets = 0, more = 0;
    do {
        more = 0;
        for (auto& [ifindex, tap] : state.taps)
            if (tap.capture) more += state.read_some(tap);
        packets += more;
    } while (more != 0 && packets < PACKETS_A_POLL);
    if (auto read = state.read_link_news(); !read) return read;
    state.open_again();
    // Nothing there: what is still under way is younger than this.
    if (packets == 0) state.table.advance(state.clock.now() - SETTLED_NS, *state.sink);
    return {};
}

void PcapEngine::stop() noexcept {
    State& state = *state_;
    if (state.sink == nullptr) return;
    // The last packets before the end may still be in the buffers; under a flood there is no last one.
    const auto enough = Clock::now() + STOP_MAX;
    for (auto& [ifindex, tap] : state.taps)
        while (tap.capture && Clock::now() < enough && state.read_some(tap) != 0) continue;
    state.table.finish(*state.sink);
    for (auto& [ifindex, tap] : state.taps)
        if (tap.capture) tap.close("stopped");
    state.watcher.reset();
    state.sink = nullptr;
}

void PcapEngine::notify_at(const datapath::flow_key& key, std::uint64_t bytes_out) noexcept {
    state_->table.notify_at(key, bytes_out);
}

TotalsSnapshot PcapEngine::totals() const {
    const State& state = *state_;
    TotalsSnapshot snapshot;
    const auto classes = state.table.class_totals();
    snapshot.by_class.assign(classes.begin(), classes.end());
    std::copy_n(state.table.losses().begin(), snapshot.losses.size(), snapshot.losses.begin());
    for (const auto& [ifindex, tap] : state.taps) snapshot.interfaces.push_back(state.status_of(tap));
    if (state.gone.totals.by_direction[0].seen.packets + state.gone.totals.by_direction[1].seen.packets +
            state.gone.dropped.sum() !=
        0)
        snapshot.interfaces.push_back(state.gone);
    snapshot.flows_live = state.table.live();
    snapshot.flow_slots = state.table.slots();
    return snapshot;
}

}  // namespace egresswatch::capture
