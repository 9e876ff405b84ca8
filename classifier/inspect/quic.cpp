// classifier/inspect/quic.cpp
// SPDX-License-Identifier: Apache-2.0
#include "classifier/inspect/quic.h"

#include <openssl/evp.h>
#include <openssl/hmac.h>

#include <algorithm>
#include <cstring>

namespace egresswatch::inspect {
namespace {

constexpr std::size_t key_bytes = 16;  // AEAD_AES_128_GCM
constexpr std::size_t iv_bytes = 12;
constexpr std::size_t tag_bytes = 16;
constexpr std::size_t sample_bytes = 16;
constexpr std::size_t secret_bytes = 32;  // SHA-256
constexpr std::size_t number_bytes_max = 4;

// What differs between the versions whose Initial packets can be read.
struct VersionRules {
    std::uint32_t version;
    std::uint8_t initial_type;  // of the two type bits
    std::array<std::uint8_t, 20> salt;
    std::string_view key_label, iv_label, header_label;
};
constexpr VersionRules version_rules[] = {
    // RFC 9001 section 5.2
    {quic_v1,
     0,
     {0x38, 0x76, 0x2c, 0xf7, 0xf5, 0x59, 0x34, 0xb3, 0x4d, 0x17,
      0x9a, 0xe6, 0xa4, 0xc8, 0x0c, 0xad, 0xcc, 0xbb, 0x7f, 0x0a},
     "quic key",
     "quic iv",
     "quic hp"},
    // RFC 9369 sections 3.2 and 3.3
    {quic_v2,
     1,
     {0x0d, 0xed, 0xe3, 0xde, 0xf7, 0x00, 0xa6, 0xdb, 0x81, 0x93,
      0x81, 0xbe, 0x6e, 0x26, 0x9d, 0xcb, 0xf9, 0xbd, 0x2e, 0xd9},
     "quicv2 key",
     "quicv2 iv",
     "quicv2 hp"},
    // draft-ietf-quic-tls-29 section 5.2
    {quic_draft29,
     0,
     {0xaf, 0xbf, 0xec, 0x28, 0x99, 0x93, 0xd2, 0x4c, 0x9e, 0x97,
      0x86, 0xf1, 0x9c, 0x61, 0x11, 0xe0, 0x43, 0x90, 0xa8, 0x99},
     "quic key",
     "quic iv",
     "quic hp"},
};

const VersionRules* rules_of(std::uint32_t version) noexcept {
    const auto* found = std::ranges::find(version_rules, version, &VersionRules::version);
    return found == std::end(version_rules) ? nullptr : found;
}

// Variable-length integer (RFC 9000 section 16).
std::uint64_t varint(Bytes& bytes) noexcept {
    const std::uint8_t first = bytes.u8();
    std::uint64_t value = first & 0x3f;
    for (int more = (1 << (first >> 6)) - 1; more > 0; --more) value = value << 8 | bytes.u8();
    return value;
}

using Secret = std::array<std::uint8_t, secret_bytes>;

bool hmac(ByteSpan key, ByteSpan data, Secret& out) noexcept {
    unsigned int length = 0;
    return HMAC(EVP_sha256(), key.data(), static_cast<int>(key.size()), data.data(), data.size(), out.data(),
                &length) != nullptr &&
           length == out.size();
}

// HKDF-Expand-Label (RFC 8446 section 7.1) with an empty context, for at most one block of SHA-256.
bool expand(const Secret& secret, std::string_view label, std::span<std::uint8_t> out) noexcept {
    std::array<std::uint8_t, 64> info{};
    std::size_t at = 0;
    const auto put = [&](std::string_view text) {
        std::memcpy(info.data() + at, text.data(), text.size());
        at += text.size();
    };
    info[at++] = 0;
    info[at++] = static_cast<std::uint8_t>(out.size());
    constexpr std::string_view prefix = "tls13 ";
    info[at++] = static_cast<std::uint8_t>(prefix.size() + label.size());
    put(prefix);
    put(label);
    info[at++] = 0;  // length of the context
    info[at++] = 1;  // RFC 5869: number of the block
    Secret block;
    if (!hmac(secret, {info.data(), at}, block)) return false;
    std::memcpy(out.data(), block.data(), out.size());
    return true;
}

}  // namespace

std::optional<QuicLongHeader> parse_quic_long_header(ByteSpan datagram) noexcept {
    Bytes bytes(datagram);
    const std::uint8_t first = bytes.u8();
    QuicLongHeader out;
    out.version = bytes.u32();
    if (!bytes.ok() || (first & 0x80) == 0) return std::nullopt;
    const VersionRules* rules = rules_of(out.version);
    if (rules == nullptr || (first & 0x40) == 0) return std::nullopt;
    const ByteSpan destination = bytes.vector8();
    const ByteSpan source = bytes.vector8();
    if (!bytes.ok() || destination.size() > QuicConnectionId::bytes_max ||
        source.size() > QuicConnectionId::bytes_max)
        return std::nullopt;
    std::ranges::copy(destination, out.destination.bytes.begin());
    out.destination.length = static_cast<std::uint8_t>(destination.size());
    out.initial = (first >> 4 & 3) == rules->initial_type;
    // Of the other types only Retry has no length; it is alone in its datagram.
    if ((first >> 4 & 3) == (rules->initial_type + 3) % 4) {
        out.packet = datagram;
        return out;
    }
    if (out.initial) (void)bytes.take(static_cast<std::size_t>(std::min<std::uint64_t>(varint(bytes), ~0u)));
    const std::uint64_t length = varint(bytes);
    if (!bytes.ok() || length > bytes.left()) return std::nullopt;
    out.number_offset = datagram.size() - bytes.left();
    out.packet = datagram.first(out.number_offset + static_cast<std::size_t>(length));
    return out;
}

// -------------------------------------------------------------------------------------------------- frames

// RFC 9000 section 12.4: PADDING, PING, ACK, CRYPTO and CONNECTION_CLOSE may be in an Initial packet.
bool collect_crypto(ByteSpan frames, Assembler& stream) noexcept {
    Bytes bytes(frames);
    while (bytes.left() != 0) {
        const std::uint64_t type = varint(bytes);
        switch (type) {
            case 0x00:  // PADDING
            case 0x01:  // PING
                break;
            case 0x02:  // ACK
            case 0x03: {
                (void)varint(bytes);
                (void)varint(bytes);
                std::uint64_t ranges = varint(bytes);
                (void)varint(bytes);
                for (; ranges > 0 && bytes.ok() && bytes.left() != 0; --ranges) {
                    (void)varint(bytes);
                    (void)varint(bytes);
                }
                for (int i = 0; type == 0x03 && i < 3; ++i) (void)varint(bytes);
                break;
            }
            case 0x06: {  // CRYPTO
                const std::uint64_t offset = varint(bytes);
                const std::uint64_t length = varint(bytes);
                if (!bytes.ok() || length > bytes.left()) return false;
                const ByteSpan data = bytes.take(static_cast<std::size_t>(length));
                if (offset > Assembler::bytes_max || !stream.add(static_cast<std::size_t>(offset), data))
                    return false;
                break;
            }
            case 0x1c:  // CONNECTION_CLOSE: nothing of interest follows
                return true;
            default:
                return false;
        }
        if (!bytes.ok()) return false;
    }
    return true;
}

// ---------------------------------------------------------------------------------------------- protection

struct QuicDecryptor::Contexts {
    EVP_CIPHER_CTX* header = EVP_CIPHER_CTX_new();
    EVP_CIPHER_CTX* payload = EVP_CIPHER_CTX_new();
    std::array<std::uint8_t, datagram_bytes_max> plain;
    // Keys of the connection id that was asked last: a hello over several packets derives them once.
    QuicConnectionId derived_for;
    std::uint32_t derived_version = 0;
    std::array<std::uint8_t, key_bytes> key, header_key;
    std::array<std::uint8_t, iv_bytes> iv;

    Contexts() = default;
    Contexts(const Contexts&) = delete;
    Contexts& operator=(const Contexts&) = delete;
    ~Contexts() {
        EVP_CIPHER_CTX_free(header);
        EVP_CIPHER_CTX_free(payload);
    }
    [[nodiscard]] bool derive(const VersionRules& rules, ByteSpan first) noexcept;
    [[nodiscard]] bool mask(ByteSpan sample, std::array<std::uint8_t, sample_bytes>& out) noexcept;
    [[nodiscard]] std::optional<ByteSpan> decrypt(std::uint64_t number, ByteSpan associated,
                                                  ByteSpan sealed) noexcept;
};

bool QuicDecryptor::Contexts::derive(const VersionRules& rules, ByteSpan first) noexcept {
    if (first.size() > QuicConnectionId::bytes_max) return false;
    if (derived_version == rules.version && std::ranges::equal(derived_for.span(), first)) return true;
    derived_version = 0;
    Secret initial, client;
    if (!hmac(rules.salt, first, initial) || !expand(initial, "client in", client)) return false;
    if (!expand(client, rules.key_label, key) || !expand(client, rules.iv_label, iv) ||
        !expand(client, rules.header_label, header_key))
        return false;
    std::ranges::copy(first, derived_for.bytes.begin());
    derived_for.length = static_cast<std::uint8_t>(first.size());
    derived_version = rules.version;
    return EVP_EncryptInit_ex(header, EVP_aes_128_ecb(), nullptr, header_key.data(), nullptr) == 1 &&
           EVP_DecryptInit_ex(payload, EVP_aes_128_gcm(), nullptr, key.data(), nullptr) == 1;
}

bool QuicDecryptor::Contexts::mask(ByteSpan sample, std::array<std::uint8_t, sample_bytes>& out) noexcept {
    std::array<std::uint8_t, sample_bytes * 2> block{};
    int length = 0;
    if (EVP_EncryptUpdate(header, block.data(), &length, sample.data(), sample_bytes) != 1) return false;
    std::copy_n(block.begin(), out.size(), out.begin());
    return true;
}

std::optional<ByteSpan> QuicDecryptor::Contexts::decrypt(std::uint64_t number, ByteSpan associated,
                                                         ByteSpan sealed) noexcept {
    if (sealed.size() < tag_bytes || sealed.size() > plain.size()) return std::nullopt;
    std::array<std::uint8_t, iv_bytes> nonce = iv;
    for (std::size_t i = 0; i < 8; ++i)
        nonce[iv_bytes - 1 - i] ^= static_cast<std::uint8_t>(number >> (8 * i));
    std::array<std::uint8_t, tag_bytes> tag;
    std::ranges::copy(sealed.last(tag_bytes), tag.begin());
    const ByteSpan text = sealed.first(sealed.size() - tag_bytes);
    int length = 0;
    int last = 0;
    if (EVP_DecryptInit_ex(payload, nullptr, nullptr, nullptr, nonce.data()) != 1 ||
        EVP_DecryptUpdate(payload, nullptr, &length, associated.data(),
                          static_cast<int>(associated.size())) != 1 ||
        EVP_DecryptUpdate(payload, plain.data(), &length, text.data(), static_cast<int>(text.size())) != 1 ||
        EVP_CIPHER_CTX_ctrl(payload, EVP_CTRL_AEAD_SET_TAG, tag_bytes, tag.data()) != 1 ||
        EVP_DecryptFinal_ex(payload, plain.data() + length, &last) != 1)
        return std::nullopt;
    return ByteSpan(plain.data(), static_cast<std::size_t>(length + last));
}

QuicDecryptor::QuicDecryptor() : contexts_(std::make_unique<Contexts>()) {}
QuicDecryptor::~QuicDecryptor() = default;

// RFC 9001 section 5.4: the sample begins four bytes behind the packet number's first, however long that is.
std::optional<ByteSpan> QuicDecryptor::open(const QuicLongHeader& header, ByteSpan first) noexcept {
    Contexts& c = *contexts_;
    const VersionRules* rules = rules_of(header.version);
    const ByteSpan packet = header.packet;
    if (rules == nullptr || !header.initial || c.header == nullptr || c.payload == nullptr)
        return std::nullopt;
    if (packet.size() < header.number_offset + number_bytes_max + sample_bytes) return std::nullopt;
    if (!c.derive(*rules, first)) return std::nullopt;
    std::array<std::uint8_t, sample_bytes> mask;
    if (!c.mask(packet.subspan(header.number_offset + number_bytes_max, sample_bytes), mask))
        return std::nullopt;

    // Connection ids, token length and token, length: a token may be long, and is authenticated with the
    // rest.
    std::array<std::uint8_t, 1500> head;
    const auto unmasked = static_cast<std::uint8_t>(packet[0] ^ (mask[0] & 0x0f));
    const std::size_t number_bytes = static_cast<std::size_t>(unmasked & 3) + 1;
    const std::size_t head_bytes = header.number_offset + number_bytes;
    if (head_bytes > head.size()) return std::nullopt;
    std::copy_n(packet.begin(), head_bytes, head.begin());
    head[0] = unmasked;
    std::uint64_t number = 0;
    for (std::size_t i = 0; i < number_bytes; ++i) {
        head[header.number_offset + i] ^= mask[1 + i];
        number = number << 8 | head[header.number_offset + i];
    }
    return c.decrypt(number, {head.data(), head_bytes}, packet.subspan(head_bytes));
}

// ------------------------------------------------------------------------------------------------ connection

void QuicClient::clear() noexcept {
    crypto_.clear();
    hello_.reset();
    version_ = 0;
    begun_ = false;
}

Verdict QuicClient::add(ByteSpan datagram, QuicDecryptor& decryptor) noexcept {
    constexpr std::size_t handshake_header_bytes = 4;
    bool any = false;
    while (!datagram.empty()) {
        const auto header = parse_quic_long_header(datagram);
        if (!header) break;
        datagram = datagram.subspan(header->packet.size());
        if (!header->initial) continue;
        any = true;
        // After a Retry, and for a new version, the keys come from the connection id of the new packet.
        auto frames = begun_ && header->version == version_ ? decryptor.open(*header, first_.span())
                                                            : std::optional<ByteSpan>();
        if (!frames) {
            frames = decryptor.open(*header, header->destination.span());
            if (!frames) continue;
            if (begun_) crypto_.clear();
            first_ = header->destination;
            version_ = header->version;
            begun_ = true;
        }
        (void)collect_crypto(*frames, crypto_);
    }
    if (!begun_) return any ? Verdict::incomplete : Verdict::other;
    const ByteSpan stream = crypto_.prefix();
    if (stream.size() < handshake_header_bytes) return Verdict::incomplete;
    Bytes bytes(stream);
    const std::uint8_t type = bytes.u8();
    const std::size_t length = bytes.u24();
    if (type != static_cast<std::uint8_t>(HandshakeType::client_hello)) return Verdict::other;
    if (length > Assembler::bytes_max - handshake_header_bytes) return Verdict::other;
    if (bytes.left() < length) return Verdict::incomplete;
    hello_ = parse_client_hello(bytes.take(length));
    return hello_ ? Verdict::match : Verdict::other;
}

}  // namespace egresswatch::inspect
