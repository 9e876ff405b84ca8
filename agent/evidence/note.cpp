// agent/evidence/note.cpp - see note.h.
// SPDX-License-Identifier: Apache-2.0
#include "agent/evidence/note.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/rand.h>

#include <algorithm>
#include <charconv>

namespace egresswatch::evidence {
namespace {

constexpr char type_ed25519 = 0x01;

struct FreeKey {
    void operator()(EVP_PKEY* key) const { EVP_PKEY_free(key); }
};
struct FreeContext {
    void operator()(EVP_MD_CTX* context) const { EVP_MD_CTX_free(context); }
};
using KeyPointer = std::unique_ptr<EVP_PKEY, FreeKey>;
using ContextPointer = std::unique_ptr<EVP_MD_CTX, FreeContext>;

const unsigned char* bytes_of(std::string_view text) {
    return reinterpret_cast<const unsigned char*>(text.data());
}

std::string hex32(std::uint32_t value) {
    static constexpr char digits[] = "0123456789abcdef";
    std::string out(8, '0');
    for (std::size_t i = 0; i < 8; i++) out[7 - i] = digits[(value >> (4 * i)) & 15];
    return out;
}

std::string big_endian(std::uint32_t value) {
    return {static_cast<char>(value >> 24), static_cast<char>(value >> 16), static_cast<char>(value >> 8),
            static_cast<char>(value)};
}

std::uint32_t from_big_endian(std::string_view bytes) {
    std::uint32_t out = 0;
    for (std::size_t i = 0; i < 4; i++) out = out << 8 | static_cast<std::uint8_t>(bytes[i]);
    return out;
}

std::optional<std::uint64_t> decimal(std::string_view text) {
    std::uint64_t value = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (error != std::errc{} || end != text.data() + text.size()) return std::nullopt;
    if (text.size() > 1 && text[0] == '0') return std::nullopt;
    return value;
}

std::vector<std::string_view> lines_of(std::string_view text) {  // each ended by a line feed
    std::vector<std::string_view> out;
    while (!text.empty()) {
        const auto end = std::min(text.find('\n'), text.size());
        out.push_back(text.substr(0, end));
        text.remove_prefix(std::min(end + 1, text.size()));
    }
    return out;
}

}  // namespace

std::string to_base64(std::string_view bytes) {
    std::string out(4 * ((bytes.size() + 2) / 3) + 1, '\0');
    const int size = EVP_EncodeBlock(reinterpret_cast<unsigned char*>(out.data()), bytes_of(bytes),
                                     static_cast<int>(bytes.size()));
    out.resize(static_cast<std::size_t>(size));
    return out;
}

std::optional<std::string> from_base64(std::string_view text) {
    if (text.size() % 4 != 0 || text.size() > note_bytes_max * 8) return std::nullopt;
    std::string out(text.size() / 4 * 3 + 1, '\0');
    const int size = EVP_DecodeBlock(reinterpret_cast<unsigned char*>(out.data()), bytes_of(text),
                                     static_cast<int>(text.size()));
    if (size < 0) return std::nullopt;
    std::size_t padding = 0;
    while (padding < 2 && padding < text.size() && text[text.size() - 1 - padding] == '=') padding++;
    out.resize(static_cast<std::size_t>(size) - padding);
    // EVP_DecodeBlock takes spaces around it and stray bits at the end: one text for one value only.
    if (to_base64(out) != text) return std::nullopt;
    return out;
}

std::string to_base64(const Hash& hash) {
    return to_base64(std::string_view(reinterpret_cast<const char*>(hash.data()), hash.size()));
}

std::optional<Hash> hash_from_base64(std::string_view text) {
    const auto bytes = from_base64(text);
    Hash out{};
    if (!bytes || bytes->size() != out.size()) return std::nullopt;
    std::copy(bytes->begin(), bytes->end(), out.begin());
    return out;
}

// ---- keys

bool is_key_name(std::string_view name) {
    return !name.empty() && std::ranges::all_of(name, [](char c) { return c > ' ' && c < 0x7f && c != '+'; });
}

std::uint32_t PublicKey::id() const {
    std::string text = name + "\n" + type_ed25519;
    text.append(bytes.begin(), bytes.end());
    const Hash hash = sha256(text);
    return from_big_endian({reinterpret_cast<const char*>(hash.data()), 4});
}

std::string PublicKey::vkey() const {
    std::string key(1, type_ed25519);
    key.append(bytes.begin(), bytes.end());
    return name + "+" + hex32(id()) + "+" + to_base64(key);
}

std::expected<PublicKey, std::string> PublicKey::parse_vkey(std::string_view text) {
    const auto first = text.find('+');
    const auto second = first == std::string_view::npos ? first : text.find('+', first + 1);
    if (second == std::string_view::npos)
        return std::unexpected("a verifier key has the form NAME+ID+KEY, see `egresswatch key`");
    PublicKey key;
    key.name = text.substr(0, first);
    const auto bytes = from_base64(text.substr(second + 1));
    if (!is_key_name(key.name) || !bytes || bytes->size() != 33 || (*bytes)[0] != type_ed25519)
        return std::unexpected("the verifier key does not hold an Ed25519 key");
    std::copy(bytes->begin() + 1, bytes->end(), key.bytes.begin());
    if (text.substr(first + 1, second - first - 1) != hex32(key.id()))
        return std::unexpected("the verifier key's id does not belong to its name and key: mistyped?");
    return key;
}

bool PublicKey::verify(std::string_view text, const SignatureBytes& signature) const {
    const KeyPointer key(EVP_PKEY_new_raw_public_key(EVP_PKEY_ED25519, nullptr, bytes.data(), bytes.size()));
    const ContextPointer context(EVP_MD_CTX_new());
    return key && context && EVP_DigestVerifyInit(context.get(), nullptr, nullptr, nullptr, key.get()) == 1 &&
           EVP_DigestVerify(context.get(), signature.data(), signature.size(), bytes_of(text), text.size()) ==
               1;
}

std::optional<SigningKey> SigningKey::generate() {
    Seed seed{};
    if (RAND_priv_bytes(seed.data(), static_cast<int>(seed.size())) != 1) return std::nullopt;
    auto key = from_seed(seed);
    OPENSSL_cleanse(seed.data(), seed.size());
    return key;
}

std::optional<SigningKey> SigningKey::from_seed(const Seed& seed) {
    const KeyPointer pair(EVP_PKEY_new_raw_private_key(EVP_PKEY_ED25519, nullptr, seed.data(), seed.size()));
    SigningKey key;
    std::size_t size = key.public_.size();
    if (!pair || EVP_PKEY_get_raw_public_key(pair.get(), key.public_.data(), &size) != 1) return std::nullopt;
    key.seed_ = seed;
    return key;
}

SigningKey::SigningKey(SigningKey&& other) noexcept : seed_(other.seed_), public_(other.public_) {
    OPENSSL_cleanse(other.seed_.data(), other.seed_.size());
}

SigningKey& SigningKey::operator=(SigningKey&& other) noexcept {
    if (this == &other) return *this;
    seed_ = other.seed_;
    public_ = other.public_;
    OPENSSL_cleanse(other.seed_.data(), other.seed_.size());
    return *this;
}

SigningKey::~SigningKey() {
    OPENSSL_cleanse(seed_.data(), seed_.size());
}

std::optional<SignatureBytes> SigningKey::sign(std::string_view text) const {
    const KeyPointer key(EVP_PKEY_new_raw_private_key(EVP_PKEY_ED25519, nullptr, seed_.data(), seed_.size()));
    const ContextPointer context(EVP_MD_CTX_new());
    SignatureBytes out{};
    std::size_t size = out.size();
    if (!key || !context || EVP_DigestSignInit(context.get(), nullptr, nullptr, nullptr, key.get()) != 1 ||
        EVP_DigestSign(context.get(), out.data(), &size, bytes_of(text), text.size()) != 1)
        return std::nullopt;
    return out;
}

// ---- notes

std::string Note::to_string() const {
    std::string out = text + "\n";
    for (const auto& signature : signatures)
        out += std::string(signature_mark) + signature.name + " " +
               to_base64(big_endian(signature.key_id) + signature.bytes) + "\n";
    return out;
}

bool Note::signed_by(const PublicKey& key) const {
    const std::uint32_t id = key.id();
    for (const auto& signature : signatures) {
        if (signature.name != key.name || signature.key_id != id || signature.bytes.size() != 64) continue;
        SignatureBytes bytes;
        std::copy(signature.bytes.begin(), signature.bytes.end(), bytes.begin());
        return key.verify(text, bytes);
    }
    return false;
}

std::expected<Note, std::string> parse_note(std::string_view text) {
    if (text.size() > note_bytes_max) return std::unexpected("longer than a signed note may be");
    for (const char c : text)
        if (static_cast<unsigned char>(c) < 0x20 && c != '\n')
            return std::unexpected("a control character in a signed note");
    const auto split = text.rfind("\n\n");
    if (split == std::string_view::npos || !text.ends_with('\n'))
        return std::unexpected("no signed note: text, an empty line, and signature lines are expected");
    Note note;
    note.text = text.substr(0, split + 1);
    for (auto line : lines_of(text.substr(split + 2))) {
        if (!line.starts_with(signature_mark)) return std::unexpected("a line that is no signature");
        line.remove_prefix(signature_mark.size());
        const auto space = line.find(' ');
        const auto bytes =
            space == std::string_view::npos ? std::nullopt : from_base64(line.substr(space + 1));
        if (!bytes || bytes->size() < 5 || space == 0) return std::unexpected("a damaged signature line");
        note.signatures.push_back(
            {std::string(line.substr(0, space)), from_big_endian(*bytes), bytes->substr(4)});
    }
    if (note.signatures.empty()) return std::unexpected("no signature");
    return note;
}

std::optional<Note> sign_note(std::string text, const std::string& name, const SigningKey& key) {
    const auto signature = key.sign(text);
    if (!signature) return std::nullopt;
    Note note{std::move(text), {}};
    note.signatures.push_back(
        {name, PublicKey{name, key.public_bytes()}.id(), std::string(signature->begin(), signature->end())});
    return note;
}

std::string Checkpoint::text() const {
    std::string out = origin + "\n" + std::to_string(size) + "\n" + to_base64(root) + "\n";
    for (const auto& line : extensions) out += line + "\n";
    return out;
}

std::expected<Checkpoint, std::string> Checkpoint::parse(std::string_view text) {
    const auto lines = lines_of(text);
    if (lines.size() < 3 || !text.ends_with('\n'))
        return std::unexpected("a checkpoint has at least three lines: origin, size, root");
    Checkpoint out;
    out.origin = lines[0];
    const auto size = decimal(lines[1]);
    const auto root = hash_from_base64(lines[2]);
    if (out.origin.empty() || !size || !root)
        return std::unexpected("the lines of a checkpoint are origin, size in decimal, root in base64");
    out.size = *size;
    out.root = *root;
    for (std::size_t i = 3; i < lines.size(); i++) {
        if (lines[i].empty()) return std::unexpected("an empty extension line");
        out.extensions.emplace_back(lines[i]);
    }
    return out;
}

}  // namespace egresswatch::evidence
