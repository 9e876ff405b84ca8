// rules/group_key.h - the group of a flow under `by`: a key of fixed size, and its values as text. Internal.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "classifier/address.h"
#include "rules/finding.h"
#include "rules/matcher.h"

namespace egresswatch::rules {

// The values of a group's fields. A field that the rule does not group by is zero.
struct GroupKey {
    Address base;
    std::uint8_t length = 0;  // of `base` as a prefix, 255: an address
    std::uint8_t l4_proto = 0;
    std::array<char, 2> country{};
    std::uint32_t asn = 0;
    std::uint16_t port = 0;
    std::uint16_t local_port = 0;
    std::uint32_t unused = 0;
    std::uint64_t text = 0;  // keyed hash of process and names

    // In words: for every update of a flow.
    bool operator==(const GroupKey& other) const noexcept {
        const auto differ = [&](std::size_t word) {
            std::uint64_t a, b;
            std::memcpy(&a, reinterpret_cast<const char*>(this) + word * sizeof a, sizeof a);
            std::memcpy(&b, reinterpret_cast<const char*>(&other) + word * sizeof b, sizeof b);
            return a ^ b;
        };
        return (differ(0) | differ(1) | differ(2) | differ(3) | differ(4)) == 0;
    }
};
static_assert(sizeof(GroupKey) == 40, "hashed as five words: no padding");

// 64x64 to 128 bit multiplication, folded.
[[nodiscard]] inline std::uint64_t fold(std::uint64_t a, std::uint64_t b) noexcept {
    const unsigned __int128 product = static_cast<unsigned __int128>(a) * b;
    return static_cast<std::uint64_t>(product) ^ static_cast<std::uint64_t>(product >> 64);
}

// Keyed: remote addresses are chosen by the other side. Constants are the fraction of pi.
struct GroupHash {
    std::uint64_t seed = 0;
    [[nodiscard]] std::size_t operator()(const GroupKey& key) const noexcept {
        std::array<std::uint64_t, 5> words;
        std::memcpy(words.data(), &key, sizeof key);
        const std::uint64_t first =
            fold(words[0] ^ seed ^ 0x243f6a8885a308d3ull, words[1] ^ 0x13198a2e03707344ull ^ (seed << 1 | 1));
        const std::uint64_t second = fold(words[2] ^ first, words[3] ^ seed ^ 0xa4093822299f31d0ull);
        return fold(second ^ words[4], seed ^ 0x082efa98ec4e6c89ull);
    }
    [[nodiscard]] std::uint64_t of_text(std::string_view text) const noexcept;
};

// `by`, read once: which parts of a key it wants.
class KeyPlan {
public:
    KeyPlan() = default;
    explicit KeyPlan(std::span<const Field> by);

    [[nodiscard]] GroupKey key(const Subject& subject, GroupHash hash) const {
        GroupKey out = key_ahead(subject.flow, subject.info);
        if (!is_known_ahead()) add_rest(out, subject, hash);
        return out;
    }
    // Whether headers and class are all of it.
    [[nodiscard]] bool is_known_ahead() const noexcept { return (parts_ & (asn | text)) == 0; }
    [[nodiscard]] GroupKey key_ahead(const FlowUpdate& flow, const ClassInfo& info) const noexcept;

private:
    enum Part : std::uint32_t {
        remote = 1,
        remote_prefix = 2,
        country = 4,
        asn = 8,
        port = 16,
        local_port = 32,
        l4_proto = 64,
        text = 128
    };
    void add_rest(GroupKey& key, const Subject& subject, GroupHash hash) const;

    std::uint32_t parts_ = 0;
    std::vector<Field> texts_;  // in their order
};

[[nodiscard]] std::vector<GroupField> group_fields(std::span<const Field> by, const Subject& subject);
// Whether the subject knows at least one of the fields, as far as they need a source: a group of what nobody
// can tell apart would be the whole host.
[[nodiscard]] bool can_group(std::span<const Field> by, const Subject& subject);
// The text of a field of a flow; empty where it is unknown.
[[nodiscard]] std::string field_text(Field field, const Subject& subject);

}  // namespace egresswatch::rules
