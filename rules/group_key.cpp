// rules/group_key.cpp
// SPDX-License-Identifier: Apache-2.0
#include "rules/group_key.h"

#include <algorithm>
#include <cstring>

#include "classifier/sender.h"
#include "rules/limits.h"
#include "rules/names.h"
#include "rules/values.h"

namespace egresswatch::rules {

namespace {

constexpr std::uint8_t whole_address = 255;

// 64x64 to 128 bit multiplication, folded.
std::uint64_t fold(std::uint64_t a, std::uint64_t b) {
    const unsigned __int128 product = static_cast<unsigned __int128>(a) * b;
    return static_cast<std::uint64_t>(product) ^ static_cast<std::uint64_t>(product >> 64);
}

// Address::is_ipv4(), without a call: for every update of a flow.
bool is_mapped(const Address& address) {
    std::array<std::uint64_t, 2> words;
    std::memcpy(words.data(), address.bytes.data(), sizeof words);
    return words[0] == 0 && static_cast<std::uint32_t>(words[1]) == 0xffff0000;  // ::ffff:0:0
}

Prefix network_of(const Address& remote) {
    return Prefix::containing(
        remote, remote.is_ipv4() ? limits::remote_prefix_length4 : limits::remote_prefix_length6);
}

std::string_view text_of(Field field, const Subject& subject) {
    const FlowFacts& facts = subject.facts;
    switch (field) {
        case Field::name:
            return subject.name;
        case Field::registered_domain:
            return subject.name.empty() ? subject.name : registered_domain(subject.name);
        case Field::executable:
            return facts.executable;
        case Field::sha256:
            return facts.sha256;
        case Field::user:
            return facts.user;
        case Field::cgroup:
            return facts.cgroup;
        case Field::unit:
            return facts.unit;
        case Field::container:
            return facts.container;
        case Field::sender:
            return facts.sender == datapath::SENDER_UNSEEN ? std::string_view()
                                                           : sender_outcome_name(facts.sender);
        case Field::app:
            return facts.app;
        default:
            return {};
    }
}

}  // namespace

// Constants are the fraction of pi.
std::size_t GroupHash::operator()(const GroupKey& key) const noexcept {
    std::array<std::uint64_t, 5> words;
    std::memcpy(words.data(), &key, sizeof key);
    const std::uint64_t first =
        fold(words[0] ^ seed ^ 0x243f6a8885a308d3ull, words[1] ^ 0x13198a2e03707344ull ^ (seed << 1 | 1));
    const std::uint64_t second = fold(words[2] ^ first, words[3] ^ seed ^ 0xa4093822299f31d0ull);
    return fold(second ^ words[4], seed ^ 0x082efa98ec4e6c89ull);
}

std::uint64_t GroupHash::of_text(std::string_view text) const noexcept {
    std::uint64_t out = seed ^ 0x452821e638d01377ull;
    while (!text.empty()) {
        std::uint64_t word = 0;
        const std::size_t size = std::min<std::size_t>(text.size(), 8);
        std::memcpy(&word, text.data(), size);
        out = fold(out ^ word, 0xbe5466cf34e90c6cull ^ size ^ seed << 1);
        text.remove_prefix(size);
    }
    return out;
}

GroupKey group_key(std::span<const Field> by, const Subject& subject, GroupHash hash) {
    GroupKey key;
    const FlowUpdate& flow = subject.flow;
    for (const Field field : by) {
        switch (field) {
            case Field::remote:
                key.base = flow.remote();
                key.length = whole_address;
                break;
            case Field::remote_prefix: {
                if (key.length == whole_address) break;  // the address says it already
                static_assert(limits::remote_prefix_length4 % 8 == 0 &&
                              limits::remote_prefix_length6 % 8 == 0);
                key.base = flow.remote();
                const bool ipv4 = is_mapped(key.base);
                key.length = ipv4 ? limits::remote_prefix_length4 : limits::remote_prefix_length6;
                std::memset(key.base.bytes.data() + (ipv4 ? 12 : 0) + key.length / 8, 0,
                            (ipv4 ? 4 : 16) - key.length / 8);
                break;
            }
            case Field::country: {
                const Country& country = subject.info.country;
                if (country.size() == 2) key.country = {country[0], country[1]};
                break;
            }
            case Field::asn:
                key.asn = subject.asn();
                break;
            case Field::port:
                key.port = flow.remote_port();
                break;
            case Field::local_port:
                key.local_port = flow.local_port();
                break;
            case Field::l4_proto:
                key.l4_proto = flow.key.l4_proto;
                break;
            default: {
                // Each text goes in with its field, so that equal texts of two fields are two groups.
                const std::string uid = field == Field::uid ? field_text(field, subject) : std::string();
                const std::string_view text = field == Field::uid ? uid : text_of(field, subject);
                key.text =
                    fold(key.text ^ hash.of_text(text), 0x9216d5d98979fb1bull + static_cast<unsigned>(field));
            }
        }
    }
    return key;
}

std::string field_text(Field field, const Subject& subject) {
    const FlowUpdate& flow = subject.flow;
    switch (field) {
        case Field::remote:
            return flow.remote().to_string();
        case Field::remote_prefix:
            return network_of(flow.remote()).to_string();
        case Field::country:
            return subject.info.country;
        case Field::asn:
            return subject.asn() == 0 ? std::string() : std::to_string(subject.asn());
        case Field::port:
            return std::to_string(flow.remote_port());
        case Field::local_port:
            return std::to_string(flow.local_port());
        case Field::l4_proto:
            return l4_proto_name(flow.key.l4_proto);
        case Field::uid:
            return subject.facts.uid ? std::to_string(*subject.facts.uid) : std::string();
        default:
            return std::string(text_of(field, subject));
    }
}

std::vector<GroupField> group_fields(std::span<const Field> by, const Subject& subject) {
    std::vector<GroupField> out;
    for (const Field field : by) {
        std::string text = field_text(field, subject);
        out.push_back({std::string(field_info(field).name), text.empty() ? "unknown" : std::move(text)});
    }
    return out;
}

bool can_group(std::span<const Field> by, const Subject& subject) {
    return by.empty() || std::ranges::any_of(by, [&](Field field) {
               switch (field_info(field).source) {
                   case Source::given:
                       return true;
                   case Source::asn_data:
                       return static_cast<bool>(subject.around().asn_of);
                   case Source::names:
                       return subject.facts.has_names() || !subject.name.empty();
                   case Source::process:
                       return subject.facts.has_process();
               }
               return false;
           });
}

}  // namespace egresswatch::rules
