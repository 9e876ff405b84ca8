// classifier/inspect/tls.h - what a TLS handshake shows before encryption begins.
//
// In:      the first bytes of a stream, as far as they are there without a gap.
// Out:     ClientHello (name, protocols offered, versions, fingerprint material), ServerHello, certificate.
// Source:  RFC 8446 (TLS 1.3), RFC 5246 (TLS 1.2), RFC 6066 section 3 (server_name), RFC 7301 (ALPN),
//          RFC 8701 (GREASE), RFC 9849 (Encrypted ClientHello).
// Limits:  a ClientHello of hello_bytes_max; a longer one is `other`.
// Threads: any. No allocation, no exceptions. Results are views into what was given.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>

#include "classifier/inspect/bytes.h"

namespace egresswatch::inspect {

// A ClientHello with two post-quantum key shares takes under 4 KiB; RFC 8446 section 5.1 allows 16 KiB a
// record.
inline constexpr std::size_t hello_bytes_max = 16384;

enum TlsExtension : std::uint16_t {
    extension_server_name = 0,
    extension_supported_groups = 10,
    extension_signature_algorithms = 13,
    extension_alpn = 16,
    extension_supported_versions = 43,
    extension_quic_transport_parameters = 57,
    extension_encrypted_client_hello = 0xfe0d,
    extension_encrypted_sni = 0xffce  // the draft before ECH
};

enum class HiddenName : std::uint8_t {
    none,
    ech,  // the name shown is that of the outer hello: whom it is really for is encrypted. Or GREASE
          // (RFC 9849 section 6.2), which looks the same on purpose
    esni  // its predecessor: no name is shown
};

struct ClientHello {
    std::uint16_t legacy_version = 0;
    std::uint16_t version_max = 0;  // the highest that is offered, GREASE aside
    std::string_view server_name;   // empty: none given
    bool has_server_name = false;   // the extension is there
    std::string_view alpn_first;    // empty: none
    HiddenName hidden = HiddenName::none;
    // Raw, for the fingerprint: two bytes each; whole extensions one after the other.
    ByteSpan cipher_suites;
    ByteSpan extensions;
    ByteSpan signature_algorithms;
};

// `body`: of the handshake message, without its four bytes of type and length.
[[nodiscard]] std::optional<ClientHello> parse_client_hello(ByteSpan body) noexcept;

// GREASE values: 0x0a0a, 0x1a1a, ... (RFC 8701 section 2).
[[nodiscard]] constexpr bool is_grease(std::uint16_t value) noexcept {
    return (value & 0x0f0f) == 0x0a0a && (value >> 8) == (value & 0xff);
}

// Whether a server_name extension or a Host header holds something that can be shown as a name: 1 to 253
// printable ASCII characters (RFC 1035 section 3.1) without spaces. Not that there is such a host.
[[nodiscard]] bool plausible_host_name(std::string_view name) noexcept;

struct ServerHello {
    std::uint16_t version = 0;  // chosen; TLS 1.3 says so in an extension
    std::uint16_t cipher_suite = 0;
    std::string_view alpn;
};
[[nodiscard]] std::optional<ServerHello> parse_server_hello(ByteSpan body) noexcept;

enum class HandshakeType : std::uint8_t { client_hello = 1, server_hello = 2, certificate = 11 };

// Takes handshake messages out of the records of one direction of a TCP stream (RFC 8446 section 5.1: a
// message may lie in several records, a record may hold several messages). `buffer` is where messages are put
// together; what fits in no buffer is `other`.
class HandshakeReader {
public:
    HandshakeReader(ByteSpan stream, std::span<std::uint8_t> buffer) noexcept
        : stream_(stream), buffer_(buffer) {}
    struct Message {
        std::uint8_t type = 0;
        ByteSpan body;  // within `buffer`, until the next call
    };
    // match: `message` is whole. incomplete: more of the stream is needed. other: not a handshake, or its end
    // (an alert, a change of cipher, application data).
    [[nodiscard]] Verdict next(Message& message) noexcept;

private:
    [[nodiscard]] Verdict fill(std::size_t bytes) noexcept;

    ByteSpan stream_;
    std::span<std::uint8_t> buffer_;
    std::size_t filled_ = 0;   // bytes of the message in `buffer_`
    ByteSpan record_{};        // what is left of the record begun
    bool record_cut_ = false;  // the stream ends within it
};

// The certificate that identifies the server: the first of a TLS 1.2 Certificate message, DER.
[[nodiscard]] ByteSpan first_certificate(ByteSpan body) noexcept;

}  // namespace egresswatch::inspect
