// agent/records/names.cpp
// SPDX-License-Identifier: Apache-2.0
#include "agent/records/names.h"

#include <openssl/evp.h>
#include <openssl/hmac.h>

#include <array>

#include "classifier/inspect/inspection.h"
#include "rules/names.h"

namespace egresswatch::records {

namespace {

constexpr std::size_t hash_digits = 16;  // 64 bits: a host does not know enough names to meet twice in them

std::string keyed_hash(std::string_view key, std::string_view name) {
    std::array<unsigned char, EVP_MAX_MD_SIZE> digest{};
    unsigned bytes = 0;
    if (::HMAC(EVP_sha256(), key.data(), static_cast<int>(key.size()),
               reinterpret_cast<const unsigned char*>(name.data()), name.size(), digest.data(),
               &bytes) == nullptr)
        return {};
    static constexpr std::string_view digits = "0123456789abcdef";
    std::string out = "hmac:";
    for (std::size_t i = 0; i < hash_digits / 2; ++i) {
        out += digits[digest[i] >> 4];
        out += digits[digest[i] & 15];
    }
    return out;
}

Json text_or_null(std::string_view text) {
    return text.empty() ? Json(nullptr) : Json(text);
}

std::string tls_version_name(std::uint16_t version) {
    switch (version) {  // IANA "TLS Parameters", legacy versions of RFC 8446 section 4.2.1
        case 0:
            return {};
        case 0x0300:
            return "SSLv3";
        case 0x0301:
            return "1.0";
        case 0x0302:
            return "1.1";
        case 0x0303:
            return "1.2";
        case 0x0304:
            return "1.3";
        default: {
            std::array<char, 8> text{};
            std::snprintf(text.data(), text.size(), "0x%04x", version);
            return text.data();
        }
    }
}

std::string_view hidden_name(inspect::HiddenName hidden) {
    return hidden == inspect::HiddenName::ech ? "ech" : hidden == inspect::HiddenName::esni ? "esni" : "";
}

// Only what is there: most flows have none of it.
void add_texts(Json& to, std::initializer_list<std::pair<const char*, std::string_view>> members) {
    for (const auto& [name, text] : members)
        if (!text.empty()) to[name] = text;
}

void add_payload_facts(Json& flow, const inspect::FlowNames& names, const NamePrivacy& privacy) {
    const inspect::KeptFacts& facts = *names.facts;
    const auto local_name = [&](inspect::NameSource by) {
        return names.names_local ? privacy.of(names.said(by)) : std::string();
    };
    const std::string server_name = local_name(inspect::NameSource::sni);
    const std::string host = local_name(inspect::NameSource::http);
    const std::string certificate = privacy.of(facts.certificate);
    Json tls = Json::object();
    const std::string version = tls_version_name(facts.tls_version);
    add_texts(tls, {{"version", version},
                    {"alpn", facts.alpn},
                    {"ja4", facts.ja4},
                    {"hidden", hidden_name(facts.hidden)},
                    {"certificate", certificate},
                    {"server_name", server_name}});
    if (!tls.empty()) flow["tls"] = std::move(tls);
    Json http = Json::object();
    add_texts(http, {{"method", facts.http_method}, {"user_agent", facts.user_agent}, {"host", host}});
    if (!http.empty()) flow["http"] = std::move(http);
    Json ssh = Json::object();
    add_texts(ssh, {{"client", facts.banner_client},
                    {"server", facts.banner_server},
                    {"hassh", facts.hassh_client},
                    {"hassh_server", facts.hassh_server}});
    if (!ssh.empty()) flow["ssh"] = std::move(ssh);
}

}  // namespace

std::string NamePrivacy::of(std::string_view name) const {
    if (name.empty() || shown == ShownNames::none) return {};
    if (shown == ShownNames::full) return std::string(name);
    if (shown == ShownNames::hashed) return keyed_hash(hash_key, name);
    return std::string(rules::registered_domain(name));
}

void add_names(Json& flow, const inspect::FlowNames& names, const NamePrivacy& privacy) {
    const std::string name = privacy.of(names.name);
    flow["name"] = text_or_null(name);
    flow["name_source"] =
        text_or_null(name.empty() ? std::string_view() : inspect::name_source_name(names.source));
    flow["app"] = names.protocol == inspect::Protocol::unknown ? Json(nullptr)
                                                               : Json(inspect::protocol_name(names.protocol));
    if (names.contradiction) flow["name_contradiction"] = true;
    if (names.unread) flow["name_unread"] = true;
    for (const auto& [member, answered] : {std::pair{"dns_names", names.dns_listed()},
                                           std::pair{"dns_names_unlisted", names.dns_unlisted()}}) {
        if (answered.empty() || privacy.shown == ShownNames::none) continue;
        Json& out = flow[member] = Json::array();
        for (const std::string_view one : answered) out.push_back(privacy.of(one));
    }
    if (names.facts != nullptr) add_payload_facts(flow, names, privacy);
}

void name_record(Json& record, const inspect::FlowNames* names, const NamePrivacy& privacy) {
    if (names != nullptr && record.contains("flow")) add_names(record["flow"], *names, privacy);
    if (privacy.shown == ShownNames::full) return;
    if (const auto group = record.find("group"); group != record.end())
        for (const char* field : {"registered_domain", "name"})
            if (group->contains(field)) (*group)[field] = privacy.of((*group)[field].get<std::string>());
    const auto rule = record.find("rule");
    if (rule != record.end() && rule->value("kind", "") == "contradiction")
        record["message"] = (*rule)["title"];
    if (const auto decision = record.find("decision"); decision != record.end())
        if (decision->value("verdict", "") != "allowed")
            (*decision)["reason"] = "not told: names are not recorded in full";
}

}  // namespace egresswatch::records
