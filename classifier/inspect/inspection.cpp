// classifier/inspect/inspection.cpp
// SPDX-License-Identifier: Apache-2.0
#include "classifier/inspect/inspection.h"

#include <algorithm>
#include <cstring>
#include <random>

#include "classifier/inspect/dns.h"
#include "classifier/table_platform.h"

namespace egresswatch::inspect {

namespace {

constexpr std::uint8_t proto_tcp = 6;
constexpr std::uint8_t proto_udp = 17;
constexpr std::uint16_t port_dns = 53;
constexpr std::uint32_t dns_length_bytes = 2;  // in front of a message over TCP, RFC 1035 section 4.2.2
constexpr std::uint16_t no_such_name = 3;      // RFC 1035 section 4.1.1

std::uint64_t random_seed() {
    std::random_device random;
    return static_cast<std::uint64_t>(random()) << 32 | random();
}

bool is_dns(const datapath::flow_key& key) noexcept {
    return datapath::host16(key.remote_port) == port_dns || datapath::host16(key.local_port) == port_dns;
}

PayloadPacket packet_of(const PayloadSample& sample) noexcept {
    const bool leaves = sample.direction == datapath::DIRECTION_OUT;
    PayloadPacket out;
    out.direction = sample.direction;
    out.l4_proto = sample.key.l4_proto;
    out.tcp_flags = sample.tcp_flags;
    out.tcp_sequence = sample.tcp_sequence;
    out.source_port = datapath::host16(leaves ? sample.key.local_port : sample.key.remote_port);
    out.destination_port = datapath::host16(leaves ? sample.key.remote_port : sample.key.local_port);
    if (sample.initiator == datapath::INITIATOR_LOCAL) out.client = datapath::DIRECTION_OUT;
    if (sample.initiator == datapath::INITIATOR_REMOTE) out.client = datapath::DIRECTION_IN;
    out.payload = sample.payload;
    return out;
}

template <std::size_t Size>
std::string text_of(const std::optional<std::array<char, Size>>& fingerprint) {
    return fingerprint ? std::string(fingerprint->data(), Size) : std::string();
}

std::int64_t minute_of(Timestamp at) noexcept {
    return std::chrono::floor<std::chrono::minutes>(at).time_since_epoch().count();
}

// Of a datagram, or of a protocol without ports.
Protocol recognise_datagram(const PayloadPacket& packet) noexcept {
    if (packet.l4_proto != proto_udp) return recognise_ip(packet.l4_proto);
    return recognise_udp(packet.payload, Ports{packet.source_port, packet.destination_port}).protocol;
}

class Learner final : public DnsBindings {
public:
    Learner(NameCache& cache, Timestamp at, bool listed) noexcept : cache_(cache), at_(at), listed_(listed) {}
    void on_binding(std::string_view asked, const Address& address, std::uint32_t ttl_s) noexcept override {
        cache_.learn(asked, address, ttl_s, at_, listed_);
    }
    void on_no_address(std::string_view asked, std::uint16_t rcode) noexcept override {
        // A name without an address of one family may well have one of the other.
        if (rcode == no_such_name && listed_) cache_.learn_denied(asked, at_);
    }

private:
    NameCache& cache_;
    Timestamp at_;
    bool listed_;
};

}  // namespace

struct Inspection::Work {
    Flow* flow = nullptr;  // whose it is
    FlowInspector inspector;
    unsigned packets = 0;
};

struct Inspection::DnsStream {
    datapath::flow_key key{};
    std::array<StreamHead, datapath::DIRECTION_COUNT> heads;
};

std::string_view name_source_name(NameSource source) noexcept {
    constexpr std::array<std::string_view, 5> names{"", "sni", "http", "dns", "dns-unlisted"};
    return names[static_cast<std::size_t>(source)];
}

std::size_t Inspection::HashKey::operator()(const datapath::flow_key& key) const noexcept {
    return datapath::flow_hash(&key, seed);
}

bool Inspection::EqualKey::operator()(const datapath::flow_key& a,
                                      const datapath::flow_key& b) const noexcept {
    return datapath::flow_key_equal(&a, &b) != 0;
}

Inspection::Inspection(Resolvers resolvers)
    : flow_seed_(random_seed()),
      stream_of_(0, HashKey{random_seed()}),
      open_questions_(questions_max),
      question_seed_(random_seed()),
      resolvers_(std::move(resolvers)) {
    flows_.reserve(flows_max);  // address space, until flows take it
    free_.reserve(flows_max);
    idle_.reserve(inspectors_max);
}
Inspection::~Inspection() = default;

bool Inspection::on_payload(const PayloadSample& sample, QuestionSink& questions) {
    ++counters_.samples;
    if (is_dns(sample.key)) {
        if (sample.key.l4_proto == proto_tcp)
            read_dns_stream(sample, questions);
        else
            read_dns(sample, questions);
        return true;
    }
    return sample.tracked && inspect(sample);
}

// ------------------------------------------------------------------------------------------------ flows

std::uint32_t Inspection::hash_of(const datapath::flow_key& key) const noexcept {
    return static_cast<std::uint32_t>(datapath::flow_hash(&key, flow_seed_));
}

const Inspection::Flow* Inspection::look_up(const datapath::flow_key& key) const {
    const std::uint32_t number = index_.find(hash_of(key), [&](std::uint32_t candidate) {
        return datapath::flow_key_equal(&flows_[candidate].key, &key) != 0;
    });
    return number == FlowIndex::none ? nullptr : &flows_[number];
}

void Inspection::set_bits(const datapath::flow_key& key) {
    const auto set = [this](const datapath::flow_key& of) {
        const Mark mark = mark_of(of);
        bits_[mark.word] |= mark.bits;
    };
    set(key);
    if (++bits_set_ <= 2 * flows_max) return;
    std::ranges::fill(bits_, 0);
    bits_set_ = index_.size();
    for (const Flow& flow : flows_)
        if (flow.work != no_flow) set(flow.key);
}

// Of which nothing is known yet. Null: there are too many.
Inspection::Flow* Inspection::make(const datapath::flow_key& key, Timestamp at) {
    if (index_.size() >= flows_max) {
        ++counters_.flows_full;
        return nullptr;
    }
    Flow* flow = nullptr;
    if (free_.empty()) {
        flow = &flows_.emplace_back();
    } else {
        flow = &flows_[free_.back()];
        free_.pop_back();
    }
    flow->key = key;
    flow->heard_minute = static_cast<std::uint16_t>(minute_of(at));
    flow->work = no_work;
    index_.add(hash_of(key), static_cast<std::uint32_t>(flow - flows_.data()));
    set_bits(key);
    return flow;
}

void Inspection::drop(Flow& flow) noexcept {
    if (flow.work != no_work) give_back(flow.work);
    const auto number = static_cast<std::uint32_t>(&flow - flows_.data());
    index_.remove(hash_of(flow.key), number);
    flow = Flow{};
    flow.work = no_flow;
    free_.push_back(number);
}

void Inspection::touch(const datapath::flow_key& key, Timestamp at) noexcept {
    const std::int64_t minute = minute_of(at);
    Flow* flow = find(key);
    if (flow != nullptr && minutes_since(*flow, minute) != 0)
        flow->heard_minute = static_cast<std::uint16_t>(minute);
    if (minute > minute_) drop_quiet(minute);
}

void Inspection::drop_quiet(std::int64_t minute) noexcept {
    minute_ = minute;
    for (Flow& flow : flows_) {
        if (flow.work == no_flow || std::chrono::minutes(minutes_since(flow, minute)) <= flow_idle_max)
            continue;
        ++counters_.flows_expired;
        forget_stream(flow.key);
        drop(flow);
    }
}

void Inspection::take_work(Flow& flow) {
    std::uint16_t which = 0;
    if (!idle_.empty()) {  // the one that was used last: what it takes of the caches is there already
        which = idle_.back();
        idle_.pop_back();
    } else if (works_.size() < inspectors_max) {
        which = static_cast<std::uint16_t>(works_.size());
        works_.push_back(std::make_unique_for_overwrite<Work>());  // its buffers need no zeroes
    } else {
        ++counters_.inspectors_evicted;
        which = static_cast<std::uint16_t>(std::ranges::min_element(used_at_) - used_at_.begin());
        Flow& loser = *works_[which]->flow;
        loser.work = no_work;
        loser.given_up = true;
        loser.unread = true;
    }
    flow.work = which & ((1u << work_bits) - 1);
    Work& work = *works_[which];
    work.flow = &flow;
    work.packets = flow.foreign.packets;
    work.inspector.clear();
    work.inspector.take_over(flow.foreign);
}

bool Inspection::inspect(const PayloadSample& sample) {
    Flow* flow = find(sample.key);
    if (flow != nullptr && flow->given_up) return listen_on(sample, *flow);
    const PayloadPacket packet = packet_of(sample);
    if (flow != nullptr && flow->work != no_work) return read(*flow, packet);
    const bool is_tcp = packet.l4_proto == proto_tcp;
    // A datagram of no known protocol leaves nothing behind: the next one is looked at afresh.
    if (!is_tcp && recognise_datagram(packet) == Protocol::unknown) return true;
    ForeignStreams fresh;
    ForeignStreams& streams = flow == nullptr ? fresh : flow->foreign;
    const bool foreign = is_tcp && streams.add(packet);
    if (flow == nullptr) {
        flow = make(sample.key, sample.at);
        if (flow == nullptr) return false;
        flow->foreign = fresh;
    }
    if (!foreign) {
        take_work(*flow);
        return read(*flow, packet);
    }
    flow->unread = flow->foreign.missed_start;
    flow->given_up = flow->foreign.packets >= unknown_packets_max;
    return !flow->given_up;
}

// With the flow's inspector.
bool Inspection::read(Flow& flow, const PayloadPacket& packet) {
    used_at_[flow.work] = ++uses_;
    Work& work = *works_[flow.work];
    const bool changed = work.inspector.add(packet, decryptor_);
    const bool recognised = work.inspector.facts().protocol != Protocol::unknown;
    const bool is_tcp = packet.l4_proto == proto_tcp;
    const bool hopeless = is_tcp && !recognised && ++work.packets >= unknown_packets_max;
    flow.unread = work.inspector.unread() || (!recognised && flow.foreign.missed_start);
    if (changed) keep(flow, work.inspector.facts());
    if (!work.inspector.done() && !hopeless) return true;
    give_back(flow.work);
    flow.work = no_work;
    flow.given_up = true;
    return is_tcp && flow.facts != nullptr && !flow.facts->name.empty();
}

// What else the client of a TCP connection asks for whose name is known: another request, or another
// connection under the same ports. One that asks for a second name, or in a way that cannot be read, is
// doubtful.
bool Inspection::listen_on(const PayloadSample& sample, Flow& flow) {
    if (sample.key.l4_proto != proto_tcp || flow.facts == nullptr || flow.facts->name.empty()) return false;
    FlowInspector again;
    PayloadPacket packet = packet_of(sample);
    if (packet.client != datapath::DIRECTION_COUNT && packet.client != packet.direction) return true;
    packet.client = packet.direction;
    const Recognised found =
        recognise_tcp(packet.payload, {}, Ports{packet.source_port, packet.destination_port});
    if (found.protocol != Protocol::tls && found.protocol != Protocol::tor &&
        found.protocol != Protocol::http)
        return true;
    // A TLS record other than a handshake goes on with what was agreed.
    constexpr std::uint8_t handshake_record = 22, client_hello = 1;
    if (found.protocol != Protocol::http &&
        (packet.payload.size() < 6 || packet.payload[0] != handshake_record ||
         packet.payload[5] != client_hello))
        return true;
    again.clear();
    QuicDecryptor unused;
    (void)again.add(packet, unused);
    if (again.unread() || again.facts().name.view() != flow.facts->name) flow.unread = true;
    return true;
}

void Inspection::keep(Flow& flow, const FlowFacts& facts) {
    flow.protocol = facts.protocol;
    if (!flow.facts && facts.name.empty() && !facts.ja4 && facts.banner_client.empty() &&
        facts.banner_server.empty() && facts.http_method.empty() && facts.tls_version == 0)
        return;  // the protocol is all there is
    if (!flow.facts) flow.facts = std::make_unique<KeptFacts>();
    KeptFacts& kept = *flow.facts;
    if (kept.name.empty() && !facts.name.empty()) ++counters_.flows_named;
    kept.name_source = facts.name_source;
    kept.hidden = facts.hidden;
    kept.tls_version = facts.tls_version;
    kept.name = facts.name.view();
    kept.alpn = facts.alpn.view();
    kept.certificate = facts.certificate.view();
    kept.ja4 = text_of(facts.ja4);
    kept.http_method = facts.http_method.view();
    kept.user_agent = facts.user_agent.view();
    kept.banner_client = facts.banner_client.view();
    kept.banner_server = facts.banner_server.view();
    kept.hassh_client = text_of(facts.hassh_client);
    kept.hassh_server = text_of(facts.hassh_server);
}

void Inspection::forget(const datapath::flow_key& key) noexcept {
    if (Flow* flow = find(key); flow != nullptr) drop(*flow);
    if (!streams_.empty()) forget_stream(key);
}

void Inspection::forget_stream(const datapath::flow_key& key) noexcept {
    if (const auto stream = stream_of_.find(key); stream != stream_of_.end()) {
        streams_.erase(stream->second);
        stream_of_.erase(stream);
    }
}

// Not handed over (limits of the engine), or not kept (flows_max).
bool Inspection::unsampled(const FlowUpdate& update) const noexcept {
    return update.key.l4_proto == proto_tcp && !is_dns(update.key) && counters_.samples != 0 &&
           update.total.packets_out > unsampled_packets_min &&
           update.total.bytes_out > update.total.packets_out * unsampled_bytes_min;
}

FlowNames Inspection::names_of(const FlowUpdate& update) const {
    FlowNames out;
    if (const Flow* flow = find(update.key); flow != nullptr) {
        out.protocol = flow->protocol;
        out.facts = flow->facts.get();
        out.unread = flow->unread;
    } else {
        out.protocol = recognise_ip(update.key.l4_proto);
        out.unread = unsampled(update);
    }
    const Address remote = update.remote();
    out.answered = cache_.names_of(remote, update.first_seen);
    const auto names = out.dns();
    out.names_local = update.initiator == datapath::INITIATOR_REMOTE;
    const bool said = out.facts != nullptr && !out.facts->name.empty() && !out.names_local;
    if (!said) {
        if (names.empty()) return out;
        out.source = out.dns_listed().empty() ? NameSource::dns_unlisted : NameSource::dns;
        out.name = names.back();
        return out;
    }
    out.source = out.facts->name_source;
    out.name = out.facts->name;
    if (const auto literal = Address::parse(out.name))
        out.contradiction = *literal != remote;
    else if (!names.empty()) {
        // A server that does not count takes nothing back of what the others say.
        const auto credible = out.dns_listed().empty() ? names : out.dns_listed();
        out.contradiction =
            !cache_.is_crowded(remote) && std::ranges::find(credible, out.name) == credible.end();
    } else
        out.contradiction = cache_.is_denied(out.name, update.last_seen);
    return out;
}

// ------------------------------------------------------------------------------------------------ DNS

std::uint64_t Inspection::question_hash(const PayloadSample& sample, std::uint16_t id,
                                        std::string_view name) const noexcept {
    return datapath::flow_hash(&sample.key, question_seed_ ^ id) ^
           std::hash<std::string_view>{}(name)*0x9e3779b97f4a7c15ull;
}

void Inspection::remember_question(std::uint64_t question, Timestamp at) noexcept {
    OpenQuestion& first = open_questions_[question % questions_max];
    OpenQuestion& second = open_questions_[question / questions_max % questions_max];
    (first.at <= second.at ? first : second) = {question, at};
}

bool Inspection::was_asked(std::uint64_t question, Timestamp at) const noexcept {
    for (const std::uint64_t place : {question % questions_max, question / questions_max % questions_max})
        if (const OpenQuestion& open = open_questions_[place];
            open.hash == question && at - open.at <= answer_within)
            return true;
    return false;
}

void Inspection::read_message(ByteSpan message, const PayloadSample& sample, QuestionSink& questions) {
    ++counters_.dns_messages;
    DnsReader reader(message);
    const bool answers = reader.header().response;
    const bool from_server = sample.direction == datapath::DIRECTION_IN
                                 ? datapath::host16(sample.key.remote_port) == port_dns
                                 : datapath::host16(sample.key.local_port) == port_dns;
    bool good = reader.ok() && reader.header().opcode == 0;
    DnsQuestion question;
    if (good && !answers && !from_server && sample.direction == datapath::DIRECTION_OUT) {
        while (reader.next(question)) {
            remember_question(question_hash(sample, reader.header().id, question.name.text()), sample.at);
            questions.on_question(sample, question.name.text());
        }
        good = reader.ok();
    } else if (good && answers && from_server && sample.direction == datapath::DIRECTION_IN) {
        // The first question of a message stands for all: nobody asks more than one.
        if (reader.next(question) &&
            was_asked(question_hash(sample, reader.header().id, question.name.text()), sample.at)) {
            const bool listed = resolvers_.include(Address::from_bytes(sample.key.remote_addr));
            counters_.dns_unlisted += listed ? 0 : 1;
            Learner learner(cache_, sample.at, listed);
            good = read_bindings(message, learner);
        } else {
            ++counters_.dns_unasked;
        }
    }
    counters_.dns_unreadable += good ? 0 : 1;
    if (!good || !sample.tracked) return;
    Flow* flow = find(sample.key);
    if (flow == nullptr) flow = make(sample.key, sample.at);
    if (flow == nullptr) return;
    flow->protocol = Protocol::dns;
    flow->given_up = true;
}

void Inspection::read_dns(const PayloadSample& sample, QuestionSink& questions) {
    read_message(sample.payload, sample, questions);
}

void Inspection::read_dns_stream(const PayloadSample& sample, QuestionSink& questions) {
    const auto known = stream_of_.find(sample.key);
    StreamList::iterator place;
    if (known != stream_of_.end()) {
        place = known->second;
        streams_.splice(streams_.end(), streams_, place);
    } else {
        if (streams_.size() >= dns_streams_max) {
            ++counters_.streams_evicted;
            stream_of_.erase(streams_.front()->key);
            streams_.pop_front();
        }
        streams_.push_back(std::make_unique<DnsStream>());
        place = std::prev(streams_.end());
        (*place)->key = sample.key;
        stream_of_.emplace(sample.key, place);
    }
    StreamHead& head = (*place)->heads[sample.direction];
    const bool syn = (sample.tcp_flags & datapath::TCP_SYN) != 0;
    if (syn) (void)head.add(sample.tcp_sequence, true, {});
    const std::uint32_t sequence = sample.tcp_sequence + (syn ? 1 : 0);
    // What found no room finds it where messages have been taken out.
    while (!head.add(sequence, false, sample.payload)) {
        if (take_messages(head, sample, questions)) continue;
        ++counters_.dns_cut;
        if (head.prefix().size() < dns_length_bytes) return head.clear();
        head.skip(dns_length_bytes + Bytes(head.prefix()).u16());
    }
    while (take_messages(head, sample, questions)) continue;
}

// Takes messages from the beginning of the stream. One that is too long, or that misses a piece although
// something behind it has come (a sample was lost, or held less than its packet), is passed over: its length
// tells where the next one begins. False: there was none.
bool Inspection::take_messages(StreamHead& head, const PayloadSample& sample, QuestionSink& questions) {
    ByteSpan left = head.prefix();
    std::size_t taken = 0;
    while (left.size() >= dns_length_bytes) {
        const std::size_t message_bytes = Bytes(left).u16();
        const std::size_t end = taken + dns_length_bytes + message_bytes;
        const bool oversize = message_bytes > dns_message_bytes_max;
        const bool whole = left.size() >= dns_length_bytes + message_bytes;
        if (!oversize && !whole && head.held_to() <= end) break;
        if (oversize)
            ++counters_.dns_oversize;
        else if (whole)
            read_message(left.subspan(dns_length_bytes, message_bytes), sample, questions);
        else
            ++counters_.dns_cut;
        taken = end;
        left = left.subspan(std::min(left.size(), dns_length_bytes + message_bytes));
    }
    if (taken != 0) head.skip(static_cast<std::uint32_t>(taken));
    return taken != 0;
}

InspectionCounters Inspection::counters() const noexcept {
    InspectionCounters out = counters_;
    out.flows = index_.size();
    out.names = cache_.counters();
    return out;
}

}  // namespace egresswatch::inspect
