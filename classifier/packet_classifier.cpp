// classifier/packet_classifier.cpp
// SPDX-License-Identifier: Apache-2.0
#include "classifier/packet_classifier.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <utility>

#include "classifier/classify_step.h"
#include "classifier/first_sender.h"

namespace egresswatch {

using namespace datapath;

namespace {

constexpr std::uint8_t nothing = 0;  // what an empty packet points at
constexpr std::uint8_t undecided = DIRECTION_COUNT;
constexpr const char* border_prefixes[] = {
    "10.0.0.0/8",     "172.16.0.0/12", "192.168.0.0/16",  // RFC 1918
    "100.64.0.0/10",                                      // RFC 6598
    "169.254.0.0/16",                                     // RFC 3927
    "127.0.0.0/8",    "::1/128",                          // loopback
    "fc00::/7",                                           // RFC 4193
    "fe80::/10",                                          // RFC 4291
};

// Behind anything but the frame's first byte the full walk starts.
void set_start(const PacketInput& packet, packet_facts& facts) noexcept {
    switch (packet.link.start) {
        case LinkStart::ethernet:
        case LinkStart::ip:
            facts.frame.start = START_ETHER_TYPE;
            facts.frame.start_ether_type = packet.link.start == LinkStart::ip ? ETHER_IPV4 : ETHER_BRIDGED;
            break;
        case LinkStart::ppp:
            facts.frame.start = START_PPP;
            break;
        case LinkStart::ether_type:
            facts.frame.start = START_ETHER_TYPE;
            facts.frame.start_ether_type = packet.link.ether_type;
            break;
        case LinkStart::not_ip:
            facts.frame.start = START_NOT_IP;
            break;
        case LinkStart::truncated:
            // An IP header that cannot be read: truncated, or malformed where nothing was cut off.
            facts.frame.start = START_ETHER_TYPE;
            facts.frame.start_ether_type = ETHER_IPV4;
            facts.frame.start_offset = facts.frame.captured_bytes;
            break;
    }
}

packet_facts facts_of(const PacketInput& packet) noexcept {
    packet_facts facts{};
    facts.frame.wire_bytes = packet.wire_bytes;
    facts.frame.captured_bytes = static_cast<std::uint32_t>(packet.bytes.size());
    facts.frame.start_offset = packet.link.offset;
    facts.ifindex = packet.ifindex;
    if (LIKELY(packet.link.start == LinkStart::ethernet) && LIKELY(packet.link.offset == 0))
        facts.frame.start = START_ETHERNET;
    else if (packet.link.start == LinkStart::ip && packet.link.offset == 0)
        facts.frame.start = START_IP;
    else
        set_start(packet, facts);
    return facts;
}

void walk(TablePlatform& platform, const PacketInput& packet, packet_class& found) {
    const packet_facts facts = facts_of(packet);
    (void)walk_packet(&platform, platform.data, platform.data + platform.captured, &facts, &found);
}

// What was read of a plain packet is all that there is to it, unless it may be a tunnel's. Without a branch
// on the protocol, which a CPU would guess.
DATAPATH_INLINE bool is_all(const PlainPacket& plain) noexcept {
    const auto protocol = static_cast<__u8>(plain.sent >> 32);
    const bool tunnel = (is_tunnel_port(host16(static_cast<__u16>(plain.sent))) |
                         is_tunnel_port(host16(static_cast<__u16>(plain.sent >> 16)))) != 0;
    return (protocol == PROTO_TCP) | ((protocol == PROTO_UDP) & !tunnel);
}

// Its walk then.
void walk_plain(const PacketInput& packet, const PlainPacket& plain, walk_result& out) {
    std::memcpy(out.src, &plain.source, sizeof out.src);
    std::memcpy(out.dst, &plain.destination, sizeof out.dst);
    out.sport = static_cast<__u16>(plain.sent);
    out.dport = static_cast<__u16>(plain.sent >> 16);
    out.l4_proto = static_cast<__u8>(plain.sent >> 32);
    out.tcp_flags = plain.tcp_flags;
    out.status = WALK_IP;
    out.levels = 0;
    out.tunnel = TUNNEL_NONE;
    out.flags = 0;
    out.ip_offset = plain.ip_offset;
    out.ip_bytes = plain.ip_bytes;
    out.payload_offset = payload_offset_of(packet.bytes.data(), plain);
}

// Of two ends of a packet the nearer one is ours: the one in the home region where the other is beyond it;
// with `direction_by_region` by all kinds (local before home before unknown before outside), then the
// carrier's, where there is one.
std::uint8_t direction_by_region(TablePlatform& platform, Halves source_address, Halves destination_address,
                                 const walk_result* carrier) noexcept {
    if (platform.region == nullptr) return undecided;
    const auto kind = [&](const void* address) {
        return region_kind_of(
            platform.region, platform.region_cells,
            region_lookup(platform.region, platform.region_cells, static_cast<const __u8*>(address)));
    };
    const std::uint32_t source = kind(&source_address);
    const std::uint32_t destination = kind(&destination_address);
    const std::uint32_t nearer = std::min(source, destination);
    if (source != destination && (platform.direction_by_region || nearer == KIND_HOME))
        return source < destination ? DIRECTION_OUT : DIRECTION_IN;
    if (!platform.direction_by_region) return undecided;
    if (carrier != nullptr) {
        const std::uint32_t carrier_source = kind(carrier->outer_src);
        const std::uint32_t carrier_destination = kind(carrier->outer_dst);
        if (carrier_source != carrier_destination)
            return carrier_source < carrier_destination ? DIRECTION_OUT : DIRECTION_IN;
    }
    // Between two ends of ours either may count as local: neither can be the subject of a rule.
    if (nearer >= KIND_UNKNOWN) platform.losses[LOSS_DIRECTION_GUESSED]++;
    return undecided;
}

// `carrier`: of a tunnelled packet, its walk.
DATAPATH_INLINE std::uint8_t direction_by_address(TablePlatform& platform, const LocalNetworks& networks,
                                                  Halves source, Halves destination,
                                                  const walk_result* carrier) noexcept {
    LocalNetworks::Ends ours = networks.contain(source, destination);
    if (UNLIKELY(ours.source == ours.destination) && carrier != nullptr)
        ours = networks.contain(load_halves(carrier->outer_src), load_halves(carrier->outer_dst));
    static_assert(DIRECTION_OUT == 0 && DIRECTION_IN == 1, "chosen without a branch");
    if (LIKELY(ours.source != ours.destination)) return ours.destination;
    return direction_by_region(platform, source, destination, carrier);
}

std::uint8_t direction_of_walk(TablePlatform& platform, const LocalNetworks& networks,
                               const walk_result& walk) noexcept {
    if (walk.status != WALK_IP) return DIRECTION_OUT;
    return direction_by_address(platform, networks, load_halves(walk.src), load_halves(walk.dst),
                                walk.levels > 0 ? &walk : nullptr);
}

}  // namespace

std::vector<Prefix> default_local_networks() {
    std::vector<Prefix> out;
    for (const char* text : border_prefixes) out.push_back(*Prefix::parse(text));
    return out;
}

LocalNetworks::LocalNetworks(const std::vector<Prefix>& prefixes) {
    for (const Prefix& prefix : prefixes) {
        const unsigned length = prefix.length + (prefix.is_ipv4() ? 96u : 0u);
        std::uint8_t mask[16] = {};
        for (unsigned bit = 0; bit < length; ++bit)
            mask[bit / 8] |= static_cast<std::uint8_t>(0x80 >> bit % 8);
        const Halves kept = load_halves(mask);
        const Halves value = load_halves(prefix.base.bytes.data());
        const auto twice = [](std::uint64_t half) { return Halves{half, half}; };
        prefixes_.push_back({twice(kept[0]), twice(value[0]), twice(kept[1]), twice(value[1])});
    }
}

namespace {

// For every packet: in its caller.
DATAPATH_INLINE void fill_in(TablePlatform& platform, std::uint32_t captured_bytes, std::uint32_t ifindex,
                             const packet_class& found, ClassifiedPacket& out, flow_outer& outer) {
    out.kind = ClassifiedPacket::Kind::untracked;
    out.tunnelled = false;
    out.payload_bytes = 0;
    if (platform.sample_payload && LIKELY(found.walk.status == WALK_IP) &&
        LIKELY(found.walk.l4_proto == PROTO_TCP || found.walk.l4_proto == PROTO_UDP))
        locate_payload(captured_bytes, found.walk.ip_offset + found.walk.ip_bytes, found.walk.payload_offset,
                       out);
    if (LIKELY(is_tracked(&platform, &found))) {
        out.kind = ClassifiedPacket::Kind::tracked;
    } else {
        if (LIKELY(out.payload_bytes == 0) ||
            LIKELY(!is_name_server_port(found.walk.sport) && !is_name_server_port(found.walk.dport)))
            return;
        out.kind = ClassifiedPacket::Kind::name_server;
    }
    make_key(&found, &out.key);
    out.hash = table_hash(out.key, platform.hash_seed);
    prefetch_bucket(platform, out.hash);
    out.ip_bytes = static_cast<std::uint32_t>(found.ip_bytes);
    out.ifindex = ifindex;
    out.direction = found.direction;
    out.tcp_flags = found.walk.l4_proto == PROTO_TCP ? found.walk.tcp_flags : std::uint8_t{0};
    out.is_answer = (found.walk.flags & WALK_ANSWER) != 0;
    if (LIKELY(found.walk.levels == 0) || out.kind == ClassifiedPacket::Kind::name_server) return;
    out.tunnelled = true;
    const bool leaves = found.direction == DIRECTION_OUT;
    copy_address(outer.local_addr, leaves ? found.walk.outer_src : found.walk.outer_dst);
    copy_address(outer.remote_addr, leaves ? found.walk.outer_dst : found.walk.outer_src);
}

}  // namespace

void describe(TablePlatform& platform, const packet_facts& facts, const packet_class& found,
              ClassifiedPacket& out, flow_outer& outer) {
    fill_in(platform, facts.frame.captured_bytes, facts.ifindex, found, out, outer);
}

// ------------------------------------------------------------------------------------------------ batch

ClassifiedBatch::ClassifiedBatch() : content_(std::make_unique<Content>()) {}
ClassifiedBatch::ClassifiedBatch(ClassifiedBatch&&) noexcept = default;
ClassifiedBatch& ClassifiedBatch::operator=(ClassifiedBatch&&) noexcept = default;
ClassifiedBatch::~ClassifiedBatch() = default;

std::size_t ClassifiedBatch::size() const noexcept {
    return content_->count;
}

// ------------------------------------------------------------------------------------------------ classifier

PacketClassifier::State::State(const ClassifierConfig& config) : networks(config.local_networks) {
    track_all = config.track_all;
    direction_by_region = config.direction_by_region;
    sample_payload = config.sample_payload;
    hash_seed = config.hash_seed;
    walk_scratch = &walk;
}

PacketClassifier::PacketClassifier(const ClassifierConfig& config)
    : state_(std::make_unique<State>(config)) {}
PacketClassifier::PacketClassifier(PacketClassifier&&) noexcept = default;
PacketClassifier& PacketClassifier::operator=(PacketClassifier&&) noexcept = default;
PacketClassifier::~PacketClassifier() = default;

void PacketClassifier::install_region(std::span<const std::byte> block) noexcept {
    state_->region = reinterpret_cast<const __u16*>(block.data());
    state_->region_cells = static_cast<__u32>(block.size() / sizeof(__u16));
    state_->known.forget();
}

void PacketClassifier::classify(std::span<const PacketInput> packets, ClassifiedBatch& batch) {
    classify_packets(*state_, state_->networks, state_->known, packets, *batch.content_);
}

// Of a plain packet whose direction is known, where there is a region block: class, totals, key and hash out
// of what was read; and, unless the place is `taken`, the tuple.
static void take_plain(TablePlatform& platform, InterfaceTally& tally, const PacketInput& packet,
                       const ReadPacket& seen, std::uint8_t direction, KnownTuples& known, bool taken,
                       ClassifiedPacket& out) {
    const PlainPacket& plain = seen.plain;
    const bool leaves = direction == DIRECTION_OUT;
    const Halves swap = Halves{} - (leaves ? 0u : 1u);
    const Halves both = (plain.source ^ plain.destination) & swap;
    const Halves local = plain.source ^ both, remote = plain.destination ^ both;
    std::memcpy(out.key.local_addr, &local, sizeof local);
    std::memcpy(out.key.remote_addr, &remote, sizeof remote);
    // Port, port, protocol, no tunnel, class: see make_key(). First without the class, which the hash leaves
    // out: what is guessed wrong on the way to the class does not hold up the hash then.
    const auto ports = std::rotl(static_cast<std::uint32_t>(plain.sent), leaves ? 0 : 16);
    const std::uint64_t ends = ports | plain.sent >> 32 << 32;
    auto* const ends_of_key = reinterpret_cast<__u8*>(&out.key) + offsetof(flow_key, local_port);
    store64(ends_of_key, ends);
    out.hash = table_hash(out.key, platform.hash_seed);
    const __u32 class_id = region_lookup(platform.region, platform.region_cells, out.key.remote_addr);
    const __u32 kind = region_kind_of(platform.region, platform.region_cells, class_id);
    class_traffic& total = platform.classes[class_id].by_direction[direction];
    total.packets += 1;
    total.ip_bytes += plain.ip_bytes;
    total.frame_bytes += packet.wire_bytes;
    const std::uint8_t sum = sum_of(direction, static_cast<std::uint8_t>(kind));  // an outcome, too
    tally.add(sum, 1, packet.wire_bytes);
    store64(ends_of_key, ends | std::uint64_t{class_id} << 48);
    out.ip_bytes = plain.ip_bytes;
    out.ifindex = packet.ifindex;
    out.direction = direction;
    out.tcp_flags = plain.tcp_flags;
    out.tunnelled = false;
    out.is_answer = false;
    out.payload_bytes = 0;
    out.place = KnownTuples::no_place;
    if (platform.sample_payload)
        locate_payload(static_cast<std::uint32_t>(packet.bytes.size()), plain.ip_offset + plain.ip_bytes,
                       payload_offset_of(packet.bytes.data(), plain), out);
    const bool tracked = (kind >= KIND_UNKNOWN) | platform.track_all;  // no branch of the toss-up
    const bool speaks_dns = speaks_to_name_server(out.key);
    out.kind = tracked ? ClassifiedPacket::Kind::tracked : ClassifiedPacket::Kind::untracked;
    if (LIKELY(tracked)) {
        prefetch_bucket(platform, out.hash);
    } else if (UNLIKELY(speaks_dns)) {
        // Of a name server's packet that has no flow the payload is wanted: each is looked at.
        if (out.payload_bytes != 0) out.kind = ClassifiedPacket::Kind::name_server;
        return;
    }
    if (taken || seen.tuple == nullptr) return;
    const bool is_tcp = out.key.l4_proto == PROTO_TCP;
    const auto sampled =
        speaks_dns ? sampled_always
                   : static_cast<std::uint8_t>(is_tcp ? sampled_packets_max : sampled_datagrams_max);
    static_assert(sampled_packets_max < sampled_always && sampled_datagrams_max < sampled_always);
    out.place = known.place_of(*seen.tuple);
    *seen.tuple = {out.key,
                   tracked ? out.hash : 0,  // the bucket that is fetched for it is always the same one
                   seen.word,
                   sum,
                   platform.sample_payload ? sampled : std::uint8_t{0},
                   0,
                   tracked ? KnownTuple::no_entry : KnownTuple::untracked};
}

void take_unknown(TablePlatform& platform, const LocalNetworks& networks, InterfaceTally& tally,
                  const PacketInput& packet, const ReadPacket& seen, KnownTuples& known, bool taken,
                  ClassifiedBatch::Content& content, ClassifiedPacket& out) {
    out.at_ns = packet.at_ns;
    const bool plain = LIKELY(seen.is_plain) && LIKELY(is_all(seen.plain));
    std::uint8_t direction = packet.direction;
    if (LIKELY(plain)) {
        if (direction >= DIRECTION_COUNT)
            direction =
                direction_by_address(platform, networks, seen.plain.source, seen.plain.destination, nullptr);
        if (LIKELY(direction != undecided) && LIKELY(platform.region != nullptr)) {
            content.walked = false;
            return take_plain(platform, tally, packet, seen, direction, known, taken, out);
        }
    }
    content.walked = true;
    out.place = KnownTuples::no_place;
    platform.data = packet.bytes.empty() ? &nothing : packet.bytes.data();
    platform.captured = static_cast<std::uint32_t>(packet.bytes.size());
    packet_class& found = content.last;
    if (plain)
        walk_plain(packet, seen.plain, found.walk);
    else
        walk(platform, packet, found);
    if (direction >= DIRECTION_COUNT && !plain) direction = direction_of_walk(platform, networks, found.walk);
    found.direction = direction;
    if (found.direction == undecided) {
        const walk_result& walk = found.walk;
        out.kind = ClassifiedPacket::Kind::undecided;
        out.hash = FirstSenders::conversation(walk.src, walk.dst, walk.sport, walk.dport, walk.l4_proto);
        content.undecided.push_back({facts_of(packet), found, packet.interface});
        return;
    }
    count_frame(packet.wire_bytes, &found);
    count_class(&platform, &found);
    tally.add(sum_of(found.direction, found.outcome), 1, packet.wire_bytes);
    flow_outer outer;
    fill_in(platform, platform.captured, packet.ifindex, found, out, outer);
    if (UNLIKELY(out.tunnelled)) content.outers.push_back(outer);
}

void classify_packets(TablePlatform& s, const LocalNetworks& networks, KnownTuples& known,
                      std::span<const PacketInput> packets, ClassifiedBatch::Content& content) {
    content.reserve(packets.size());
    content.count = packets.size();
    content.outers.clear();
    content.undecided.clear();
    InterfaceTally tally(s);
    std::array<ReadPacket, chunk_max> chunk;
    FetchAhead nothing_coming({}, 0);  // which batch is this thread's next is not known
    for (std::size_t begin = 0; begin < packets.size(); begin += chunk_max) {
        const std::size_t size = read_chunk<1>(packets, begin, known, 0, nothing_coming, chunk);
        for (std::size_t i = 0; i < size; ++i) {
            const PacketInput& packet = packets[begin + i];
            const ReadPacket& seen = chunk[i];
            ClassifiedPacket& out = content.packets[begin + i];
            tally.at(packet.interface);
            if (LIKELY(seen.tuple != nullptr) && LIKELY(seen.tuple->is_of(seen.plain, seen.word))) {
                count_known(s, tally, *seen.tuple, 1, seen.plain.ip_bytes, packet.wire_bytes);
                describe_known(packet, seen, known.place_of(*seen.tuple), s.sample_payload, out);
                continue;
            }
            take_unknown(s, networks, tally, packet, seen, known, false, content, out);
        }
    }
}

}  // namespace egresswatch
