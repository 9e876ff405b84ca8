// agent/journal/recovery_tree.cpp - finds the tree again at the start: the frontier in front of the last
// segment, and the hashes of its lines. SPDX-License-Identifier: Apache-2.0
//
// Bounded by one segment: its header holds the frontier, its lines are hashed anew. Only where hash files are
// missing or too short are earlier segments read as well.
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <fstream>
#include <random>

#include "agent/journal/journal_state.h"

namespace egresswatch::journal {
namespace {

using evidence::Hash;

// The origin that a segment's first line begins a log with, if it does.
std::optional<std::string> begins_log(const std::filesystem::path& segment) {
    std::ifstream in(segment, std::ios::binary);
    std::string line;
    if (!std::getline(in, line) || text_member(line, "kind") != "genesis") return std::nullopt;
    const Json record = Json::parse(line, nullptr, false);
    if (!record.is_object() || !record.contains("origin") || !record["origin"].is_string())
        return std::nullopt;
    return record["origin"].get<std::string>();
}

std::string random_origin(const records::Origin& origin) {
    std::random_device random;
    char id[17];
    std::snprintf(id, sizeof id, "%08x%08x", random(), random());
    std::string name = origin.host.empty() ? "host" : origin.host;
    for (char& c : name)
        if (c <= ' ' || c >= 0x7f || c == '+') c = '-';
    return name.substr(0, 128) + "/egresswatch/" + id;
}

struct Known {
    SegmentFile file;
    std::uint64_t bytes = 0;  // of whole lines
    std::uint64_t records = 0;
};

struct Rebuilt {
    HashHeader header;
    std::vector<Hash> leaves;
};

Hash root_behind(evidence::Frontier frontier, const std::vector<Hash>& leaves, std::uint64_t count) {
    for (std::uint64_t i = 0; i < count; i++) frontier.append(leaves[i]);
    return frontier.root();
}

}  // namespace

// Segments in order, the last one as recovery left it.
std::expected<RecoveredTree, JournalError> Journal::State::recover_tree() {
    std::vector<Known> segments;
    for (const auto& old : closed_segments)
        segments.push_back({old.file, old.bytes, old.last_seq - old.file.first_seq + 1});
    if (segment) segments.push_back({segment->file, segment->bytes, 0});
    RecoveredTree out;
    if (segments.empty()) return out;

    const auto files = list_hash_files(config.directory);
    const auto file_of = [&](const SegmentFile& of) {
        const auto found = std::ranges::find(files, of.first_seq, &HashFile::first_seq);
        return found == files.end() ? nullptr : &*found;
    };
    // Back to the last segment whose header can be believed, then forward again.
    std::size_t at = segments.size();
    HashHeader header;
    while (at-- > 0) {
        if (const auto origin = begins_log(segments[at].file.path)) {
            header = {*origin, {}};
            break;
        }
        if (const auto* file = file_of(segments[at].file)) {
            header = file->header;
            break;
        }
        if (at == 0) return out;  // no evidence of any log: records of a version that made none
    }
    auto rebuilt = std::make_shared<std::vector<Rebuilt>>();
    for (; at < segments.size(); at++) {
        if (const auto origin = begins_log(segments[at].file.path)) header = {*origin, {}};
        const auto* file = file_of(segments[at].file);
        const bool last = at + 1 == segments.size();
        std::vector<Hash> leaves;
        if (file != nullptr && !last && file->count == segments[at].records) {
            auto read = read_hashes(*file, 0, file->count);
            if (!read) return std::unexpected(os_error("read", file->path, read.error()));
            leaves = std::move(*read);
        } else {
            auto made = hash_lines(segments[at].file.path, segments[at].bytes);
            if (!made) return std::unexpected(os_error("read", segments[at].file.path, made.error()));
            leaves = std::move(*made);
            const auto path = config.directory / hash_file_name(segments[at].file.first_seq);
            rebuilt->push_back({header, leaves});
            auto writer = std::make_shared<HashWriter>(path, header);
            for (const auto& leaf : leaves) writer->add(leaf);
            ::truncate(path.c_str(), 0);  // what stood there may be longer; no file is fine, too
            if (segment && last) {
                segment->hashes = writer;
            } else {
                closed_segments[at].hashes = writer;
            }
        }
        for (const auto& leaf : leaves) header.frontier.append(leaf);
    }
    tree = header;
    out.origin = header.origin;
    out.size = header.frontier.size();
    out.root_at = [this, rebuilt, header](std::uint64_t size) -> std::optional<Hash> {
        if (size > header.frontier.size()) return std::nullopt;
        for (const auto& part : *rebuilt) {
            const std::uint64_t first = part.header.frontier.size();
            if (part.header.origin == header.origin && first <= size && size - first <= part.leaves.size())
                return root_behind(part.header.frontier, part.leaves, size - first);
        }
        for (const auto& file : list_hash_files(config.directory)) {
            if (file.header.origin != header.origin || file.first_index() > size || file.end_index() < size)
                continue;
            const auto leaves = read_hashes(file, 0, size - file.first_index());
            if (!leaves) return std::nullopt;
            return root_behind(file.header.frontier, *leaves, leaves->size());
        }
        return std::nullopt;
    };
    return out;
}

std::expected<std::optional<NewLog>, JournalError> Journal::State::adopt_tree(std::uint64_t last_seq) {
    auto recovered = recover_tree();
    if (!recovered) return std::unexpected(recovered.error());
    recovered->last_seq = last_seq;
    if (config.judge) return config.judge(*recovered);
    if (!recovered->origin.empty()) return std::nullopt;
    const std::string origin = random_origin(config.origin);
    return NewLog{origin, records::genesis_record(config.origin, origin)};
}

}  // namespace egresswatch::journal
