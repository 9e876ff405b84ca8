// rules/group_key.cpp
// SPDX-License-Identifier: Apache-2.0
#include "rules/group_key.h"

#include <algorithm>
#include <bit>
#include <cstring>

#include "classifier/sender.h"
#include "rules/limits.h"
#include "rules/names.h"
#include "rules/values.h"

namespace egresswatch::rules {

namespace {

constexpr std::uint8_t whole_address = 255;

// An address without the bits behind remote_prefix: for every update of a flow, so in words.
struct Words {
    std::uint64_t first, second;
};

constexpr Words kept_bits(unsigned bits) {
    std::array<std::uint8_t, 16> bytes{};
    for (unsigned i = 0; i < bits / 8; ++i) bytes[i] = 0xff;
    return std::bit_cast<Words>(bytes);
}

constexpr bool is_mapped(const Words& address) {
    constexpr auto start = std::bit_cast<Words>(
        std::array<std::uint8_t, 16>{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0, 0, 0, 0});
    constexpr Words mask = kept_bits(96);
    return address.first == 0 && (address.second & mask.second) == start.second;
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

KeyPlan::KeyPlan(std::span<const Field> by) {
    for (const Field field : by) {
        switch (field) {
            case Field::remote:
                parts_ |= remote;
                break;
            case Field::remote_prefix:
                parts_ |= remote_prefix;
                break;
            case Field::country:
                parts_ |= country;
                break;
            case Field::asn:
                parts_ |= asn;
                break;
            case Field::port:
                parts_ |= port;
                break;
            case Field::local_port:
                parts_ |= local_port;
                break;
            case Field::l4_proto:
                parts_ |= l4_proto;
                break;
            default:
                parts_ |= text;
                texts_.push_back(field);
        }
    }
    if ((parts_ & remote) != 0) parts_ &= ~std::uint32_t{remote_prefix};  // the address says it already
}

GroupKey KeyPlan::key_ahead(const FlowUpdate& flow, const ClassInfo& info) const noexcept {
    GroupKey key;
    if ((parts_ & remote) != 0) {
        std::memcpy(key.base.bytes.data(), flow.key.remote_addr, sizeof flow.key.remote_addr);
        key.length = whole_address;
    }
    if ((parts_ & remote_prefix) != 0) {
        static_assert(limits::remote_prefix_length4 % 8 == 0 && limits::remote_prefix_length6 % 8 == 0);
        constexpr Words kept4 = kept_bits(96 + limits::remote_prefix_length4);
        constexpr Words kept6 = kept_bits(limits::remote_prefix_length6);
        Words words;
        static_assert(sizeof words == sizeof flow.key.remote_addr);
        std::memcpy(&words, flow.key.remote_addr, sizeof words);
        const bool ipv4 = is_mapped(words);
        words.first &= ipv4 ? kept4.first : kept6.first;
        words.second &= ipv4 ? kept4.second : kept6.second;
        std::memcpy(key.base.bytes.data(), &words, sizeof words);
        key.length = ipv4 ? limits::remote_prefix_length4 : limits::remote_prefix_length6;
    }
    if ((parts_ & country) != 0 && info.country.size() == 2) key.country = {info.country[0], info.country[1]};
    if ((parts_ & port) != 0) key.port = flow.remote_port();
    if ((parts_ & local_port) != 0) key.local_port = flow.local_port();
    if ((parts_ & l4_proto) != 0) key.l4_proto = flow.key.l4_proto;
    return key;
}

void KeyPlan::add_rest(GroupKey& key, const Subject& subject, GroupHash hash) const {
    if ((parts_ & asn) != 0) key.asn = subject.asn();
    for (const Field field : texts_) {
        // Each text goes in with its field, so that equal texts of two fields are two groups.
        const std::string uid = field == Field::uid ? field_text(field, subject) : std::string();
        const std::string_view words = field == Field::uid ? uid : text_of(field, subject);
        key.text = fold(key.text ^ hash.of_text(words), 0x9216d5d98979fb1bull + static_cast<unsigned>(field));
    }
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
