// agent/records/community_id.cpp - see community_id.h.
// SPDX-License-Identifier: Apache-2.0
#include "agent/records/community_id.h"

#include <array>
#include <cstring>
#include <utility>

#include <openssl/evp.h>

namespace egresswatch::records {
namespace {

constexpr std::uint8_t proto_icmp = 1;
constexpr std::uint8_t proto_tcp = 6;
constexpr std::uint8_t proto_udp = 17;
constexpr std::uint8_t proto_icmp6 = 58;
constexpr std::uint8_t proto_sctp = 132;

bool has_ports(std::uint8_t l4_proto) {
    return l4_proto == proto_tcp || l4_proto == proto_udp || l4_proto == proto_sctp;
}

// The type that answers `type`; the specification pairs the two as if they were ports (pycommunityid icmp.py
// and icmp6.py, after Zeek). Nothing: a message without an answer, whose order is not changed.
std::optional<std::uint8_t> icmp_counterpart(std::uint8_t l4_proto, std::uint16_t type) {
    using Pair = std::pair<std::uint8_t, std::uint8_t>;
    static constexpr std::array<Pair, 5> icmp{{{8, 0}, {13, 14}, {15, 16}, {10, 9}, {17, 18}}};
    static constexpr std::array<Pair, 6> icmp6{
        {{128, 129}, {130, 131}, {133, 134}, {135, 136}, {139, 140}, {144, 145}}};
    const auto search = [type](const auto& pairs) -> std::optional<std::uint8_t> {
        for (const auto& [request, reply] : pairs) {
            if (type == request) return reply;
            if (type == reply) return request;
        }
        return std::nullopt;
    };
    return l4_proto == proto_icmp ? search(icmp) : search(icmp6);
}

struct HashInput {
    std::array<std::uint8_t, 2 + 16 + 16 + 2 + 4> bytes{};
    std::size_t size = 0;

    void add(const std::uint8_t* from, std::size_t count) {
        std::memcpy(bytes.data() + size, from, count);
        size += count;
    }
    void add16(std::uint16_t value) {
        const std::uint8_t big[2] = {static_cast<std::uint8_t>(value >> 8), static_cast<std::uint8_t>(value)};
        add(big, 2);
    }
    void add_address(const Address& address) {
        if (address.is_ipv4())
            add(address.bytes.data() + 12, 4);
        else
            add(address.bytes.data(), 16);
    }
};

std::string base64(const unsigned char* bytes, int size) {
    std::string out(static_cast<std::size_t>(4 * ((size + 2) / 3)) + 1, '\0');
    const int length = EVP_EncodeBlock(reinterpret_cast<unsigned char*>(out.data()), bytes, size);
    out.resize(static_cast<std::size_t>(length));
    return out;
}

}  // namespace

std::string community_id_v1(const Address& source, const Address& destination, std::uint16_t source_port,
                            std::uint16_t destination_port, std::uint8_t l4_proto, std::uint16_t seed) {
    const bool icmp = l4_proto == proto_icmp || l4_proto == proto_icmp6;
    bool one_way = false;
    if (icmp) {
        const auto answer = icmp_counterpart(l4_proto, source_port);
        one_way = !answer;
        if (answer) destination_port = *answer;
    }
    const bool ports = icmp || has_ports(l4_proto);
    const auto* low = &source;
    const auto* high = &destination;
    if (!one_way && (destination < source || (source == destination && destination_port < source_port))) {
        std::swap(low, high);
        std::swap(source_port, destination_port);
    }
    HashInput input;
    input.add16(seed);
    input.add_address(*low);
    input.add_address(*high);
    input.add16(static_cast<std::uint16_t>(l4_proto << 8));  // the protocol and a byte of padding
    if (ports) {
        input.add16(source_port);
        input.add16(destination_port);
    }
    unsigned char digest[EVP_MAX_MD_SIZE];
    unsigned int size = 0;
    if (EVP_Digest(input.bytes.data(), input.size, digest, &size, EVP_sha1(), nullptr) != 1) return {};
    return "1:" + base64(digest, static_cast<int>(size));
}

std::optional<std::string> community_id_of(const datapath::flow_key& key) {
    if (key.l4_proto == proto_icmp || key.l4_proto == proto_icmp6) return std::nullopt;
    if (has_ports(key.l4_proto) && key.local_port == 0 && key.remote_port == 0) return std::nullopt;
    auto id =
        community_id_v1(Address::from_bytes(key.local_addr), Address::from_bytes(key.remote_addr),
                        datapath::host16(key.local_port), datapath::host16(key.remote_port), key.l4_proto);
    if (id.empty()) return std::nullopt;  // SHA-1 refused by the OpenSSL policy of this host
    return id;
}

}  // namespace egresswatch::records
