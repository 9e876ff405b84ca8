// rules/group_key.h - the group of a flow under `by`: a key of fixed size, and its values as text. Internal.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "classifier/address.h"
#include "rules/finding.h"
#include "rules/limits.h"
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

    // In words, and each by itself: for every update of a flow.
    [[nodiscard]] std::uint64_t word(std::size_t index) const noexcept {
        std::uint64_t out;
        std::memcpy(&out, reinterpret_cast<const char*>(this) + index * sizeof out, sizeof out);
        return out;
    }
    void set_word(std::size_t index, std::uint64_t value) noexcept {
        std::memcpy(reinterpret_cast<char*>(this) + index * sizeof value, &value, sizeof value);
    }
    bool operator==(const GroupKey& other) const noexcept {
        const auto differ = [&](std::size_t index) { return word(index) ^ other.word(index); };
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
        const std::uint64_t first = fold(key.word(0) ^ seed ^ 0x243f6a8885a308d3ull,
                                         key.word(1) ^ 0x13198a2e03707344ull ^ (seed << 1 | 1));
        const std::uint64_t second = fold(key.word(2) ^ first, key.word(3) ^ seed ^ 0xa4093822299f31d0ull);
        return fold(second ^ key.word(4), seed ^ 0x082efa98ec4e6c89ull);
    }
    [[nodiscard]] std::uint64_t of_text(std::string_view text) const noexcept;
};

// An address in two words, and which bits of them lie in its first `bits`.
using AddressWords = std::array<std::uint64_t, 2>;
[[nodiscard]] constexpr AddressWords first_bits(unsigned bits) {
    std::array<std::uint8_t, 16> bytes{};
    for (unsigned i = 0; i < bits / 8; ++i) bytes[i] = 0xff;
    return std::bit_cast<AddressWords>(bytes);
}
[[nodiscard]] constexpr bool is_mapped(std::uint64_t first, std::uint64_t second) {
    constexpr auto start = std::bit_cast<AddressWords>(
        std::array<std::uint8_t, 16>{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0, 0, 0, 0});
    return (first | ((second & first_bits(96)[1]) ^ start[1])) == 0;
}

// `by`, read once: which parts of a key it wants.
class KeyPlan {
public:
    KeyPlan() = default;
    explicit KeyPlan(std::span<const Field> by);

    [[nodiscard]] GroupKey key(const Subject& subject, GroupHash hash) const {
        GroupKey out;
        set_key_ahead(out, subject.flow, subject.info);
        if (!is_known_ahead()) add_rest(out, subject, hash);
        return out;
    }
    // Whether headers and class are all of it.
    [[nodiscard]] bool is_known_ahead() const noexcept { return (parts_ & (asn | text)) == 0; }
    // In line, and written in whole words: what is read as a word soon after it was written in parts waits
    // until they have arrived in the cache. By masks: rules of different `by` take turns, and a CPU would
    // guess which.
    void set_key_ahead(GroupKey& key, const FlowUpdate& flow, const ClassInfo& info) const noexcept {
        static_assert(offsetof(GroupKey, length) == 16 && offsetof(GroupKey, l4_proto) == 17 &&
                      offsetof(GroupKey, country) == 18 && offsetof(GroupKey, port) == 24 &&
                      offsetof(GroupKey, local_port) == 26);
        std::uint64_t first = 0, second = 0;
        std::memcpy(&first, flow.key.remote_addr, sizeof first);
        std::memcpy(&second, flow.key.remote_addr + sizeof first, sizeof second);
        const OfAddress& kept = address_[is_mapped(first, second)];
        std::uint16_t letters = 0;
        if (info.country.size() == sizeof letters) [[likely]]
            std::memcpy(&letters, info.country.data(), sizeof letters);
        const std::uint64_t what = std::uint64_t{flow.key.l4_proto} << 8 | std::uint64_t{letters} << 16;
        const std::uint64_t ports = flow.remote_port() | std::uint64_t{flow.local_port()} << 16;
        key.set_word(0, first & kept.first);
        key.set_word(1, second & kept.second);
        key.set_word(2, (what & what_) | kept.length);
        key.set_word(3, ports & ports_);
        key.set_word(4, 0);
    }

private:
    enum Part : std::uint32_t { asn = 1, text = 2 };
    // Of an address of one family: the bits that the key keeps of it, and GroupKey::length.
    struct OfAddress {
        std::uint64_t first = 0, second = 0;
        std::uint64_t length = 0;
    };
    void keep_address(unsigned bits4, unsigned bits6, std::uint8_t length4, std::uint8_t length6);
    void add_rest(GroupKey& key, const Subject& subject, GroupHash hash) const;

    static_assert(limits::remote_prefix_length4 % 8 == 0 && limits::remote_prefix_length6 % 8 == 0);
    static constexpr std::uint8_t whole_address = 255;

    std::array<OfAddress, 2> address_;  // IPv6, IPv4
    std::uint64_t what_ = 0;            // of the key's third word, but for the length
    std::uint64_t ports_ = 0;           // of its fourth
    std::uint32_t parts_ = 0;           // what add_rest() adds
    std::vector<Field> texts_;          // in their order
};

[[nodiscard]] std::vector<GroupField> group_fields(std::span<const Field> by, const Subject& subject);
// Whether the subject knows at least one of the fields, as far as they need a source: a group of what nobody
// can tell apart would be the whole host.
[[nodiscard]] bool can_group(std::span<const Field> by, const Subject& subject);
// The text of a field of a flow; empty where it is unknown.
[[nodiscard]] std::string field_text(Field field, const Subject& subject);

}  // namespace egresswatch::rules
