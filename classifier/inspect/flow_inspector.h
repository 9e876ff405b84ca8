// classifier/inspect/flow_inspector.h - what the first packets of a flow say about its far end.
//
// In:      payloads of one flow in capture order, with direction and, of TCP, sequence numbers and flags.
// Out:     FlowFacts: protocol, name and who said it, fingerprints. Names and fingerprints only, never
// content. Clock:   none. Threads: one owner. An inspector is large (its two directions are put together in
// it) and is used again for
//          the next flow; the facts are small and stay.
// Limits:  packets_max payload packets a flow, Assembler::bytes_max bytes a direction. What the flow says
// later
//          is not seen; done() tells when to stop.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string_view>

#include "classifier/datapath/layout.h"
#include "classifier/inspect/assembler.h"
#include "classifier/inspect/fingerprint.h"
#include "classifier/inspect/http.h"
#include "classifier/inspect/protocol.h"
#include "classifier/inspect/quic.h"
#include "classifier/inspect/ssh.h"

namespace egresswatch::inspect {

// A text of at most `Bytes` bytes that needs no memory of its own; longer ones are cut, and say so.
template <std::size_t Bytes>
class ShortText {
public:
    static_assert(Bytes <= 255, "the length is one byte");
    ShortText() noexcept {}  // leaves the bytes as they are
    void assign(std::string_view text) noexcept {
        cut_ = text.size() > Bytes;
        length_ = static_cast<std::uint8_t>(cut_ ? Bytes : text.size());
        for (std::size_t i = 0; i < length_; ++i) text_[i] = text[i];
    }
    [[nodiscard]] std::string_view view() const noexcept { return {text_.data(), length_}; }
    [[nodiscard]] bool empty() const noexcept { return length_ == 0; }
    [[nodiscard]] bool cut() const noexcept { return cut_; }

private:
    std::array<char, Bytes> text_;
    std::uint8_t length_ = 0;
    bool cut_ = false;
};

// Who says that the far end is called so.
// dns, dns_unlisted: not by this flow, see inspection.h.
enum class NameSource : std::uint8_t { none, sni, http, dns, dns_unlisted };

struct FlowFacts {
    Protocol protocol = Protocol::unknown;
    NameSource name_source = NameSource::none;
    HiddenName hidden = HiddenName::none;
    std::uint16_t tls_version =
        0;                // chosen by the server, or the highest offered as long as it has not answered
    ShortText<253> name;  // lower case
    ShortText<32> alpn;
    ShortText<253> certificate;  // a name that the server's certificate holds; TLS 1.2 and older show it
    std::optional<Ja4> ja4;
    ShortText<16> http_method;
    ShortText<200> user_agent;
    ShortText<253> banner_client, banner_server;  // SSH
    std::optional<Hassh> hassh_client, hassh_server;
};

struct PayloadPacket {
    datapath::direction direction = datapath::DIRECTION_OUT;
    std::uint8_t l4_proto = 0;
    std::uint8_t tcp_flags = 0;
    std::uint32_t tcp_sequence = 0;
    std::uint16_t source_port = 0;  // host order
    std::uint16_t destination_port = 0;
    // Direction of what the client sends, where the flow table knows who connected.
    std::uint8_t client = datapath::DIRECTION_COUNT;
    ByteSpan payload;
};

// A TCP flow as long as it needs no inspector: what was sent of either direction begins_foreign(). This is
// all of it that an inspector would have to know.
struct ForeignStreams {
    std::array<std::uint32_t, datapath::DIRECTION_COUNT> first{};  // sequence number of the first byte
    std::uint8_t packets = 0;
    std::uint8_t client = datapath::DIRECTION_COUNT;  // as FlowInspector has it
    std::uint8_t begun = 0;                           // a bit a direction
    bool missed_start = false;

    // False: this packet has to be read, with an inspector that has taken over what came before it.
    [[nodiscard]] bool add(const PayloadPacket& packet) noexcept;
};

class FlowInspector {
public:
    static constexpr unsigned packets_max = 24;  // payload packets of both directions
    // Of a client, to know that it speaks neither TLS nor HTTP.
    static constexpr std::size_t recognising_bytes_min = 16;

    // True: the facts have changed.
    bool add(const PayloadPacket& packet, QuicDecryptor& decryptor) noexcept;
    // Nothing more to learn, or too many packets.
    [[nodiscard]] bool done() const noexcept { return done_; }
    [[nodiscard]] const FlowFacts& facts() const noexcept { return facts_; }
    // What the client asks for may be in what was sent, and was not read: no hello or request yet, or none
    // that could be put together; too little, or not from its beginning, to tell what protocol it is.
    [[nodiscard]] bool unread() const noexcept;
    void clear() noexcept;
    // After clear(): as if it had seen the packets of these.
    void take_over(const ForeignStreams& streams) noexcept;

private:
    bool add_tcp(const PayloadPacket& packet) noexcept;
    bool add_udp(const PayloadPacket& packet, QuicDecryptor& decryptor) noexcept;
    [[nodiscard]] bool speaks_as_client(std::size_t direction) const noexcept;
    bool read_tls() noexcept;
    bool read_http() noexcept;
    bool read_ssh() noexcept;
    void take_hello(const ClientHello& hello, HelloTransport transport) noexcept;

    std::array<StreamHead, datapath::DIRECTION_COUNT> heads_;
    QuicClient quic_;
    FlowFacts facts_;
    unsigned packets_ = 0;
    std::uint8_t client_ = datapath::DIRECTION_COUNT;  // direction of what the client sends; not known: COUNT
    bool client_sure_ = false;                         // the flow table knows who connected
    bool done_ = false;
    bool hello_read_ = false, server_read_ = false;
    std::array<bool, datapath::DIRECTION_COUNT> ssh_read_{};
};

// A name of the certificate: the first DNS name of subjectAltName (RFC 6125 section 6.4.4), else the common
// name. Empty where it is no certificate. By OpenSSL, which allocates.
[[nodiscard]] ShortText<253> certificate_name(ByteSpan der) noexcept;

}  // namespace egresswatch::inspect
