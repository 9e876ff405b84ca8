// capture/dpdk/dpdk_engine.cpp
// SPDX-License-Identifier: Apache-2.0
#include "capture/dpdk/dpdk_engine.h"

#include <sched.h>

#include <algorithm>
#include <cerrno>
#include <optional>
#include <thread>
#include <utility>

#include "capture/dpdk/eal.h"
#include "capture/dpdk/flow_merge.h"
#include "capture/dpdk/packet_clock.h"
#include "capture/dpdk/polling_core.h"
#include "capture/dpdk/port.h"
#include "classifier/region/region_table.h"

namespace egresswatch::capture {
namespace {

using std::chrono::milliseconds;
using Clock = std::chrono::steady_clock;

constexpr milliseconds LOOK_INTERVAL{2};  // how often the owner looks into the rings while it waits
constexpr std::size_t TAKE_MAX = 4096;    // updates of one core that are handed over at once
constexpr std::chrono::microseconds ANSWER_LOOK{20};
// How long an update waits for cores that do not catch up: a fifth of what an alert may take (50 ms).
constexpr milliseconds CATCH_UP_MAX{10};
constexpr std::uint32_t EAL_OWN_MB = 32;    // what EAL and its drivers need beside our pools and rings
constexpr std::uint32_t MBUF_BYTES = 2560;  // an mbuf with its buffer and the pool's header

OsError wrong(const char* key, const std::string& value, const char* cure) {
    return {std::string("use ") + key, value, 0, cure};
}

std::optional<OsError> problem_of(const DpdkConfig& config) {
    if (config.queues == 0 || config.queues > DpdkConfig::queues_max)
        return wrong("queues", std::to_string(config.queues), "1 to 64");
    if (config.burst == 0 || config.burst > DpdkConfig::burst_max)
        return wrong("burst", std::to_string(config.burst), "1 to 512");
    if (config.descriptors == 0) return wrong("descriptors", "0", "1 to 65535");
    if (config.updates_ring < 64)
        return wrong("updates_ring", std::to_string(config.updates_ring), "64 at least");
    if (!config.cores.empty() && config.cores.size() != config.queues)
        return wrong(
            "cores",
            std::to_string(config.cores.size()) + " CPUs for " + std::to_string(config.queues) + " queues",
            "name one CPU for each queue, or none");
    for (std::size_t i = 0; i < config.cores.size(); ++i)
        if (std::find(config.cores.begin(), config.cores.begin() + static_cast<std::ptrdiff_t>(i),
                      config.cores[i]) != config.cores.begin() + static_cast<std::ptrdiff_t>(i))
            return wrong("cores", "CPU " + std::to_string(config.cores[i]) + " twice", "a core polls alone");
    if (const std::string option = reserved_eal_option(config.eal_args); !option.empty())
        return wrong("eal_args", option, "the engine sets this itself: use cores, memory_mb and huge_pages");
    return {};
}

// The last CPUs that this process may run on: interrupts and the daemon's own threads are mostly on the
// first.
std::expected<std::vector<unsigned>, OsError> choose_cores(const DpdkConfig& config) {
    if (!config.cores.empty()) return config.cores;
    cpu_set_t set;
    CPU_ZERO(&set);
    if (::sched_getaffinity(0, sizeof set, &set) != 0)
        return std::unexpected(OsError{"ask which CPUs may be used", "", errno, ""});
    std::vector<unsigned> cores;
    for (unsigned cpu = CPU_SETSIZE; cpu-- > 0 && cores.size() < config.queues;)
        if (CPU_ISSET(cpu, &set)) cores.insert(cores.begin(), cpu);
    if (cores.size() < config.queues)
        return std::unexpected(
            wrong("queues", std::to_string(config.queues), "more than this process has CPUs"));
    return cores;
}

// With --no-huge the size is fixed at the start: what pools and rings will take.
std::uint32_t memory_needed_mb(const DpdkConfig& config) {
    if (config.memory_mb != 0) return config.memory_mb;
    if (config.huge_pages) return 0;
    const std::size_t ports = std::max<std::size_t>(config.ports.size(), config.eal_args.size());
    const std::uint64_t pools =
        std::uint64_t{mbufs_per_queue(config)} * MBUF_BYTES * config.queues * std::max<std::size_t>(ports, 1);
    const std::uint64_t updates = std::uint64_t{config.updates_ring} * 2 * sizeof(FlowUpdate);
    const std::uint64_t samples = config.table.sample_payload ? std::uint64_t{PollingCore::samples_max} * 2 *
                                                                    (PollingCore::payload_bytes_max + 256)
                                                              : 0;
    const std::uint64_t rings = (updates + samples) * config.queues;
    return EAL_OWN_MB + static_cast<std::uint32_t>((pools + rings) >> 20);
}

}  // namespace

struct DpdkEngine::State {
    DpdkConfig config;
    PacketClock clock;
    std::span<const std::byte> region;
    std::unique_ptr<Eal> eal;
    std::vector<std::unique_ptr<DpdkPort>> ports;
    std::vector<std::unique_ptr<PollingCore>> cores;
    std::optional<FlowMerge> merge;  // with more than one core
    std::string spread;
    FlowSink* sink = nullptr;
    PayloadSink* payload_sink = nullptr;  // the same one, where it is such
    Timestamp now{};
    std::vector<FlowUpdate> updates;
    bool running = false;
    DpdkStatus last_status;  // of the ports and cores that are gone
    TotalsSnapshot last_totals;
    // What a core has handed over.
    struct FromCore {
        std::vector<FlowUpdate> waiting;  // taken, not yet told
        std::size_t ready = 0;            // of these: told in this round
        std::uint64_t behind = 0;         // rounds that did not wait for the core any longer
    };
    std::vector<FromCore> from_cores;

    std::expected<void, OsError> bring_up();
    std::expected<void, OsError> make_cores();
    std::expected<unsigned, OsError> cores_in_use();
    std::size_t hand_over();
    void let_cores_catch_up(std::size_t taken);
    void tell(unsigned core, std::span<FlowUpdate> news);
    void pass_on(unsigned core, std::span<FlowUpdate> news);
    // Waits until `done` of every core, by its number, and keeps the rings from filling up meanwhile.
    template <typename Done>
    void wait_for_cores(Done done);
    void take_down() noexcept;
    DpdkStatus read_status();
    TotalsSnapshot read_totals();
};

// How many cores poll: one for each queue, or one for all where nobody keeps the directions of a flow
// together.
std::expected<unsigned, OsError> DpdkEngine::State::cores_in_use() {
    if (config.queues == 1) {
        spread = "one core";
        return 1U;
    }
    const auto all_are = [&](PortSpread wanted) {
        return std::ranges::all_of(ports, [&](const auto& port) { return port->spread() == wanted; });
    };
    if (config.spread == DpdkSpread::queues) {
        spread = "as queued";
        return config.queues;
    }
    // Two ports that hash differently do not put the two directions of a flow in queues of one number.
    if (all_are(PortSpread::symmetric_rss) || (ports.size() == 1 && all_are(PortSpread::driver_hash))) {
        spread = all_are(PortSpread::symmetric_rss) ? "symmetric rss" : "driver hash";
        return config.queues;
    }
    spread = "one core";
    if (config.log)
        config.log(
            DpdkLogLevel::warning,
            "the ports have no symmetric hash: one core polls every queue (spread: queues, where whoever "
            "fills them keeps both directions of a flow together)");
    return 1U;
}

std::expected<void, OsError> DpdkEngine::State::make_cores() {
    auto cpus = choose_cores(config);
    if (!cpus) return std::unexpected(cpus.error());
    auto count = cores_in_use();
    if (!count) return std::unexpected(count.error());
    for (unsigned number = 0; number < *count; ++number) {
        std::vector<PolledQueue> queues;
        for (std::size_t port = 0; port < ports.size(); ++port)
            for (std::uint16_t queue = 0; queue < config.queues; ++queue)
                if (*count == 1 || queue == number)
                    queues.push_back(
                        {ports[port]->id(), queue, static_cast<std::uint32_t>(port), ports[port]->ifindex()});
        auto core =
            PollingCore::make(config, number, (*cpus)[number], std::move(queues), ports.size(), clock);
        if (!core) return std::unexpected(core.error());
        cores.push_back(std::move(*core));
    }
    from_cores.resize(cores.size());
    if (cores.size() > 1) merge.emplace();
    return {};
}

std::expected<void, OsError> DpdkEngine::State::bring_up() {
    auto started = Eal::start(config, memory_needed_mb(config));
    if (!started) return std::unexpected(started.error());
    eal = std::move(*started);
    auto opened = DpdkPort::open_all(config);
    if (!opened) {
        OsError error = opened.error();
        if (const std::string words = eal->take_words(); !words.empty())
            error.operation += " (" + words + ")";
        return std::unexpected(error);
    }
    ports = std::move(*opened);
    if (auto made = make_cores(); !made) return made;
    for (const auto& port : ports)
        if (auto done = port->start(); !done) return done;
    for (const auto& core : cores) core->launch(region);
    return {};
}

// Rings and pools before the EAL that they live in.
void DpdkEngine::State::take_down() noexcept {
    cores.clear();
    ports.clear();
    eal.reset();
}

void DpdkEngine::State::pass_on(unsigned core, std::span<FlowUpdate> news) {
    cores[core]->note_told(news.size());
    if (merge)
        news = {news.begin(), std::remove_if(news.begin(), news.end(), [&](FlowUpdate& update) {
                    return !merge->merge(core, update);
                })};
    for (const FlowUpdate& update : news) now = std::max(now, update.last_seen);
    if (!news.empty()) sink->on_flow_updates(news, now);
}

// With the payload that came among them.
void DpdkEngine::State::tell(unsigned core, std::span<FlowUpdate> news) {
    for (PollingCore& from = *cores[core]; from.updates_before_sample() <= news.size();) {
        const std::size_t before = from.updates_before_sample();
        pass_on(core, news.first(before));
        news = news.subspan(before);
        from.tell_sample(*payload_sink);
    }
    pass_on(core, news);
}

// Until every core beside which another one has updates has looked into its queues once more and found no
// backlog there: what came before these updates, to whichever core, has been handed over then. `taken`: of
// all cores.
void DpdkEngine::State::let_cores_catch_up(std::size_t taken) {
    const auto is_needed = [&](unsigned number) { return taken != from_cores[number].ready; };
    for (unsigned number = 0; number < cores.size(); ++number)
        if (is_needed(number)) cores[number]->ask_to_catch_up();
    const auto enough = Clock::now() + CATCH_UP_MAX;
    wait_for_cores([&](unsigned number) {
        return !is_needed(number) || cores[number]->caught_up() || Clock::now() > enough;
    });
    for (unsigned number = 0; number < cores.size(); ++number)
        from_cores[number].behind += is_needed(number) && !cores[number]->caught_up();
}

// One round over the rings; returns how many updates there were. A flow is judged by its names, and another
// core may have those (a name server's answer): updates are taken first, told last, and what was taken while
// a core was waited for is of the next round.
std::size_t DpdkEngine::State::hand_over() {
    std::size_t taken = 0;
    for (unsigned number = 0; number < cores.size(); ++number) {
        FromCore& from = from_cores[number];
        cores[number]->take(from.waiting, TAKE_MAX);
        from.ready = from.waiting.size();
        taken += from.ready;
    }
    if (payload_sink != nullptr) {
        if (cores.size() > 1) let_cores_catch_up(taken);
        for (const auto& core : cores) core->take_samples(*payload_sink);
    }
    for (unsigned number = 0; number < cores.size(); ++number) {
        // What the sink asks of the engine may add to what waits.
        FromCore& from = from_cores[number];
        updates.swap(from.waiting);
        from.waiting.assign(updates.begin() + static_cast<std::ptrdiff_t>(from.ready), updates.end());
        updates.resize(from.ready);
        tell(number, updates);
    }
    return taken;
}

template <typename Done>
void DpdkEngine::State::wait_for_cores(Done done) {
    for (;;) {
        bool all = true;
        for (unsigned number = 0; number < cores.size(); ++number) all = done(number) && all;
        if (all) return;
        for (unsigned number = 0; number < cores.size(); ++number)
            cores[number]->take(from_cores[number].waiting, TAKE_MAX);
        std::this_thread::sleep_for(ANSWER_LOOK);
    }
}

DpdkStatus DpdkEngine::State::read_status() {
    if (!running) return last_status;
    DpdkStatus status;
    status.spread = spread;
    for (const auto& port : ports) status.ports.push_back(port->status());
    for (const auto& core : cores) core->ask_for_counters();
    wait_for_cores(
        [&](unsigned number) { return cores[number]->finished() || cores[number]->counters_ready(); });
    for (unsigned number = 0; number < cores.size(); ++number) {
        status.cores.push_back(cores[number]->counters().status);
        status.cores.back().behind = from_cores[number].behind;
    }
    status.flows_split = merge ? merge->flows_split() : 0;
    return status;
}

TotalsSnapshot DpdkEngine::State::read_totals() {
    if (!running) return last_totals;
    for (const auto& core : cores) core->ask_for_counters();
    wait_for_cores(
        [&](unsigned number) { return cores[number]->finished() || cores[number]->counters_ready(); });
    TotalsSnapshot snapshot;
    snapshot.by_class.resize(datapath::CLASSES_MAX);
    const auto add = [](auto& to, const auto& from) {
        constexpr std::size_t words = sizeof to / sizeof(std::uint64_t);
        auto* sum = reinterpret_cast<std::uint64_t*>(&to);
        const auto* more = reinterpret_cast<const std::uint64_t*>(&from);
        for (std::size_t i = 0; i < words; ++i) sum[i] += more[i];
    };
    for (const auto& port : ports) {
        InterfaceStatus interface;
        interface.name = port->name();
        interface.ifindex = port->ifindex();
        interface.hooked = true;
        interface.hook = "dpdk";
        interface.sees_all_sent =
            false;  // it is a tap; the kernel's counters, where there are any, prove nothing
        const DpdkPortStatus counted = port->status();
        interface.dropped = {counted.missed, counted.errors,
                             counted.dropped - counted.missed - counted.errors};
        snapshot.interfaces.push_back(std::move(interface));
    }
    for (const auto& core : cores) {
        const CoreCounters& counters = core->counters();
        for (std::size_t id = 0; id < snapshot.by_class.size(); ++id)
            add(snapshot.by_class[id], counters.by_class[id]);
        for (std::size_t i = 0; i < ports.size(); ++i)
            add(snapshot.interfaces[i].totals, counters.by_interface[i]);
        for (std::size_t i = 0; i < snapshot.losses.size(); ++i) snapshot.losses[i] += counters.losses[i];
        snapshot.flows_live += counters.status.flows_live;
        snapshot.flow_slots += counters.flow_slots;
    }
    return snapshot;
}

// ------------------------------------------------------------------------------------------------ the engine

DpdkEngine::DpdkEngine(std::unique_ptr<State> state) : state_(std::move(state)) {}

DpdkEngine::~DpdkEngine() {
    if (!state_->running) return;
    for (const auto& core : state_->cores) core->ask_to_stop();
    state_->wait_for_cores([&](unsigned number) { return state_->cores[number]->finished(); });
    state_->take_down();
}

std::expected<std::unique_ptr<DpdkEngine>, OsError> DpdkEngine::make(DpdkConfig config) {
    if (auto problem = problem_of(config)) return std::unexpected(*problem);
    auto state = std::make_unique<State>();
    state->config = std::move(config);
    // No growth on the packet path: the table has its size from the start, and costs memory where it is
    // touched.
    state->config.table.slots_start = state->config.table.slots_max;
    return std::unique_ptr<DpdkEngine>(new DpdkEngine(std::move(state)));
}

std::expected<void, OsError> DpdkEngine::start(FlowSink& sink) {
    State& state = *state_;
    if (state.running) return std::unexpected(OsError{"start the engine", "dpdk", EALREADY, ""});
    if (state.region.empty())
        return std::unexpected(OsError{"start the engine", "dpdk", 0, "install a region table first"});
    state.sink = &sink;
    state.payload_sink = dynamic_cast<PayloadSink*>(&sink);
    if (auto done = state.bring_up(); !done) {
        state.take_down();
        return done;
    }
    state.running = true;
    return {};
}

std::expected<void, OsError> DpdkEngine::poll(milliseconds timeout) {
    State& state = *state_;
    if (!state.running)
        return std::unexpected(OsError{"poll the engine", "dpdk", EINVAL, "it was not started"});
    const auto deadline = Clock::now() + timeout;
    state.clock.follow();
    std::size_t taken = state.hand_over();
    while (taken == 0 && Clock::now() < deadline) {
        std::this_thread::sleep_for(std::min<Clock::duration>(LOOK_INTERVAL, deadline - Clock::now()));
        taken = state.hand_over();
    }
    for (const auto& core : state.cores) {
        if (core->finished())
            return std::unexpected(OsError{"poll with a core", core->trouble(), 0, "look at dpdk.cores"});
        const Timestamp reached{std::chrono::nanoseconds(static_cast<std::int64_t>(core->now_ns()))};
        state.now = std::max(state.now, reached);
    }
    state.sink->on_flow_updates({}, state.now);
    return {};
}

void DpdkEngine::stop() noexcept {
    State& state = *state_;
    if (!state.running) return;
    for (const auto& core : state.cores) core->ask_to_stop();
    // A core's last updates may be more than its ring holds: it waits for us to take them.
    while (!std::ranges::all_of(state.cores, [](const auto& core) { return core->finished(); }))
        if (state.hand_over() == 0) std::this_thread::sleep_for(ANSWER_LOOK);
    while (state.hand_over() != 0) continue;
    for (const auto& port : state.ports) port->stop();
    state.last_status = state.read_status();
    state.last_totals = state.read_totals();
    state.running = false;
    state.take_down();
}

std::expected<void, OsError> DpdkEngine::install_region(const RegionTable& table) {
    State& state = *state_;
    state.region = table.block();
    if (!state.running) return {};
    for (const auto& core : state.cores) core->offer_region(state.region);
    state.wait_for_cores([&](unsigned number) { return state.cores[number]->region_taken(); });
    return {};
}

void DpdkEngine::notify_at(const datapath::flow_key& key, std::uint64_t bytes_out) noexcept {
    State& state = *state_;
    if (!state.running) return;
    if (!state.merge) {
        state.cores.front()->notify_at(key, bytes_out);
        return;
    }
    // What is missing may come through any of the flow's parts: each gets its share of it.
    state.merge->for_parts(
        key, [&](unsigned core, std::uint64_t part_bytes, std::size_t parts, std::uint64_t flow_bytes) {
            const std::uint64_t missing = bytes_out > flow_bytes ? bytes_out - flow_bytes : 0;
            state.cores[core]->notify_at(key, part_bytes + missing / parts);
        });
}

TotalsSnapshot DpdkEngine::totals() const {
    return state_->read_totals();
}

EngineDetails DpdkEngine::details() const {
    const DpdkStatus status = state_->read_status();
    EngineDetails details;
    details.words["spread"] = status.spread;
    details.counters["flows_split"] = status.flows_split;
    for (const DpdkPortStatus& port : status.ports) {
        const std::string name = "port." + port.name + ".";
        details.words[name + "driver"] = port.driver;
        details.words[name + "spread"] = port.spread;
        details.counters[name + "packets"] = port.packets;
        if (port.missed_is_known)
            details.counters[name + "missed"] = port.missed;
        else
            details.words[name + "missed"] = "not told by this driver";
        details.counters[name + "errors"] = port.errors;
        details.counters[name + "no_mbufs"] = port.no_mbufs;
    }
    for (std::size_t i = 0; i < status.cores.size(); ++i) {
        const DpdkCoreStatus& core = status.cores[i];
        const std::string name = "core." + std::to_string(i) + ".";
        details.counters[name + "cpu"] = core.cpu;
        details.counters[name + "packets"] = core.packets;
        details.counters[name + "segmented"] = core.segmented;
        details.counters[name + "cut"] = core.cut;
        details.counters[name + "polls"] = core.polls;
        details.counters[name + "polls_empty"] = core.polls_empty;
        details.counters[name + "sleeps"] = core.sleeps;
        if (state_->config.table.sample_payload) {
            details.counters[name + "samples.taken"] = core.samples;
            details.counters[name + "samples.limited"] = core.samples_limited;
            details.counters[name + "samples.full"] = core.samples_full;
            details.counters[name + "behind"] = core.behind;
        }
        details.counters[name + "updates"] = core.updates;
        details.counters[name + "updates_delayed"] = core.updates_delayed;
        details.counters[name + "flows_live"] = core.flows_live;
    }
    return details;
}

DpdkStatus DpdkEngine::status() const {
    return state_->read_status();
}

}  // namespace egresswatch::capture
