// agent/daemon/config.cpp - the keys of egresswatch.yaml as tables: one row a key, and how it is read.
// SPDX-License-Identifier: Apache-2.0
//
// What is documented is what is accepted: tests/unit/agent/daemon_config_test.cpp compares the tables with
// docs/man/egresswatch.yaml.5.
#include "agent/daemon/config.h"

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <fstream>
#include <set>
#include <sstream>

#include "agent/daemon/config_reader.h"
#include "agent/outputs/journald.h"
#include "agent/records/record.h"

namespace egresswatch::daemon {

namespace {

using rules::Node;
using std::chrono::seconds;

constexpr std::string_view engine_words[] = {"ebpf", "pcap", "dpdk"};  // in the order of EngineKind
constexpr std::string_view dpdk_idle_words[] = {"sleep",
                                                "spin"};  // these in the order of the enumerators, too
constexpr std::string_view dpdk_spread_words[] = {"auto", "queues"};
constexpr std::string_view dpdk_time_words[] = {"clock", "device"};
constexpr std::string_view argument_words[] = {"full", "masked", "none"};  // of ArgumentPolicy, in order
constexpr std::string_view track_words[] = {"outside", "all"};
constexpr std::string_view log_words[] = {"debug", "info", "warn", "error"};
constexpr std::string_view output_words[] = {"syslog", "file", "stdout", "http", "journald"};
constexpr std::string_view transport_words[] = {"unix", "udp", "tcp", "tls", "relp"};
constexpr std::string_view framing_words[] = {"octet", "lf"};
constexpr std::string_view body_words[] = {"ecs", "text", "cef", "leef", "ocsf"};
constexpr std::string_view bulk_words[] = {"lines", "array"};
constexpr std::string_view level_words[] = {"low", "medium", "high", "critical"};

constexpr std::uint64_t kibi = 1024, mebi = kibi * 1024, gibi = mebi * 1024;

void read_interfaces(ConfigReader& reader, const Node& node, std::vector<std::string>& out) {
    std::vector<std::string> names;
    for (const Node* item : reader.list(node)) {
        const auto name = reader.text(*item);
        if (!name) continue;
        if (name->size() > 15)  // IFNAMSIZ - 1
            reader.error(*item, "config/interface",
                         "interface name \"" + *name + "\" is longer than 15 characters",
                         "write a name, a pattern (\"veth*\") or all-physical");
        else
            names.push_back(*name);
    }
    if (names.empty() && node.items.empty())
        reader.error(node, "config/empty", "interfaces is empty: nothing would be watched",
                     "write all-physical, or names and patterns of interfaces");
    out = std::move(names);
}

void read_networks(ConfigReader& reader, const Node& node, std::vector<Prefix>& out) {
    for (const Node* item : reader.list(node)) {
        const auto text = reader.text(*item);
        if (!text) continue;
        if (const auto prefix = Prefix::parse(*text))
            out.push_back(*prefix);
        else
            reader.error(*item, "config/prefix", "\"" + *text + "\" is not a prefix",
                         "write 192.0.2.0/24 or \"2001:db8::/32\", host bits zero");
    }
}

void read_kinds(ConfigReader& reader, const Node& node, std::set<std::string>& out) {
    std::set<std::string> kinds;
    for (const Node* item : reader.list(node)) {
        const std::span<const std::string_view> known(records::kinds);
        if (const auto word = reader.word(*item, known)) kinds.insert(std::string(known[*word]));
    }
    out = std::move(kinds);
}

const ConfigKey<FlowRecordSettings> flow_record_keys[] = {
    {"long_lived",
     [](ConfigReader& r, const Node& n, FlowRecordSettings& c) {
         r.assign(r.duration(n, seconds(1), seconds(86400)), c.long_lived);
     }},
    {"per_second_max",
     [](ConfigReader& r, const Node& n, FlowRecordSettings& c) {
         if (const auto value = r.integer(n, 0, 1'000'000))
             c.per_second_max = static_cast<std::uint32_t>(*value);
     }},
};

const ConfigKey<ProcessSettings> process_keys[] = {
    {"senders",
     [](ConfigReader& r, const Node& n, ProcessSettings& c) { r.assign(r.boolean(n), c.senders); }},
    {"hashes", [](ConfigReader& r, const Node& n, ProcessSettings& c) { r.assign(r.boolean(n), c.hashes); }},
    {"arguments",
     [](ConfigReader& r, const Node& n, ProcessSettings& c) {
         if (const auto word = r.word(n, argument_words))
             c.arguments = static_cast<capture::ArgumentPolicy>(*word);
     }},
};

const ConfigKey<PcapSettings> pcap_keys[] = {
    {"buffer", [](ConfigReader& r, const Node& n,
                  PcapSettings& c) { r.assign(r.size(n, 256 * kibi, gibi), c.buffer_bytes); }},
    {"snap_length",
     [](ConfigReader& r, const Node& n, PcapSettings& c) {
         if (const auto value = r.integer(n, 64, 65535)) c.snap_length = static_cast<std::uint32_t>(*value);
     }},
    {"promiscuous",
     [](ConfigReader& r, const Node& n, PcapSettings& c) { r.assign(r.boolean(n), c.promiscuous); }},
    {"filter", [](ConfigReader& r, const Node& n, PcapSettings& c) { r.assign(r.text(n), c.filter); }},
};

template <typename Number>
void read_number(ConfigReader& reader, const Node& node, std::uint64_t min, std::uint64_t max, Number& out) {
    if (const auto value = reader.integer(node, min, max)) out = static_cast<Number>(*value);
}

void read_texts(ConfigReader& reader, const Node& node, std::vector<std::string>& out) {
    for (const Node* item : reader.list(node))
        if (auto text = reader.text(*item)) out.push_back(std::move(*text));
}

void read_cores(ConfigReader& reader, const Node& node, std::vector<unsigned>& out) {
    for (const Node* item : reader.list(node))
        if (const auto cpu = reader.integer(*item, 0, 1023)) out.push_back(static_cast<unsigned>(*cpu));
}

using capture::DpdkConfig;

const ConfigKey<DpdkConfig> dpdk_keys[] = {
    {"eal_args", [](ConfigReader& r, const Node& n, DpdkConfig& c) { read_texts(r, n, c.eal_args); }},
    {"ports", [](ConfigReader& r, const Node& n, DpdkConfig& c) { read_texts(r, n, c.ports); }},
    {"queues", [](ConfigReader& r, const Node& n,
                  DpdkConfig& c) { read_number(r, n, 1, DpdkConfig::queues_max, c.queues); }},
    {"cores", [](ConfigReader& r, const Node& n, DpdkConfig& c) { read_cores(r, n, c.cores); }},
    {"mbufs", [](ConfigReader& r, const Node& n, DpdkConfig& c) { read_number(r, n, 1, 1u << 22, c.mbufs); }},
    {"descriptors",
     [](ConfigReader& r, const Node& n, DpdkConfig& c) { read_number(r, n, 32, 32768, c.descriptors); }},
    {"burst", [](ConfigReader& r, const Node& n,
                 DpdkConfig& c) { read_number(r, n, 1, DpdkConfig::burst_max, c.burst); }},
    {"mtu", [](ConfigReader& r, const Node& n, DpdkConfig& c) { read_number(r, n, 68, 16110, c.mtu); }},
    {"promiscuous",
     [](ConfigReader& r, const Node& n, DpdkConfig& c) { r.assign(r.boolean(n), c.promiscuous); }},
    {"huge_pages",
     [](ConfigReader& r, const Node& n, DpdkConfig& c) { r.assign(r.boolean(n), c.huge_pages); }},
    {"memory",
     [](ConfigReader& r, const Node& n, DpdkConfig& c) {
         if (const auto bytes = r.size(n, 32 * mebi, 1024 * gibi))
             c.memory_mb = static_cast<std::uint32_t>(*bytes / mebi);
     }},
    {"idle",
     [](ConfigReader& r, const Node& n, DpdkConfig& c) {
         if (const auto word = r.word(n, dpdk_idle_words)) c.idle = static_cast<capture::DpdkIdle>(*word);
     }},
    {"spread",
     [](ConfigReader& r, const Node& n, DpdkConfig& c) {
         if (const auto word = r.word(n, dpdk_spread_words))
             c.spread = static_cast<capture::DpdkSpread>(*word);
     }},
    {"time",
     [](ConfigReader& r, const Node& n, DpdkConfig& c) {
         if (const auto word = r.word(n, dpdk_time_words)) c.time = static_cast<capture::DpdkTime>(*word);
     }},
};

void read_resolvers(ConfigReader& reader, const Node& node, ResolverSettings& out) {
    ResolverSettings listed;
    for (const Node* item : reader.list(node)) {
        const auto word = reader.text(*item);
        if (word && !add_resolver(*word, listed))
            reader.error(*item, "config/resolver",
                         "\"" + *word + "\" is neither any, system or local, nor an address or a prefix",
                         "write system, local, 192.0.2.53 or \"2001:db8::/32\", host bits zero");
    }
    out = std::move(listed);
}

constexpr std::string_view shown_words[] = {"full", "registered-domain", "hashed", "none"};
static_assert(static_cast<int>(records::ShownNames::registered_domain) == 1 &&
                  static_cast<int>(records::ShownNames::none) == 3,
              "the words above are in the order of the enumerators");

const ConfigKey<NameSettings> name_keys[] = {
    {"inspect", [](ConfigReader& r, const Node& n, NameSettings& c) { r.assign(r.boolean(n), c.inspect); }},
    {"shown",
     [](ConfigReader& r, const Node& n, NameSettings& c) {
         if (const auto word = r.word(n, shown_words)) c.shown = static_cast<records::ShownNames>(*word);
     }},
    {"hash_key", [](ConfigReader& r, const Node& n, NameSettings& c) { r.assign(r.text(n), c.hash_key); }},
    {"resolvers", [](ConfigReader& r, const Node& n, NameSettings& c) { read_resolvers(r, n, c.resolvers); }},
};

const ConfigKey<JournalSettings> journal_keys[] = {
    {"segment_size", [](ConfigReader& r, const Node& n,
                        JournalSettings& c) { r.assign(r.size(n, mebi, 4 * gibi), c.segment_bytes_max); }},
    {"size_max", [](ConfigReader& r, const Node& n,
                    JournalSettings& c) { r.assign(r.size(n, 16 * mebi, 16384 * gibi), c.bytes_max); }},
    {"hashes_max", [](ConfigReader& r, const Node& n,
                      JournalSettings& c) { r.assign(r.size(n, mebi, 16384 * gibi), c.hash_bytes_max); }},
    {"age_max",
     [](ConfigReader& r, const Node& n, JournalSettings& c) {
         if (const auto age = r.duration(n, seconds(3600), seconds(3650LL * 86400)))
             c.age_max = std::chrono::duration_cast<std::chrono::hours>(*age);
     }},
};

const ConfigKey<EvidenceSettings> evidence_keys[] = {
    {"checkpoint_interval",
     [](ConfigReader& r, const Node& n, EvidenceSettings& c) {
         r.assign(r.duration(n, seconds(1), seconds(3600)), c.checkpoint_interval);
     }},
    {"key_interval",
     [](ConfigReader& r, const Node& n, EvidenceSettings& c) {
         r.assign(r.duration(n, seconds(10), seconds(7 * 86400)), c.key_interval);
     }},
};

const ConfigKey<outputs::TlsConfig> tls_keys[] = {
    {"ca_file",
     [](ConfigReader& r, const Node& n, outputs::TlsConfig& c) { r.assign(r.path(n), c.ca_file); }},
    {"server_name",
     [](ConfigReader& r, const Node& n, outputs::TlsConfig& c) { r.assign(r.text(n), c.server_name); }},
    {"fingerprints",
     [](ConfigReader& r, const Node& n, outputs::TlsConfig& c) {
         for (const Node* item : r.list(n))
             if (const auto text = r.text(*item)) c.fingerprints.push_back(*text);
     }},
    {"certificate_file",
     [](ConfigReader& r, const Node& n, outputs::TlsConfig& c) { r.assign(r.path(n), c.certificate_file); }},
    {"key_file",
     [](ConfigReader& r, const Node& n, outputs::TlsConfig& c) { r.assign(r.path(n), c.key_file); }},
};

const ConfigKey<outputs::RateLimitConfig> rate_limit_keys[] = {
    {"per_second",
     [](ConfigReader& r, const Node& n, outputs::RateLimitConfig& c) {
         if (const auto value = r.integer(n, 1, 1'000'000)) c.per_second = static_cast<std::uint32_t>(*value);
     }},
    {"burst",
     [](ConfigReader& r, const Node& n, outputs::RateLimitConfig& c) {
         if (const auto value = r.integer(n, 1, 10'000'000)) c.burst = static_cast<std::uint32_t>(*value);
     }},
};

const ConfigKey<outputs::OutputConfig> output_keys[] = {
    {"name", [](ConfigReader& r, const Node& n, outputs::OutputConfig& c) { r.assign(r.text(n), c.name); }},
    {"type", [](ConfigReader& r, const Node& n,
                outputs::OutputConfig&) { [[maybe_unused]] const auto only_one = r.word(n, output_words); }},
    {"transport",
     [](ConfigReader& r, const Node& n, outputs::OutputConfig& c) {
         if (const auto word = r.word(n, transport_words))
             c.transport = static_cast<outputs::TransportKind>(*word);
     }},
    {"address",
     [](ConfigReader& r, const Node& n, outputs::OutputConfig& c) { r.assign(r.text(n), c.address); }},
    {"port",
     [](ConfigReader& r, const Node& n, outputs::OutputConfig& c) {
         if (const auto port = r.integer(n, 1, 65535)) c.port = static_cast<std::uint16_t>(*port);
     }},
    {"framing",
     [](ConfigReader& r, const Node& n, outputs::OutputConfig& c) {
         if (const auto word = r.word(n, framing_words)) c.framing = static_cast<outputs::Framing>(*word);
     }},
    {"path",
     [](ConfigReader& r, const Node& n, outputs::OutputConfig& c) { r.assign(r.path(n), c.address); }},
    {"url", [](ConfigReader& r, const Node& n, outputs::OutputConfig& c) { r.assign(r.text(n), c.address); }},
    {"header_file",
     [](ConfigReader& r, const Node& n, outputs::OutputConfig& c) { r.assign(r.path(n), c.header_file); }},
    {"batch_records",
     [](ConfigReader& r, const Node& n, outputs::OutputConfig& c) {
         r.assign(r.integer(n, 1, outputs::batch_records_limit), c.batch_records);
     }},
    {"bulk",
     [](ConfigReader& r, const Node& n, outputs::OutputConfig& c) {
         if (const auto word = r.word(n, bulk_words)) c.bulk = static_cast<outputs::Bulk>(*word);
     }},
    {"rate_limit",
     [](ConfigReader& r, const Node& n, outputs::OutputConfig& c) {
         r.mapping<outputs::RateLimitConfig>(n, rate_limit_keys, "rate_limit", c.rate_limit);
         if (c.rate_limit.per_second == 0)
             r.error(n, "config/missing", "the rate limit has no per_second", "add per_second: 100, or so");
     }},
    {"timestamp_digits",
     [](ConfigReader& r, const Node& n, outputs::OutputConfig& c) {
         if (const auto digits = r.integer(n, 0, 9)) c.time_digits = static_cast<unsigned>(*digits);
     }},
    {"tls",
     [](ConfigReader& r, const Node& n, outputs::OutputConfig& c) {
         r.mapping<outputs::TlsConfig>(n, tls_keys, "tls", c.tls.emplace());
     }},
    {"body",
     [](ConfigReader& r, const Node& n, outputs::OutputConfig& c) {
         if (const auto word = r.word(n, body_words)) c.body = static_cast<records::BodyKind>(*word);
     }},
    {"max_bytes",
     [](ConfigReader& r, const Node& n, outputs::OutputConfig& c) {
         r.assign(r.integer(n, outputs::message_bytes_min, outputs::message_bytes_limit), c.max_bytes);
     }},
    {"facility",
     [](ConfigReader& r, const Node& n, outputs::OutputConfig& c) {
         const auto name = r.text(n);
         if (!name) return;
         if (const auto facility = outputs::parse_facility(*name))
             c.facility = *facility;
         else
             r.error(n, "config/word", "\"" + *name + "\" is not a syslog facility",
                     "write one of kern, user, daemon, auth, authpriv, syslog, local0 to local7");
     }},
    {"level_min",
     [](ConfigReader& r, const Node& n, outputs::OutputConfig& c) {
         if (const auto word = r.word(n, level_words))
             c.level_min = *records::parse_level(level_words[*word]);
     }},
    {"test_findings", [](ConfigReader& r, const Node& n,
                         outputs::OutputConfig& c) { r.assign(r.boolean(n), c.test_findings); }},
    {"kinds", [](ConfigReader& r, const Node& n, outputs::OutputConfig& c) { read_kinds(r, n, c.kinds); }},
};
static_assert(static_cast<int>(outputs::TransportKind::relp) == 4 &&
                  static_cast<int>(outputs::Framing::lf) == 1 &&
                  static_cast<int>(records::BodyKind::ocsf) == 4,
              "the words above are in the order of the enumerators");

// "udp-192.0.2.7-514": names the cursor, so it must not depend on the place in the list.
std::string default_name(const outputs::OutputConfig& output) {
    std::string name(outputs::transport_name(output.transport));
    if (output.transport != outputs::TransportKind::standard_output &&
        output.transport != outputs::TransportKind::journald)
        name += "-" + output.address;
    if (output.transport != outputs::TransportKind::unix_datagram && outputs::is_syslog(output.transport))
        name += "-" + std::to_string(output.port);
    for (char& c : name)
        if (std::isalnum(static_cast<unsigned char>(c)) == 0 && c != '.' && c != '-' && c != '_') c = '-';
    return name;
}

// The type decides what else an output must have, and which keys of the others make no sense.
void check_type(ConfigReader& reader, const Node& node, outputs::OutputConfig& output) {
    struct Type {
        std::string_view name;
        std::string_view needs;  // the key that says where to
        std::string_view help;
        std::vector<std::string_view> foreign;
    };
    static const Type types[] = {
        {"syslog",
         "address",
         "add address: and the receiver's IP address or name",
         {"path", "url", "header_file", "batch_records", "bulk"}},
        {"file",
         "path",
         "add path: and where the lines go",
         {"transport", "address", "port", "framing", "facility", "url", "tls", "header_file", "batch_records",
          "bulk"}},
        {"stdout",
         "",
         "",
         {"transport", "address", "port", "framing", "facility", "path", "url", "tls", "header_file",
          "batch_records", "bulk"}},
        {"http",
         "url",
         "add url: https://...",
         {"transport", "address", "port", "framing", "facility", "path"}},
        {"journald",
         "",
         "",
         {"transport", "port", "framing", "path", "url", "tls", "header_file", "batch_records", "bulk"}}};
    const Node* named = reader.find(node, "type");
    if (named == nullptr) {
        reader.error(node, "config/missing", "the output has no type", "add type: syslog");
        named = &node;
    }
    const auto* type = std::ranges::find(types, std::string_view(named->text), &Type::name);
    if (type == std::end(types)) type = types;
    if (type->name == "file") output.transport = outputs::TransportKind::file;
    if (type->name == "stdout") output.transport = outputs::TransportKind::standard_output;
    if (type->name == "http") output.transport = outputs::TransportKind::http;
    if (type->name == "journald") {
        output.transport = outputs::TransportKind::journald;
        if (reader.find(node, "address") == nullptr) output.address = outputs::journald_socket;
    }
    for (const auto foreign : type->foreign)
        if (const Node* value = reader.find(node, foreign); value != nullptr)
            reader.error(*value, "config/foreign-key",
                         "an output of type " + std::string(type->name) + " has no " + std::string(foreign),
                         "remove it");
    if (!type->needs.empty() && reader.find(node, type->needs) == nullptr &&
        output.transport != outputs::TransportKind::unix_datagram)
        reader.error(node, "config/missing", "the output has no " + std::string(type->needs),
                     std::string(type->help));
}

void read_output(ConfigReader& reader, const Node& node, std::vector<outputs::OutputConfig>& outputs) {
    if (node.kind != Node::Kind::mapping) {
        reader.error(node, "config/type", "an output is a mapping with type, transport and address",
                     "write - {type: syslog, transport: udp, address: 192.0.2.7}");
        return;
    }
    outputs::OutputConfig output;
    const std::size_t before = reader.error_count();
    const auto context = reader.enter("outputs[" + std::to_string(outputs.size()) + "]", node);
    reader.mapping<outputs::OutputConfig>(node, output_keys, "output", output);
    check_type(reader, node, output);
    if (output.name.empty()) output.name = default_name(output);
    for (const auto& other : outputs)
        if (other.name == output.name)
            reader.error(
                node, "config/duplicate-output", "two outputs are called \"" + output.name + "\"",
                "give each a name of its own: it names the file in which its place in the journal is kept");
    if (reader.error_count() == before)
        for (const auto& problem : outputs::check(output)) reader.error(node, "config/output", problem, "");
    outputs.push_back(std::move(output));
}

const ConfigKey<LivenessSettings> liveness_keys[] = {
    {"heartbeat",
     [](ConfigReader& r, const Node& n, LivenessSettings& c) {
         r.assign(r.duration(n, seconds(0), seconds(86400)), c.heartbeat);
     }},
    {"canary",
     [](ConfigReader& r, const Node& n, LivenessSettings& c) {
         r.assign(r.duration(n, seconds(0), seconds(30 * 86400)), c.canary);
     }},
    {"canary_level",
     [](ConfigReader& r, const Node& n, LivenessSettings& c) {
         if (const auto word = r.word(n, level_words)) c.canary_level = level_words[*word];
     }},
};

// "127.0.0.1:9847", "[::1]:9847": an address, not a name, so that nobody listens more widely than was meant.
void read_listen(ConfigReader& reader, const Node& node, std::string& out) {
    const auto text = reader.text(node);
    if (!text) return;
    const auto colon = text->rfind(':');
    unsigned port = 0;
    std::string host = text->substr(0, colon);
    const char* const end = text->data() + text->size();
    if (colon != std::string::npos && std::from_chars(text->data() + colon + 1, end, port).ptr != end)
        port = 0;
    if (host.starts_with('[') && host.ends_with(']')) host = host.substr(1, host.size() - 2);
    if (!Address::parse(host) || port < 1 || port > 65535)
        return reader.error(node, "config/listen", "\"" + *text + "\" is not an address with a port",
                            "write \"127.0.0.1:9847\" or \"[::1]:9847\"");
    out = *text;
}

const ConfigKey<MetricsSettings> metrics_keys[] = {
    {"listen", [](ConfigReader& r, const Node& n, MetricsSettings& c) { read_listen(r, n, c.listen); }},
};

const ConfigKey<Config> config_keys[] = {
    {"site", [](ConfigReader& r, const Node& n, Config& c) { r.assign(r.text(n), c.site); }},
    {"engine",
     [](ConfigReader& r, const Node& n, Config& c) {
         if (const auto word = r.word(n, engine_words)) c.engine = static_cast<EngineKind>(*word);
     }},
    {"interfaces", [](ConfigReader& r, const Node& n, Config& c) { read_interfaces(r, n, c.interfaces); }},
    {"track",
     [](ConfigReader& r, const Node& n, Config& c) {
         if (const auto word = r.word(n, track_words)) c.track_all = *word == 1;
     }},
    {"flow_slots_per_cpu",
     [](ConfigReader& r, const Node& n, Config& c) {
         const auto slots = r.integer(n, 64, 4'194'304);
         if (!slots) return;
         if ((*slots & (*slots - 1)) != 0) {
             std::uint64_t above = 64;
             while (above < *slots) above *= 2;
             r.error(n, "config/power-of-two", std::to_string(*slots) + " is not a power of two",
                     "write " + std::to_string(above / 2) + " or " + std::to_string(above));
             return;
         }
         c.flow_slots_per_cpu = static_cast<std::uint32_t>(*slots);
     }},
    {"processes", [](ConfigReader& r, const Node& n,
                     Config& c) { r.mapping<ProcessSettings>(n, process_keys, "processes", c.processes); }},
    {"local_networks",
     [](ConfigReader& r, const Node& n, Config& c) { read_networks(r, n, c.local_networks); }},
    {"flow_memory", [](ConfigReader& r, const Node& n,
                       Config& c) { r.assign(r.size(n, mebi, 64 * gibi), c.flow_memory_bytes); }},
    {"idle_timeout", [](ConfigReader& r, const Node& n,
                        Config& c) { r.assign(r.duration(n, seconds(1), seconds(86400)), c.idle_timeout); }},
    {"closed_timeout",
     [](ConfigReader& r, const Node& n, Config& c) {
         r.assign(r.duration(n, seconds(1), seconds(86400)), c.closed_timeout);
     }},
    {"active_timeout",
     [](ConfigReader& r, const Node& n, Config& c) {
         r.assign(r.duration(n, seconds(1), seconds(86400)), c.active_timeout);
     }},
    {"pcap", [](ConfigReader& r, const Node& n,
                Config& c) { r.mapping<PcapSettings>(n, pcap_keys, "pcap", c.pcap); }},
    {"dpdk",
     [](ConfigReader& r, const Node& n, Config& c) { r.mapping<DpdkConfig>(n, dpdk_keys, "dpdk", c.dpdk); }},
    {"policy_dir", [](ConfigReader& r, const Node& n, Config& c) { r.assign(r.path(n), c.policy_dir); }},
    {"watch_policy",
     [](ConfigReader& r, const Node& n, Config& c) { r.assign(r.boolean(n), c.watch_policy); }},
    {"geo_file", [](ConfigReader& r, const Node& n, Config& c) { r.assign(r.path(n), c.geo_file); }},
    {"asn_file", [](ConfigReader& r, const Node& n, Config& c) { r.assign(r.path(n), c.asn_file); }},
    {"state_dir", [](ConfigReader& r, const Node& n, Config& c) { r.assign(r.path(n), c.state_dir); }},
    {"pin_dir", [](ConfigReader& r, const Node& n, Config& c) { r.assign(r.path(n), c.pin_dir); }},
    {"control_socket",
     [](ConfigReader& r, const Node& n, Config& c) { r.assign(r.path(n), c.control_socket); }},
    {"keep_hooks", [](ConfigReader& r, const Node& n, Config& c) { r.assign(r.boolean(n), c.keep_hooks); }},
    {"coverage_interval",
     [](ConfigReader& r, const Node& n, Config& c) {
         r.assign(r.duration(n, seconds(1), seconds(60)), c.coverage_interval);
     }},
    {"windows_save_interval",
     [](ConfigReader& r, const Node& n, Config& c) {
         r.assign(r.duration(n, seconds(1), seconds(3600)), c.windows_save_interval);
     }},
    {"flow_records",
     [](ConfigReader& r, const Node& n, Config& c) {
         r.mapping<FlowRecordSettings>(n, flow_record_keys, "flow_records", c.flow_records);
     }},
    {"names", [](ConfigReader& r, const Node& n,
                 Config& c) { r.mapping<NameSettings>(n, name_keys, "names", c.names); }},
    {"journal", [](ConfigReader& r, const Node& n,
                   Config& c) { r.mapping<JournalSettings>(n, journal_keys, "journal", c.journal); }},
    {"evidence", [](ConfigReader& r, const Node& n,
                    Config& c) { r.mapping<EvidenceSettings>(n, evidence_keys, "evidence", c.evidence); }},
    {"liveness", [](ConfigReader& r, const Node& n,
                    Config& c) { r.mapping<LivenessSettings>(n, liveness_keys, "liveness", c.liveness); }},
    {"metrics", [](ConfigReader& r, const Node& n,
                   Config& c) { r.mapping<MetricsSettings>(n, metrics_keys, "metrics", c.metrics); }},
    {"log_level",
     [](ConfigReader& r, const Node& n, Config& c) {
         if (const auto word = r.word(n, log_words)) c.log_level = log_words[*word];
     }},
    {"outputs",
     [](ConfigReader& r, const Node& n, Config& c) {
         for (const Node* item : r.list(n)) read_output(r, *item, c.outputs);
     }},
};

}  // namespace

std::vector<std::string> config_key_names() {
    std::vector<std::string> names;
    for (const auto& key : config_keys) names.emplace_back(key.name);
    for (const auto& key : flow_record_keys) names.push_back("flow_records." + std::string(key.name));
    for (const auto& key : name_keys) names.push_back("names." + std::string(key.name));
    for (const auto& key : process_keys) names.push_back("processes." + std::string(key.name));
    for (const auto& key : pcap_keys) names.push_back("pcap." + std::string(key.name));
    for (const auto& key : dpdk_keys) names.push_back("dpdk." + std::string(key.name));
    for (const auto& key : journal_keys) names.push_back("journal." + std::string(key.name));
    for (const auto& key : evidence_keys) names.push_back("evidence." + std::string(key.name));
    for (const auto& key : output_keys) names.push_back("outputs." + std::string(key.name));
    for (const auto& key : rate_limit_keys) names.push_back("outputs.rate_limit." + std::string(key.name));
    for (const auto& key : liveness_keys) names.push_back("liveness." + std::string(key.name));
    for (const auto& key : metrics_keys) names.push_back("metrics." + std::string(key.name));
    for (const auto& key : tls_keys) names.push_back("outputs.tls." + std::string(key.name));
    return names;
}

rules::Compiled<Config> parse_config(std::string_view name, std::string_view text) {
    const rules::SourceText source{std::string(name), std::string(text)};
    auto root = rules::read_yaml(source);
    if (!root) return std::unexpected(std::move(root.error()));
    ConfigReader reader(source);
    Config config;
    reader.mapping<Config>(**root, config_keys, "configuration", config);
    if (reader.error_count() != 0) return std::unexpected(reader.take_diagnostics());
    return config;
}

rules::Compiled<Config> load_config(const std::filesystem::path& path) {
    std::ifstream in(path);
    std::ostringstream text;
    // A directory opens, and fails only when it is read.
    if (!in || !(text << in.rdbuf())) {
        rules::Diagnostic diagnostic;
        diagnostic.code = "config/unreadable";
        diagnostic.span.file = path.string();
        diagnostic.message = std::string("cannot be read: ") + std::strerror(errno == 0 ? EIO : errno);
        diagnostic.help = "name a readable file with --config";
        return std::unexpected(std::vector{std::move(diagnostic)});
    }
    return parse_config(path.string(), text.str());
}

}  // namespace egresswatch::daemon
