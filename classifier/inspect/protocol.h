// classifier/inspect/protocol.h - which application protocol a flow speaks, by its first bytes.
//
// In:      the first bytes of each direction (TCP), or one datagram (UDP), and the ports.
// Out:     one of Protocol; `unknown` where nothing fits. Ports alone decide nothing: they only add to what
// the
//          bytes say where those say little (DNS, IPsec in UDP).
// Source:  beside each check in protocol.cpp. Names as nDPI has them, in lower case, where it has one.
// Threads: any. No allocation, no exceptions.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string_view>

#include "classifier/inspect/bytes.h"

namespace egresswatch::inspect {

enum class Protocol : std::uint8_t {
    unknown,
    dns,
    tls,
    quic,
    http,
    ssh,
    smtp,
    ftp_control,
    rdp,
    smbv1,
    smbv23,
    wireguard,
    openvpn,
    ipsec,
    bittorrent,
    tor,  // TLS that looks like a Tor client's: a hint, see looks_like_tor()
    mdns,
    llmnr
};
inline constexpr std::size_t protocol_count = 18;

[[nodiscard]] std::string_view protocol_name(Protocol protocol) noexcept;

// Ports in host order, of either end: a service stands at one of them.
struct Ports {
    std::uint16_t client = 0;
    std::uint16_t server = 0;
};

struct Recognised {
    Protocol protocol = Protocol::unknown;
    bool sure = false;  // false: more bytes may still tell another
};

// The stream begins like nothing that recognise_tcp() knows, DNS left out: whatever follows, whatever the
// other side says, it adds nothing to the answer. False: it may add something, or there are too few bytes to
// tell.
inline constexpr std::size_t foreign_bytes_min = 16;
inline constexpr std::size_t foreign_bytes_that_tell = 5;  // the first ones
[[nodiscard]] bool begins_foreign(ByteSpan stream) noexcept;

[[nodiscard]] Recognised recognise_tcp(ByteSpan client, ByteSpan server, Ports ports) noexcept;
[[nodiscard]] Recognised recognise_udp(ByteSpan datagram, Ports ports) noexcept;
[[nodiscard]] Protocol recognise_ip(std::uint8_t l4_proto) noexcept;  // ESP and AH have no ports

// Tor's own TLS names a server that does not exist: www.RANDOM.com or .net, 8 to 20 letters and digits of
// base 32 (tor, src/core/or/connection_or.c), and offers no ALPN. True for names of that form that no
// language would make: no vowel for five letters, or a digit amid letters.
[[nodiscard]] bool looks_like_tor(std::string_view server_name, std::string_view alpn_first) noexcept;

}  // namespace egresswatch::inspect
