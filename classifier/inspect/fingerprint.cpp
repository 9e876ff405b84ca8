// classifier/inspect/fingerprint.cpp
// SPDX-License-Identifier: Apache-2.0
#include "classifier/inspect/fingerprint.h"

#include <openssl/evp.h>

#include <algorithm>
#include <cstdint>
#include <cstring>

namespace egresswatch::inspect {
namespace {

constexpr std::size_t values_max = hello_bytes_max / 2;  // two bytes each, all of the hello
constexpr std::string_view hex_digits = "0123456789abcdef";

// The values of a list, GREASE left out.
struct Values {
    std::array<std::uint16_t, values_max> list;
    std::size_t count = 0;

    void add(std::uint16_t value) noexcept {
        if (!is_grease(value) && count < list.size()) list[count++] = value;
    }
    [[nodiscard]] std::span<std::uint16_t> all() noexcept { return {list.data(), count}; }
};

// SHA-256 or MD5 over text that comes in parts.
class Digest {
public:
    explicit Digest(const EVP_MD* kind) noexcept : context_(EVP_MD_CTX_new()) {
        ok_ = context_ != nullptr && EVP_DigestInit_ex(context_, kind, nullptr) == 1;
    }
    ~Digest() { EVP_MD_CTX_free(context_); }
    Digest(const Digest&) = delete;
    Digest& operator=(const Digest&) = delete;

    void add(std::string_view text) noexcept {
        ok_ = ok_ && EVP_DigestUpdate(context_, text.data(), text.size()) == 1;
    }
    void add_hex(std::uint16_t value) noexcept {
        const char text[4] = {hex_digits[value >> 12], hex_digits[value >> 8 & 0xf],
                              hex_digits[value >> 4 & 0xf], hex_digits[value & 0xf]};
        add({text, sizeof text});
    }
    // As many hexadecimal digits as there is room for; zeros where OpenSSL would not.
    void finish(std::span<char> hex) noexcept {
        std::array<unsigned char, EVP_MAX_MD_SIZE> bytes{};
        unsigned int length = 0;
        ok_ = ok_ && EVP_DigestFinal_ex(context_, bytes.data(), &length) == 1;
        for (std::size_t i = 0; i < hex.size(); ++i)
            hex[i] = ok_ ? hex_digits[bytes[i / 2] >> (i % 2 == 0 ? 4 : 0) & 0xf] : '0';
    }

private:
    EVP_MD_CTX* context_;
    bool ok_ = false;
};

void add_list(Digest& digest, std::span<const std::uint16_t> values) noexcept {
    for (std::size_t i = 0; i < values.size(); ++i) {
        if (i != 0) digest.add(",");
        digest.add_hex(values[i]);
    }
}

void put_number(char* at, std::size_t value) noexcept {
    value = std::min<std::size_t>(value, 99);
    at[0] = static_cast<char>('0' + value / 10);
    at[1] = static_cast<char>('0' + value % 10);
}

std::string_view version_text(std::uint16_t version) noexcept {
    switch (version) {
        case 0x0304:
            return "13";
        case 0x0303:
            return "12";
        case 0x0302:
            return "11";
        case 0x0301:
            return "10";
        case 0x0300:
            return "s3";
        case 0x0002:
            return "s2";
        case 0xfeff:
            return "d1";
        case 0xfefd:
            return "d2";
        case 0xfefc:
            return "d3";
        default:
            return "00";
    }
}

// First and last character of the first protocol offered; of its hexadecimal form where one is no letter or
// digit.
void put_alpn(char* at, std::string_view alpn) noexcept {
    const auto plain = [](char c) {
        return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
    };
    at[0] = at[1] = '0';
    if (alpn.empty()) return;
    const char first = alpn.front();
    const char last = alpn.back();
    if (plain(first) && plain(last)) {
        at[0] = first;
        at[1] = last;
        return;
    }
    at[0] = hex_digits[static_cast<unsigned char>(first) >> 4];
    at[1] = hex_digits[static_cast<unsigned char>(last) & 0xf];
}

}  // namespace

Ja4 ja4_of(const ClientHello& hello, HelloTransport transport) noexcept {
    Ja4 out;
    out.fill('0');
    Values ciphers;
    for (Bytes list(hello.cipher_suites); list.left() >= 2;) ciphers.add(list.u16());
    Values extensions;  // those that are hashed
    std::size_t extension_count = 0;
    for (Bytes list(hello.extensions); list.left() != 0;) {
        const std::uint16_t type = list.u16();
        (void)list.vector16();
        if (is_grease(type)) continue;
        ++extension_count;
        if (type != extension_server_name && type != extension_alpn) extensions.add(type);
    }
    out[0] = static_cast<char>(transport);
    std::memcpy(&out[1], version_text(hello.version_max).data(), 2);
    out[3] = hello.has_server_name ? 'd' : 'i';
    put_number(&out[4], ciphers.count);
    put_number(&out[6], extension_count);
    put_alpn(&out[8], hello.alpn_first);
    out[10] = out[23] = '_';
    if (ciphers.count != 0) {
        std::ranges::sort(ciphers.all());
        Digest digest(EVP_sha256());
        add_list(digest, ciphers.all());
        digest.finish({&out[11], 12});
    }
    if (extension_count != 0) {
        std::ranges::sort(extensions.all());
        Digest digest(EVP_sha256());
        add_list(digest, extensions.all());
        Values signatures;
        for (Bytes list(hello.signature_algorithms); list.left() >= 2;) signatures.add(list.u16());
        if (signatures.count != 0) {
            digest.add("_");
            add_list(digest, signatures.all());
        }
        digest.finish({&out[24], 12});
    }
    return out;
}

Hassh hassh_of(std::string_view kex, std::string_view encryption, std::string_view mac,
               std::string_view compression) noexcept {
    Hassh out;
    Digest digest(EVP_md5());
    digest.add(kex);
    for (const std::string_view list : {encryption, mac, compression}) {
        digest.add(";");
        digest.add(list);
    }
    digest.finish(out);
    return out;
}

}  // namespace egresswatch::inspect
