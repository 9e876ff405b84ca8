// tests/corpus/names_test.cpp - names, protocols and banners of every capture, against what tshark finds.
//
// oracle/names.tsv is tshark's account (names_oracle.py). Every difference is listed in name_differences.tsv
// with its reason (value *: all of that kind); an unlisted one fails, and so does a listed one that no longer
// occurs. Another collection: EGRESSWATCH_CAPTURES=DIR EGRESSWATCH_NAMES=FILE
// [EGRESSWATCH_NAME_DIFFERENCES=FILE] names_test. SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <map>
#include <set>
#include <sstream>
#include <tuple>

#include "capture/pcap/file_reader.h"
#include "classifier/inspect/dns.h"
#include "classifier/inspect/flow_inspector.h"
#include "classifier/link_type.h"
#include "tests/support/catch.h"
#include "tests/support/memory_frame.h"

namespace {

using namespace egresswatch;
using namespace egresswatch::datapath;
using namespace egresswatch::inspect;
namespace fs = std::filesystem;

using Row = std::tuple<std::string, std::string, std::string>;  // capture, kind, value
using Rows = std::set<Row>;

fs::path from_environment(const char* variable, const char* here) {
    const char* other = std::getenv(variable);
    return other != nullptr ? fs::path(other) : fs::path(EGRESSWATCH_SOURCE_DIR) / "tests/corpus" / here;
}

// The first three columns of a table with a head line.
std::vector<std::vector<std::string>> read_table(const fs::path& path) {
    std::vector<std::vector<std::string>> rows;
    std::ifstream in(path);
    REQUIRE(in);
    std::string line;
    std::getline(in, line);
    while (std::getline(in, line)) {
        std::vector<std::string> cells;
        std::istringstream cut(line);
        for (std::string cell; std::getline(cut, cell, '\t');) cells.push_back(cell);
        REQUIRE(cells.size() >= 3);
        rows.push_back(std::move(cells));
    }
    return rows;
}

// What a packet carries behind its innermost transport header.
struct Payload {
    bool usable = false;
    walk_result walk{};
    ByteSpan bytes;
    std::uint32_t tcp_sequence = 0;
};

Payload payload_of(const PacketInput& record) {
    Payload out;
    const LinkPlace& link = record.link;
    if (link.start == LinkStart::not_ip || link.start == LinkStart::truncated) return out;
    const MemoryFrame frame{record.bytes.data(), static_cast<__u32>(record.bytes.size())};
    frame_facts facts{};
    facts.wire_bytes = record.wire_bytes;
    facts.captured_bytes = frame.captured;
    facts.start_offset = link.offset;
    facts.start = link.start == LinkStart::ethernet ? START_ETHERNET
                  : link.start == LinkStart::ip     ? START_IP
                  : link.start == LinkStart::ppp    ? START_PPP
                                                    : START_ETHER_TYPE;
    facts.start_ether_type = link.ether_type;
    walk_state state;
    walk_full(&frame, &state, &facts);
    out.walk = state.result;
    const walk_result& walk = out.walk;
    if (walk.status != WALK_IP || walk.payload_offset == 0 || walk.payload_offset > record.bytes.size())
        return out;
    const std::size_t end =
        std::min<std::size_t>(record.bytes.size(), std::size_t{walk.ip_offset} + walk.ip_bytes);
    if (walk.payload_offset > end) return out;
    out.bytes = record.bytes.subspan(walk.payload_offset, end - walk.payload_offset);
    out.usable = true;
    if (walk.l4_proto != PROTO_TCP) return out;
    // The header's length is in the header: the one that leads from its own place to the payload.
    out.usable = false;
    for (std::uint32_t length = TCP_BYTES_MIN; length <= 60 && length <= walk.payload_offset; length += 4) {
        const std::uint8_t* header = record.bytes.data() + walk.payload_offset - length;
        if ((header[12] >> 4) * 4u != length || load16(header) != walk.sport ||
            load16(header + 2) != walk.dport)
            continue;
        out.tcp_sequence = host32(load32(header + 4));
        out.usable = true;
        break;
    }
    return out;
}

// Bytes beyond ASCII, which stand as \DDD: one question mark for all that stand together.
std::string as_the_oracle(std::string_view name) {
    std::string out;
    for (std::size_t at = 0; at < name.size(); ++at) {
        const bool beyond = name[at] == '\\' && at + 3 < name.size() && name.substr(at + 1, 3) >= "128" &&
                            name[at + 1] <= '2';
        if (!beyond) {
            out += name[at];
            continue;
        }
        if (!out.ends_with('?')) out += '?';
        at += 3;
    }
    return out;
}

void dns_rows(const std::string& capture, ByteSpan message, Rows& rows) {
    DnsReader reader(message);
    DnsQuestion question;
    while (reader.next(question)) {
        const std::string asked = as_the_oracle(question.name.text());
        rows.emplace(capture, "dns_query", asked.empty() ? "<root>" : asked);
    }
    DnsRecord record;
    while (reader.next(record)) {
        Address address;
        DnsName target;
        if (DnsReader::address_of(record, address))
            rows.emplace(capture, "dns_address", address.to_string());
        else if (record.type == dns_type_cname && reader.target_of(record, target))
            rows.emplace(capture, "dns_alias", as_the_oracle(target.text()));
    }
}

void flow_rows(const std::string& capture, const FlowFacts& facts, Rows& rows) {
    const auto add = [&](const char* kind, std::string_view value) {
        if (!value.empty()) rows.emplace(capture, kind, std::string(value));
    };
    if (facts.name_source == NameSource::sni)
        add(facts.protocol == Protocol::quic ? "quic_sni" : "sni", facts.name.view());
    if (facts.name_source == NameSource::http) add("http_host", facts.name.view());
    add("http_method", facts.http_method.view());
    add("http_agent", facts.user_agent.view());
    add("ssh", facts.banner_client.view());
    add("ssh", facts.banner_server.view());
}

struct FlowState {
    FlowInspector inspector;
    std::array<std::uint8_t, 18> first_source{};
    std::vector<StreamHead> dns;  // of both directions, where it is DNS over TCP
};

Rows rows_of(const std::string& name, const fs::path& path) {
    Rows rows;
    auto reader = capture::FileReader::open(path.string());
    if (!reader) return rows;
    QuicDecryptor decryptor;
    std::map<std::vector<std::uint8_t>, std::unique_ptr<FlowState>> flows;
    while (true) {
        const auto batch = reader->next_batch();
        if (!batch || batch->empty()) break;
        for (const auto& record : *batch) {
            const Payload packet = payload_of(record);
            if (!packet.usable) continue;
            const walk_result& walk = packet.walk;
            std::array<std::uint8_t, 18> source, destination;
            std::copy_n(walk.src, 16, source.begin());
            std::copy_n(walk.dst, 16, destination.begin());
            std::memcpy(&source[16], &walk.sport, 2);
            std::memcpy(&destination[16], &walk.dport, 2);
            const auto low = std::min(source, destination);
            std::vector<std::uint8_t> key(low.begin(), low.end());
            const auto high = std::max(source, destination);
            key.insert(key.end(), high.begin(), high.end());
            key.push_back(walk.l4_proto);
            auto& flow = flows[key];
            if (!flow) {
                flow = std::make_unique<FlowState>();
                flow->first_source = source;
            }
            const bool out = source == flow->first_source;
            PayloadPacket given;
            given.direction = out ? DIRECTION_OUT : DIRECTION_IN;
            given.l4_proto = walk.l4_proto;
            given.tcp_flags = walk.tcp_flags;
            given.tcp_sequence = packet.tcp_sequence;
            given.source_port = host16(walk.sport);
            given.destination_port = host16(walk.dport);
            given.payload = packet.bytes;
            (void)flow->inspector.add(given, decryptor);
            const bool dns_port = given.source_port == 53 || given.destination_port == 53 ||
                                  given.source_port == 5353 || given.source_port == 5355 ||
                                  given.destination_port == 5355;
            if (walk.l4_proto == PROTO_UDP && dns_port) dns_rows(name, packet.bytes, rows);
            if (walk.l4_proto == PROTO_TCP && dns_port) {
                if (flow->dns.empty()) flow->dns.resize(DIRECTION_COUNT);
                flow->dns[given.direction].add(packet.tcp_sequence, (walk.tcp_flags & TCP_SYN) != 0,
                                               packet.bytes);
            }
        }
    }
    for (const auto& [key, flow] : flows) {
        flow_rows(name, flow->inspector.facts(), rows);
        for (const StreamHead& head : flow->dns) {
            Bytes stream(head.prefix());
            while (stream.left() > 2) {
                const ByteSpan message = stream.vector16();
                if (!stream.ok()) break;
                dns_rows(name, message, rows);
            }
        }
    }
    return rows;
}

}  // namespace

TEST_CASE("names in every capture are those that tshark finds, or listed with a reason",
          "[inspect][corpus]") {
    const fs::path captures = from_environment("EGRESSWATCH_CAPTURES", "captures");
    Rows theirs;
    for (const auto& cells : read_table(from_environment("EGRESSWATCH_NAMES", "oracle/names.tsv"))) {
        const std::string value = cells[1] == "http_agent" ? cells[2].substr(0, 200) : cells[2];
        theirs.emplace(cells[0], cells[1], value);
    }
    // Capture, kind, value, whose; and whether it has occurred.
    std::map<std::tuple<std::string, std::string, std::string, std::string>, bool> listed;
    for (const auto& cells :
         read_table(from_environment("EGRESSWATCH_NAME_DIFFERENCES", "name_differences.tsv"))) {
        REQUIRE(cells.size() == 5);
        listed.emplace(std::tuple{cells[0], cells[1], cells[2], cells[3]}, false);
    }
    Rows ours;
    for (const auto& entry : fs::recursive_directory_iterator(captures)) {
        if (!entry.is_regular_file()) continue;
        const std::string name = fs::relative(entry.path(), captures).string();
        ours.merge(rows_of(name, entry.path()));
    }
    std::size_t compared = 0;
    const auto check = [&](const Rows& from, const Rows& other, const std::string& whose) {
        for (const Row& row : from) {
            ++compared;
            if (other.contains(row)) continue;
            const auto& [capture, kind, value] = row;
            auto known = listed.find({capture, kind, value, whose});
            if (known == listed.end()) known = listed.find({capture, kind, "*", whose});
            if (known != listed.end()) {
                known->second = true;
                continue;
            }
            FAIL_CHECK("not listed: " << capture << '\t' << kind << '\t' << value << '\t' << whose);
        }
    };
    check(theirs, ours, "tshark");
    check(ours, theirs, "ours");
    for (const auto& [row, occurred] : listed)
        if (!occurred)
            FAIL_CHECK("listed, and does not occur: " << std::get<0>(row) << ' ' << std::get<1>(row) << ' '
                                                      << std::get<2>(row));
    CHECK(compared > 1000);
}
