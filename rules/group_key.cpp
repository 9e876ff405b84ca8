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

void KeyPlan::keep_address(unsigned bits4, unsigned bits6, std::uint8_t length4, std::uint8_t length6) {
    const AddressWords kept6 = first_bits(bits6), kept4 = first_bits(96 + bits4);
    address_ = {OfAddress{kept6[0], kept6[1], length6}, OfAddress{kept4[0], kept4[1], length4}};
}

KeyPlan::KeyPlan(std::span<const Field> by) {
    constexpr std::uint64_t port_bits = 0xffff;
    for (const Field field : by) {
        switch (field) {
            case Field::remote:  // says a prefix already
            case Field::remote_prefix:
                break;
            case Field::country:
                what_ |= std::uint64_t{0xffff} << 16;
                break;
            case Field::asn:
                parts_ |= asn;
                break;
            case Field::port:
                ports_ |= port_bits;
                break;
            case Field::local_port:
                ports_ |= port_bits << 16;
                break;
            case Field::l4_proto:
                what_ |= std::uint64_t{0xff} << 8;
                break;
            default:
                parts_ |= text;
                texts_.push_back(field);
        }
    }
    if (std::ranges::find(by, Field::remote) != by.end())
        keep_address(32, 128, whole_address, whole_address);
    else if (std::ranges::find(by, Field::remote_prefix) != by.end())
        keep_address(limits::remote_prefix_length4, limits::remote_prefix_length6,
                     limits::remote_prefix_length4, limits::remote_prefix_length6);
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
