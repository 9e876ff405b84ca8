// tests/unit/classifier/inspect_stream_test.cpp - TLS, HTTP, SSH, protocols; whole captures are in
// tests/corpus. SPDX-License-Identifier: Apache-2.0
#include <string>
#include <vector>

#include "classifier/inspect/flow_inspector.h"
#include "tests/support/catch.h"

namespace {

using namespace egresswatch;
using namespace egresswatch::inspect;
using Octets = std::vector<std::uint8_t>;

Octets octets(std::string_view text) {
    return {text.begin(), text.end()};
}
void put16(Octets& out, std::size_t value) {
    out.push_back(static_cast<std::uint8_t>(value >> 8));
    out.push_back(static_cast<std::uint8_t>(value));
}
void put_extension(Octets& out, unsigned type, const Octets& data) {
    put16(out, type);
    put16(out, data.size());
    out.insert(out.end(), data.begin(), data.end());
}
Octets vector16_of(const std::vector<unsigned>& values) {
    Octets out;
    put16(out, values.size() * 2);
    for (const unsigned value : values) put16(out, value);
    return out;
}

// The client that FoxIO's description of JA4 takes for its example ("JA4_r" there), GREASE added.
Octets example_hello(std::string_view name) {
    Octets body = {3, 3};
    body.resize(2 + 32);
    body.push_back(0);
    const Octets ciphers = vector16_of({0x4a4a, 0x1301, 0x1302, 0x1303, 0xc02b, 0xc02f, 0xc02c, 0xc030,
                                        0xcca9, 0xcca8, 0xc013, 0xc014, 0x009c, 0x009d, 0x002f, 0x0035});
    body.insert(body.end(), ciphers.begin(), ciphers.end());
    body.push_back(1);
    body.push_back(0);
    Octets extensions;
    put_extension(extensions, 0x1a1a, {});
    Octets server_name;
    put16(server_name, name.size() + 3);
    server_name.push_back(0);
    put16(server_name, name.size());
    server_name.insert(server_name.end(), name.begin(), name.end());
    put_extension(extensions, extension_server_name, server_name);
    put_extension(extensions, extension_alpn, octets(std::string_view("\0\x0c\2h2\x8http/1.1", 14)));
    put_extension(extensions, extension_supported_versions, {6, 0x2a, 0x2a, 3, 4, 3, 3});
    put_extension(extensions, extension_signature_algorithms,
                  vector16_of({0x0403, 0x0804, 0x0401, 0x0503, 0x0805, 0x0501, 0x0806, 0x0601}));
    for (const unsigned type :
         {0x0005, 0x000a, 0x000b, 0x0012, 0x0015, 0x0017, 0x001b, 0x0023, 0x002d, 0x0033, 0x4469, 0xff01})
        put_extension(extensions, type, {});
    put16(body, extensions.size());
    body.insert(body.end(), extensions.begin(), extensions.end());
    return body;
}

// The message in records of at most `part` bytes.
Octets records_of(const Octets& body, std::size_t part) {
    Octets message = {1, 0};
    put16(message, body.size());
    message.insert(message.end(), body.begin(), body.end());
    Octets out;
    for (std::size_t at = 0; at < message.size(); at += part) {
        const std::size_t length = std::min(part, message.size() - at);
        out.insert(out.end(), {22, 3, 1});
        put16(out, length);
        out.insert(out.end(), message.begin() + static_cast<std::ptrdiff_t>(at),
                   message.begin() + static_cast<std::ptrdiff_t>(at + length));
    }
    return out;
}

PayloadPacket segment(datapath::direction direction, std::uint32_t sequence, ByteSpan payload,
                      bool syn = false) {
    PayloadPacket packet;
    packet.direction = direction;
    packet.l4_proto = 6;
    packet.tcp_flags = syn ? datapath::TCP_SYN : datapath::TCP_ACK;
    packet.tcp_sequence = sequence;
    packet.source_port = direction == datapath::DIRECTION_OUT ? 50000 : 443;
    packet.destination_port = direction == datapath::DIRECTION_OUT ? 443 : 50000;
    packet.payload = payload;
    return packet;
}

}  // namespace

TEST_CASE("JA4 of the published example", "[inspect][tls]") {
    const Octets body = example_hello("www.example.org");
    const auto hello = parse_client_hello(body);
    REQUIRE(hello);
    CHECK(hello->server_name == "www.example.org");
    CHECK(hello->version_max == 0x0304);
    const Ja4 ja4 = ja4_of(*hello, HelloTransport::tcp);
    CHECK(std::string_view(ja4.data(), ja4.size()) == "t13d1516h2_8daaf6152771_e5627efa2ab1");
}

TEST_CASE("HASSH is MD5 over the lists with semicolons", "[inspect][ssh]") {
    const Hassh hassh = hassh_of("a", "b", "c", "d");  // printf 'a;b;c;d' | md5sum
    CHECK(std::string_view(hassh.data(), hassh.size()) == "845425be4f77f4097e014a6591497010");
}

TEST_CASE("a ClientHello over records and segments in any order gives its name", "[inspect][tls]") {
    const Octets stream = records_of(example_hello("upload.example.com"), 100);
    QuicDecryptor decryptor;
    for (const std::size_t part : {std::size_t{1}, std::size_t{7}, std::size_t{64}, stream.size()}) {
        if (part == 1) continue;  // more segments than an inspector looks at: see the next test
        FlowInspector inspector;
        (void)inspector.add(segment(datapath::DIRECTION_OUT, 0xfffffff0u, {}, true), decryptor);
        std::vector<std::size_t> starts;
        for (std::size_t at = 0; at < stream.size(); at += part) starts.push_back(at);
        if (starts.size() >= FlowInspector::packets_max) continue;
        for (auto at = starts.rbegin(); at != starts.rend(); ++at)
            (void)inspector.add(
                segment(datapath::DIRECTION_OUT, static_cast<std::uint32_t>(0xfffffff1u + *at),
                        ByteSpan(stream).subspan(*at, std::min(part, stream.size() - *at))),
                decryptor);
        CHECK(inspector.facts().protocol == Protocol::tls);
        CHECK(inspector.facts().name.view() == "upload.example.com");
        CHECK(inspector.facts().alpn.view() == "h2");
    }
}

TEST_CASE("an inspector stops after its last packet", "[inspect]") {
    QuicDecryptor decryptor;
    FlowInspector inspector;
    const Octets byte = {'x'};
    for (unsigned i = 0; i < FlowInspector::packets_max; ++i) {
        CHECK_FALSE(inspector.done());
        (void)inspector.add(segment(datapath::DIRECTION_OUT, 1 + i, byte), decryptor);
    }
    CHECK(inspector.done());
    CHECK(inspector.facts().protocol == Protocol::unknown);
}

TEST_CASE("a host that is a dot is no name", "[inspect][http]") {
    QuicDecryptor decryptor;
    FlowInspector inspector;
    (void)inspector.add(segment(datapath::DIRECTION_OUT, 1, octets("GET / HTTP/1.1\r\nHost: .\r\n\r\n")),
                        decryptor);
    CHECK(inspector.facts().http_method.view() == "GET");
    CHECK(inspector.facts().name.empty());
    CHECK(inspector.facts().name_source == NameSource::none);
}

// Found by fuzzing: a certificate in the last packet let it go on.
TEST_CASE("a certificate without a hello does not lengthen what is looked at", "[inspect][tls]") {
    QuicDecryptor decryptor;
    FlowInspector inspector;
    // A record with a Certificate message (RFC 5246 section 7.4.2) that holds nothing readable.
    const Octets certificate = {22, 3, 3, 0, 14, 11, 0, 0, 10, 0, 0, 7, 0, 0, 4, 1, 2, 3, 4};
    const Octets hello = {22, 3, 3, 0, 4, 2, 0, 0, 0}, other = {0x17};
    (void)inspector.add(segment(datapath::DIRECTION_IN, 1, hello), decryptor);
    std::uint32_t sequence = 1 + 9;
    for (unsigned i = 1; i < FlowInspector::packets_max; ++i) {
        CHECK_FALSE(inspector.done());
        const bool last = i + 1 == FlowInspector::packets_max;
        const Octets part = last      ? Octets(certificate.begin() + 18, certificate.end())
                            : i <= 18 ? Octets{certificate[i - 1]}
                                      : Octets{};
        if (part.empty()) {
            (void)inspector.add(segment(datapath::DIRECTION_OUT, i, other), decryptor);
            continue;
        }
        (void)inspector.add(segment(datapath::DIRECTION_IN, sequence, part), decryptor);
        sequence += static_cast<std::uint32_t>(part.size());
    }
    CHECK(inspector.done());
}

TEST_CASE("pieces are put together in any order, up to the limits", "[inspect]") {
    Assembler assembler;
    CHECK(assembler.add(4, octets("efgh")));
    CHECK(assembler.prefix().empty());
    CHECK(assembler.add(0, octets("abcd")));
    CHECK(text_of(assembler.prefix()) == "abcdefgh");
    CHECK(assembler.add(2, octets("CD")));
    CHECK(text_of(assembler.prefix()) == "abCDefgh");
    CHECK_FALSE(assembler.add(Assembler::bytes_max - 1, octets("xy")));
    assembler.clear();
    for (std::size_t i = 0; i < Assembler::pieces_max; ++i) CHECK(assembler.add(1 + 2 * i, octets("z")));
    CHECK_FALSE(assembler.add(1 + 2 * Assembler::pieces_max, octets("z")));
    CHECK(assembler.add(2, octets("z")));  // joins two: room again
    CHECK(assembler.add(1 + 2 * Assembler::pieces_max, octets("z")));
}

TEST_CASE("the host of an HTTP request", "[inspect][http]") {
    const auto host_of = [](std::string_view text) {
        HttpRequest request;
        const Verdict verdict = parse_http_request(bytes_of(text), request);
        return std::pair(verdict, std::string(request.host) + ":" + std::to_string(request.port));
    };
    using Answer = std::pair<Verdict, std::string>;
    CHECK(host_of("GET / HTTP/1.1\r\nhOsT:  Example.org:8080 \r\n\r\n") ==
          Answer(Verdict::match, "Example.org:8080"));
    CHECK(host_of("CONNECT example.org:443 HTTP/1.1\r\nHost: other\r\n\r\n") ==
          Answer(Verdict::match, "example.org:443"));
    CHECK(host_of("GET http://u@example.org/x HTTP/1.1\r\nHost: other\r\n\r\n") ==
          Answer(Verdict::match, "example.org:0"));
    CHECK(host_of("GET / HTTP/1.1\r\nHost: [2001:db8::1]:80\r\n\r\n") ==
          Answer(Verdict::match, "2001:db8::1:80"));
    CHECK(host_of("GET / HTTP/1.1\r\nHost: a\r\n").first == Verdict::incomplete);
    CHECK(host_of("GE").first == Verdict::incomplete);
    CHECK(host_of("GET / SIP/2.0\r\n\r\n").first == Verdict::other);
    CHECK(host_of("GETX / HTTP/1.1\r\n\r\n").first == Verdict::other);
}

TEST_CASE("an SSH side's banner stands before its algorithms do", "[inspect][ssh]") {
    SshHello hello;
    CHECK(parse_ssh(bytes_of("notice\r\nSSH-2.0-Test_1 x\r\n"), hello) == Verdict::incomplete);
    CHECK(hello.banner == "SSH-2.0-Test_1 x");
    CHECK(parse_ssh(bytes_of("SSH"), hello) == Verdict::incomplete);
    CHECK(parse_ssh(bytes_of("HELO\x01\r\nSSH-2.0-x\r\n"), hello) == Verdict::other);
}

TEST_CASE("protocols by their first bytes, and their nearest neighbours", "[inspect][protocol]") {
    const auto tcp = [](std::string_view client, std::string_view server) {
        return recognise_tcp(bytes_of(client), bytes_of(server), {50000, 9999}).protocol;
    };
    const auto udp = [](const Octets& bytes, std::uint16_t port) {
        return recognise_udp(bytes, {50000, port}).protocol;
    };
    CHECK(tcp("EHLO a\r\n", "220 mail\r\n") == Protocol::smtp);
    CHECK(tcp("USER a\r\n", "220 files\r\n") == Protocol::ftp_control);
    const std::string smb(32, '\0');
    const auto negotiate = [&](char kind) { return std::string("\0\0\0\x40", 4) + kind + "SMB" + smb; };
    CHECK(tcp(negotiate('\xff'), "") == Protocol::smbv1);
    CHECK(tcp(negotiate('\xff'), negotiate('\xfe')) ==
          Protocol::smbv23);  // asked in the old way, answered in the new
    CHECK(tcp(negotiate('\xfb'), "") == Protocol::unknown);
    const Octets query = {0, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 1, 'a', 0, 0, 1, 0, 1};
    CHECK(udp(query, 53) == Protocol::dns);
    CHECK(udp(query, 5353) == Protocol::mdns);
    CHECK(udp(query, 5355) == Protocol::llmnr);
    CHECK(udp(query, 5354) == Protocol::unknown);
    CHECK(protocol_name(Protocol::llmnr) == "llmnr");
    CHECK(protocol_name(Protocol::ftp_control) == "ftp_control");
    CHECK(tcp("USER a\r\n", "+OK\r\n") == Protocol::unknown);
    CHECK(tcp("\x13"
              "BitTorrent protocol",
              "") == Protocol::bittorrent);
    CHECK(tcp("", "HTTP/1.1 200 OK\r\n") == Protocol::http);
    Octets wireguard(148);
    wireguard[0] = 1;
    CHECK(udp(wireguard, 51820) == Protocol::wireguard);
    wireguard.push_back(0);
    CHECK(udp(wireguard, 51820) == Protocol::unknown);
    Octets ike(28);
    ike[0] = 1;
    ike[17] = 0x20;
    ike[18] = 34;
    ike[27] = 28;
    CHECK(udp(ike, 500) == Protocol::ipsec);
    CHECK(udp(ike, 501) == Protocol::unknown);
    CHECK(recognise_ip(50) == Protocol::ipsec);
    CHECK(recognise_ip(47) == Protocol::unknown);
}

TEST_CASE("what begins like nothing known changes no answer about the other side", "[inspect][protocol]") {
    const std::string zeros(foreign_bytes_min, '\0');
    const std::string smb = std::string("\0\0\0\x40\xfeSMB", 8) + std::string(32, '\0');
    const std::vector<std::string> known = {
        "GET / HTTP/1.1\r\n\r\n",
        "HTTP/1.1 200 OK\r\n",
        "SSH-2.0-OpenSSH_9.2p1\r\n",
        "220 mail.example.org\r\n",
        "EHLO example.org\r\n    ",
        "user somebody\r\n   ",
        "auth tls\r\n        ",
        smb,
        std::string("\x03\0\0\x13\x0e\xe0\0\0\0\0\0\x01\0\x08\0\0\0\0\0", 19),
        std::string("\x16\x03\x01\0\x40\x01\0\0\x3c\x03\x03zzzzz", 16),
        "\x13"
        "BitTorrent protocol",
        std::string("\0\x0e\x38zzzzzzzz\0\0\0\0\0", 16),
        std::string()};
    for (const std::string& beginning : known) CHECK_FALSE(begins_foreign(bytes_of(beginning)));
    CHECK(begins_foreign(bytes_of(zeros)));
    CHECK_FALSE(begins_foreign(bytes_of(zeros).first(foreign_bytes_min - 1)));
    // Every beginning, with any byte of it another, beside every other side.
    std::size_t foreign = 0;
    for (std::string side : known) {
        for (std::size_t at = 0; at < std::min<std::size_t>(side.size(), 8); ++at) {
            const char was = side[at];
            for (int value = 0; value < 256; ++value) {
                side[at] = static_cast<char>(value);
                if (!begins_foreign(bytes_of(side))) continue;
                ++foreign;
                for (const std::string& other : known) {
                    const Ports ports{50000, 9999};
                    const auto of = [&](const std::string& a, const std::string& b) {
                        return recognise_tcp(bytes_of(a), bytes_of(b), ports).protocol;
                    };
                    if (of(side, other) != of(zeros, other) || of(other, side) != of(other, zeros))
                        FAIL("another protocol beside byte " << at << " = " << value);
                }
            }
            side[at] = was;
        }
    }
    CHECK(foreign > 1000);
}

TEST_CASE("a name that no language makes looks like Tor's", "[inspect][protocol]") {
    CHECK(looks_like_tor("www.kq3bvxmfnd7pl.com", ""));
    CHECK_FALSE(looks_like_tor("www.kq3bvxmfnd7pl.com", "h2"));
    CHECK_FALSE(looks_like_tor("www.facebook.com", ""));
    CHECK_FALSE(looks_like_tor("kq3bvxmfnd7pl.com", ""));
}
