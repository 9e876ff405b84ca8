// rules/group_key.h - the group of a flow under `by`: a key of fixed size, and its values as text. Internal.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
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
        std::array<std::uint64_t, 5> a, b;
        std::memcpy(a.data(), this, sizeof a);
        std::memcpy(b.data(), &other, sizeof b);
        return ((a[0] ^ b[0]) | (a[1] ^ b[1]) | (a[2] ^ b[2]) | (a[3] ^ b[3]) | (a[4] ^ b[4])) == 0;
    }
};
static_assert(sizeof(GroupKey) == 40, "hashed as five words: no padding");

// Keyed: remote addresses are chosen by the other side.
struct GroupHash {
    std::uint64_t seed = 0;
    [[nodiscard]] std::size_t operator()(const GroupKey& key) const noexcept;
    [[nodiscard]] std::uint64_t of_text(std::string_view text) const noexcept;
};

[[nodiscard]] GroupKey group_key(std::span<const Field> by, const Subject& subject, GroupHash hash);
[[nodiscard]] std::vector<GroupField> group_fields(std::span<const Field> by, const Subject& subject);
// Whether the subject knows at least one of the fields, as far as they need a source: a group of what nobody
// can tell apart would be the whole host.
[[nodiscard]] bool can_group(std::span<const Field> by, const Subject& subject);
// The text of a field of a flow; empty where it is unknown.
[[nodiscard]] std::string field_text(Field field, const Subject& subject);

}  // namespace egresswatch::rules
