// capture/ebpf/ebpf_engine.cpp
// SPDX-License-Identifier: Apache-2.0
#include "capture/ebpf/ebpf_engine.h"

#include <bpf/libbpf.h>
#include <sys/epoll.h>
#include <sys/random.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cerrno>
#include <ctime>
#include <functional>
#include <optional>
#include <thread>
#include <utility>

#include "capture/ebpf/attach.h"
#include "capture/ebpf/attribution.h"
#include "capture/ebpf/drain.h"
#include "capture/ebpf/grace.h"
#include "capture/ebpf/identity.h"
#include "capture/ebpf/interfaces.h"
#include "capture/ebpf/netlink.h"
#include "capture/ebpf/object.h"
#include "capture/ebpf/pins.h"
#include "classifier/datapath/sample.h"
#include "classifier/payload_sample.h"
#include "classifier/region/region_table.h"
#include "classifier/sender.h"

namespace egresswatch::capture {

static_assert(datapath::SAMPLED_PACKETS_MAX == sampled_packets_max &&
              datapath::SAMPLED_DATAGRAMS_MAX == sampled_datagrams_max);

namespace {

using std::chrono::milliseconds;
using std::chrono::nanoseconds;
using Clock = std::chrono::steady_clock;

constexpr std::uint32_t SLOTS_MIN = 64, SLOTS_MAX = 1 << 22;
constexpr std::uint32_t AUTO_SLOTS_TOTAL = 1 << 18, AUTO_SLOTS_MIN = 8192;
constexpr std::size_t SCAN_SLOTS = 32768;    // between two looks at the event ring: about 1 ms
constexpr milliseconds EVENTS_APART{5};      // shortest time between two wake-ups for events
constexpr milliseconds GRACE_LOOK{20};       // how often a grace period under way is asked after
constexpr std::size_t UPDATES_FLUSH = 4096;  // updates that are handed over at once, at most (about 1 MiB)

std::uint64_t clock_ns(clockid_t clock) {
    timespec time{};
    ::clock_gettime(clock, &time);
    return static_cast<std::uint64_t>(time.tv_sec) * 1'000'000'000U +
           static_cast<std::uint64_t>(time.tv_nsec);
}

// The kernel's bpf_ktime_get_ns() is CLOCK_MONOTONIC; asked at every drain, so that a step of the wall clock
// moves packet times from then on, and never those of one drain against each other.
nanoseconds epoch_offset() {
    const auto monotonic = static_cast<std::int64_t>(clock_ns(CLOCK_MONOTONIC));
    return nanoseconds(static_cast<std::int64_t>(clock_ns(CLOCK_REALTIME)) - monotonic);
}

std::uint32_t slots_per_cpu(const EbpfConfig& config) {
    if (config.flow_slots_per_cpu != 0) return config.flow_slots_per_cpu;
    return std::max(AUTO_SLOTS_MIN, std::bit_floor(AUTO_SLOTS_TOTAL / possible_cpus()));
}

std::uint64_t random_seed() {
    std::uint64_t seed = 0;
    if (::getrandom(&seed, sizeof seed, 0) != sizeof seed)
        seed = clock_ns(CLOCK_REALTIME) * 0x9e3779b97f4a7c15ULL;
    return seed;
}

std::expected<void, OsError> check_config(const EbpfConfig& config) {
    const std::uint32_t slots = config.flow_slots_per_cpu;
    if (slots != 0 && (!std::has_single_bit(slots) || slots < SLOTS_MIN || slots > SLOTS_MAX))
        return os_error("use flow_slots_per_cpu", std::to_string(slots), 0,
                        "a power of two, 64 to 4194304, or 0");
    if (!std::has_single_bit(config.ring_bytes) || config.ring_bytes < 4096)
        return os_error("use ring_bytes", std::to_string(config.ring_bytes), 0,
                        "a power of two, at least 4096");
    if (config.interfaces.empty())
        return os_error("use interfaces", "an empty list", 0, "name one, a pattern, or all-physical");
    if (config.pin_dir.empty() || config.pin_dir.front() != '/')
        return os_error("use the pin directory", config.pin_dir, 0, "an absolute path is needed");
    return {};
}

struct FreeRing {
    void operator()(ring_buffer* ring) const noexcept { ring_buffer__free(ring); }
};

}  // namespace

struct EbpfEngine::State {
    EbpfConfig config;
    Adoption adoption;
    std::optional<PinDir> pins;
    BpfObject object;
    PinnedState maps;
    Mapping entries_mapping, tags_mapping, outers_mapping, senders_mapping;
    std::unique_ptr<Attribution> attribution;
    std::string no_attribution;       // why there is none
    Attribution::Batch fresh, ready;  // ready: what is being handed over
    // Of all flows that have an entry; with the losses flows_full_bytes, all that left. Index:
    // sender_outcome.
    std::array<std::uint64_t, datapath::SENDER_OUTCOME_COUNT> bytes_out_by_sender{};
    std::optional<GracePeriod> grace;
    std::optional<FlowDrain> drain;
    std::optional<LinkWatcher> watcher;
    std::optional<InterfaceSet> interfaces;
    std::unique_ptr<ring_buffer, FreeRing> ring;
    UniqueFd epoll;
    FlowSink* sink = nullptr;
    PayloadSink* payload_sink = nullptr;
    Clock::time_point next_drain{}, last_events{};
    bool scanning = false;
    bool loaded = false;
    bool running = false;
    Timestamp now{};

    std::expected<void, OsError> first_load(const RegionTable& table);
    std::expected<void, OsError> map_tables();
    std::expected<void, OsError> grow(std::span<const std::byte> block);
    std::expected<void, OsError> watch();
    std::expected<void, OsError> read_link_news();
    [[nodiscard]] ObjectOptions object_options() const;
    void read_events();
    void scan_some();
    void flush(bool always, bool hold = true);
    void start_attribution();
    void add_sample_details(EngineDetails& details) const;
    [[nodiscard]] int wait_ms(milliseconds timeout) const;
    static int on_event(void* self, void* data, std::size_t bytes);
    static int on_sample(void* self, void* data, std::size_t bytes);
    nanoseconds offset{};  // of the epoch, as of the last look at the rings
};

ObjectOptions EbpfEngine::State::object_options() const {
    ObjectOptions options;
    options.flow_slots = maps.identity().flow_slots;
    options.hash_seed = maps.identity().hash_seed;
    options.ring_bytes = config.ring_bytes;
    options.track_all = config.track_all;
    options.take_samples = config.sample_payload;
    options.look_for_senders = config.senders;
    return options;
}

// Loads the programs over the maps of a predecessor, or over new ones.
std::expected<void, OsError> EbpfEngine::State::first_load(const RegionTable& table) {
    auto directory = PinDir::make(config.pin_dir);
    if (!directory) return std::unexpected(directory.error());
    pins = std::move(*directory);
    if (!pins->maps().empty()) {
        auto pinned = open_pinned(*pins, config.flow_slots_per_cpu);
        if (!pinned) return std::unexpected(pinned.error());
        if (auto agreed = agree_on_classes(pinned->identity(), table); !agreed) return agreed;
        maps = std::move(*pinned);
        auto made = BpfObject::load(object_options(), table.block(), &maps.maps);
        if (!made) return std::unexpected(made.error());
        object = std::move(*made);
        adoption.adopted = true;
        auto all = object.shared_maps();
        if (!all) return std::unexpected(all.error());
        maps.maps.events = std::move(all->events);
        maps.maps.samples = std::move(all->samples);
        maps.maps.sampler_state = std::move(all->sampler_state);
        return {};
    }
    ObjectOptions options;
    options.flow_slots = slots_per_cpu(config);
    options.hash_seed = random_seed();
    options.ring_bytes = config.ring_bytes;
    options.track_all = config.track_all;
    options.take_samples = config.sample_payload;
    options.look_for_senders = config.senders;
    auto made = BpfObject::load(options, table.block(), nullptr);
    if (!made) return std::unexpected(made.error());
    object = std::move(*made);
    auto shared = object.shared_maps();
    if (!shared) return std::unexpected(shared.error());
    auto state = new_state(std::move(*shared), options.flow_slots, options.hash_seed);
    if (!state) return std::unexpected(state.error());
    if (auto agreed = agree_on_classes(state->identity(), table); !agreed) return agreed;
    maps = std::move(*state);
    return pin_new(*pins, maps);
}

std::expected<void, OsError> EbpfEngine::State::map_tables() {
    const std::size_t slots = std::size_t{maps.identity().cpus} * maps.identity().flow_slots;
    auto entries = Mapping::of_map(maps.maps.flows.get(), slots * sizeof(datapath::flow_entry), "flows");
    if (!entries) return std::unexpected(entries.error());
    auto outers = Mapping::of_map(maps.maps.outers.get(), slots * sizeof(datapath::flow_outer), "outers");
    if (!outers) return std::unexpected(outers.error());
    const std::size_t buckets = slots / datapath::FLOW_PROBES;
    auto tags = Mapping::of_map(maps.maps.tags.get(), buckets * sizeof(datapath::flow_tags), "tags");
    if (!tags) return std::unexpected(tags.error());
    auto senders = Mapping::of_map(maps.maps.senders.get(), slots * sizeof(datapath::flow_sender), "senders");
    if (!senders) return std::unexpected(senders.error());
    senders_mapping = std::move(*senders);
    entries_mapping = std::move(*entries);
    tags_mapping = std::move(*tags);
    outers_mapping = std::move(*outers);
    grace.emplace([this] { object.wait_for_programs(); });
    drain.emplace(FlowDrain::Config{maps.identity().flow_slots, config.idle_timeout, config.closed_timeout,
                                    config.senders, maps.identity().hash_seed},
                  std::span(static_cast<datapath::flow_entry*>(entries_mapping.data()), slots),
                  std::span(static_cast<datapath::flow_tags*>(tags_mapping.data()), buckets),
                  std::span(static_cast<const datapath::flow_outer*>(outers_mapping.data()), slots),
                  std::span(static_cast<const datapath::flow_sender*>(senders_mapping.data()), slots),
                  GraceCalls{[this] { grace->begin(); }, [this] { return grace->done(); }});
    return {};
}

// A block beyond the capacity: the same programs again, verified for a larger region, over the same maps;
// they take the old ones' place hook by hook, and no packet goes uncounted or is counted twice.
std::expected<void, OsError> EbpfEngine::State::grow(std::span<const std::byte> block) {
    auto larger = BpfObject::load(object_options(), block, &maps.maps);
    if (!larger) return std::unexpected(larger.error());
    if (running)
        if (auto replaced = interfaces->replace_programs(*larger); !replaced) return replaced;
    // The helper thread may be in wait_for_programs() of the old one.
    while (!grace->done()) std::this_thread::sleep_for(milliseconds(1));
    object = std::move(*larger);
    return {};
}

int EbpfEngine::State::on_event(void* self, void* data, std::size_t bytes) {
    auto* state = static_cast<State*>(self);
    if (bytes < sizeof(datapath::flow_event)) return 0;
    const auto& event = *static_cast<const datapath::flow_event*>(data);
    // A full table: a pass over it now frees what is idle.
    if (event.kind == datapath::EVENT_FLOWS_FULL)
        state->next_drain = std::min(state->next_drain, Clock::now());
    else
        state->drain->on_event(event);
    if (state->drain->updates().size() >= UPDATES_FLUSH) state->flush(false);
    return 0;
}

int EbpfEngine::State::on_sample(void* self, void* data, std::size_t bytes) {
    auto* state = static_cast<State*>(self);
    if (bytes < sizeof(datapath::payload_sample)) return 0;
    const auto& from = *static_cast<const datapath::payload_sample*>(data);
    if (state->payload_sink == nullptr || from.payload_bytes == 0 ||
        from.payload_bytes > bytes - sizeof from || from.direction >= datapath::DIRECTION_COUNT)
        return 0;
    PayloadSample sample;
    sample.key = from.key;
    sample.tracked = from.tracked != 0;
    sample.direction = static_cast<datapath::direction>(from.direction);
    sample.initiator = static_cast<datapath::initiator>(from.initiator);
    sample.tcp_flags = from.tcp_flags;
    sample.tcp_sequence = from.tcp_sequence;
    sample.ip_bytes = from.ip_bytes;
    sample.ifindex = from.ifindex;
    sample.at = Timestamp(nanoseconds(static_cast<std::int64_t>(from.at_ns)) + state->offset);
    sample.payload = {static_cast<const std::uint8_t*>(data) + sizeof from, from.payload_bytes};
    (void)state->payload_sink->on_payload(sample);
    return 0;
}

std::expected<void, OsError> EbpfEngine::State::watch() {
    auto opened = LinkWatcher::open();
    if (!opened) return std::unexpected(opened.error());
    watcher = std::move(*opened);
    // Samples are read first: the news of a flow is told with the name that it has by then.
    ring.reset(ring_buffer__new(maps.maps.samples.get(), on_sample, this, nullptr));
    if (!ring) return os_error("open the ring of samples", "samples", errno);
    if (ring_buffer__add(ring.get(), maps.maps.events.get(), on_event, this) != 0)
        return os_error("open the event ring", "events", errno);
    epoll = UniqueFd(::epoll_create1(EPOLL_CLOEXEC));
    if (!epoll) return os_error("make an epoll set", {}, errno);
    const int process_fd = attribution ? attribution->process_fd() : -1;
    const int hash_fd = attribution ? attribution->hash_fd() : -1;
    for (const int fd : {watcher->fd(), ring_buffer__epoll_fd(ring.get()), process_fd, hash_fd}) {
        if (fd < 0) continue;
        epoll_event event{};
        event.events = EPOLLIN;
        event.data.fd = fd;
        if (::epoll_ctl(epoll.get(), EPOLL_CTL_ADD, fd, &event) != 0)
            return os_error("watch events and interfaces", {}, errno);
    }
    return {};
}

std::expected<void, OsError> EbpfEngine::State::read_link_news() {
    auto news = watcher->read();
    if (!news) return std::unexpected(news.error());
    for (const LinkNews& link : news->links) interfaces->on_news(link, object);
    if (!news->missed) return {};
    auto links = watcher->all();
    if (!links) return std::unexpected(links.error());
    interfaces->settle(*links, object);
    return {};
}

// Counting does not depend on it: where it is refused, the engine says why and goes on.
void EbpfEngine::State::start_attribution() {
    if (!config.senders) {
        no_attribution = "switched off";
        return;
    }
    auto started =
        Attribution::start({config.hashes, config.arguments}, maps.maps, maps.identity().flow_slots);
    if (!started) {
        no_attribution = started.error().to_string();
        return;
    }
    attribution = std::move(*started);
}

void EbpfEngine::State::flush(bool always, bool hold) {
    // Time never goes back for the sink, even where the wall clock was set back.
    now = std::max(
        now, Timestamp(nanoseconds(static_cast<std::int64_t>(clock_ns(CLOCK_MONOTONIC))) + epoch_offset()));
    auto& updates = drain->updates();
    if (attribution) {
        attribution->read_news();
        fresh.updates.swap(updates);
        fresh.senders.swap(drain->update_senders());
        attribution->admit(fresh, ready, !hold);
    } else {
        ready.updates.swap(updates);
        ready.senders.swap(drain->update_senders());
    }
    if (ready.updates.empty() && !always) return;
    for (std::size_t i = 0; i < ready.updates.size(); i++)
        if (ready.senders[i].outcome < bytes_out_by_sender.size())
            bytes_out_by_sender[ready.senders[i].outcome] += ready.updates[i].delta.bytes_out;
    for (const FlowUpdate& update : ready.updates) now = std::max(now, update.last_seen);
    sink->on_flow_updates(ready.updates, now);
    ready.clear();
}

void EbpfEngine::State::read_events() {
    last_events = Clock::now();
    offset = epoch_offset();
    drain->set_epoch_offset(offset);
    ring_buffer__consume(ring.get());
}

void EbpfEngine::State::scan_some() {
    if (!scanning && Clock::now() < next_drain) return;
    if (!scanning) {
        scanning = true;
        next_drain = Clock::now() + config.drain_interval;
        drain->set_epoch_offset(epoch_offset());
    }
    scanning = !drain->scan(SCAN_SLOTS, clock_ns(CLOCK_MONOTONIC));
    flush(!scanning);
}

int EbpfEngine::State::wait_ms(milliseconds timeout) const {
    if (scanning) return 0;
    auto wait =
        std::min<Clock::duration>(timeout, std::max(next_drain - Clock::now(), Clock::duration::zero()));
    if (attribution && attribution->holds()) wait = std::min<Clock::duration>(wait, Attribution::HOLD_MAX);
    if (drain->closing()) wait = std::min<Clock::duration>(wait, GRACE_LOOK);
    return static_cast<int>(std::chrono::ceil<milliseconds>(wait).count());
}

EbpfEngine::EbpfEngine(std::unique_ptr<State> state) : state_(std::move(state)) {}
EbpfEngine::~EbpfEngine() = default;

std::expected<std::unique_ptr<EbpfEngine>, OsError> EbpfEngine::make(EbpfConfig config) {
    if (auto good = check_config(config); !good) return std::unexpected(good.error());
    auto state = std::make_unique<State>();
    state->config = std::move(config);
    return std::unique_ptr<EbpfEngine>(new EbpfEngine(std::move(state)));
}

std::expected<void, OsError> EbpfEngine::install_region(const RegionTable& table) {
    if (!state_->loaded) {
        if (auto loaded = state_->first_load(table); !loaded) return loaded;
        if (auto mapped = state_->map_tables(); !mapped) return mapped;
        state_->loaded = true;
        return {};
    }
    // First the meaning of new ids, then packets that count under them.
    if (auto agreed = agree_on_classes(state_->maps.identity(), table); !agreed) return agreed;
    auto installed = state_->object.install_block(table.block());
    if (!installed) return std::unexpected(installed.error());
    if (*installed) return {};
    return state_->grow(table.block());
}

std::expected<void, OsError> EbpfEngine::start(FlowSink& sink) {
    State& state = *state_;
    if (!state.loaded) return os_error("start the engine", "ebpf", 0, "install a region table first");
    state.sink = &sink;
    state.payload_sink = dynamic_cast<PayloadSink*>(&sink);
    state.start_attribution();
    if (auto watched = state.watch(); !watched) return watched;
    state.interfaces.emplace(state.config.interfaces, state.config.attach, *state.pins, state.maps.identity(),
                             state.maps.maps.iface_totals.get());
    auto links = state.watcher->all();
    if (!links) return std::unexpected(links.error());
    state.interfaces->settle(*links, state.object);
    state.running = true;
    state.next_drain = Clock::now() + state.config.drain_interval;
    if (state.adoption.adopted) {
        state.adoption.hooks_replaced = state.interfaces->hooks_replaced();
        // What stands in the table was counted before: handed over now, whole.
        state.drain->set_epoch_offset(epoch_offset());
        state.drain->adopt(clock_ns(CLOCK_MONOTONIC));
        state.adoption.flows = state.drain->flows();
        state.flush(true);
    }
    return {};
}

std::expected<void, OsError> EbpfEngine::poll(std::chrono::milliseconds timeout) {
    State& state = *state_;
    if (!state.running) return os_error("poll the engine", "ebpf", 0, "it was not started");
    constexpr int FDS = 4;
    epoll_event ready[FDS];
    const int count = ::epoll_wait(state.epoll.get(), ready, FDS, state.wait_ms(timeout));
    if (count < 0 && errno != EINTR) return os_error("wait for events", "ebpf", errno);
    for (int i = 0; i < count; i++) {
        if (ready[i].data.fd == state.watcher->fd()) {
            if (auto read = state.read_link_news(); !read) return read;
            continue;
        }
        if (state.attribution && ready[i].data.fd == state.attribution->hash_fd())
            continue;  // flush() reads it
        // A flood of new flows, or of new processes, must not become a flood of wake-ups.
        if (const auto pause = state.last_events + EVENTS_APART - Clock::now();
            pause > Clock::duration::zero())
            std::this_thread::sleep_for(pause);
        state.read_events();
    }
    state.scan_some();
    state.drain->advance_closing();
    state.flush(false);
    return {};
}

void EbpfEngine::stop() noexcept {
    State& state = *state_;
    if (!state.loaded) return;
    if (state.running) {
        state.interfaces->unhook_all();
        state.grace->wait();
        while (!state.grace->done()) std::this_thread::sleep_for(milliseconds(1));
        state.read_events();  // the last names
        state.drain->set_epoch_offset(epoch_offset());
        state.drain->finish();
        state.flush(true, false);
        state.attribution.reset();
    }
    // Not started: hooks that are there are a predecessor's, and go on counting into these maps.
    if (state.running || state.pins->links().empty()) (void)state.pins->remove_maps_and_self();
    state.running = false;
    state.loaded = false;
    state.pins.reset();
}

void EbpfEngine::notify_at(const datapath::flow_key& key, std::uint64_t bytes_out) noexcept {
    if (state_->drain) state_->drain->notify_at(key, bytes_out);
}

TotalsSnapshot EbpfEngine::totals() const {
    const State& state = *state_;
    TotalsSnapshot snapshot;
    if (!state.maps.identity_fd) return snapshot;
    const SharedMaps& maps = state.maps.maps;
    snapshot.by_class.resize(state.maps.identity().class_count);
    constexpr std::size_t CLASS_WORDS = sizeof(datapath::class_totals) / sizeof(std::uint64_t);
    for (std::uint32_t id = 0; id < snapshot.by_class.size(); id++)
        (void)sum_per_cpu(maps.class_totals.get(), id,
                          {reinterpret_cast<std::uint64_t*>(&snapshot.by_class[id]), CLASS_WORDS});
    for (std::uint32_t reason = 0; reason < datapath::LOSS_REASON_COUNT; reason++)
        (void)sum_per_cpu(maps.losses.get(), reason, {&snapshot.losses[reason], 1});
    if (state.interfaces) snapshot.interfaces = state.interfaces->status();
    if (state.drain) snapshot.flows_live = state.drain->flows();
    snapshot.flow_slots = std::uint64_t{state.maps.identity().cpus} * state.maps.identity().flow_slots;
    return snapshot;
}

void EbpfEngine::State::add_sample_details(EngineDetails& details) const {
    if (!config.sample_payload || !maps.maps.sampler_state) return;
    datapath::sampler sum{};
    (void)sum_per_cpu(maps.maps.sampler_state.get(), 0,
                      {reinterpret_cast<std::uint64_t*>(&sum), sizeof sum / sizeof(std::uint64_t)});
    details.counters["samples.taken"] = sum.sampled;
    details.counters["samples.limited"] = sum.limited;
    details.counters["samples.full"] = sum.full;
    details.counters["samples.unplaced"] = sum.unplaced;
}

EngineDetails EbpfEngine::details() const {
    EngineDetails details;
    if (state_->attribution)
        state_->attribution->add_details(details);
    else
        details.words["senders"] = "not known: " + state_->no_attribution;
    for (std::uint8_t outcome = 0; outcome < state_->bytes_out_by_sender.size(); outcome++)
        details.counters["bytes_out." + std::string(sender_outcome_name(outcome))] =
            state_->bytes_out_by_sender[outcome];
    state_->add_sample_details(details);
    return details;
}

datapath::flow_sender EbpfEngine::sender_of(const FlowUpdate& update) const noexcept {
    const Attribution::Batch& ready = state_->ready;
    const std::less_equal<const FlowUpdate*> not_behind;
    const FlowUpdate* first = ready.updates.data();
    if (ready.updates.empty() || !not_behind(first, &update) || !not_behind(&update, &ready.updates.back()))
        return {};
    return ready.senders[static_cast<std::size_t>(&update - first)];
}

datapath::flow_sender EbpfEngine::sender_of(const datapath::flow_key& key) const noexcept {
    if (!state_->drain) return {};
    const datapath::flow_sender found = state_->drain->sender_of(key);
    // What the kernel has told of the process may not have been read yet.
    if (state_->attribution && found.outcome == datapath::SENDER_PROCESS) state_->attribution->read_news();
    return found;
}

const Process* EbpfEngine::process_of(const datapath::flow_sender& sender) {
    return state_->attribution ? state_->attribution->process_of(sender) : nullptr;
}

const Origin* EbpfEngine::origin_of(const datapath::flow_sender& sender) {
    return state_->attribution ? state_->attribution->origin_of(sender) : nullptr;
}

const Adoption& EbpfEngine::adoption() const noexcept {
    return state_->adoption;
}

}  // namespace egresswatch::capture
