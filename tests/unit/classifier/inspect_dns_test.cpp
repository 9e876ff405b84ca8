// tests/unit/classifier/inspect_dns_test.cpp
// SPDX-License-Identifier: Apache-2.0
#include <string>
#include <vector>

#include "classifier/inspect/dns.h"
#include "tests/support/catch.h"

namespace {

using namespace egresswatch;
using namespace egresswatch::inspect;

// Writes a message; names are given as text, or as a pointer to an offset.
class Message {
public:
    Message(std::uint16_t flags, std::uint16_t answers) {
        for (const std::uint16_t word :
             {std::uint16_t{0x1234}, flags, std::uint16_t{1}, answers, std::uint16_t{0}, std::uint16_t{0}})
            u16(word);
    }
    Message& u16(unsigned value) {
        bytes.push_back(static_cast<std::uint8_t>(value >> 8));
        bytes.push_back(static_cast<std::uint8_t>(value));
        return *this;
    }
    Message& name(std::string_view text) {
        while (!text.empty()) {
            const std::string_view label = text.substr(0, text.find('.'));
            bytes.push_back(static_cast<std::uint8_t>(label.size()));
            bytes.insert(bytes.end(), label.begin(), label.end());
            text.remove_prefix(std::min(text.size(), label.size() + 1));
        }
        bytes.push_back(0);
        return *this;
    }
    Message& question(std::string_view text, unsigned type) { return name(text).u16(type).u16(1); }
    Message& alias(std::string_view owner, std::string_view target, unsigned ttl_s) {
        name(owner).u16(dns_type_cname).u16(1).u16(0).u16(ttl_s);
        Message inner(0, 0);
        inner.bytes.clear();
        inner.name(target);
        u16(static_cast<unsigned>(inner.bytes.size()));
        bytes.insert(bytes.end(), inner.bytes.begin(), inner.bytes.end());
        return *this;
    }
    Message& address(std::string_view owner, unsigned last_byte, unsigned ttl_s) {
        name(owner).u16(dns_type_a).u16(1).u16(0).u16(ttl_s).u16(4).u16(0xc000);
        return u16(0x0200 | last_byte);
    }
    std::vector<std::uint8_t> bytes;
};

struct Collected final : DnsBindings {
    std::vector<std::string> lines;
    void on_binding(std::string_view asked, const Address& address, std::uint32_t ttl_s) noexcept override {
        lines.push_back(std::string(asked) + " " + address.to_string() + " " + std::to_string(ttl_s));
    }
    void on_no_address(std::string_view asked, std::uint16_t rcode) noexcept override {
        lines.push_back(std::string(asked) + " none " + std::to_string(rcode));
    }
};

constexpr unsigned response = 0x8180;

}  // namespace

TEST_CASE("an address is bound to the name that was asked, through aliases in any order", "[inspect][dns]") {
    Message message(response, 4);
    message.question("Files.Example.org", dns_type_a)
        .alias("cdn.example.net", "edge7.example.com", 30)
        .alias("files.example.org", "cdn.example.net", 300)
        .address("edge7.example.com", 7, 60)
        .address("other.example.com", 8, 60);
    Collected found;
    CHECK(read_bindings(message.bytes, found));
    CHECK(found.lines == std::vector<std::string>{"files.example.org 192.0.2.7 30"});
}

TEST_CASE("a name that does not exist is told, one whose answer was cut is not", "[inspect][dns]") {
    Collected found;
    CHECK(read_bindings(Message(response | 3, 0).question("no.example.org", dns_type_a).bytes, found));
    CHECK(found.lines == std::vector<std::string>{"no.example.org none 3"});
    found.lines.clear();
    CHECK(read_bindings(Message(response | 0x0200, 0).question("long.example.org", dns_type_a).bytes, found));
    CHECK(found.lines.empty());
}

TEST_CASE("aliases in a circle end", "[inspect][dns]") {
    Message message(response, 2);
    message.question("a.example", dns_type_a)
        .alias("a.example", "b.example", 9)
        .alias("b.example", "a.example", 9);
    Collected found;
    CHECK(read_bindings(message.bytes, found));
    CHECK(found.lines == std::vector<std::string>{"a.example none 0"});
}

TEST_CASE("a compressed name may point back only", "[inspect][dns]") {
    std::vector<std::uint8_t> message(12);
    message[5] = 1;
    const std::size_t at = message.size();
    message.insert(message.end(), {1, 'x', 0xc0, 12, 0, 1, 0, 1});
    DnsName name;
    CHECK(name.read(message, at) == 0);  // "x", then itself again
    message[at + 3] = 0;                 // the header: its zero id is the root
    CHECK(name.read(message, at) == 4);
    CHECK(name.text() == "x");
}

TEST_CASE("bytes that cannot be shown are written as numbers", "[inspect][dns]") {
    const std::vector<std::uint8_t> wire = {4, 'a', '.', 0xff, '\\', 0};
    DnsName name;
    CHECK(name.read(wire, 0) == wire.size());
    CHECK(name.text() == "a\\046\\255\\092");
}

TEST_CASE("a name of 255 bytes is read, one of 256 is not", "[inspect][dns]") {
    std::vector<std::uint8_t> wire;
    for (const unsigned length : {63u, 63u, 63u, 61u}) {
        wire.push_back(static_cast<std::uint8_t>(length));
        wire.insert(wire.end(), length, 'a');
    }
    wire.push_back(0);
    REQUIRE(wire.size() == 255);
    DnsName name;
    CHECK(name.read(wire, 0) == 255);
    wire[192] = 62;
    wire.insert(wire.end() - 1, 'a');
    CHECK(name.read(wire, 0) == 0);
}

TEST_CASE("a message cut at any byte fails, and never reads beyond it", "[inspect][dns]") {
    Message message(response, 2);
    message.question("a.example", dns_type_a).alias("a.example", "b.example", 9).address("b.example", 1, 5);
    Collected all;
    REQUIRE(read_bindings(message.bytes, all));
    for (std::size_t cut = 0; cut < message.bytes.size(); ++cut) {
        const std::vector<std::uint8_t> part(message.bytes.begin(),
                                             message.bytes.begin() + static_cast<std::ptrdiff_t>(cut));
        Collected found;
        CHECK_FALSE(read_bindings(part, found));
    }
}
