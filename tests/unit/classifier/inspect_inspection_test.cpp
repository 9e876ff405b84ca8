// tests/unit/classifier/inspect_inspection_test.cpp - names of flows: who says them, for how long, within
// which limits. SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <array>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "classifier/inspect/inspection.h"
#include "tests/support/catch.h"

namespace {

using namespace egresswatch;
using namespace egresswatch::inspect;
using Octets = std::vector<std::uint8_t>;

Timestamp at(std::int64_t seconds) {
    return Timestamp(std::chrono::seconds(1'700'000'000 + seconds));
}

Address address(std::string_view text) {
    return *Address::parse(text);
}

datapath::flow_key key_of(std::string_view remote, std::uint16_t port, std::uint16_t local_port = 50000,
                          std::uint8_t l4_proto = 6) {
    datapath::flow_key key{};
    std::memcpy(key.local_addr, address("10.0.0.5").bytes.data(), 16);
    std::memcpy(key.remote_addr, address(remote).bytes.data(), 16);
    key.local_port = datapath::host16(local_port);
    key.remote_port = datapath::host16(port);
    key.l4_proto = l4_proto;
    return key;
}

FlowUpdate update_of(const datapath::flow_key& key, Timestamp seen) {
    FlowUpdate out;
    out.key = key;
    out.first_seen = out.last_seen = seen;
    out.initiator = datapath::INITIATOR_LOCAL;
    return out;
}

void put16(Octets& out, std::size_t value) {
    out.push_back(static_cast<std::uint8_t>(value >> 8));
    out.push_back(static_cast<std::uint8_t>(value));
}

void put_name(Octets& out, std::string_view name) {
    while (!name.empty()) {
        const std::string_view label = name.substr(0, name.find('.'));
        out.push_back(static_cast<std::uint8_t>(label.size()));
        out.insert(out.end(), label.begin(), label.end());
        name.remove_prefix(std::min(name.size(), label.size() + 1));
    }
    out.push_back(0);
}

constexpr std::uint16_t question = 0x0100, response = 0x8180, no_such_name = 0x8183;

// RFC 1035 section 4.1, one question for an A record.
Octets dns(std::string_view name, std::uint16_t flags, std::string_view answer = {}, std::uint32_t ttl = 60) {
    Octets out;
    put16(out, 4711);
    put16(out, flags);
    put16(out, 1);
    put16(out, answer.empty() ? 0 : 1);
    put16(out, 0);
    put16(out, 0);
    put_name(out, name);
    put16(out, 1);
    put16(out, 1);
    if (answer.empty()) return out;
    put16(out, 0xc00c);
    put16(out, 1);
    put16(out, 1);
    put16(out, ttl >> 16);
    put16(out, ttl);
    put16(out, 4);
    const Address to = address(answer);
    out.insert(out.end(), to.bytes.begin() + 12, to.bytes.end());
    return out;
}
struct Bench final : QuestionSink {
    Inspection inspection{Resolvers{false, {Prefix::containing(address("10.0.0.0"), 8)}}};
    std::vector<std::string> asked;

    void on_question(const PayloadSample&, std::string_view name) noexcept override {
        asked.emplace_back(name);
    }
    bool give(const datapath::flow_key& key, datapath::direction direction, const Octets& payload,
              Timestamp when, std::uint32_t sequence = 1000) {
        PayloadSample sample;
        sample.key = key;
        sample.tracked = true;
        sample.direction = direction;
        sample.initiator = datapath::INITIATOR_LOCAL;
        sample.tcp_sequence = sequence;
        sample.at = when;
        sample.payload = payload;
        return inspection.on_payload(sample, *this);
    }
    void answer(std::string_view name, std::string_view remote, Timestamp when, std::uint32_t ttl = 60,
                std::string_view server = "10.0.0.1") {
        const auto resolver = key_of(server, 53, 40000, 17);
        give(resolver, datapath::DIRECTION_OUT, dns(name, question), when);
        give(resolver, datapath::DIRECTION_IN, dns(name, response, remote, ttl), when);
    }
    bool request(const datapath::flow_key& key, std::string_view host, Timestamp when) {
        const std::string text = "GET / HTTP/1.1\r\nHost: " + std::string(host) + "\r\nUser-Agent: x\r\n\r\n";
        return give(key, datapath::DIRECTION_OUT, {text.begin(), text.end()}, when);
    }
};

}  // namespace

TEST_CASE("a flow is called what DNS called its address, until its client says a name", "[inspect][names]") {
    Bench bench;
    const auto key = key_of("203.0.113.9", 80);
    CHECK(bench.inspection.silent());
    bench.answer("www.example.org", "203.0.113.9", at(0));
    FlowNames names = bench.inspection.names_of(update_of(key, at(1)));
    CHECK(names.name == "www.example.org");
    CHECK(names.source == NameSource::dns);
    CHECK(names.protocol == Protocol::unknown);
    CHECK(bench.request(key, "WWW.example.org.", at(2)));  // and it may ask for another one
    names = bench.inspection.names_of(update_of(key, at(2)));
    CHECK(names.name == "www.example.org");
    CHECK(names.source == NameSource::http);
    CHECK(names.protocol == Protocol::http);
    CHECK_FALSE(names.contradiction);
    const auto other = key_of("203.0.113.9", 80, 50001);
    bench.request(other, "evil.example.net", at(2));
    names = bench.inspection.names_of(update_of(other, at(2)));
    CHECK(names.name == "evil.example.net");
    CHECK(names.contradiction);
    bench.inspection.forget(other);
    names = bench.inspection.names_of(update_of(other, at(3)));
    CHECK(names.name == "www.example.org");
}

TEST_CASE("a name that the remote end says is not the remote end's", "[inspect][names]") {
    Bench bench;
    const auto key = key_of("203.0.113.9", 50000, 80);
    bench.request(key, "www.example.org", at(0));
    FlowUpdate update = update_of(key, at(0));
    update.initiator = datapath::INITIATOR_REMOTE;
    const FlowNames names = bench.inspection.names_of(update);
    CHECK(names.name.empty());
    CHECK(names.names_local);
    CHECK(names.said(NameSource::http) == "www.example.org");
}

TEST_CASE("an address keeps all names that it was given, the newest last, for their time",
          "[inspect][names]") {
    Bench bench;
    bench.answer("a.example.org", "203.0.113.9", at(0), 60);
    bench.answer("b.example.org", "203.0.113.9", at(10), 7200);
    bench.answer("a.example.org", "203.0.113.9", at(20), 60);
    const auto key = key_of("203.0.113.9", 443);
    FlowNames names = bench.inspection.names_of(update_of(key, at(30)));
    REQUIRE(names.dns().size() == 2);
    CHECK(names.dns()[0] == "b.example.org");
    CHECK(names.name == "a.example.org");
    const auto kept = std::chrono::duration_cast<std::chrono::seconds>(NameCache::kept_after_ttl).count();
    CHECK(bench.inspection.names_of(update_of(key, at(20 + 60 + kept))).dns().size() == 2);
    CHECK(bench.inspection.names_of(update_of(key, at(20 + 60 + kept + 1))).name == "b.example.org");
    CHECK(bench.inspection.names_of(update_of(key, at(10 + 7200 + kept + 1))).dns().empty());
}

TEST_CASE("a name that does not exist contradicts a client that says it", "[inspect][names]") {
    Bench bench;
    const auto resolver = key_of("10.0.0.1", 53, 40000, 17);
    bench.give(resolver, datapath::DIRECTION_OUT, dns("gone.example.org", question), at(0));
    bench.give(resolver, datapath::DIRECTION_IN, dns("gone.example.org", no_such_name), at(0));
    const auto key = key_of("203.0.113.9", 80);
    bench.request(key, "gone.example.org", at(1));
    CHECK(bench.inspection.names_of(update_of(key, at(1))).contradiction);
    CHECK_FALSE(bench.inspection.names_of(update_of(key, at(1 + 301))).contradiction);
    bench.answer("gone.example.org", "203.0.113.10", at(2));  // now it does: at another address, of which
    CHECK_FALSE(bench.inspection.names_of(update_of(key, at(3))).contradiction);  // this one knows nothing
    CHECK(bench.inspection.counters().names.denied == 1);
}

TEST_CASE("questions are told, answers bind, and neither the other way round", "[inspect][names]") {
    Bench bench;
    const auto resolver = key_of("10.0.0.1", 53, 40000, 17);
    bench.give(resolver, datapath::DIRECTION_OUT, dns("A.example.org", question), at(0));
    CHECK(bench.asked == std::vector<std::string>{"a.example.org"});
    // We are the server: the question is another's, the answer our own.
    datapath::flow_key served = key_of("10.0.0.7", 40000, 53, 17);
    bench.give(served, datapath::DIRECTION_IN, dns("b.example.org", question), at(0));
    bench.give(served, datapath::DIRECTION_OUT, dns("b.example.org", response, "203.0.113.9"), at(0));
    CHECK(bench.asked.size() == 1);
    CHECK(bench.inspection.counters().names.bindings == 0);
    CHECK(bench.inspection.counters().dns_messages == 3);
    CHECK(bench.inspection.counters().dns_unreadable == 0);
    bench.give(resolver, datapath::DIRECTION_IN, {1, 2, 3}, at(0));
    CHECK(bench.inspection.counters().dns_unreadable == 1);
}

TEST_CASE("DNS over TCP is put together, message after message, beyond what is kept of a stream",
          "[inspect][names]") {
    Bench bench;
    const auto resolver = key_of("10.0.0.1", 53, 40000, 6);
    std::uint32_t sequence = 77;
    std::uint32_t asked = 5;
    const auto ask = [&](const Octets& body) {
        Octets message;
        put16(message, body.size());
        message.insert(message.end(), body.begin(), body.end());
        bench.give(resolver, datapath::DIRECTION_OUT, message, at(0), asked);
        asked += static_cast<std::uint32_t>(message.size());
    };
    const auto send = [&](const Octets& bytes) {
        bench.give(resolver, datapath::DIRECTION_IN, bytes, at(0), sequence);
        sequence += static_cast<std::uint32_t>(bytes.size());
    };
    for (int i = 0; i < 400; ++i) {  // 26 KB; Assembler::bytes_max is 16 KiB
        Octets message;
        ask(dns("host" + std::to_string(i) + ".example.org", question));
        const Octets body = dns("host" + std::to_string(i) + ".example.org", response,
                                "203.0." + std::to_string(i / 200) + "." + std::to_string(i % 200));
        put16(message, body.size());
        message.insert(message.end(), body.begin(), body.end());
        send({message.begin(), message.begin() + 20});
        send({message.begin() + 20, message.end()});
    }
    CHECK(bench.inspection.counters().names.bindings == 400);
    CHECK(bench.inspection.counters().dns_unreadable == 0);
}

TEST_CASE(
    "a DNS message over TCP that is too long, or misses a piece, is passed over, and the next one is read",
    "[inspect][names]") {
    Bench bench;
    const auto resolver = key_of("10.0.0.1", 53, 40000, 6);
    const auto message = [](Octets body, std::size_t bytes = 0) {
        Octets out;
        body.resize(std::max(body.size(), bytes));
        put16(out, body.size());
        out.insert(out.end(), body.begin(), body.end());
        return out;
    };
    bench.give(resolver, datapath::DIRECTION_OUT, message(dns("a.example.org", question)), at(0), 5);
    std::uint32_t sequence = 0xffffff00;  // and the numbers begin anew in between
    const auto send = [&](const Octets& bytes, std::size_t segment, std::size_t seen_of_it) {
        for (std::size_t from = 0; from < bytes.size(); from += segment) {
            const std::size_t size = std::min(segment, bytes.size() - from);
            const auto begin = bytes.begin() + static_cast<std::ptrdiff_t>(from);
            if (const std::size_t seen = std::min(size, seen_of_it); seen != 0)
                bench.give(resolver, datapath::DIRECTION_IN,
                           {begin, begin + static_cast<std::ptrdiff_t>(seen)}, at(0), sequence);
            sequence += static_cast<std::uint32_t>(size);
        }
    };
    const Octets answer = message(dns("a.example.org", response, "203.0.113.9"));
    const auto bound = [&] { return bench.inspection.counters().names.learned; };
    const auto counted = [&] { return bench.inspection.counters(); };
    SECTION("too long") {
        const std::size_t bytes = GENERATE(std::size_t{65535}, Inspection::dns_message_bytes_max + 1);
        send(message(dns("a.example.org", response, "203.0.113.9"), bytes), 1400, 1400);
        CHECK(counted().dns_oversize == 1);
        CHECK(bound() == 0);
        send(answer, 20, 20);
        CHECK(bound() == 1);
    }
    SECTION("as long as may be, with the next one in the same segments") {
        Octets both =
            message(dns("a.example.org", response, "203.0.113.9"), Inspection::dns_message_bytes_max);
        both.insert(both.end(), answer.begin(), answer.end());
        both.insert(both.end(), answer.begin(), answer.end());
        send(both, GENERATE(std::size_t{1400}, std::size_t{5000}, std::size_t{65535}), 65535);
        CHECK(bound() == 3);
        CHECK(counted().dns_oversize + counted().dns_cut == 0);
    }
    SECTION("in packets longer than their samples") {
        send(message(dns("a.example.org", response, "203.0.113.9"), 9000), 6000, 4096);
        CHECK(bound() == 0);
        send(answer, 1400, 1400);
        CHECK(bound() == 1);
        CHECK(counted().dns_cut == 1);
        send(answer, 1400, 1400);
        CHECK(bound() == 2);
    }
    SECTION("of which a sample is missing, and nothing more has room") {
        send(message(dns("a.example.org", response, "203.0.113.9"), 16000), 1400, 1400);
        CHECK(bound() == 1);
        const Octets next = message(dns("a.example.org", response, "203.0.113.9"), 16000);
        send({next.begin(), next.begin() + 100}, 100, 100);
        // What is left of it was not handed over, nor was what came behind it.
        sequence += static_cast<std::uint32_t>(next.size() - 100 + GENERATE(0, 2000));
        send(answer, 1400, 1400);
        CHECK(counted().dns_cut == 1);
        send(answer, 1400, 1400);
        CHECK(bound() == 3);
    }
    SECTION("the whole message is missing") {
        send(answer, 1400, 1400);
        sequence += 100;
        send(answer, 1400, 1400);
        CHECK(bound() == 2);
        CHECK(counted().dns_cut == 0);
    }
    CHECK(counted().dns_unreadable == 0);
}

// Whoever may run a program here may ask a name server of their own.
TEST_CASE("what a name server that is not listed says names an address, and opens nothing",
          "[inspect][names]") {
    Bench bench;
    const auto key = key_of("203.0.113.9", 443);
    const auto names = [&](Timestamp when) { return bench.inspection.names_of(update_of(key, when)); };
    bench.answer("www.example.org", "203.0.113.9", at(0), 60, "198.51.100.53");
    CHECK(names(at(1)).name == "www.example.org");
    CHECK(names(at(1)).source == NameSource::dns_unlisted);
    CHECK(names(at(1)).dns_listed().empty());
    CHECK(bench.inspection.counters().dns_unlisted == 1);
    // The others are told beside it, and those that count come last.
    bench.answer("real.example.net", "203.0.113.9", at(2));
    bench.answer("www.example.org", "203.0.113.9", at(3), 60, "198.51.100.53");
    CHECK(names(at(4)).name == "real.example.net");
    CHECK(names(at(4)).source == NameSource::dns);
    REQUIRE(names(at(4)).dns().size() == 2);
    CHECK(names(at(4)).dns_unlisted().front() == "www.example.org");
    CHECK(names(at(4)).dns_listed().front() == "real.example.net");
    // Nor does it take back a contradiction.
    const auto web = key_of("203.0.113.9", 80);
    bench.request(web, "www.example.org", at(5));
    CHECK(bench.inspection.names_of(update_of(web, at(5))).contradiction);
    bench.answer("www.example.org", "203.0.113.9", at(6));  // one that is listed does
    CHECK_FALSE(bench.inspection.names_of(update_of(web, at(6))).contradiction);
    CHECK(names(at(6)).dns_unlisted().empty());
    // What it denies is no news, and its times hold for what it said only.
    const auto theirs = key_of("198.51.100.53", 53, 40000, 17);
    bench.give(theirs, datapath::DIRECTION_OUT, dns("www.example.org", question), at(7));
    bench.give(theirs, datapath::DIRECTION_IN, dns("www.example.org", no_such_name), at(7));
    CHECK(bench.inspection.counters().names.denied == 0);
    bench.answer("real.example.net", "203.0.113.9", at(8), 86400, "198.51.100.53");
    const auto kept = std::chrono::duration_cast<std::chrono::seconds>(NameCache::kept_after_ttl).count();
    CHECK(names(at(2 + 60 + kept + 5)).dns_unlisted().front() == "real.example.net");
    bench.inspection.set_resolvers({.any = true});
    bench.answer("any.example.net", "203.0.113.9", at(9), 60, "198.51.100.53");
    CHECK(names(at(9)).dns_listed().back() == "any.example.net");
}

TEST_CASE("answers of a server that is not listed push out none of the others", "[inspect][names]") {
    NameCache cache;
    const Address remote = address("203.0.113.9");
    cache.learn("theirs.example.org", remote, 60, at(0), false);
    for (int i = 1; i < 16; ++i)
        cache.learn("n" + std::to_string(i) + ".example.org", remote, 60, at(i), true);
    cache.learn("n16.example.org", remote, 60, at(20), true);
    CHECK(cache.names_of(remote, at(20)).unlisted == 0);
    CHECK_FALSE(cache.is_crowded(remote));
    cache.learn("theirs.example.org", remote, 60, at(21), false);
    CHECK(cache.names_of(remote, at(21)).unlisted == 0);
    CHECK(cache.names_of(remote, at(21)).name.front() == "n1.example.org");
    CHECK(cache.counters().evicted == 2);
}

TEST_CASE("limits of names are kept and counted", "[inspect][names]") {
    NameCache cache;
    for (int i = 0; i < 20; ++i)
        cache.learn("n" + std::to_string(i) + ".example.org", address("203.0.113.9"), 60, at(i), true);
    NameCache::Names names = cache.names_of(address("203.0.113.9"), at(20));
    REQUIRE(names.count == NameCache::names_of_address_max);
    CHECK(names.name.front() == "n4.example.org");
    CHECK(cache.is_crowded(address("203.0.113.9")));
    CHECK(cache.counters().evicted == 4);
    for (std::uint32_t i = 0; i < NameCache::bindings_max + 10; ++i)
        cache.learn("m.example.org", Address::from_ipv4(0x0a000000 + i), 60, at(30), true);
    CHECK(cache.counters().bindings == NameCache::bindings_max);
    CHECK(cache.names_of(address("203.0.113.9"), at(30)).count == 0);
    CHECK(cache.counters().evicted == 4 + 16 + 10);
    for (std::size_t i = 0; i < NameCache::denied_max + 1; ++i)
        cache.learn_denied("x" + std::to_string(i) + ".example.org", at(30));
    CHECK_FALSE(cache.is_denied("x0.example.org", at(30)));
    CHECK(cache.is_denied("x1.example.org", at(30)));
}

TEST_CASE("more flows than are put together at a time give up the one quiet longest, and count it",
          "[inspect][names]") {
    Bench bench;
    const std::string half = "GET / HTTP/1.1\r\nHost: a.exam";
    const std::string rest = "ple.org\r\n\r\n";
    const auto key = [](std::size_t i) {
        return key_of("203.0.113.9", 80, static_cast<std::uint16_t>(20000 + i));
    };
    const std::size_t flows = Inspection::inspectors_max + 1;
    for (std::size_t i = 0; i < flows; ++i)
        CHECK(bench.give(key(i), datapath::DIRECTION_OUT, {half.begin(), half.end()}, at(0), 1));
    CHECK(bench.inspection.counters().inspectors_evicted == 1);
    const auto next = static_cast<std::uint32_t>(1 + half.size());
    for (std::size_t i = 0; i < flows; ++i)
        bench.give(key(i), datapath::DIRECTION_OUT, {rest.begin(), rest.end()}, at(0), next);
    CHECK(bench.inspection.names_of(update_of(key(0), at(0))).name.empty());
    CHECK(bench.inspection.names_of(update_of(key(1), at(0))).name == "a.example.org");
    CHECK(bench.inspection.counters().flows_named == flows - 1);
}

TEST_CASE("a flow whose end is not told is forgotten after its time, and one that goes on is not",
          "[inspect][names]") {
    Bench bench;
    const auto left = key_of("203.0.113.9", 80, 50001), lives = key_of("203.0.113.9", 80, 50002);
    bench.request(left, "a.example.org", at(0));
    bench.request(lives, "b.example.org", at(0));
    const std::int64_t limit = std::chrono::seconds(Inspection::flow_idle_max).count();
    const std::int64_t over = limit + 60;  // full minutes count
    bench.inspection.touch(lives, at(limit));
    CHECK(bench.inspection.counters().flows == 2);
    bench.inspection.touch(key_of("203.0.113.10", 80), at(over));  // of which nothing is known
    CHECK(bench.inspection.counters().flows == 1);
    CHECK(bench.inspection.counters().flows_expired == 1);
    CHECK(bench.inspection.names_of(update_of(left, at(over))).name.empty());
    CHECK(bench.inspection.names_of(update_of(lives, at(over))).name == "b.example.org");
    bench.request(left, "c.example.org", at(over));
    bench.inspection.touch(left, at(limit));  // time does not go back
    bench.inspection.touch(lives, at(limit + over));
    CHECK(bench.inspection.counters().flows == 2);
}

TEST_CASE("a flow that says nothing is given up, and only that is kept", "[inspect][names]") {
    Bench bench;
    const auto key = key_of("203.0.113.9", 4444);
    std::uint32_t sequence = 1;
    unsigned packets = 0;
    while (bench.give(key, datapath::DIRECTION_OUT, Octets(100, 0xee), at(0), sequence)) {
        sequence += 100;
        REQUIRE(++packets < 50);
    }
    CHECK(packets + 1 == Inspection::unknown_packets_max);
    CHECK(bench.inspection.counters().flows == 1);
    FlowUpdate update = update_of(key, at(0));
    CHECK_FALSE(bench.inspection.names_of(update).unread);
    // A datagram leaves nothing at all.
    CHECK(bench.give(key_of("203.0.113.9", 4444, 1, 17), datapath::DIRECTION_OUT, Octets(100, 0xee), at(0)));
    CHECK(bench.inspection.counters().flows == 1);
    // Of one that was not handed over, nobody knows what it said.
    update.key = key_of("203.0.113.9", 4444, 50002);
    update.total = {20, 20'000, 10, 600};
    CHECK(bench.inspection.names_of(update).unread);
}

namespace {

// A conversation as it may come: the pieces of both directions, some of them twice, or in another order.
struct Piece {
    datapath::direction direction;
    std::uint32_t sequence;
    Octets bytes;
};
std::vector<Piece> conversation(std::mt19937& random, const std::string& client, const std::string& server) {
    std::array<std::vector<Piece>, datapath::DIRECTION_COUNT> sides;
    for (const auto direction : {datapath::DIRECTION_OUT, datapath::DIRECTION_IN}) {
        const std::string& text = direction == datapath::DIRECTION_OUT ? client : server;
        auto sequence = static_cast<std::uint32_t>(random());
        for (std::size_t at = 0; at < text.size();) {
            const std::size_t size = std::min<std::size_t>(text.size() - at, 1 + random() % 60);
            sides[direction].push_back({direction, sequence, {text.begin() + at, text.begin() + at + size}});
            if (random() % 8 == 0) sides[direction].push_back(sides[direction].back());
            sequence += static_cast<std::uint32_t>(size);
            at += size;
        }
        if (random() % 2 == 0) std::ranges::shuffle(sides[direction], random);
    }
    std::vector<Piece> out;
    while (!sides[0].empty() || !sides[1].empty()) {
        auto& side = sides[sides[0].empty() || (!sides[1].empty() && random() % 2 == 0) ? 1 : 0];
        out.push_back(side.front());
        side.erase(side.begin());
    }
    return out;
}

std::string noise(std::mt19937& random, std::string beginning) {
    for (int i = 0; i < 150; ++i) beginning += static_cast<char>(random());
    return beginning;
}

}  // namespace

// Most flows never get an inspector: they begin like nothing known. What is said of them is what an inspector
// that sees each of their packets says.
TEST_CASE("a flow without an inspector is what an inspector would make of it", "[inspect][names]") {
    std::mt19937 random(17);
    const std::string smb = std::string("\0\0\0\x40\xfeSMB", 8) + std::string(60, '\0');
    const std::string reset = std::string("\0\x0e\x38zzzzzzzz", 11) + std::string(5, '\0');
    std::size_t foreign = 0;
    for (int round = 0; round < 6000; ++round) {
        const auto side = [&]() -> std::string {
            switch (random() % 16) {
                case 0:
                    return "GET / HTTP/1.1\r\nHost: www.example.org\r\nUser-Agent: x\r\n\r\n";
                case 1:
                    return "220 files\r\n331 and the word?\r\n";
                case 2:
                    return "user somebody\r\npass nothing\r\n";
                case 3:
                    return "hello\r\nwho is there\r\nSSH-2.0-x\r\n";
                case 4:
                    return noise(random, smb);
                case 5:
                    return noise(random, reset);
                case 6:
                    return noise(random,
                                 std::string("\x03\0\0\x13\x0e\xe0\0\0\0\0\0\x01\0\x08\0\0\0\0\0", 19));
                case 7:
                    return noise(random, std::string("\x16\x03\x01\0\x40\x01\0\0\x3c\x03\x03", 11));
                case 8:
                    return noise(random, std::string(1, static_cast<char>(random())));
                case 9:
                    return noise(random, "GET ");
                case 10:
                    return noise(random, std::string("\x17\x03\x03\0\x40", 5));
                case 11:
                    return "* OK ready\r\n";
                default:
                    return noise(random, "\xee");
            }
        };
        Bench bench;
        QuicDecryptor decryptor;
        FlowInspector reference;
        reference.clear();
        const auto key = key_of("203.0.113.9", 9999);
        unsigned unknown = 0;
        const std::string client = side();
        for (const Piece& piece : conversation(random, client, side())) {
            PayloadPacket packet;
            packet.direction = piece.direction;
            packet.l4_proto = 6;
            packet.tcp_sequence = piece.sequence;
            packet.source_port = piece.direction == datapath::DIRECTION_OUT ? 50000 : 9999;
            packet.destination_port = piece.direction == datapath::DIRECTION_OUT ? 9999 : 50000;
            packet.client = datapath::DIRECTION_OUT;  // as Bench says
            packet.payload = piece.bytes;
            (void)reference.add(packet, decryptor);
            bench.give(key, piece.direction, piece.bytes, at(0), piece.sequence);
            const FlowNames names = bench.inspection.names_of(update_of(key, at(0)));
            INFO(round << ' ' << protocol_name(reference.facts().protocol));
            REQUIRE(names.protocol == reference.facts().protocol);
            REQUIRE(names.name == reference.facts().name.view());
            REQUIRE(names.unread == reference.unread());
            unknown += reference.facts().protocol == Protocol::unknown ? 1 : 0;
            if (reference.done() || unknown >= Inspection::unknown_packets_max) break;
        }
        foreign += reference.facts().protocol == Protocol::unknown ? 1 : 0;
    }
    CHECK(foreign > 2000);
}

TEST_CASE("flows that begin like nothing known take no inspector from those that do", "[inspect][names]") {
    Bench bench;
    const std::string half = "GET / HTTP/1.1\r\nHost: a.exam";
    const std::string rest = "ple.org\r\n\r\n";
    const auto web = key_of("203.0.113.9", 80, 20000);
    bench.give(web, datapath::DIRECTION_OUT, {half.begin(), half.end()}, at(0), 1);
    for (std::uint16_t i = 0; i < 2 * Inspection::inspectors_max; ++i)
        bench.give(key_of("203.0.113.9", 9999, i), datapath::DIRECTION_OUT, Octets(100, 0xee), at(0), 1);
    CHECK(bench.inspection.counters().inspectors_evicted == 0);
    bench.give(web, datapath::DIRECTION_OUT, {rest.begin(), rest.end()}, at(0),
               static_cast<std::uint32_t>(1 + half.size()));
    CHECK(bench.inspection.names_of(update_of(web, at(0))).name == "a.example.org");
    CHECK_FALSE(bench.inspection.names_of(update_of(key_of("203.0.113.9", 9999, 0), at(0))).unread);
}

// An entry by domain must not open because the name was said in a way that nobody reads.
TEST_CASE("what a client asks for and nobody could read is marked", "[inspect][names]") {
    Bench bench;
    const std::string text = "GET / HTTP/1.1\r\nHost: drop.example.net\r\n\r\n";
    const auto send = [&](const datapath::flow_key& key, std::size_t from, std::size_t size) {
        return bench.give(key, datapath::DIRECTION_OUT, {text.begin() + from, text.begin() + from + size},
                          at(0), static_cast<std::uint32_t>(1 + from));
    };
    const auto unread = [&](const datapath::flow_key& key) {
        return bench.inspection.names_of(update_of(key, at(0))).unread;
    };
    SECTION("byte by byte") {
        const auto key = key_of("203.0.113.9", 80, 50001);
        for (std::size_t i = 0; i < 6 && send(key, i, 1); ++i) continue;
        CHECK(unread(key));
    }
    SECTION("begun, and not finished within the limit") {
        const auto key = key_of("203.0.113.9", 80, 50002);
        send(key, 0, 20);
        CHECK(unread(key));
        send(key, 20, text.size() - 20);
        CHECK_FALSE(unread(key));
        CHECK(bench.inspection.names_of(update_of(key, at(0))).name == "drop.example.net");
    }
    SECTION("its second half first") {
        const auto key = key_of("203.0.113.9", 80, 50003);
        send(key, 20, text.size() - 20);
        send(key, 0, 20);
        CHECK(unread(key));
    }
    SECTION("a second name on the same connection") {
        const auto key = key_of("203.0.113.9", 80, 50004);
        CHECK(bench.request(key, "www.example.org", at(0)));
        CHECK(bench.request(key, "www.example.org", at(0)));
        CHECK_FALSE(unread(key));
        CHECK(bench.request(key, "drop.example.net", at(0)));
        CHECK(unread(key));
    }
    SECTION("by the server, who has no say in it") {
        const auto key = key_of("203.0.113.9", 80, 50005);
        bench.give(key, datapath::DIRECTION_IN, {text.begin(), text.end()}, at(0));
        CHECK(bench.inspection.names_of(update_of(key, at(0))).name.empty());
    }
}

TEST_CASE("an answer that nobody asked for is not believed", "[inspect][names]") {
    Bench bench;
    const auto resolver = key_of("10.0.0.1", 53, 40000, 17);
    const auto key = key_of("203.0.113.9", 443);
    const auto answers = [&](const datapath::flow_key& from, std::string_view name, std::uint16_t flags,
                             Timestamp when) {
        bench.give(from, datapath::DIRECTION_IN,
                   flags == response ? dns(name, flags, "203.0.113.9") : dns(name, flags), when);
        return bench.inspection.names_of(update_of(key, when)).dns().size();
    };
    CHECK(answers(resolver, "a.example.org", response, at(0)) == 0);
    bench.give(resolver, datapath::DIRECTION_OUT, dns("a.example.org", question), at(1));
    CHECK(answers(resolver, "b.example.org", response, at(1)) == 0);
    CHECK(answers(key_of("10.0.0.9", 53, 40000, 17), "a.example.org", response, at(1)) == 0);
    CHECK(answers(resolver, "a.example.org", response, at(12)) == 0);  // too late
    CHECK(bench.inspection.counters().dns_unasked == 4);
    bench.give(resolver, datapath::DIRECTION_OUT, dns("a.example.org", question), at(13));
    CHECK(answers(resolver, "a.example.org", response, at(13)) == 1);
    answers(resolver, "c.example.org", no_such_name, at(13));
    CHECK(bench.inspection.counters().names.denied == 0);
}
