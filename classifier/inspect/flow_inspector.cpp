// classifier/inspect/flow_inspector.cpp
// SPDX-License-Identifier: Apache-2.0
#include "classifier/inspect/flow_inspector.h"

#include <algorithm>
#include <new>

namespace egresswatch::inspect {
namespace {

constexpr std::uint8_t proto_tcp = 6;
constexpr std::uint8_t proto_udp = 17;
constexpr std::uint16_t version_tls13 = 0x0304;

void assign_name(FlowFacts& facts, std::string_view name, NameSource source) noexcept {
    if (name.ends_with('.')) name.remove_suffix(1);  // "www.example.org." is the same name
    if (name.empty()) return;
    std::array<char, 253> lower;
    const std::size_t length = std::min(name.size(), lower.size());
    std::transform(name.begin(), name.begin() + static_cast<std::ptrdiff_t>(length), lower.begin(),
                   [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + ('a' - 'A')) : c; });
    facts.name.assign({lower.data(), length});
    facts.name_source = source;
}

// A SYN tells who connected; else the side with the registered port is taken for the server, else the sender
// of the first packet for the client.
std::uint8_t client_of(const PayloadPacket& packet, std::uint8_t known) noexcept {
    const auto sender = static_cast<std::uint8_t>(packet.direction);
    const auto receiver = static_cast<std::uint8_t>(1 - sender);
    if (packet.client != datapath::DIRECTION_COUNT) return packet.client;
    if ((packet.tcp_flags & datapath::TCP_SYN) != 0)
        return (packet.tcp_flags & datapath::TCP_ACK) != 0 ? receiver : sender;
    if (known != datapath::DIRECTION_COUNT) return known;
    return packet.source_port < 1024 && packet.destination_port >= 1024 ? receiver : sender;
}

}  // namespace

// What StreamHead makes of sequence numbers, as far as it matters here: what becomes of the first bytes.
bool ForeignStreams::add(const PayloadPacket& packet) noexcept {
    const auto bit = static_cast<std::uint8_t>(1u << packet.direction);
    std::uint32_t& begin = first[packet.direction];
    const bool syn = (packet.tcp_flags & datapath::TCP_SYN) != 0;
    ByteSpan at_begin = packet.payload;
    if (!syn && (begun & bit) != 0) {
        const std::uint32_t offset = packet.tcp_sequence - begin;
        const bool before = offset >= 0x80000000u;
        // Nobody honest sends some of the first bytes again and others not.
        missed_start |= before || (offset != 0 && offset < foreign_bytes_that_tell);
        if (before)
            at_begin = at_begin.subspan(std::min<std::size_t>(at_begin.size(), begin - packet.tcp_sequence));
        else if (offset != 0)
            at_begin = {};
        if (!at_begin.empty() && !begins_foreign(at_begin)) return false;
    } else {
        if (!begins_foreign(at_begin)) return false;
        begin = packet.tcp_sequence + (syn ? 1 : 0);
        begun |= bit;
    }
    client = client_of(packet, client);
    ++packets;
    return true;
}

void FlowInspector::clear() noexcept {
    for (StreamHead& head : heads_) head.clear();
    quic_.clear();
    new (&facts_) FlowFacts;  // not `= {}`: that clears a kilobyte of texts, and copies it
    packets_ = 0;
    done_ = hello_read_ = server_read_ = client_sure_ = false;
    client_ = datapath::DIRECTION_COUNT;
    ssh_read_ = {};
}

bool FlowInspector::add(const PayloadPacket& packet, QuicDecryptor& decryptor) noexcept {
    if (done_) return false;
    if (!packet.payload.empty() && ++packets_ >= packets_max) done_ = true;
    if (packet.l4_proto == proto_tcp) return add_tcp(packet);
    if (packet.l4_proto == proto_udp) return add_udp(packet, decryptor);
    facts_.protocol = recognise_ip(packet.l4_proto);
    done_ = true;
    return facts_.protocol != Protocol::unknown;
}

void FlowInspector::take_over(const ForeignStreams& streams) noexcept {
    static constexpr std::array<std::uint8_t, foreign_bytes_min> foreign{};  // as good as what was sent
    static_assert(foreign_bytes_min >= recognising_bytes_min);
    packets_ = streams.packets;
    client_ = streams.client;
    for (std::size_t direction = 0; direction < heads_.size(); ++direction)
        if ((streams.begun >> direction & 1) != 0)
            (void)heads_[direction].add(streams.first[direction], false, foreign);
}

// A server that speaks like a client names nothing.
bool FlowInspector::speaks_as_client(std::size_t direction) const noexcept {
    return !client_sure_ || direction == client_;
}

bool FlowInspector::unread() const noexcept {
    switch (facts_.protocol) {
        case Protocol::tls:
        case Protocol::tor:
        case Protocol::quic:
            return !hello_read_;
        case Protocol::http:
            return facts_.http_method.empty();
        case Protocol::unknown:
            break;
        default:
            return false;
    }
    if (heads_[0].missed_start() || heads_[1].missed_start()) return true;
    const std::size_t client =
        client_ == datapath::DIRECTION_COUNT ? std::size_t{datapath::DIRECTION_OUT} : client_;
    return packets_ != 0 && heads_[client].begun() && heads_[client].prefix().size() < recognising_bytes_min;
}

bool FlowInspector::add_tcp(const PayloadPacket& packet) noexcept {
    client_sure_ = packet.client != datapath::DIRECTION_COUNT;
    client_ = client_of(packet, client_);
    heads_[packet.direction].add(packet.tcp_sequence, (packet.tcp_flags & datapath::TCP_SYN) != 0,
                                 packet.payload);
    if (packet.payload.empty()) return false;
    bool changed = false;
    if (facts_.protocol == Protocol::unknown) {
        // Whoever connected: the side that speaks like a client is found among both.
        const ByteSpan out = heads_[datapath::DIRECTION_OUT].prefix();
        const ByteSpan in = heads_[datapath::DIRECTION_IN].prefix();
        Recognised found = recognise_tcp(out, in, Ports{packet.source_port, packet.destination_port});
        if (found.protocol == Protocol::unknown)
            found = recognise_tcp(in, out, Ports{packet.source_port, packet.destination_port});
        facts_.protocol = found.protocol;
        changed = found.protocol != Protocol::unknown;
    }
    switch (facts_.protocol) {
        case Protocol::tls:
        case Protocol::tor:
            return read_tls() || changed;
        case Protocol::http:
            return read_http() || changed;
        case Protocol::ssh:
            return read_ssh() || changed;
        case Protocol::unknown:
            return false;
        default:
            done_ = true;
            return changed;
    }
}

void FlowInspector::take_hello(const ClientHello& hello, HelloTransport transport) noexcept {
    hello_read_ = true;
    facts_.hidden = hello.hidden;
    facts_.ja4 = ja4_of(hello, transport);
    facts_.alpn.assign(hello.alpn_first);
    if (facts_.tls_version == 0) facts_.tls_version = hello.version_max;
    if (!hello.server_name.empty()) assign_name(facts_, hello.server_name, NameSource::sni);
    if (facts_.protocol == Protocol::tls && looks_like_tor(facts_.name.view(), hello.alpn_first))
        facts_.protocol = Protocol::tor;
}

bool FlowInspector::read_tls() noexcept {
    bool changed = false;
    std::array<std::uint8_t, hello_bytes_max> buffer;
    for (std::size_t direction = 0; direction < heads_.size(); ++direction) {
        HandshakeReader reader(heads_[direction].prefix(), buffer);
        HandshakeReader::Message message;
        while (reader.next(message) == Verdict::match) {
            if (message.type == static_cast<std::uint8_t>(HandshakeType::client_hello) && !hello_read_ &&
                speaks_as_client(direction)) {
                const auto hello = parse_client_hello(message.body);
                if (!hello) break;
                take_hello(*hello, HelloTransport::tcp);
                changed = true;
            } else if (message.type == static_cast<std::uint8_t>(HandshakeType::server_hello) &&
                       !server_read_) {
                const auto hello = parse_server_hello(message.body);
                if (!hello) break;
                facts_.tls_version = hello->version;
                server_read_ = changed = true;
                if (hello->version >= version_tls13 && hello_read_) done_ = true;
            } else if (message.type == static_cast<std::uint8_t>(HandshakeType::certificate) &&
                       facts_.certificate.empty()) {
                facts_.certificate = certificate_name(first_certificate(message.body));
                changed = changed || !facts_.certificate.empty();
                done_ = done_ || hello_read_;
            }
        }
    }
    return changed;
}

bool FlowInspector::read_http() noexcept {
    for (std::size_t direction = 0; direction < heads_.size(); ++direction) {
        HttpRequest request;
        if (!speaks_as_client(direction) ||
            parse_http_request(heads_[direction].prefix(), request) != Verdict::match)
            continue;
        facts_.http_method.assign(request.method);
        facts_.user_agent.assign(request.user_agent);
        if (!request.host.empty()) assign_name(facts_, request.host, NameSource::http);
        done_ = true;
        return true;
    }
    return false;
}

bool FlowInspector::read_ssh() noexcept {
    bool changed = false;
    for (const auto direction : {datapath::DIRECTION_OUT, datapath::DIRECTION_IN}) {
        if (ssh_read_[direction]) continue;
        SshHello hello;
        const Verdict verdict = parse_ssh(heads_[direction].prefix(), hello);
        const bool client = direction == client_;
        auto& banner = client ? facts_.banner_client : facts_.banner_server;
        if (banner.empty() && !hello.banner.empty()) {
            banner.assign(hello.banner);
            changed = true;
        }
        if (verdict == Verdict::incomplete) continue;
        ssh_read_[direction] = true;
        if (!hello.has_algorithms) continue;
        changed = true;
        if (client)
            facts_.hassh_client =
                hassh_of(hello.kex, hello.encryption_out, hello.mac_out, hello.compression_out);
        else
            facts_.hassh_server =
                hassh_of(hello.kex, hello.encryption_in, hello.mac_in, hello.compression_in);
    }
    done_ = done_ || (ssh_read_[0] && ssh_read_[1]);
    return changed;
}

bool FlowInspector::add_udp(const PayloadPacket& packet, QuicDecryptor& decryptor) noexcept {
    if (packet.payload.empty()) return false;
    bool changed = false;
    if (facts_.protocol == Protocol::unknown) {
        facts_.protocol =
            recognise_udp(packet.payload, Ports{packet.source_port, packet.destination_port}).protocol;
        changed = facts_.protocol != Protocol::unknown;
    }
    if (facts_.protocol == Protocol::unknown) return false;
    if (facts_.protocol != Protocol::quic) {
        done_ = true;
        return changed;
    }
    if (quic_.add(packet.payload, decryptor) != Verdict::match) return changed;
    take_hello(*quic_.hello(), HelloTransport::quic);
    done_ = true;
    return true;
}

}  // namespace egresswatch::inspect
