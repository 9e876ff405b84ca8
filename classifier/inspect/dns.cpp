// classifier/inspect/dns.cpp
// SPDX-License-Identifier: Apache-2.0
#include "classifier/inspect/dns.h"

#include <algorithm>
#include <cstring>

namespace egresswatch::inspect {
namespace {

constexpr std::size_t header_bytes = 12;
constexpr std::uint16_t class_internet = 1;
constexpr std::uint16_t rcode_no_error = 0;
constexpr std::uint16_t rcode_no_such_name = 3;

}  // namespace

void DnsName::append(std::uint8_t byte) noexcept {
    if (byte >= 'A' && byte <= 'Z') byte = static_cast<std::uint8_t>(byte + ('a' - 'A'));
    if (byte > 0x20 && byte < 0x7f && byte != '.' && byte != '\\') {
        text_[length_++] = static_cast<char>(byte);
        return;
    }
    text_[length_++] = '\\';
    text_[length_++] = static_cast<char>('0' + byte / 100);
    text_[length_++] = static_cast<char>('0' + byte / 10 % 10);
    text_[length_++] = static_cast<char>('0' + byte % 10);
}

// A pointer leads to an earlier place than the one it stands at, always (RFC 1035 section 4.1.4: "a prior
// occurance"): so chains end.
std::size_t DnsName::read(ByteSpan message, std::size_t offset) noexcept {
    length_ = 0;
    std::size_t taken = 0;
    std::size_t at = offset;
    std::size_t earliest = offset;
    std::size_t wire_bytes = 1;  // the root's
    bool followed = false;
    while (at < message.size()) {
        const std::uint8_t length = message[at];
        if (length >= 0xc0) {
            if (at + 1 >= message.size()) return 0;
            const std::size_t to = static_cast<std::size_t>(length & 0x3f) << 8 | message[at + 1];
            if (to >= earliest) return 0;
            if (!followed) taken = at + 2 - offset;
            followed = true;
            earliest = to;
            at = to;
            continue;
        }
        if (length > 63) return 0;
        if (length == 0) return followed ? taken : at + 1 - offset;
        wire_bytes += std::size_t{1} + length;
        if (wire_bytes > wire_bytes_max || length >= message.size() - at) return 0;
        if (length_ != 0) text_[length_++] = '.';
        for (const std::uint8_t byte : message.subspan(at + 1, length)) append(byte);
        at += std::size_t{1} + length;
    }
    return 0;
}

DnsReader::DnsReader(ByteSpan message) noexcept : message_(message), at_(header_bytes) {
    Bytes bytes(message);
    header_.id = bytes.u16();
    const std::uint16_t flags = bytes.u16();
    header_.response = (flags & 0x8000) != 0;
    header_.opcode = static_cast<std::uint8_t>(flags >> 11 & 0xf);
    header_.truncated = (flags & 0x0200) != 0;
    header_.rcode = flags & 0xf;
    header_.questions = bytes.u16();
    header_.answers = bytes.u16();
    header_.authorities = bytes.u16();
    header_.additionals = bytes.u16();
    ok_ = bytes.ok();
    if (!ok_) return;
    questions_left_ = header_.questions;
    records_left_ = std::uint32_t{header_.answers} + header_.authorities + header_.additionals;
}

bool DnsReader::next(DnsQuestion& question) noexcept {
    if (!ok_ || questions_left_ == 0) return false;
    const std::size_t taken = question.name.read(message_, at_);
    Bytes bytes(message_.subspan(std::min(message_.size(), at_ + taken)));
    question.type = bytes.u16();
    bytes.skip(2);
    ok_ = taken != 0 && bytes.ok();
    at_ += taken + 4;
    --questions_left_;
    return ok_;
}

bool DnsReader::next(DnsRecord& record) noexcept {
    for (DnsQuestion skipped; questions_left_ != 0;)
        if (!next(skipped)) return false;
    if (!ok_ || records_left_ == 0) return false;
    if (records_read_ >= records_max) {
        cut_ = true;
        return false;
    }
    const std::size_t taken = record.owner.read(message_, at_);
    Bytes bytes(message_.subspan(std::min(message_.size(), at_ + taken)));
    record.type = bytes.u16();
    record.record_class = bytes.u16();
    record.ttl_s = bytes.u32();
    record.data = bytes.vector16();
    ok_ = taken != 0 && bytes.ok();
    if (!ok_) return false;
    at_ = message_.size() - bytes.left();
    record.data_offset = at_ - record.data.size();
    record.section = records_read_ < header_.answers ? DnsSection::answer
                     : records_read_ < std::size_t{header_.answers} + header_.authorities
                         ? DnsSection::authority
                         : DnsSection::additional;
    ++records_read_;
    --records_left_;
    // RFC 2181 section 8: a time to live with the highest bit set is zero. RFC 6891 section 6.1.3: the upper
    // eight bits of the response code are in OPT.
    if (record.type == dns_type_opt)
        header_.rcode = static_cast<std::uint16_t>((header_.rcode & 0xf) | (record.ttl_s >> 24) << 4);
    else if ((record.ttl_s & 0x80000000u) != 0)
        record.ttl_s = 0;
    return true;
}

bool DnsReader::address_of(const DnsRecord& record, Address& address) noexcept {
    if (record.record_class != class_internet) return false;
    if (record.type == dns_type_a && record.data.size() == 4) {
        Bytes bytes(record.data);
        address = Address::from_ipv4(bytes.u32());
        return true;
    }
    if (record.type == dns_type_aaaa && record.data.size() == 16) {
        address = Address::from_bytes(record.data.data());
        return true;
    }
    return false;
}

bool DnsReader::target_of(const DnsRecord& record, DnsName& target) const noexcept {
    if (record.type != dns_type_cname && record.type != dns_type_dname && record.type != dns_type_ptr)
        return false;
    // The name has to lie within the record, though what it is compressed with may lie before it.
    const std::size_t taken =
        target.read(message_.first(record.data_offset + record.data.size()), record.data_offset);
    return taken == record.data.size() && taken != 0;
}

namespace {

// The aliases that lead on from the question. Servers write them in order, mostly; an alias out of order
// starts another pass over the answer, as long as a pass adds one.
class AliasChain {
public:
    explicit AliasChain(const DnsName& asked) noexcept : count_(1) { links_[0].name = asked; }

    // True: a link that was not there yet.
    bool add(std::string_view owner, const DnsName& target, std::uint32_t ttl_s) noexcept;
    [[nodiscard]] bool has(std::string_view name, std::uint32_t& ttl_s) const noexcept {
        for (std::size_t i = 0; i < count_; ++i) {
            if (links_[i].name.text() != name) continue;
            ttl_s = links_[i].ttl_s;
            return true;
        }
        return false;
    }

private:
    struct Entry {
        DnsName name;
        std::uint32_t ttl_s = 0xffffffff;
    };
    std::array<Entry, dns_chain_max + 1> links_;
    std::size_t count_;
};

bool AliasChain::add(std::string_view owner, const DnsName& target, std::uint32_t ttl_s) noexcept {
    std::uint32_t so_far = 0;
    std::uint32_t ignored = 0;
    if (count_ == links_.size() || !has(owner, so_far) || has(target.text(), ignored)) return false;
    links_[count_].name = target;
    links_[count_].ttl_s = std::min(so_far, ttl_s);
    ++count_;
    return true;
}

bool follow_aliases(ByteSpan message, AliasChain& chain) noexcept {
    for (std::size_t pass = 0; pass < dns_chain_max; ++pass) {
        DnsReader reader(message);
        DnsRecord record;
        DnsName target;
        bool added = false;
        while (reader.next(record) && record.section == DnsSection::answer)
            if (record.type == dns_type_cname && reader.target_of(record, target))
                added = chain.add(record.owner.text(), target, record.ttl_s) || added;
        if (!reader.ok()) return false;
        if (!added) return true;
    }
    return true;
}

}  // namespace

bool read_bindings(ByteSpan message, DnsBindings& to) noexcept {
    DnsReader reader(message);
    DnsQuestion question;
    const DnsHeader& header = reader.header();
    // One question is all that servers answer (RFC 9619).
    if (!reader.ok() || !header.response || header.opcode != 0 || header.questions != 1 ||
        !reader.next(question))
        return false;
    AliasChain chain(question.name);
    bool whole = follow_aliases(message, chain);
    DnsRecord record;
    bool any = false;
    while (reader.next(record)) {
        Address address;
        std::uint32_t ttl_s = 0;
        if (record.section != DnsSection::answer || !DnsReader::address_of(record, address) ||
            !chain.has(record.owner.text(), ttl_s))
            continue;
        any = true;
        to.on_binding(question.name.text(), address, std::min(ttl_s, record.ttl_s));
    }
    whole = whole && reader.ok();
    const bool address_asked = question.type == dns_type_a || question.type == dns_type_aaaa;
    if (whole && !any && !header.truncated && address_asked &&
        (header.rcode == rcode_no_error || header.rcode == rcode_no_such_name))
        to.on_no_address(question.name.text(), header.rcode);
    return whole;
}

}  // namespace egresswatch::inspect
