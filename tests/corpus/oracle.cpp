// tests/corpus/oracle.cpp
// SPDX-License-Identifier: Apache-2.0
#include "tests/corpus/oracle.h"

#include <fstream>
#include <sstream>
#include <stdexcept>

namespace egresswatch::test {
namespace {

std::vector<std::string> split(const std::string& line, char separator) {
    std::vector<std::string> fields;
    std::stringstream stream(line);
    for (std::string field; std::getline(stream, field, separator);) fields.push_back(field);
    return fields;
}

Address address_of(const std::string& text) {
    const auto address = Address::parse(text);
    if (!address) throw std::runtime_error("oracle: not an address: " + text);
    return *address;
}

// Columns of packets.tsv.
enum Column { cap_len = 2, frame_len = 3, status = 4, flags = 5, chain = 6, inner = 16, columns = 24 };

bool names_ip(const std::string& protocols) {
    for (const auto& protocol : split(protocols, '/'))
        if (protocol == "ip" || protocol == "ipv6") return true;
    return false;
}

OracleFrame parse(const std::vector<std::string>& row) {
    OracleFrame result;
    result.chain = row[chain];
    result.flags = row[flags];
    result.ip_began = names_ip(row[chain]);
    result.undecodable = row[status] == "undecodable";
    result.frame.frame_bytes = std::stoull(row[frame_len]);
    result.frame.status = result.undecodable    ? FrameStatus::malformed
                          : row[status] == "ip" ? FrameStatus::counted
                                                : FrameStatus::not_ip;
    if (result.frame.status != FrameStatus::counted) return result;
    result.frame.route = {address_of(row[inner]), address_of(row[inner + 1]),
                          static_cast<std::uint8_t>(std::stoul(row[inner + 2])),
                          static_cast<std::uint16_t>(std::stoul(row[inner + 3])),
                          static_cast<std::uint16_t>(std::stoul(row[inner + 4]))};
    result.frame.ip_bytes = std::stoull(row[inner + 6]);  // capped by the frame
    return result;
}

}  // namespace

std::string Route::to_string() const {
    return source.to_string() + " " + std::to_string(source_port) + " > " + destination.to_string() + " " +
           std::to_string(destination_port) + " proto " + std::to_string(l4_proto);
}

const char* status_name(FrameStatus status) {
    switch (status) {
        case FrameStatus::counted:
            return "counted";
        case FrameStatus::not_ip:
            return "not IP";
        case FrameStatus::malformed:
            return "malformed";
        case FrameStatus::truncated:
            return "truncated";
    }
    return "";
}

bool OracleFrame::agrees_on_status(FrameStatus ours) const {
    if (!undecodable) return ours == frame.status;
    return ours == FrameStatus::malformed || ours == FrameStatus::truncated ||
           (ours == FrameStatus::not_ip && !ip_began);
}

std::vector<OracleFrame> read_oracle(const std::filesystem::path& packets_tsv) {
    std::ifstream file(packets_tsv);
    if (!file) throw std::runtime_error("cannot open " + packets_tsv.string());
    std::string line;
    std::getline(file, line);  // names of the columns
    std::vector<OracleFrame> frames;
    while (std::getline(file, line)) {
        const auto row = split(line, '\t');
        if (row.size() != columns)
            throw std::runtime_error("oracle: not " + std::to_string(columns) + " columns: " + line);
        frames.push_back(parse(row));
    }
    return frames;
}

std::map<Difference, std::string> read_differences(const std::filesystem::path& path) {
    std::ifstream file(path);
    if (!file) throw std::runtime_error("cannot open " + path.string());
    std::map<Difference, std::string> differences;
    std::string line;
    std::getline(file, line);
    while (std::getline(file, line)) {
        const auto row = split(line, '\t');
        if (row.size() != 4 || row[3].size() < 10)
            throw std::runtime_error(path.string() +
                                     ": capture, what, frames and a reason in words: " + line);
        if (!differences.emplace(Difference{row[0], row[1], row[2]}, row[3]).second)
            throw std::runtime_error(path.string() + ": listed twice: " + line);
    }
    return differences;
}

bool drop_rows(std::vector<OracleFrame>& rows, const std::string& frames) {
    std::vector<OracleFrame> kept = rows;
    std::size_t dropped = 0;
    for (const auto& number : split(frames, ',')) {
        const std::size_t at = std::stoul(number) - 1 - dropped++;  // ascending
        if (at >= kept.size() || kept[at].frame.status == FrameStatus::counted) return false;
        kept.erase(kept.begin() + static_cast<std::ptrdiff_t>(at));
    }
    rows = std::move(kept);
    return true;
}

std::string frame_ranges(const std::vector<std::size_t>& ascending) {
    std::string text;
    for (std::size_t i = 0; i < ascending.size();) {
        std::size_t end = i;
        while (end + 1 < ascending.size() && ascending[end + 1] == ascending[end] + 1) ++end;
        if (!text.empty()) text += ",";
        text += std::to_string(ascending[i]);
        if (end > i) text += "-" + std::to_string(ascending[end]);
        i = end + 1;
    }
    return text;
}

}  // namespace egresswatch::test
