// classifier/inspect/quic.h - the ClientHello inside QUIC's first packets.
//
// An Initial packet is encrypted with keys that anybody can derive from the connection id in its header; that
// is no secrecy, and everybody on the way may read the name in it.
// In:      UDP payloads that the client sent, in any order.   Out: a ClientHello (tls.h).
// Source:  RFC 9000 section 17.2, RFC 9001 sections 5.2 to 5.4, RFC 9369 (version 2),
//          draft-ietf-quic-tls-29 (its salt; servers of that time are still met in captures).
// Limits:  datagram_bytes_max; those of the assembler for the handshake.
// Threads: one owner. QuicDecryptor takes its memory when it is made; a parse allocates nothing of ours.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>

#include "classifier/inspect/assembler.h"
#include "classifier/inspect/bytes.h"
#include "classifier/inspect/tls.h"

namespace egresswatch::inspect {

enum QuicVersion : std::uint32_t {
    quic_negotiation = 0,
    quic_v1 = 1,
    quic_v2 = 0x6b3343cf,
    quic_draft29 = 0xff00001d
};

struct QuicConnectionId {
    static constexpr std::size_t bytes_max = 20;  // RFC 9000 section 17.2
    std::array<std::uint8_t, bytes_max> bytes{};
    std::uint8_t length = 0;

    [[nodiscard]] ByteSpan span() const noexcept { return {bytes.data(), length}; }
    bool operator==(const QuicConnectionId&) const = default;
};

// The part of a long header that is not protected.
struct QuicLongHeader {
    std::uint32_t version = 0;
    bool initial = false;
    QuicConnectionId destination;
    ByteSpan packet;                // this packet, up to the next one in the datagram
    std::size_t number_offset = 0;  // of the protected packet number, within `packet`
};

// The first packet of a datagram; the caller goes on behind `packet`. Nothing: no long header, or a version
// whose Initial packets are not known here.
[[nodiscard]] std::optional<QuicLongHeader> parse_quic_long_header(ByteSpan datagram) noexcept;

class QuicDecryptor {
public:
    static constexpr std::size_t datagram_bytes_max = 65527;

    QuicDecryptor();
    ~QuicDecryptor();
    QuicDecryptor(const QuicDecryptor&) = delete;
    QuicDecryptor& operator=(const QuicDecryptor&) = delete;

    // Removes the protection of an Initial packet that a client sent to the connection id `first`: that of
    // its own first Initial packet, or the one a Retry gave it. The frames are valid until the next call.
    // Nothing: it does not decrypt, which is all that tells a damaged packet, or one of a server, from a
    // client's.
    [[nodiscard]] std::optional<ByteSpan> open(const QuicLongHeader& header, ByteSpan first) noexcept;

private:
    struct Contexts;
    std::unique_ptr<Contexts> contexts_;
};

// Hands the CRYPTO frames of a decrypted Initial packet to the stream; false: a frame that may not be in
// there.
bool collect_crypto(ByteSpan frames, Assembler& stream) noexcept;

// A client's side of one connection: datagrams in, ClientHello out.
class QuicClient {
public:
    // match: hello() is there. incomplete: more datagrams are needed. other: not a QUIC Initial, or a version
    // that is not known here.
    [[nodiscard]] Verdict add(ByteSpan datagram, QuicDecryptor& decryptor) noexcept;
    [[nodiscard]] const std::optional<ClientHello>& hello() const noexcept { return hello_; }
    [[nodiscard]] std::uint32_t version() const noexcept { return version_; }
    void clear() noexcept;

private:
    Assembler crypto_;
    std::optional<ClientHello> hello_;
    QuicConnectionId first_;
    std::uint32_t version_ = 0;
    bool begun_ = false;
};

}  // namespace egresswatch::inspect
