// tests/bench/traffic_mix.cpp
// SPDX-License-Identifier: Apache-2.0
#include "tests/bench/traffic_mix.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstring>
#include <stdexcept>

namespace egresswatch::test {
namespace {

enum Protocol : std::uint8_t {
    proto_icmp = 1,
    proto_tcp = 6,
    proto_udp = 17,
    proto_gre = 47,
    proto_icmp6 = 58
};
enum Group : std::uint8_t { east_west, home, unknown, outside, group_count };
enum TcpFlag : std::uint8_t { fin = 1, syn = 2, rst = 4, ack = 16 };

constexpr unsigned flow_bits = 24;
constexpr std::uint32_t hosts = 4096;               // of ours
constexpr std::uint32_t client_ports_first = 1024;  // every service has a port below
constexpr std::uint32_t client_ports = 60000;
constexpr std::uint32_t icmp_payload = 56;
constexpr std::uint32_t udp_payload_min = 25;
constexpr std::uint32_t frame_min = 60;  // Ethernet's 64 without the frame check sequence
constexpr std::uint64_t second_ns = 1'000'000'000;
constexpr std::uint64_t gap_min_ns = 50'000;  // between two packets of a flow; doubled up to ten times

// Large blocks that have been one country's for many years. What matters is only that they are of many
// countries.
struct Block {
    std::uint64_t base;  // IPv4 address, or the first eight bytes of an IPv6 address
    unsigned length;
};
constexpr std::array home4{Block{0x35000000, 8},  Block{0x5a000000, 9},  Block{0x5b000000, 10},  // DE FR DE
                           Block{0x50800000, 11}, Block{0x4fc00000, 10}, Block{0x56c00000, 10},  // DE DE FR
                           Block{0x51e00000, 12}, Block{0x58580000, 13}, Block{0x56280000, 13},  // SE NO IE
                           Block{0x4f000000, 10}};                                               // IT
constexpr std::array outside4{
    Block{0x03000000, 9},  Block{0x0c000000, 8},  Block{0x11000000, 8},   // US US US
    Block{0x22000000, 9},  Block{0x7e000000, 8},  Block{0x24000000, 10},  // US JP CN
    Block{0xb1000000, 10}, Block{0x29000000, 11}, Block{0x6a000000, 10},  // BR ZA CN
    Block{0x19000000, 8}};                                                // GB
constexpr std::array unknown4{Block{0xc6120000, 15}};                     // 198.18.0.0/15, RFC 2544
constexpr std::array east_west4{Block{0x0a210000, 16}};
constexpr std::array home6{Block{0x2003000000000000, 20}, Block{0x2a01e00000000000, 27},      // DE FR
                           Block{0x2a01c80000000000, 21}, Block{0x2a02210000000000, 32}};     // FR NO
constexpr std::array outside6{Block{0x2601000000000000, 20}, Block{0x2600100000000000, 28},   // US US
                              Block{0x240e000000000000, 20}, Block{0x2400410000000000, 32}};  // CN JP
constexpr std::array unknown6{Block{0x20010db800000000, 32}};                                 // RFC 3849
constexpr std::array east_west6{Block{0xfd00003300000000, 32}};

constexpr std::array<std::span<const Block>, group_count> blocks4{east_west4, home4, unknown4, outside4};
constexpr std::array<std::span<const Block>, group_count> blocks6{east_west6, home6, unknown6, outside6};
constexpr std::array<std::uint16_t, 6> tcp_services{443, 443, 80, 22, 25, 993};

// The finaliser of splitmix64 (Steele, Lea, Flood, OOPSLA 2014): every bit of the input moves every bit out.
constexpr std::uint64_t mix(std::uint64_t value) noexcept {
    value += 0x9e3779b97f4a7c15;
    value = (value ^ value >> 30) * 0xbf58476d1ce4e5b9;
    value = (value ^ value >> 27) * 0x94d049bb133111eb;
    return value ^ value >> 31;
}

// Uniform in [0, below), without a division.
constexpr std::uint64_t scale(std::uint32_t random, std::uint64_t below) noexcept {
    return static_cast<std::uint64_t>(static_cast<unsigned __int128>(random) * below >> 32);
}

Address address4(std::uint64_t value) noexcept {
    return Address::from_ipv4(static_cast<std::uint32_t>(value));
}

Address address6(std::uint64_t high, std::uint64_t low) noexcept {
    Address address{};
    for (unsigned i = 0; i < 8; i++) {
        address.bytes[i] = static_cast<std::uint8_t>(high >> (56 - 8 * i));
        address.bytes[8 + i] = static_cast<std::uint8_t>(low >> (56 - 8 * i));
    }
    return address;
}

// The address of a server of a group, by its number.
Address remote_address(Group group, bool ipv6, std::uint64_t server) noexcept {
    const std::uint64_t random = mix(server * 2 + 1);
    const auto blocks = ipv6 ? blocks6[group] : blocks4[group];
    const Block& block = blocks[random % blocks.size()];
    if (ipv6) return address6(block.base | mix(random) >> block.length >> 8 << 8, mix(random + 1));
    return address4(block.base | (mix(random) & 0xffffffff) >> block.length);
}

}  // namespace

struct TrafficMix::Conversation {
    Address local, remote;
    std::uint16_t local_port = 0, remote_port = 0;
    std::uint16_t vlan = 0;  // 0: no tag
    std::uint8_t protocol = proto_tcp;
    std::uint8_t odd = 0;  // 0: an ordinary flow
    bool ipv6 = false;
    bool local_begins = true;
    bool local_is_heavy = false;  // our end sends the data, the other the acknowledgements
    bool timestamps = false;      // TCP option, RFC 7323
};

struct TrafficMix::Step {
    bool from_local = false;
    std::uint8_t flags = 0;
    std::uint32_t frame = frame_min;  // wanted length; headers may make it longer
};

TrafficMix::TrafficMix(const TrafficSpec& spec) : spec_(spec) {
    if (spec.flows == 0 || spec.flows > TrafficSpec::flows_max || spec.flows > spec.packets)
        throw std::invalid_argument("traffic mix: flows must be 1 to " +
                                    std::to_string(TrafficSpec::flows_max) +
                                    ", and at most as many as packets");
    if (spec.packets / spec.flows >= UINT32_MAX / 2)
        throw std::invalid_argument("traffic mix: too many packets");
    if (spec.seconds == 0 || spec.seconds > TrafficSpec::seconds_max)
        throw std::invalid_argument("traffic mix: seconds must be 1 to " +
                                    std::to_string(TrafficSpec::seconds_max));
    for (std::size_t i = 0; i < frame_.size(); i++) frame_[i] = static_cast<std::uint8_t>(mix(i));
    flows_.resize(spec.flows);
    share_out();
    schedule();
}

std::vector<Prefix> TrafficMix::local_networks() {
    return {*Prefix::parse("10.32.0.0/16"), *Prefix::parse("fd00:32::/32")};
}

// ------------------------------------------------------------------------------------------------ the plan

namespace {
bool is_mouse(std::uint64_t seed, std::uint64_t flow) noexcept {
    return mix(seed ^ mix(flow)) % 10 < 3;
}
}  // namespace

// How many packets each flow has.
void TrafficMix::share_out() {
    // With hardly a packet for each flow there are no large ones.
    if (spec_.even || spec_.packets < 4 * spec_.flows) {
        for (std::uint64_t i = 0; i < spec_.flows; i++)
            flows_[i].packets = static_cast<std::uint32_t>(spec_.packets / spec_.flows +
                                                           (i < spec_.packets % spec_.flows ? 1 : 0));
        return;
    }
    std::uint64_t left = spec_.packets;
    double weights = 0;  // additions and divisions only: the same on every machine that follows IEEE 754
    std::uint64_t rank = 0;
    for (std::uint64_t i = 0; i < spec_.flows; i++) {
        const bool mouse = is_mouse(spec_.seed, i);
        flows_[i].packets = mouse ? static_cast<std::uint32_t>(1 + mix(spec_.seed + i) % 3) : 1;
        left -= flows_[i].packets;
        if (!mouse) weights += 1.0 / static_cast<double>(++rank);
    }
    const auto to_share = static_cast<double>(left);
    rank = 0;
    for (std::uint64_t i = 0; i < spec_.flows; i++) {
        if (is_mouse(spec_.seed, i)) continue;
        const auto more =
            std::min(left, static_cast<std::uint64_t>(to_share / static_cast<double>(++rank) / weights));
        flows_[i].packets += static_cast<std::uint32_t>(more);
        left -= more;
    }
    for (std::uint64_t i = 0; left > 0; i = (i + 1) % spec_.flows) {  // what rounding left over
        if (rank > 0 && is_mouse(spec_.seed, i)) continue;
        flows_[i].packets++;
        left--;
    }
}

// When each packet is sent: a flow has a beginning and a mean gap, and stays within the whole.
void TrafficMix::schedule() {
    schedule_.reserve(spec_.packets);
    const std::uint64_t whole = spec_.seconds * second_ns;
    for (std::uint64_t i = 0; i < spec_.flows; i++) {
        const std::uint64_t random = mix(spec_.seed + mix(i + 7));
        const std::uint64_t packets = flows_[i].packets;
        const std::uint64_t span = std::min(whole, packets * (gap_min_ns << random % 11));
        const std::uint64_t start = scale(static_cast<std::uint32_t>(random >> 32), whole - span + 1);
        std::uint64_t jitter = random;
        for (std::uint64_t j = 0; j < packets; j++) {
            jitter = mix(jitter);
            const std::uint64_t at = start + scale(static_cast<std::uint32_t>((j << 32) / packets), span) +
                                     scale(static_cast<std::uint32_t>(jitter), span / packets + 1);
            schedule_.push_back(std::min(at, whole - 1) << flow_bits | i);
        }
    }
    std::sort(schedule_.begin(), schedule_.end());
}

TrafficMix::Conversation TrafficMix::conversation(std::uint32_t number) const noexcept {
    const std::uint64_t a = mix(spec_.seed ^ mix(number));  // the number that is_mouse() looks at
    const std::uint64_t b = mix(a);
    const bool mouse = a % 10 < 3 && flows_[number].packets <= 3;
    const auto percent = [](std::uint64_t random, unsigned shift) {
        return static_cast<unsigned>(
            scale(static_cast<std::uint32_t>((random >> shift & 0xffff) << 16), 100));
    };
    Conversation flow;
    flow.ipv6 = percent(b, 0) < spec_.ipv6_percent;
    if (percent(b, 16) < spec_.vlan_percent) flow.vlan = static_cast<std::uint16_t>(100 + b % 16);
    flow.local_begins = percent(b, 32) < 70;
    flow.local_is_heavy = percent(b, 48) < 40;
    flow.timestamps = (a >> 33 & 1) != 0;
    const unsigned kind = percent(a, 40);
    if (mouse)
        flow.protocol = kind < 70 ? proto_udp : kind < 95 ? proto_tcp : flow.ipv6 ? proto_icmp6 : proto_icmp;
    else
        flow.protocol = kind < 80 ? proto_tcp : kind < 99 ? proto_udp : flow.ipv6 ? proto_icmp6 : proto_icmp;
    if (spec_.odd_of_thousand != 0 && mix(b + 1) % 1000 < spec_.odd_of_thousand)
        flow.odd = static_cast<std::uint8_t>(1 + number % 10);

    const unsigned where = percent(mix(b), 0);
    const Group group = where < 10 ? east_west : where < 55 ? home : where < 60 ? unknown : outside;
    // Few servers have most of the flows: the cube of a uniform number leans to zero.
    const std::uint64_t pool = std::max<std::uint64_t>(64, spec_.flows / 4);
    const std::uint64_t u = mix(b + 2) >> 43;  // 21 bits, so that the cube has 63
    const auto server = static_cast<std::uint64_t>(static_cast<unsigned __int128>(u * u * u) * pool >> 63);
    // Host and client port together are the flow's number: no two flows have equal five-tuples.
    const std::uint32_t host = number % hosts;
    const auto client = static_cast<std::uint16_t>(client_ports_first + number / hosts % client_ports);
    flow.local = flow.ipv6 ? address6(0xfd00003200000000, host) : address4(0x0a200000 + host);
    if (flow.protocol == proto_icmp || flow.protocol == proto_icmp6) {  // no ports: the address is its own
        flow.remote =
            flow.ipv6 ? address6(0x2601000000000000, number / hosts) : address4(0x0c000000 + number / hosts);
        flow.local_begins = true;
        flow.local_port = client;  // the identifier
        return flow;
    }
    flow.remote = remote_address(group, flow.ipv6, server * group_count + group);
    const std::uint16_t service = flow.protocol == proto_udp ? (mouse ? 53 : 443) : tcp_services[b % 6];
    flow.local_port = flow.local_begins ? client : service;
    flow.remote_port = flow.local_begins ? service : client;
    return flow;
}

TrafficMix::Step TrafficMix::step_of(const Conversation& flow, const FlowState& state, std::uint64_t random) {
    const bool begins = flow.local_begins;
    const std::uint32_t j = state.sent;
    const std::uint32_t n = state.packets;
    if (flow.protocol == proto_icmp || flow.protocol == proto_icmp6)
        return {j % 2 == 0 ? begins : !begins, 0, frame_min};
    if (flow.protocol == proto_udp && n <= 3)
        return {j % 2 == 0 ? begins : !begins, 0,
                j % 2 == 0 ? 80u : 80u + static_cast<std::uint32_t>(random % 300)};
    if (flow.protocol == proto_tcp) {
        if (j == 0) return {begins, syn, frame_min};
        if (j == 1) return {!begins, static_cast<std::uint8_t>(n == 2 ? rst | ack : syn | ack), frame_min};
        if (j == 2) return {begins, ack, frame_min};
        if (n >= 7 && j == n - 3) return {begins, fin | ack, frame_min};
        if (n >= 7 && j == n - 2) return {!begins, fin | ack, frame_min};
        if (n >= 7 && j == n - 1) return {begins, ack, frame_min};
    } else if (j == 0) {
        return {begins, 0, 1294};  // a QUIC Initial is padded to 1200 bytes and more (RFC 9000 14.1)
    }
    const std::uint64_t draw = random % 12;  // IMIX
    if (draw < 7) return {!flow.local_is_heavy, ack, frame_min};
    return {flow.local_is_heavy, ack, draw < 11 ? 590u : 1514u};
}

// ------------------------------------------------------------------------------------------------ bytes

void TrafficMix::put16(unsigned value) {
    put8(value >> 8);
    put8(value & 0xff);
}

void TrafficMix::put32(std::uint32_t value) {
    put16(value >> 16);
    put16(value & 0xffff);
}

void TrafficMix::put_address(const Address& address, bool ipv6) {
    const std::size_t first = ipv6 ? 0 : 12;
    std::memcpy(&frame_[used_], &address.bytes[first], 16 - first);
    used_ += static_cast<std::uint32_t>(16 - first);
}

void TrafficMix::put_link(const Conversation& flow, bool from_local) {
    used_ = 0;
    for (const bool sender : {false, true}) {  // destination first
        put32(sender == from_local ? 0x02000a20 : 0x02000001);
        put16(sender == from_local ? flow.local.bytes[14] << 8 | flow.local.bytes[15] : 1);
    }
    if (flow.vlan != 0) {
        put16(0x8100);
        put16(flow.vlan);
    }
    put16(flow.ipv6 ? 0x86dd : 0x0800);
}

void TrafficMix::put_ip(const Conversation& flow, bool from_local, std::uint32_t l4_bytes) {
    const Address& source = from_local ? flow.local : flow.remote;
    const Address& destination = from_local ? flow.remote : flow.local;
    if (flow.ipv6) {
        put32(0x60000000);
        put16(l4_bytes);
        put8(flow.protocol);
        put8(63);
        put_address(source, true);
        put_address(destination, true);
        ip_bytes_ = l4_bytes + 40;
        return;
    }
    const std::uint32_t at = used_;
    ip_bytes_ = l4_bytes + 20;
    put16(0x4500);
    put16(ip_bytes_);
    put16(static_cast<unsigned>(truth_.packets & 0xffff));
    put16(0x4000);  // do not fragment
    put8(63);
    put8(flow.protocol);
    put16(0);
    put_address(source, false);
    put_address(destination, false);
    std::uint32_t sum = 0;  // RFC 1071
    for (std::uint32_t i = at; i < at + 20; i += 2)
        sum += static_cast<std::uint32_t>(frame_[i] << 8 | frame_[i + 1]);
    sum = (sum & 0xffff) + (sum >> 16);
    sum = ~(sum + (sum >> 16)) & 0xffff;
    frame_[at + 10] = static_cast<std::uint8_t>(sum >> 8);
    frame_[at + 11] = static_cast<std::uint8_t>(sum);
}

void TrafficMix::put_l4(const Conversation& flow, FlowState& state, const Step& step, std::uint32_t payload) {
    const std::uint16_t from = step.from_local ? flow.local_port : flow.remote_port;
    const std::uint16_t to = step.from_local ? flow.remote_port : flow.local_port;
    if (flow.protocol == proto_udp) {
        put16(from);
        put16(to);
        put16(8 + payload);
        put16(0);
        return;
    }
    if (flow.protocol != proto_tcp) {
        const bool request = step.from_local == flow.local_begins;
        put16((flow.ipv6 ? (request ? 128u : 129u) : (request ? 8u : 0u)) << 8);
        put16(0);
        put16(flow.local_port);
        put16(state.sent / 2);
        return;
    }
    std::uint32_t& sequence = state.sequence[step.from_local ? 0 : 1];
    put16(from);
    put16(to);
    put32(sequence);
    put32((step.flags & ack) != 0 ? state.sequence[step.from_local ? 1 : 0] : 0);
    put8((flow.timestamps ? 8u : 5u) << 4);
    put8(step.flags);
    put16(0xffff);
    put32(0);
    if (flow.timestamps) {
        put32(0x0101080a);
        put32(state.sent);
        put32(state.sent);
    }
    sequence += payload + ((step.flags & (syn | fin)) != 0 ? 1 : 0);
}

bool TrafficMix::next(MadePacket& out) {
    if (position_ == schedule_.size()) return false;
    const std::uint64_t entry = schedule_[position_++];
    const auto number = static_cast<std::uint32_t>(entry & ((1u << flow_bits) - 1));
    FlowState& state = flows_[number];
    const Conversation flow = conversation(number);
    const std::uint64_t random = mix(entry);
    const Step step = step_of(flow, state, random >> 8);

    const bool is_tcp = flow.protocol == proto_tcp;
    const std::uint32_t l4_head = is_tcp ? (flow.timestamps ? 32 : 20) : 8;
    const std::uint32_t heads = 14 + (flow.ipv6 ? 40 : 20) + l4_head;
    std::uint32_t payload = step.frame > frame_min && step.frame > heads ? step.frame - heads : 0;
    if (flow.protocol == proto_udp) payload = std::max(payload, udp_payload_min);
    if (flow.protocol == proto_icmp || flow.protocol == proto_icmp6) payload = icmp_payload;
    put_link(flow, step.from_local);
    put_ip(flow, step.from_local, l4_head + payload);
    put_l4(flow, state, step, payload);
    wire_ = std::max(used_ + payload, frame_min);
    captured_max_ = spec_.snap_bytes == 0 ? wire_max : spec_.snap_bytes;
    if (flow.odd != 0) {
        put_odd_packet(flow, flow.odd, random);
        truth_.odd_packets++;
    }
    state.sent++;

    const auto direction = static_cast<std::uint8_t>(step.from_local ? 1 : 2);
    if (state.directions == 0) truth_.flows++;
    if ((state.directions & direction) == 0) truth_.directed_flows++;
    state.directions |= direction;
    const std::uint32_t captured = std::min(wire_, captured_max_);
    truth_.packets++;
    truth_.frame_bytes += wire_;
    truth_.captured_bytes += captured;
    truth_.ip_bytes += ip_bytes_;
    out = {{frame_.data(), captured}, wire_, spec_.start_ns + (entry >> flow_bits), number, step.from_local};
    return true;
}

// Makes another packet of the frame that is there: wraps it, breaks it, cuts it.
void TrafficMix::put_odd_packet(const Conversation& flow, std::uint32_t kind, std::uint64_t random) {
    const std::uint32_t ip = flow.vlan != 0 ? 18 : 14;
    const auto insert = [&](std::uint32_t at, std::span<const std::uint8_t> bytes) {
        if (wire_ + bytes.size() > wire_max) return false;
        std::memmove(&frame_[at + bytes.size()], &frame_[at], wire_ - at);
        std::memcpy(&frame_[at], bytes.data(), bytes.size());
        wire_ += static_cast<std::uint32_t>(bytes.size());
        return true;
    };
    const auto set16 = [&](std::uint32_t at, std::uint32_t value) {
        frame_[at] = static_cast<std::uint8_t>(value >> 8);
        frame_[at + 1] = static_cast<std::uint8_t>(value);
    };
    const auto outer4 = [&](std::uint32_t inner, std::uint8_t protocol) {
        std::array<std::uint8_t, 20> head{0x45, 0, 0,  0,  0,  0, 0,  0,  64, protocol,
                                          0,    0, 10, 32, 15, 1, 10, 33, 0,  1};
        head[2] = static_cast<std::uint8_t>((inner + 20) >> 8);
        head[3] = static_cast<std::uint8_t>(inner + 20);
        return head;
    };
    switch (kind) {
        case 1: {  // VXLAN (RFC 7348): the frame whole, behind Ethernet, IPv4, UDP
            std::array<std::uint8_t, 50> head{2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0};
            const auto inner = wire_ + 16;
            const auto ip4 = outer4(inner, proto_udp);
            std::copy(ip4.begin(), ip4.end(), head.begin() + 14);
            const std::array<std::uint8_t, 16> udp{0xc0,
                                                   0,
                                                   0x12,
                                                   0xb5,
                                                   static_cast<std::uint8_t>(inner >> 8),
                                                   static_cast<std::uint8_t>(inner),
                                                   0,
                                                   0,
                                                   8,
                                                   0,
                                                   0,
                                                   0,
                                                   0,
                                                   0,
                                                   7,
                                                   0};
            std::copy(udp.begin(), udp.end(), head.begin() + 34);
            if (insert(0, head)) ip_bytes_ = inner + 20;
            break;
        }
        case 2:    // GRE (RFC 2784)
        case 3: {  // IPIP or 6in4
            std::array<std::uint8_t, 24> head{};
            const std::uint32_t size = kind == 2 ? 24 : 20;
            const auto ip4 = outer4(ip_bytes_ + size - 20, static_cast<std::uint8_t>(kind == 2   ? 47
                                                                                     : flow.ipv6 ? 41
                                                                                                 : 4));
            std::copy(ip4.begin(), ip4.end(), head.begin());
            head[22] = frame_[ip - 2];
            head[23] = frame_[ip - 1];
            if (!insert(ip, {head.data(), size})) break;
            set16(ip - 2, 0x0800);
            ip_bytes_ += size;
            break;
        }
        case 4:  // fragments: first ones, and ones without ports
            if (flow.ipv6) {
                const std::array<std::uint8_t, 8> head{flow.protocol, 0, 0,
                                                       static_cast<std::uint8_t>(random & 8 ? 1 : 0x39)};
                if (!insert(ip + 40, head)) break;
                frame_[ip + 6] = 44;
                ip_bytes_ += 8;
                set16(ip + 4, ip_bytes_ - 40);
            } else {
                set16(ip + 6, random & 8 ? 0x2000 : 0x00b9);
            }
            break;
        case 5:  // hop-by-hop and destination options; IPv4 options
            if (flow.ipv6) {
                const std::array<std::uint8_t, 16> head{60, 0, 1, 4, 0, 0, 0, 0, flow.protocol,
                                                        0,  1, 4, 0, 0, 0, 0};
                if (!insert(ip + 40, head)) break;
                frame_[ip + 6] = 0;
                ip_bytes_ += 16;
                set16(ip + 4, ip_bytes_ - 40);
            } else {
                const std::array<std::uint8_t, 8> head{1, 1, 1, 1, 1, 1, 1, 0};
                if (!insert(ip + 20, head)) break;
                frame_[ip] = 0x47;
                ip_bytes_ += 8;
                set16(ip + 2, ip_bytes_);
            }
            break;
        case 6:  // one more tag (802.1ad)
            (void)insert(12, std::array<std::uint8_t, 4>{0x88, 0xa8, 0, 42});
            break;
        case 7:  // MPLS (RFC 3032), two labels
            if (insert(ip, std::array<std::uint8_t, 8>{0, 0x10, 0, 64, 0, 0x20, 1, 64}))
                set16(ip - 2, 0x8847);
            break;
        case 8:  // ARP
            set16(ip - 2, 0x0806);
            ip_bytes_ = 0;
            break;
        case 9:  // a header length that cannot be
            frame_[ip] = static_cast<std::uint8_t>(flow.ipv6 ? 0x00 : 0x42);
            break;
        default: {  // the headers are cut: by the capture, or by whoever sent the frame
            const std::uint32_t end = ip + static_cast<std::uint32_t>(random % 40);
            captured_max_ = std::min(captured_max_, end);
            if ((random & 0x100) != 0) break;
            wire_ = end;
            ip_bytes_ = std::min(ip_bytes_, wire_ - ip);
            break;
        }
    }
}

// ------------------------------------------------------------------------------------------------ files

namespace {

class PcapWriter {
public:
    explicit PcapWriter(CaptureFormat format) : format_(format) {}

    void header(std::vector<std::uint8_t>& to, std::uint32_t snap_bytes) const {
        const std::array<std::uint32_t, 6> words{
            order(format_.nanoseconds ? 0xa1b23c4du : 0xa1b2c3d4u),
            format_.big_endian ? order(0x00020004u) : 0x00040002u,  // version 2.4, two halves
            0,
            0,
            order(snap_bytes == 0 ? 262144u : snap_bytes),
            order(1u)};  // LINKTYPE_ETHERNET
        append(to, words.data(), sizeof words);
    }
    void record(std::vector<std::uint8_t>& to, const MadePacket& packet) const {
        const std::uint64_t fraction = packet.at_ns % second_ns;
        const std::array<std::uint32_t, 4> words{
            order(static_cast<std::uint32_t>(packet.at_ns / second_ns)),
            order(static_cast<std::uint32_t>(format_.nanoseconds ? fraction : fraction / 1000)),
            order(static_cast<std::uint32_t>(packet.bytes.size())), order(packet.wire_bytes)};
        append(to, words.data(), sizeof words);
        append(to, packet.bytes.data(), packet.bytes.size());
    }

private:
    [[nodiscard]] std::uint32_t order(std::uint32_t word) const noexcept {
        return format_.big_endian ? __builtin_bswap32(word) : word;
    }
    static void append(std::vector<std::uint8_t>& to, const void* from, std::size_t size) {
        const auto* bytes = static_cast<const std::uint8_t*>(from);
        to.insert(to.end(), bytes, bytes + size);
    }
    CaptureFormat format_;
};

int write_all(int descriptor, std::span<const std::uint8_t> bytes) {
    while (!bytes.empty()) {
        const ssize_t wrote = ::write(descriptor, bytes.data(), bytes.size());
        if (wrote < 0 && errno == EINTR) continue;
        if (wrote < 0) return errno;
        bytes = bytes.subspan(static_cast<std::size_t>(wrote));
    }
    return 0;
}

}  // namespace

void append_capture(std::vector<std::uint8_t>& to, TrafficMix& mix, std::uint32_t snap_bytes,
                    CaptureFormat format) {
    const PcapWriter writer(format);
    writer.header(to, snap_bytes);
    for (MadePacket packet; mix.next(packet);) writer.record(to, packet);
}

int write_capture(const std::string& path, TrafficMix& mix, std::uint32_t snap_bytes, CaptureFormat format) {
    // Whole pieces, as a copying tool writes them and read-ahead reads them: the kernel then keeps the file
    // in large folios, which a reader gets mapped at a third of the cost.
    constexpr std::size_t window = std::size_t{4} << 20;
    const int descriptor = ::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (descriptor < 0) return errno;
    const PcapWriter writer(format);
    std::vector<std::uint8_t> buffer;
    buffer.reserve(window + 4096);
    writer.header(buffer, snap_bytes);
    int error = 0;
    for (MadePacket packet; error == 0 && mix.next(packet);) {
        writer.record(buffer, packet);
        if (buffer.size() < window) continue;
        error = write_all(descriptor, std::span(buffer).first(window));
        buffer.erase(buffer.begin(), buffer.begin() + window);
    }
    if (error == 0) error = write_all(descriptor, buffer);
    if (::close(descriptor) != 0 && error == 0) error = errno;
    return error;
}

}  // namespace egresswatch::test
