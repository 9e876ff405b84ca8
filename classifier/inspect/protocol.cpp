// classifier/inspect/protocol.cpp
// SPDX-License-Identifier: Apache-2.0
#include "classifier/inspect/protocol.h"

#include <algorithm>
#include <array>
#include <utility>

#include "classifier/inspect/dns.h"
#include "classifier/inspect/http.h"
#include "classifier/inspect/quic.h"

namespace egresswatch::inspect {
namespace {

constexpr std::array<std::string_view, protocol_count> names = {
    "unknown", "dns",    "tls",       "quic",    "http",  "ssh",        "smtp", "ftp_control", "rdp",
    "smbv1",   "smbv23", "wireguard", "openvpn", "ipsec", "bittorrent", "tor",  "mdns",        "llmnr"};

constexpr std::uint16_t port_dns = 53;
constexpr std::uint16_t port_mdns = 5353;   // RFC 6762
constexpr std::uint16_t port_llmnr = 5355;  // RFC 4795
constexpr std::uint16_t port_ike = 500;     // RFC 7296 section 2
constexpr std::uint16_t port_ike_nat = 4500;

bool either(Ports ports, std::uint16_t port) noexcept {
    return ports.client == port || ports.server == port;
}

bool starts(ByteSpan bytes, std::string_view text) noexcept {
    return text_of(bytes).starts_with(text);
}

bool is_tls(ByteSpan bytes) noexcept {
    Bytes head(bytes);
    const std::uint8_t type = head.u8();
    const std::uint16_t version = head.u16();
    const std::uint16_t length = head.u16();
    const std::uint8_t handshake = head.u8();
    return head.ok() && type == 22 && version >> 8 == 3 && (version & 0xff) <= 4 && length >= 4 &&
           (handshake == 1 || handshake == 2);
}

// [MS-RDPBCGR] section 2.2.1.1: TPKT, then an X.224 connection request or confirmation.
bool is_rdp(ByteSpan bytes) noexcept {
    Bytes head(bytes);
    const std::uint8_t version = head.u8();
    const std::uint8_t reserved = head.u8();
    const std::uint16_t length = head.u16();
    const std::uint8_t rest = head.u8();
    const std::uint8_t code = head.u8();
    head.skip(5);  // references and class
    if (!head.ok() || version != 3 || reserved != 0 || length < 11 || rest + 5 != length) return false;
    if (code != 0xe0 && code != 0xd0) return false;
    if (starts(head.rest(), "Cookie: mstshash=")) return true;
    const std::uint8_t negotiation = head.u8();  // 1: request, 2: response, 3: failure; eight bytes long
    head.skip(1);
    return head.ok() && negotiation >= 1 && negotiation <= 3 && head.u8() == 8;
}

// [MS-SMB2] section 2.1: a length of three bytes, then the protocol id, whose first byte is 0xff of
// version 1.
Protocol smb_of(ByteSpan bytes) noexcept {
    Bytes head(bytes);
    const std::uint8_t type = head.u8();
    const std::uint32_t length = head.u24();
    const std::uint8_t kind = head.u8();
    if (type != 0 || length < 32 || kind < 0xfc || !starts(head.rest(), "SMB")) return Protocol::unknown;
    return kind == 0xff ? Protocol::smbv1 : Protocol::smbv23;
}

// A reply code of three digits and a space or hyphen (RFC 5321 section 4.2, RFC 959 section 4.2).
bool is_greeting(ByteSpan bytes) noexcept {
    return starts(bytes, "220 ") || starts(bytes, "220-");
}

bool has_command(ByteSpan bytes, std::string_view upper) noexcept {
    const std::string_view text = text_of(bytes);
    return text.size() > upper.size() &&
           std::ranges::equal(text.substr(0, upper.size()), upper, [](char a, char b) {
               return (a >= 'a' && a <= 'z' ? static_cast<char>(a - ('a' - 'A')) : a) == b;
           });
}

Recognised mail_or_files(ByteSpan client, ByteSpan server) noexcept {
    if (has_command(client, "EHLO ") || has_command(client, "HELO ")) return {Protocol::smtp, true};
    if (!is_greeting(server)) return {};
    const std::string_view line = text_of(server).substr(0, 512);
    if (line.find("SMTP") != std::string_view::npos) return {Protocol::smtp, true};
    constexpr std::array<std::string_view, 6> commands = {"USER ", "AUTH TLS", "AUTH SSL",
                                                          "FEAT",  "SYST",     "OPTS "};
    if (std::ranges::any_of(commands, [&](std::string_view word) { return has_command(client, word); }))
        return {Protocol::ftp_control, true};
    if (line.find("FTP") != std::string_view::npos) return {Protocol::ftp_control, true};
    return {};
}

// OpenVPN protocol, "P_CONTROL_HARD_RESET": opcode in the upper five bits, key id 0 in the lower three, a
// session id; a client's first packet acknowledges nothing.
bool is_openvpn(ByteSpan bytes) noexcept {
    constexpr std::size_t reset_bytes_min = 14;
    if (bytes.size() < reset_bytes_min) return false;
    const std::uint8_t opcode = bytes[0] >> 3;
    if ((bytes[0] & 7) != 0 || (opcode != 7 && opcode != 8 && opcode != 10)) return false;
    if (std::ranges::all_of(bytes.subspan(1, 8), [](std::uint8_t byte) { return byte == 0; })) return false;
    // Without authentication of control packets the list of acknowledgements and packet number 0 follow at
    // once; with it (SHA-1, SHA-256, SHA-512 or tls-crypt) behind the digest and a replay number.
    if (opcode == 7 && bytes.size() == reset_bytes_min) return bytes[9] == 0;
    return bytes.size() >= 9 + 20 + 8 + 1 + 4 || (opcode == 8 && bytes[9] <= 4);
}

bool is_openvpn_tcp(ByteSpan bytes) noexcept {
    Bytes head(bytes);
    const std::uint16_t length = head.u16();
    return length >= 14 && length < 512 && length <= head.left() && is_openvpn(head.take(length));
}

// RFC 7296 section 3.1 and RFC 2408 section 3.1: version, exchange type, length of the whole message.
bool is_ike(ByteSpan bytes) noexcept {
    constexpr std::size_t header_bytes = 28;
    if (bytes.size() < header_bytes) return false;
    const std::uint8_t version = bytes[17];
    const std::uint8_t exchange = bytes[18];
    const bool known =
        (version == 0x10 && ((exchange >= 1 && exchange <= 6) || exchange == 32 || exchange == 33)) ||
        (version == 0x20 && exchange >= 34 && exchange <= 44);
    const bool initiator_set =
        std::ranges::any_of(bytes.first(8), [](std::uint8_t byte) { return byte != 0; });
    Bytes length(bytes.subspan(24));
    return known && initiator_set && length.u32() == bytes.size();
}

// WireGuard whitepaper section 5.4: type, three zero bytes, and sizes that never vary in a handshake.
bool is_wireguard(ByteSpan bytes) noexcept {
    if (bytes.size() < 32 || bytes[1] != 0 || bytes[2] != 0 || bytes[3] != 0) return false;
    switch (bytes[0]) {
        case 1:
            return bytes.size() == 148;
        case 2:
            return bytes.size() == 92;
        case 3:
            return bytes.size() == 64;
        default:
            return false;
    }
}

// BEP 5: bencoded queries and answers; BEP 29: a SYN of the transport protocol is twenty bytes with sequence
// number 1 and acknowledges nothing.
bool is_bittorrent_udp(ByteSpan bytes) noexcept {
    if (starts(bytes, "d1:ad2:id20:") || starts(bytes, "d1:rd2:id20:")) return true;
    if (bytes.size() < 20 || bytes[0] != 0x41 || bytes[1] > 2) return false;
    Bytes tail(bytes.subspan(12));
    const std::uint32_t window = tail.u32();
    return window != 0 && tail.u16() == 1 && tail.u16() == 0;
}

bool is_dns(ByteSpan message) noexcept {
    DnsReader reader(message);
    const DnsHeader& header = reader.header();
    if (!reader.ok() || header.opcode > 6 || header.questions > 16) return false;
    DnsQuestion question;
    return header.questions == 0 ? header.response : reader.next(question);
}

bool is_quic(ByteSpan bytes) noexcept {
    if (const auto header = parse_quic_long_header(bytes)) return true;
    // Version negotiation (RFC 9000 section 17.2.1): version 0 and a list of four bytes each.
    Bytes head(bytes);
    const std::uint8_t first = head.u8();
    const std::uint32_t version = head.u32();
    const ByteSpan destination = head.vector8();
    const ByteSpan source = head.vector8();
    return head.ok() && (first & 0x80) != 0 && version == quic_negotiation && head.left() >= 4 &&
           head.left() % 4 == 0 && destination.size() <= QuicConnectionId::bytes_max &&
           source.size() <= QuicConnectionId::bytes_max;
}

}  // namespace

std::string_view protocol_name(Protocol protocol) noexcept {
    const auto index = static_cast<std::size_t>(protocol);
    return index < names.size() ? names[index] : names[0];
}

namespace {

// The first bytes with which what recognise_tcp() knows can begin, DNS left out: most streams of other
// protocols are none of these at their first byte, and need no parser to say so.
constexpr std::array<bool, 256> known_beginnings = [] {
    std::array<bool, 256> out{};
    for (int letter = 'A'; letter <= 'Z'; ++letter) out[static_cast<std::size_t>(letter)] = true;  // text
    out['e'] = out['h'] = true;                // of mail, where the case does not matter
    out['2'] = true;                           // its answers, and those of FTP
    out[0x16] = out[0x03] = out[0x13] = true;  // TLS, RDP, BitTorrent
    out[0x00] = out[0x01] = true;              // SMB; OpenVPN's length
    return out;
}();

bool may_be_known(ByteSpan stream) noexcept {
    return !stream.empty() && known_beginnings[stream[0]] && !begins_foreign(stream);
}

// As lines of text are: the protocols of text, and what an SSH server may say before its banner.
bool is_text(std::uint8_t byte) noexcept {
    return (byte >= 0x20 && byte < 0x7f) || byte == '\r' || byte == '\n';
}

}  // namespace

bool begins_foreign(ByteSpan stream) noexcept {
    if (stream.size() < foreign_bytes_min) return false;
    switch (stream[0]) {
        case 0x16:  // TLS
            return stream[1] != 3;
        case 0x03:  // RDP
            return stream[1] != 0;
        case 0x13:  // BitTorrent
            return stream[1] != 'B';
        case 0x00:
            if (stream[4] >= 0xfc) return false;  // SMB
            [[fallthrough]];
        case 0x01:  // OpenVPN: the three opcodes with which it begins
            return stream[2] != 7 << 3 && stream[2] != 8 << 3 && stream[2] != 10 << 3;
        default:
            return !std::ranges::all_of(stream.first(4), is_text);
    }
}

Recognised recognise_tcp(ByteSpan client, ByteSpan server, Ports ports) noexcept {
    if (!may_be_known(client) && !may_be_known(server) && !either(ports, port_dns)) return {};
    if (is_tls(client) || is_tls(server)) return {Protocol::tls, true};
    if (starts(client, "SSH-") || starts(server, "SSH-")) return {Protocol::ssh, true};
    HttpRequest request;
    if (parse_http_request(client, request) != Verdict::other && !request.method.empty())
        return {Protocol::http, true};
    if (starts(server, "HTTP/1.")) return {Protocol::http, true};
    if (const Recognised found = mail_or_files(client, server); found.protocol != Protocol::unknown)
        return found;
    if (is_rdp(client) || is_rdp(server)) return {Protocol::rdp, true};
    for (const ByteSpan side : {server, client})  // what the server chose
        if (const Protocol smb = smb_of(side); smb != Protocol::unknown) return {smb, true};
    constexpr std::string_view bittorrent =
        "\x13"
        "BitTorrent protocol";
    if (starts(client, bittorrent) || starts(server, bittorrent)) return {Protocol::bittorrent, true};
    if (either(ports, port_dns)) {
        for (const ByteSpan side : {client, server})
            if (Bytes framed(side); side.size() > 2 && is_dns(framed.vector16()))
                return {Protocol::dns, true};
    }
    if (is_openvpn_tcp(client) || is_openvpn_tcp(server)) return {Protocol::openvpn, true};
    return {};
}

namespace {

// The same of datagrams on ports that say nothing: QUIC's long headers, WireGuard's types, BitTorrent, and
// OpenVPN's opcodes.
constexpr std::array<bool, 256> known_datagrams = [] {
    std::array<bool, 256> out{};
    for (std::size_t first = 0x80; first < out.size(); ++first) out[first] = true;
    out[1] = out[2] = out[3] = out['d'] = out[0x41] = true;
    out[7 << 3] = out[8 << 3] = out[10 << 3] = true;
    return out;
}();

bool is_telling(Ports ports) noexcept {
    return either(ports, port_dns) || either(ports, port_mdns) || either(ports, port_llmnr) ||
           either(ports, port_ike) || either(ports, port_ike_nat);
}

}  // namespace

Recognised recognise_udp(ByteSpan datagram, Ports ports) noexcept {
    if (datagram.empty() || (!known_datagrams[datagram[0]] && !is_telling(ports))) return {};
    for (const auto& [port, protocol] :
         {std::pair{port_dns, Protocol::dns}, std::pair{port_mdns, Protocol::mdns},
          std::pair{port_llmnr, Protocol::llmnr}})
        if (either(ports, port) && is_dns(datagram)) return {protocol, true};
    if (is_quic(datagram)) return {Protocol::quic, true};
    if (is_wireguard(datagram)) return {Protocol::wireguard, true};
    if (either(ports, port_ike) && is_ike(datagram)) return {Protocol::ipsec, true};
    if (either(ports, port_ike_nat)) {
        // RFC 3948: four zero bytes before IKE, otherwise the SPI of ESP; one byte 0xff keeps the NAT open.
        Bytes head(datagram);
        if (head.u32() == 0 ? is_ike(head.rest()) : head.ok() && datagram.size() >= 16)
            return {Protocol::ipsec, true};
    }
    if (is_bittorrent_udp(datagram)) return {Protocol::bittorrent, true};
    if (is_openvpn(datagram)) return {Protocol::openvpn, either(ports, 1194)};
    return {};
}

Protocol recognise_ip(std::uint8_t l4_proto) noexcept {
    return l4_proto == 50 || l4_proto == 51 ? Protocol::ipsec : Protocol::unknown;
}

bool looks_like_tor(std::string_view server_name, std::string_view alpn_first) noexcept {
    if (!alpn_first.empty() || !server_name.starts_with("www.")) return false;
    if (!server_name.ends_with(".com") && !server_name.ends_with(".net")) return false;
    const std::string_view label = server_name.substr(4, server_name.size() - 8);
    if (label.size() < 8 || label.size() > 20) return false;
    std::size_t run = 0;
    bool improbable = false;
    for (std::size_t i = 0; i < label.size(); ++i) {
        const char c = label[i];
        const bool digit = c >= '2' && c <= '7';
        if (!digit && (c < 'a' || c > 'z')) return false;
        const bool vowel = c == 'a' || c == 'e' || c == 'i' || c == 'o' || c == 'u' || c == 'y';
        run = vowel ? 0 : run + 1;
        improbable = improbable || run >= 5 || (digit && i > 0 && i + 1 < label.size());
    }
    return improbable;
}

}  // namespace egresswatch::inspect
