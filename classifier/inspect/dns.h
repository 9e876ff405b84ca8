// classifier/inspect/dns.h - DNS messages: questions, answers, and which name an address was asked under.
//
// In:      one message (RFC 1035 section 4; over TCP without its length prefix, RFC 7766 section 8).
// Out:     header, questions and records one by one, names in presentation form.
// Fails:   a message that ends early or is nonsense: ok() turns false, what came before stands.
// Limits:  names of 255 wire bytes (RFC 1035 section 2.3.4); records_max records a message, chain_max aliases
//          in a chain: what lies beyond is counted by its caller as cut().
// Threads: any. No allocation, no exceptions.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "classifier/address.h"
#include "classifier/inspect/bytes.h"

namespace egresswatch::inspect {

// Lower case, labels joined by dots, no dot at the end; the root is the empty name. Bytes other than
// printable ASCII, and dots and backslashes within a label, stand as \DDD (RFC 1035 section 5.1).
class DnsName {
public:
    static constexpr std::size_t wire_bytes_max = 255;
    static constexpr std::size_t text_bytes_max = 4 * wire_bytes_max;

    [[nodiscard]] std::string_view text() const noexcept { return {text_.data(), length_}; }
    // Reads the name at `offset` of the message, compressed or not; the bytes it takes there, 0: nonsense.
    [[nodiscard]] std::size_t read(ByteSpan message, std::size_t offset) noexcept;

private:
    void append(std::uint8_t byte) noexcept;

    std::array<char, text_bytes_max> text_;
    std::size_t length_ = 0;
};

// IANA registry "DNS Parameters"; those that mean something here.
enum DnsType : std::uint16_t {
    dns_type_a = 1,
    dns_type_cname = 5,
    dns_type_ptr = 12,
    dns_type_txt = 16,
    dns_type_aaaa = 28,
    dns_type_dname = 39,
    dns_type_opt = 41,  // EDNS(0), RFC 6891
    dns_type_https = 65
};

struct DnsHeader {
    std::uint16_t id = 0;
    bool response = false;
    std::uint8_t opcode = 0;  // 0: query
    bool truncated = false;   // the whole answer has to be asked for over TCP
    std::uint16_t rcode = 0;  // 3: no such name; with the upper bits of EDNS once records() has met them
    std::uint16_t questions = 0, answers = 0, authorities = 0, additionals = 0;
};

struct DnsQuestion {
    DnsName name;
    std::uint16_t type = 0;
};

enum class DnsSection : std::uint8_t { answer, authority, additional };

struct DnsRecord {
    DnsName owner;
    DnsSection section = DnsSection::answer;
    std::uint16_t type = 0;
    std::uint16_t record_class = 0;  // 1: Internet; of OPT the payload size it takes
    std::uint32_t ttl_s = 0;
    ByteSpan data;
    std::size_t data_offset = 0;  // in the message: names in `data` may be compressed
};

class DnsReader {
public:
    static constexpr std::size_t records_max = 512;

    explicit DnsReader(ByteSpan message) noexcept;

    // False: not a DNS message as far as it was read, or one that ends early.
    [[nodiscard]] bool ok() const noexcept { return ok_; }
    [[nodiscard]] bool cut() const noexcept { return cut_; }  // more records than records_max
    [[nodiscard]] const DnsHeader& header() const noexcept { return header_; }
    // In order: all questions, then records; false: none left.
    [[nodiscard]] bool next(DnsQuestion& question) noexcept;
    [[nodiscard]] bool next(DnsRecord& record) noexcept;
    // The address of an A or AAAA record of class Internet.
    [[nodiscard]] static bool address_of(const DnsRecord& record, Address& address) noexcept;
    // The name that a CNAME, DNAME or PTR record points to.
    [[nodiscard]] bool target_of(const DnsRecord& record, DnsName& target) const noexcept;

private:
    ByteSpan message_;
    std::size_t at_ = 0;
    DnsHeader header_;
    std::uint32_t questions_left_ = 0;
    std::uint32_t records_left_ = 0;
    std::size_t records_read_ = 0;
    bool ok_ = true;
    bool cut_ = false;
};

// Receives what an answer says of addresses.
class DnsBindings {
public:
    virtual ~DnsBindings() = default;
    // `asked`: the name of the question whose chain of aliases ends at this address. The shortest time to
    // live of the chain.
    virtual void on_binding(std::string_view asked, const Address& address, std::uint32_t ttl_s) noexcept = 0;
    // The name does not exist (RFC 1035 rcode 3), or has no record of the type asked for.
    virtual void on_no_address(std::string_view asked, std::uint16_t rcode) noexcept = 0;
};

inline constexpr std::size_t dns_chain_max = 16;  // aliases followed back; BIND and Unbound stop at 16 and 11

// Reads a response and follows its aliases back to the name that was asked. False: not a response that could
// be read to its end; bindings reported before that stand.
bool read_bindings(ByteSpan message, DnsBindings& to) noexcept;

}  // namespace egresswatch::inspect
