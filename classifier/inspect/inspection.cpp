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
    Flow* flow = nullptr;  // whose it is; null while that is not kept
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

std::size_t Inspection::HashKey::operator()(const datapath::flow_key& key) const {
    return datapath::flow_hash(&key, seed);
}

bool Inspection::EqualKey::operator()(const datapath::flow_key& a,
                                      const datapath::flow_key& b) const noexcept {
    return datapath::flow_key_equal(&a, &b) != 0;
}

Inspection::Inspection(Resolvers resolvers)
    : flows_(0, HashKey{random_seed()}),
      stream_of_(0, HashKey{random_seed()}),
      open_questions_(questions_max),
      question_seed_(random_seed()),
      resolvers_(std::move(resolvers)) {}
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

bool Inspection::may_know(const datapath::flow_key& key) const {
    const std::size_t hash = flows_.hash_function()(key) % bits;
    return (bits_[hash / 64] >> hash % 64 & 1) != 0;
}

const Inspection::Flow* Inspection::find(const datapath::flow_key& key) const {
    if (!may_know(key)) return nullptr;
    const auto found = flows_.find(key);
    return found == flows_.end() ? nullptr : &found->second;
}

void Inspection::set_bit(const datapath::flow_key& key) {
    const std::size_t hash = flows_.hash_function()(key) % bits;
    bits_[hash / 64] |= std::uint64_t{1} << hash % 64;
    if (++bits_set_ <= 2 * flows_max) return;
    std::ranges::fill(bits_, 0);
    bits_set_ = 0;
    for (const auto& [known, flow] : flows_) set_bit(known);
}

// Null: there are too many.
Inspection::Flow* Inspection::flow_of(const datapath::flow_key& key, Timestamp at) {
    if (flows_.size() >= flows_max && find(key) == nullptr) {
        ++counters_.flows_full;
        return nullptr;
    }
    const auto [flow, is_new] = flows_.try_emplace(key);
    if (is_new) {
        flow->second.work = work_.end();
        flow->second.last = at;
        flow->second.place = quiet_.insert(quiet_.end(), &flow->first);
        set_bit(key);
    }
    return &flow->second;
}

void Inspection::touch(const datapath::flow_key& key, Timestamp at) noexcept {
    if (Flow* flow = find(key); flow != nullptr) {
        flow->last = std::max(flow->last, at);
        quiet_.splice(quiet_.end(), quiet_, flow->place);
    }
    while (!quiet_.empty()) {
        const datapath::flow_key oldest = *quiet_.front();
        if (at - flows_.find(oldest)->second.last <= flow_idle_max) return;
        ++counters_.flows_expired;
        forget(oldest);
    }
}

Inspection::WorkList::iterator Inspection::take_work() {
    if (!idle_.empty()) {  // the one that was used last: what it takes of the caches is there already
        work_.splice(work_.end(), idle_, std::prev(idle_.end()));
    } else if (work_.size() < inspectors_max) {
        work_.push_back(std::make_unique_for_overwrite<Work>());  // its buffers need no zeroes
    } else {
        ++counters_.inspectors_evicted;
        if (Flow* loser = work_.front()->flow; loser != nullptr) {
            loser->work = work_.end();
            loser->given_up = true;
            loser->unread = true;
        }
        work_.splice(work_.end(), work_, work_.begin());
    }
    const auto work = std::prev(work_.end());
    (*work)->flow = nullptr;
    (*work)->packets = 0;
    (*work)->inspector.clear();
    return work;
}

void Inspection::give_back(WorkList::iterator work) noexcept {
    idle_.splice(idle_.end(), work_, work);
}

bool Inspection::inspect(const PayloadSample& sample) {
    Flow* flow = find(sample.key);
    if (flow != nullptr && flow->given_up) return listen_on(sample, *flow);
    const bool under_way = flow != nullptr && flow->work != work_.end();
    const auto work = under_way ? flow->work : take_work();
    if (under_way) work_.splice(work_.end(), work_, work);
    FlowInspector& inspector = (*work)->inspector;
    const bool changed = inspector.add(packet_of(sample), decryptor_);
    const bool recognised = inspector.facts().protocol != Protocol::unknown;
    const bool is_tcp = sample.key.l4_proto == proto_tcp;
    const bool hopeless = is_tcp && !recognised && ++(*work)->packets >= unknown_packets_max;
    // A datagram of no known protocol leaves nothing behind: the next one is looked at afresh.
    if (!is_tcp && !recognised) {
        give_back(work);
        return true;
    }
    if (flow == nullptr) flow = flow_of(sample.key, sample.at);
    if (flow == nullptr) {
        give_back(work);
        return false;
    }
    flow->work = work;
    (*work)->flow = flow;
    flow->unread = inspector.unread();
    if (changed) keep(*flow, inspector.facts());
    if (!inspector.done() && !hopeless) return true;
    give_back(work);
    flow->work = work_.end();
    flow->given_up = true;
    return is_tcp && flow->facts != nullptr && !flow->facts->name.empty();
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
    if (may_know(key)) {
        if (const auto known = flows_.find(key); known != flows_.end()) {
            if (known->second.work != work_.end()) give_back(known->second.work);
            quiet_.erase(known->second.place);
            flows_.erase(known);
        }
    }
    if (stream_of_.empty()) return;
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

// The first question of a message stands for all: nobody asks more than one.
bool Inspection::was_asked(ByteSpan message, const PayloadSample& sample) noexcept {
    DnsReader reader(message);
    DnsQuestion question;
    if (!reader.ok() || !reader.next(question)) return false;
    const std::uint64_t hash = question_hash(sample, reader.header().id, question.name.text());
    for (const std::uint64_t place : {hash % questions_max, hash / questions_max % questions_max})
        if (const OpenQuestion& open = open_questions_[place];
            open.hash == hash && sample.at - open.at <= answer_within)
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
    if (good && !answers && !from_server && sample.direction == datapath::DIRECTION_OUT) {
        DnsQuestion question;
        while (reader.next(question)) {
            remember_question(question_hash(sample, reader.header().id, question.name.text()), sample.at);
            questions.on_question(sample, question.name.text());
        }
        good = reader.ok();
    } else if (good && answers && from_server && sample.direction == datapath::DIRECTION_IN) {
        if (was_asked(message, sample)) {
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
    if (Flow* flow = flow_of(sample.key, sample.at)) {
        flow->protocol = Protocol::dns;
        flow->given_up = true;
    }
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
    out.flows = flows_.size();
    out.names = cache_.counters();
    return out;
}

}  // namespace egresswatch::inspect
