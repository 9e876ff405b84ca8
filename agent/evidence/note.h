// agent/evidence/note.h - signed notes (c2sp.org/signed-note) with Ed25519 keys, and checkpoints
// (c2sp.org/tlog-checkpoint). SPDX-License-Identifier: Apache-2.0
//
// Signature algorithm: Ed25519 (RFC 8032), type byte 0x01; key id = first 4 bytes of
// SHA-256(name || LF || 0x01 || public key).   Fails: text that is no note gives a sentence, never half a
// note. Threads: pure functions and values.
#pragma once

#include <array>
#include <cstdint>
#include <expected>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "agent/evidence/merkle.h"

namespace egresswatch::evidence {

inline constexpr std::size_t note_bytes_max = 16 * 1024;
inline constexpr std::string_view signature_mark = "\xE2\x80\x94 ";  // em dash, space

using PublicKeyBytes = std::array<std::uint8_t, 32>;
using SignatureBytes = std::array<std::uint8_t, 64>;

[[nodiscard]] std::string to_base64(std::string_view bytes);
[[nodiscard]] std::optional<std::string> from_base64(std::string_view text);  // strict: RFC 4648 section 4
[[nodiscard]] std::string to_base64(const Hash& hash);
[[nodiscard]] std::optional<Hash> hash_from_base64(std::string_view text);

struct PublicKey {
    std::string name;
    PublicKeyBytes bytes{};
    [[nodiscard]] std::uint32_t id() const;
    [[nodiscard]] std::string vkey() const;  // <name>+<id, hex>+<base64(0x01 || key)>
    [[nodiscard]] static std::expected<PublicKey, std::string> parse_vkey(std::string_view text);
    [[nodiscard]] bool verify(std::string_view text, const SignatureBytes& signature) const;
    friend bool operator==(const PublicKey&, const PublicKey&) = default;
};

// Name or origin: not empty, no spaces, no plus, no control characters.
[[nodiscard]] bool is_key_name(std::string_view name);

// A private key. Its bytes are wiped from memory when it dies.
class SigningKey {
public:
    using Seed = std::array<std::uint8_t, 32>;
    [[nodiscard]] static std::optional<SigningKey> generate();
    [[nodiscard]] static std::optional<SigningKey> from_seed(const Seed& seed);
    SigningKey(SigningKey&& other) noexcept;
    SigningKey& operator=(SigningKey&& other) noexcept;
    SigningKey(const SigningKey&) = delete;
    SigningKey& operator=(const SigningKey&) = delete;
    ~SigningKey();
    [[nodiscard]] const PublicKeyBytes& public_bytes() const noexcept { return public_; }
    [[nodiscard]] const Seed& seed() const noexcept { return seed_; }
    [[nodiscard]] std::optional<SignatureBytes> sign(std::string_view text) const;

private:
    SigningKey() = default;
    Seed seed_{};
    PublicKeyBytes public_{};
};

struct NoteSignature {
    std::string name;
    std::uint32_t key_id = 0;
    std::string bytes;  // 64 for Ed25519; other algorithms are carried, not understood
};

struct Note {
    std::string text;  // ends with a line feed
    std::vector<NoteSignature> signatures;
    [[nodiscard]] std::string to_string() const;
    // True where a signature of that name and key id verifies.
    [[nodiscard]] bool signed_by(const PublicKey& key) const;
};

[[nodiscard]] std::expected<Note, std::string> parse_note(std::string_view text);
[[nodiscard]] std::optional<Note> sign_note(std::string text, const std::string& name, const SigningKey& key);

struct Checkpoint {
    std::string origin;
    std::uint64_t size = 0;
    Hash root{};
    std::vector<std::string> extensions;
    [[nodiscard]] std::string text() const;
    [[nodiscard]] static std::expected<Checkpoint, std::string> parse(std::string_view text);
};

}  // namespace egresswatch::evidence
