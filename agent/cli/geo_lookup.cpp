// agent/cli/geo_lookup.cpp
// SPDX-License-Identifier: Apache-2.0
#include "agent/cli/geo_lookup.h"

#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <nlohmann/json.hpp>
#include <string_view>

namespace egresswatch::cli {

namespace {

using Json = nlohmann::ordered_json;

constexpr std::size_t line_bytes_max = 4096;  // an input line longer than this is answered as an error, cut
constexpr const char* cure = "not an IP address; write 203.0.113.9 or 2001:db8::1, without port or zone";

const char* local_word(datapath::local_kind local) {
    switch (local) {
        case datapath::LOCAL_HOST:
            return "host";
        case datapath::LOCAL_LINK:
            return "link";
        case datapath::LOCAL_PRIVATE:
            return "private";
        case datapath::LOCAL_MULTICAST:
            return "multicast";
        case datapath::LOCAL_UNSPECIFIED:
            return "unspecified";
        case datapath::LOCAL_NONE:
            break;
    }
    return "none";
}

std::string json_line(const GeoAnswer& answer) {
    Json line;
    line["address"] = answer.address.to_string();
    line["prefix"] = answer.prefix ? Json(answer.prefix->to_string()) : Json(nullptr);
    if (answer.info.kind == datapath::KIND_LOCAL)
        line["country"] = nullptr;
    else
        line["country"] = answer.info.country.empty() ? "unknown" : answer.info.country;
    line["class"] = kind_name(answer.info.kind);
    line["source"] = answer.source;
    if (answer.info.local != datapath::LOCAL_NONE) line["local_kind"] = local_word(answer.info.local);
    // What the source wrote, where it is not the country: EU, ??, UK.
    if (!answer.recorded.empty() && answer.recorded != answer.info.country)
        line["recorded"] = answer.recorded;
    if (answer.info.disputed) line["disputed"] = true;
    return line.dump() + "\n";
}

std::string text_line(const GeoAnswer& answer) {
    const std::string country = answer.info.kind == datapath::KIND_LOCAL ? "-"
                                : answer.info.country.empty()            ? "unknown"
                                                                         : answer.info.country;
    return answer.address.to_string() + "\t" + (answer.prefix ? answer.prefix->to_string() : "-") + "\t" +
           country + "\t" + kind_name(answer.info.kind) + "\t" + answer.source +
           (answer.info.disputed ? "\tdisputed\n" : "\n");
}

class Answerer {
public:
    Answerer(const GeoData& geo, const RegionSpec& spec, bool json) : geo_(geo), spec_(spec), json_(json) {}

    void answer(std::string_view text) {
        while (!text.empty() && is_blank(text.back())) text.remove_suffix(1);
        while (!text.empty() && is_blank(text.front())) text.remove_prefix(1);
        const auto address = Address::parse(text);
        if (!address) return answer_error(text);
        const auto found = locate(geo_, spec_, *address);
        put(json_ ? json_line(found) : text_line(found));
    }

    void answer_input() {
        std::string pending;
        bool skipping = false;  // the rest of a line that was too long
        char buffer[65536];
        while (!write_failed_) {
            flush();
            const ssize_t count = ::read(STDIN_FILENO, buffer, sizeof buffer);
            if (count < 0 && errno == EINTR) continue;
            if (count <= 0) {
                input_failed_ = count < 0;
                break;
            }
            for (std::string_view rest(buffer, static_cast<std::size_t>(count)); !rest.empty();) {
                const auto end = rest.find('\n');
                pending.append(rest.substr(0, end), 0, skipping ? 0 : line_bytes_max + 1 - pending.size());
                skipping = skipping || pending.size() > line_bytes_max;
                if (end == std::string_view::npos) break;
                answer(pending);
                pending.clear();
                skipping = false;
                rest.remove_prefix(end + 1);
            }
        }
        if (!pending.empty()) answer(pending);
    }

    [[nodiscard]] int finish() {
        flush();
        if (input_failed_) std::fprintf(stderr, "egresswatch geo lookup: cannot read standard input\n");
        if (write_failed_)
            std::fprintf(stderr, "egresswatch geo lookup: cannot write the answers: %s\n",
                         std::strerror(errno));
        if (errors_ != 0) std::fprintf(stderr, "egresswatch geo lookup: %zu not an IP address\n", errors_);
        return write_failed_ ? 3 : input_failed_ ? 2 : errors_ != 0 ? 1 : 0;
    }

private:
    static bool is_blank(char c) { return c == ' ' || c == '\t' || c == '\r'; }

    void answer_error(std::string_view text) {
        errors_++;
        // Input is of any bytes; the answer is one line of valid JSON or text.
        const auto replace = nlohmann::json::error_handler_t::replace;
        const std::string quoted = Json(std::string(text.substr(0, 256))).dump(-1, ' ', false, replace);
        if (json_)
            put("{\"address\":" + quoted + ",\"error\":\"" + cure + "\"}\n");
        else
            put(quoted + "\terror\t" + cure + "\n");
    }

    void put(const std::string& line) {
        out_ += line;
        if (out_.size() >= 1 << 16) flush();
    }

    void flush() {
        std::string_view rest = out_;
        while (!rest.empty() && !write_failed_) {
            const ssize_t written = ::write(STDOUT_FILENO, rest.data(), rest.size());
            if (written < 0 && errno == EINTR) continue;
            if (written <= 0)
                write_failed_ = true;
            else
                rest.remove_prefix(static_cast<std::size_t>(written));
        }
        out_.clear();
    }

    const GeoData& geo_;
    const RegionSpec& spec_;
    const bool json_;
    std::string out_;
    std::size_t errors_ = 0;
    bool input_failed_ = false;
    bool write_failed_ = false;
};

}  // namespace

int lookup_addresses(const GeoData& geo, const RegionSpec& spec, const std::vector<std::string>& addresses,
                     bool json) {
    Answerer answerer(geo, spec, json);
    for (const auto& address : addresses) {
        if (address == "-")
            answerer.answer_input();
        else
            answerer.answer(address);
    }
    return answerer.finish();
}

}  // namespace egresswatch::cli
