// classifier/inspect/inspection.h - payload samples in, names of flows out: what user space does with both.
//
// In:      PayloadSamples of an engine, in the order of capture.
// Out:     for each flow its protocol, its name and who says so, fingerprints; questions asked of name
//          servers. Names and fingerprints only: no payload outlives the call.
// Clock:   packet time.
// Limits:  the constants below; what is beyond them is counted, and its flows stay without names.
// Memory:  an inspector 50 KB, made when needed: 13 MB; a flow of which only the protocol is known 80 to 96
// B,
//          one with names about 550: 70 MB at the most; streams of DNS over TCP 2 MB; names 7 MB.
// Threads: one owner.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstdint>
#include <list>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "classifier/flow_update.h"
#include "classifier/inspect/flow_index.h"
#include "classifier/inspect/flow_inspector.h"
#include "classifier/inspect/name_cache.h"
#include "classifier/inspect/resolvers.h"
#include "classifier/payload_sample.h"

namespace egresswatch::inspect {

// What stays of a flow's FlowFacts: texts of their own length.
struct KeptFacts {
    NameSource name_source = NameSource::none;  // none, sni or http
    HiddenName hidden = HiddenName::none;
    std::uint16_t tls_version = 0;
    std::string name, alpn, certificate, ja4;
    std::string http_method, user_agent;
    std::string banner_client, banner_server, hassh_client, hassh_server;
};

// All that is known of a flow by name. Views: they hold until the inspection hears or forgets something.
struct FlowNames {
    Protocol protocol = Protocol::unknown;
    NameSource source = NameSource::none;
    std::string_view
        name;  // said by the client (TLS, QUIC or HTTP), else the newest that DNS gave the address
    // What the client says is none of the names that DNS gave the address; or DNS says that there is no such
    // name; or it is another address.
    bool contradiction = false;
    // What the client asks for could not be read, or is not read yet, or it asked for two names: what DNS
    // says of the address does not stand for it.
    bool unread = false;
    // The remote end connected: what it says (TLS, HTTP) is a name of this host, and none of its own.
    bool names_local = false;
    NameCache::Names answered{};
    const KeptFacts* facts = nullptr;  // null: the flow's payload has said nothing

    [[nodiscard]] std::span<const std::string_view> dns() const noexcept {
        return std::span(answered.name).first(answered.count);
    }
    // By servers whose answers do not count, and by no other.
    [[nodiscard]] std::span<const std::string_view> dns_unlisted() const noexcept {
        return dns().first(answered.unlisted);
    }
    [[nodiscard]] std::span<const std::string_view> dns_listed() const noexcept {
        return dns().subspan(answered.unlisted);
    }
    [[nodiscard]] std::string_view said(NameSource by) const noexcept {
        return facts != nullptr && facts->name_source == by ? std::string_view(facts->name)
                                                            : std::string_view();
    }
    [[nodiscard]] bool any() const noexcept {
        return protocol != Protocol::unknown || facts != nullptr || answered.count != 0 || unread;
    }
};

// "sni", "http", "dns", "dns-unlisted"; empty for none.
[[nodiscard]] std::string_view name_source_name(NameSource source) noexcept;

// Receives what this host asks of name servers.
class QuestionSink {
public:
    virtual ~QuestionSink() = default;
    // `sample`: the packet of the question. `name`: small letters, no dot at the end.
    virtual void on_question(const PayloadSample& sample, std::string_view name) noexcept = 0;
};

struct InspectionCounters {
    std::uint64_t samples = 0;
    std::uint64_t flows_named = 0;         // that said a name, ever
    std::uint64_t flows_full = 0;          // flows_max reached: nothing was kept of a flow
    std::uint64_t flows_expired = 0;       // heard of for the last time flow_idle_max ago, and forgotten
    std::uint64_t inspectors_evicted = 0;  // flows given up for another: inspectors_max
    std::uint64_t streams_evicted = 0;     // DNS over TCP, likewise: dns_streams_max
    std::uint64_t dns_messages = 0;
    std::uint64_t dns_unreadable = 0;  // at port 53, and no DNS or cut
    std::uint64_t dns_oversize = 0;    // over TCP, longer than dns_message_bytes_max: passed over
    std::uint64_t dns_cut = 0;         // over TCP, of which a piece did not come: passed over
    std::uint64_t dns_unasked = 0;     // answers to no question of the last seconds: not believed
    std::uint64_t dns_unlisted = 0;    // answers of servers that do not count (resolvers.h)
    std::size_t flows = 0;             // remembered now
    NameCacheCounters names;
};

class Inspection {
public:
    static constexpr std::size_t inspectors_max = 256;  // flows that are put together at a time
    static constexpr std::size_t flows_max = 131072;    // whose facts are kept
    // Longer than any engine keeps a quiet flow (idle_timeout, a day at the most): the end of such a flow was
    // not told, for its key has changed (a reload that moves its address to another class). Whether there is
    // one is looked at each full minute.
    static constexpr std::chrono::hours flow_idle_max{25};
    static constexpr std::size_t dns_streams_max = 64;
    // Of DNS over TCP, which goes to 65,535; names and addresses of a host take a few hundred.
    static constexpr std::size_t dns_message_bytes_max = Assembler::bytes_max - 2;
    // Payload packets of a TCP flow after which it is given up when no protocol was recognised.
    static constexpr unsigned unknown_packets_max = 6;
    // A TCP flow of which no sample came, although it sent more than this a packet, and more packets
    // than a handshake has: its payload was not handed over.
    static constexpr std::uint64_t unsampled_bytes_min = 100, unsampled_packets_min = 3;
    // A name server's answer is believed so long after the question, to whoever was asked.
    static constexpr std::chrono::seconds answer_within{10};
    static constexpr std::size_t questions_max = 4096;  // open ones, a power of two

    explicit Inspection(Resolvers resolvers);
    ~Inspection();
    // Of answers from now on.
    void set_resolvers(Resolvers resolvers) { resolvers_ = std::move(resolvers); }
    [[nodiscard]] const Resolvers& resolvers() const noexcept { return resolvers_; }
    // True: more of this flow's payload may say more.
    bool on_payload(const PayloadSample& sample, QuestionSink& questions);
    [[nodiscard]] FlowNames names_of(const FlowUpdate& flow) const;
    // The flow goes on.
    void touch(const datapath::flow_key& key, Timestamp at) noexcept;
    // Of a flow that is going to be asked about, or forgotten.
    void prefetch(const datapath::flow_key& key) const noexcept {
        __builtin_prefetch(&bits_[mark_of(key).word]);
    }
    // The flow has ended.
    void forget(const datapath::flow_key& key) noexcept;
    // Nothing has been heard: no flow has a name.
    [[nodiscard]] bool silent() const noexcept { return index_.size() == 0 && cache_.empty(); }
    [[nodiscard]] InspectionCounters counters() const noexcept;

private:
    struct Work;       // a flow that is being put together
    struct DnsStream;  // both directions of DNS over TCP
    using StreamList = std::list<std::unique_ptr<DnsStream>>;
    static constexpr std::uint16_t no_work = inspectors_max;
    static constexpr std::uint16_t no_flow = no_work + 1;  // `work` of an entry that is free
    static constexpr unsigned work_bits = 9;
    struct Flow {
        datapath::flow_key key{};
        std::unique_ptr<KeptFacts> facts;
        ForeignStreams foreign;                    // of a TCP flow before it is put together
        std::uint16_t heard_minute = 0;            // of the clock, cut to 16 bits: 45 days
        std::uint16_t work : work_bits = no_work;  // index into works_
        bool given_up : 1 = false;
        bool unread : 1 = false;
        Protocol protocol : 5 = Protocol::unknown;
    };
    static_assert(sizeof(Flow) == 64, "one cache line");
    static_assert(no_flow < 1 << work_bits && protocol_count <= 1 << 5, "bits of Flow");
    [[nodiscard]] static std::uint16_t minutes_since(const Flow& flow, std::int64_t minute) noexcept {
        const auto since = static_cast<std::uint16_t>(static_cast<std::uint16_t>(minute) - flow.heard_minute);
        return since < 0x8000 ? since : std::uint16_t{0};  // the clock has gone back
    }
    struct HashKey {
        std::uint64_t seed;
        std::size_t operator()(const datapath::flow_key& key) const noexcept;
    };
    struct EqualKey {
        bool operator()(const datapath::flow_key& a, const datapath::flow_key& b) const noexcept;
    };

    bool inspect(const PayloadSample& sample);
    [[nodiscard]] bool read(Flow& flow, const PayloadPacket& packet);
    static bool listen_on(const PayloadSample& sample, Flow& flow);
    [[nodiscard]] bool unsampled(const FlowUpdate& update) const noexcept;
    [[nodiscard]] std::uint32_t hash_of(const datapath::flow_key& key) const noexcept;
    // Null: nothing is known of it.
    [[nodiscard]] const Flow* find(const datapath::flow_key& key) const {
        const Mark mark = mark_of(key);
        return (mark.bits & ~bits_[mark.word]) != 0 ? nullptr : look_up(key);
    }
    [[nodiscard]] const Flow* look_up(const datapath::flow_key& key) const;
    [[nodiscard]] Flow* find(const datapath::flow_key& key) {
        return const_cast<Flow*>(std::as_const(*this).find(key));
    }
    [[nodiscard]] Flow* make(const datapath::flow_key& key, Timestamp at);
    void drop(Flow& flow) noexcept;
    void drop_quiet(std::int64_t minute) noexcept;
    void forget_stream(const datapath::flow_key& key) noexcept;
    void set_bits(const datapath::flow_key& key);
    void take_work(Flow& flow);
    void give_back(std::uint16_t work) noexcept { idle_.push_back(work); }
    void keep(Flow& flow, const FlowFacts& facts);
    void read_dns(const PayloadSample& sample, QuestionSink& questions);
    void read_dns_stream(const PayloadSample& sample, QuestionSink& questions);
    bool take_messages(StreamHead& head, const PayloadSample& sample, QuestionSink& questions);
    void read_message(ByteSpan message, const PayloadSample& sample, QuestionSink& questions);
    [[nodiscard]] std::uint64_t question_hash(const PayloadSample& sample, std::uint16_t id,
                                              std::string_view name) const noexcept;
    void remember_question(std::uint64_t question, Timestamp at) noexcept;
    [[nodiscard]] bool was_asked(std::uint64_t question, Timestamp at) const noexcept;

    std::uint64_t flow_seed_;
    std::vector<Flow> flows_;          // never moves: has room for flows_max from the start
    std::vector<std::uint32_t> free_;  // entries of it
    FlowIndex index_;
    std::int64_t minute_ = 0;  // at which quiet flows were looked for last
    // Most flows say nothing: two bits of one word for the key of each flow that did tell so without a hash
    // and a search, but for one of twenty of the others. Bits of flows that have been forgotten stay until
    // there are too many.
    static constexpr unsigned bit_word_bits = 15;
    static constexpr std::size_t bit_words = std::size_t{1} << bit_word_bits;
    struct Mark {
        std::size_t word;
        std::uint64_t bits;
    };
    [[nodiscard]] Mark mark_of(const datapath::flow_key& key) const noexcept {
        using datapath::load64;
        const auto* bytes = reinterpret_cast<const std::uint8_t*>(&key);
        const std::uint64_t mixed = (load64(bytes + 8) ^ flow_seed_) * 0x9e3779b97f4a7c15ull +
                                    (load64(bytes + 24) ^ load64(bytes + 32)) * 0xbf58476d1ce4e5b9ull;
        return {mixed >> (64 - bit_word_bits),
                std::uint64_t{1} << (mixed >> 43) % 64 | std::uint64_t{1} << (mixed >> 37) % 64};
    }
    std::vector<std::uint64_t> bits_ = std::vector<std::uint64_t>(bit_words);
    std::size_t bits_set_ = 0;
    std::vector<std::unique_ptr<Work>> works_;
    std::vector<std::uint16_t> idle_;                      // of works_, the one used last behind
    std::array<std::uint64_t, inspectors_max> used_at_{};  // by work, in uses
    std::uint64_t uses_ = 0;
    StreamList streams_;  // oldest use first
    std::unordered_map<datapath::flow_key, StreamList::iterator, HashKey, EqualKey> stream_of_;
    // Questions of this host that wait for an answer, each in one of two places; an older one gives way.
    struct OpenQuestion {
        std::uint64_t hash = 0;
        Timestamp at{};
    };
    std::vector<OpenQuestion> open_questions_;
    std::uint64_t question_seed_;
    Resolvers resolvers_;
    NameCache cache_;
    QuicDecryptor decryptor_;
    InspectionCounters counters_;
};

}  // namespace egresswatch::inspect
