// classifier/inspect/tls.cpp
// SPDX-License-Identifier: Apache-2.0
#include "classifier/inspect/tls.h"

#include <algorithm>
#include <cstring>

namespace egresswatch::inspect {
namespace {

constexpr std::uint8_t record_handshake = 22;
constexpr std::size_t record_bytes_max = 16384 + 256;  // RFC 5246 section 6.2.1, with what 1.2 let peers add
constexpr std::size_t random_bytes = 32;
constexpr std::uint8_t name_type_host = 0;
constexpr std::uint16_t version_ssl3 = 0x0300;

void read_server_name(ByteSpan data, ClientHello& hello) noexcept {
    hello.has_server_name = true;
    Bytes list(Bytes(data).vector16());
    while (list.ok() && list.left() != 0) {
        const std::uint8_t type = list.u8();
        const ByteSpan name = list.vector16();
        if (!list.ok() || type != name_type_host) continue;
        if (plausible_host_name(text_of(name))) hello.server_name = text_of(name);
        return;
    }
}

void read_alpn(ByteSpan data, std::string_view& first) noexcept {
    Bytes list(Bytes(data).vector16());
    first = text_of(list.vector8());
}

void read_versions(ByteSpan data, ClientHello& hello) noexcept {
    Bytes list(Bytes(data).vector8());
    std::uint16_t highest = 0;
    while (list.left() >= 2)
        if (const std::uint16_t version = list.u16(); !is_grease(version))
            highest = std::max(highest, version);
    if (highest != 0) hello.version_max = highest;
}

void read_extension(std::uint16_t type, ByteSpan data, ClientHello& hello) noexcept {
    switch (type) {
        case extension_server_name:
            read_server_name(data, hello);
            break;
        case extension_alpn:
            read_alpn(data, hello.alpn_first);
            break;
        case extension_supported_versions:
            read_versions(data, hello);
            break;
        case extension_signature_algorithms:
            hello.signature_algorithms = Bytes(data).vector16();
            break;
        case extension_encrypted_client_hello:
            hello.hidden = HiddenName::ech;
            break;
        case extension_encrypted_sni:
            hello.hidden = HiddenName::esni;
            break;
        default:
            break;
    }
}

}  // namespace

// RFC 6066 section 3 wants A-labels; what clients write instead is kept as long as it can be shown.
bool plausible_host_name(std::string_view name) noexcept {
    return !name.empty() && name.size() <= 253 &&
           std::ranges::all_of(name, [](char c) { return c > 0x20 && c < 0x7f; });
}

std::optional<ClientHello> parse_client_hello(ByteSpan body) noexcept {
    Bytes bytes(body);
    ClientHello hello;
    hello.legacy_version = bytes.u16();
    hello.version_max = hello.legacy_version;
    bytes.skip(random_bytes);
    (void)bytes.vector8();  // session id
    hello.cipher_suites = bytes.vector16();
    (void)bytes.vector8();  // compression methods
    if (!bytes.ok() || hello.cipher_suites.size() % 2 != 0 || hello.legacy_version >> 8 != version_ssl3 >> 8)
        return std::nullopt;
    if (bytes.left() == 0) return hello;  // before extensions: SSL 3.0 and early TLS 1.0
    hello.extensions = bytes.vector16();
    if (!bytes.ok()) return std::nullopt;
    Bytes extensions(hello.extensions);
    while (extensions.left() != 0) {
        const std::uint16_t type = extensions.u16();
        const ByteSpan data = extensions.vector16();
        if (!extensions.ok()) return std::nullopt;
        read_extension(type, data, hello);
    }
    return hello;
}

std::optional<ServerHello> parse_server_hello(ByteSpan body) noexcept {
    Bytes bytes(body);
    ServerHello hello;
    hello.version = bytes.u16();
    bytes.skip(random_bytes);
    (void)bytes.vector8();  // session id
    hello.cipher_suite = bytes.u16();
    bytes.skip(1);  // compression method
    if (!bytes.ok() || hello.version >> 8 != version_ssl3 >> 8) return std::nullopt;
    if (bytes.left() == 0) return hello;
    Bytes extensions(bytes.vector16());
    if (!bytes.ok()) return std::nullopt;
    while (extensions.left() != 0) {
        const std::uint16_t type = extensions.u16();
        const ByteSpan data = extensions.vector16();
        if (!extensions.ok()) return std::nullopt;
        if (type == extension_supported_versions && data.size() == 2) hello.version = Bytes(data).u16();
        if (type == extension_alpn) read_alpn(data, hello.alpn);
    }
    return hello;
}

// Makes `buffer_` hold `bytes` bytes of the message, out of as many records as it takes.
Verdict HandshakeReader::fill(std::size_t bytes) noexcept {
    if (bytes > buffer_.size()) return Verdict::other;
    while (filled_ < bytes) {
        if (record_.empty()) {
            if (record_cut_) return Verdict::incomplete;
            if (!stream_.empty() && stream_[0] != record_handshake) return Verdict::other;
            if (stream_.size() >= 2 && stream_[1] != version_ssl3 >> 8) return Verdict::other;
            if (stream_.size() < 5) return Verdict::incomplete;
            Bytes header(stream_.subspan(3));
            const std::size_t length = header.u16();
            if (length == 0 || length > record_bytes_max) return Verdict::other;
            record_cut_ = length > stream_.size() - 5;
            record_ = stream_.subspan(5, std::min(length, stream_.size() - 5));
            stream_ = stream_.subspan(5 + record_.size());
            if (record_.empty()) return Verdict::incomplete;
        }
        const std::size_t part = std::min(record_.size(), bytes - filled_);
        std::memcpy(buffer_.data() + filled_, record_.data(), part);
        filled_ += part;
        record_ = record_.subspan(part);
    }
    return Verdict::match;
}

Verdict HandshakeReader::next(Message& message) noexcept {
    constexpr std::size_t header_bytes = 4;
    filled_ = 0;
    if (const Verdict verdict = fill(header_bytes); verdict != Verdict::match) return verdict;
    Bytes header(buffer_.first(header_bytes));
    message.type = header.u8();
    const std::size_t length = header.u24();
    if (const Verdict verdict = fill(header_bytes + length); verdict != Verdict::match) return verdict;
    message.body = buffer_.subspan(header_bytes, length);
    return Verdict::match;
}

ByteSpan first_certificate(ByteSpan body) noexcept {
    Bytes bytes(body);
    Bytes list(bytes.take(bytes.u24()));
    return list.take(list.u24());
}

}  // namespace egresswatch::inspect
