// agent/evidence/prover.cpp - see prover.h.
// SPDX-License-Identifier: Apache-2.0
#include "agent/evidence/prover.h"

#include <algorithm>
#include <charconv>
#include <nlohmann/json.hpp>
#include <sstream>

#include "agent/evidence/line_source.h"
#include "agent/evidence/verifier.h"
#include "agent/journal/hash_file.h"
#include "agent/journal/segment.h"

namespace egresswatch::evidence {
namespace {

using journal::HashFile;

constexpr std::string_view magic = "c2sp.org/tlog-proof@v1";
constexpr std::size_t proof_hashes_max = 64;

std::optional<std::string> find_line(const std::filesystem::path& segment, std::uint64_t seq) {
    LineSource lines(segment);
    while (const auto line = lines.next())
        if (journal::line_seq(*line) == seq) return std::string(*line);
    return std::nullopt;
}

std::string note_in(std::string_view line) {
    const auto record = nlohmann::json::parse(line, nullptr, false);
    if (!record.is_object()) return {};
    const auto note = record.find("note");
    return note != record.end() && note->is_string() ? note->get<std::string>() : std::string{};
}

// The first checkpoint in the journal, from the segment on, that signs leaf `index` of `origin`.
std::optional<std::string> find_checkpoint(const std::filesystem::path& directory, std::uint64_t first_seq,
                                           const std::string& origin, std::uint64_t index) {
    for (const auto& segment : journal::list_segments(directory)) {
        if (segment.first_seq < first_seq) continue;
        LineSource lines(segment.path);
        while (const auto line = lines.next()) {
            const auto kind = journal::text_member(*line, "kind");
            if (kind != "checkpoint" && kind != "key") continue;
            std::string text = note_in(*line);
            const auto note = parse_note(text);
            const auto checkpoint = note ? Checkpoint::parse(note->text) : std::unexpected(note.error());
            if (checkpoint && checkpoint->origin == origin && checkpoint->size > index) return text;
        }
    }
    return std::nullopt;
}

// Roots of subtrees, from the hash files of one log.
class Subtrees {
public:
    Subtrees(std::vector<HashFile> files) : files_(std::move(files)) {}

    std::expected<Hash, std::string> root(const Range& range) const {
        Frontier tree;
        std::uint64_t at = range.first;
        if (at < files_.front().first_index()) {  // hashes that were given up: their subtrees may be known
            auto known = known_part(range);
            if (!known) return std::unexpected("the leaf hashes that the proof needs are not kept any more");
            if (files_.front().first_index() >= range.last) return known->root();
            tree = std::move(*known);
            at = files_.front().first_index();
        }
        for (const auto& file : files_) {
            if (file.end_index() <= at || file.first_index() >= range.last) continue;
            const std::uint64_t end = std::min(range.last, file.end_index());
            const auto leaves = journal::read_hashes(file, at - file.first_index(), end - at);
            if (!leaves) return std::unexpected(file.path.string() + " cannot be read");
            for (const auto& leaf : *leaves) tree.append(leaf);
            at = end;
        }
        if (at != range.last)
            return std::unexpected("leaf hashes are missing behind leaf " + std::to_string(at));
        return tree.root();
    }

private:
    // The frontier in front of the first file, as far as it lies in `range`. A range of a proof begins where
    // one of the subtrees begins, or inside one; then nothing can be told.
    std::optional<Frontier> known_part(const Range& range) const {
        const auto& start = files_.front().header.frontier;
        std::uint64_t at = 0;
        std::uint64_t size = 0;
        std::vector<Hash> nodes;
        std::size_t index = 0;
        for (int bit = 63; bit >= 0; bit--) {
            const std::uint64_t width = 1ULL << bit;
            if ((start.size() & width) == 0) continue;
            const auto& node = start.nodes()[index++];
            if (at >= range.first && at + width <= range.last) {
                nodes.push_back(node);
                size += width;
            } else if (at < range.last && at + width > range.first) {
                return std::nullopt;
            }
            at += width;
        }
        return Frontier::restore(size, std::move(nodes));
    }

    std::vector<HashFile> files_;
};

}  // namespace

std::string Proof::text() const {
    std::string out = std::string(magic) + "\n";
    if (!record.empty()) out += "extra " + to_base64(record) + "\n";
    out += "index " + std::to_string(index) + "\n";
    for (const auto& hash : hashes) out += to_base64(hash) + "\n";
    return out + "\n" + checkpoint;
}

std::expected<Proof, std::string> Proof::parse(std::string_view text) {
    Proof proof;
    const auto blank = text.find("\n\n");
    if (!text.starts_with(magic) || blank == std::string_view::npos)
        return std::unexpected("a proof begins with the line " + std::string(magic));
    proof.checkpoint = text.substr(blank + 2);
    std::istringstream in(std::string(text.substr(0, blank)));
    std::string line;
    std::getline(in, line);
    if (line != magic) return std::unexpected("not a proof of version 1");
    if (!std::getline(in, line)) return std::unexpected("the proof has no index");
    if (line.starts_with("extra ")) {
        const auto record = from_base64(std::string_view(line).substr(6));
        if (!record) return std::unexpected("the extra line is no base64");
        proof.record = *record;
        std::getline(in, line);
    }
    const auto [end, error] = std::from_chars(line.data() + std::min<std::size_t>(6, line.size()),
                                              line.data() + line.size(), proof.index);
    if (!line.starts_with("index ") || error != std::errc{} || end != line.data() + line.size())
        return std::unexpected("the proof has no index");
    while (std::getline(in, line)) {
        const auto hash = hash_from_base64(line);
        if (!hash || proof.hashes.size() == proof_hashes_max)
            return std::unexpected("a damaged hash in the proof");
        proof.hashes.push_back(*hash);
    }
    return proof;
}

std::expected<Proof, std::string> prove(const std::filesystem::path& journal, std::uint64_t seq,
                                        const std::optional<std::string>& checkpoint) {
    auto files = journal::list_hash_files(journal);
    const auto holder = std::ranges::find_if(files, [seq](const HashFile& file) {
        return file.first_seq <= seq && seq < file.first_seq + file.count;
    });
    if (holder == files.end())
        return std::unexpected("no leaf hash of record " + std::to_string(seq) + " is in " +
                               journal.string() + "; of the newest second they are not written yet");
    const std::string origin = holder->header.origin;
    const std::uint64_t first_seq = holder->first_seq;
    Proof proof;
    proof.index = holder->first_index() + (seq - first_seq);
    if (const auto line = find_line(journal / journal::segment_name(first_seq), seq)) proof.record = *line;
    const auto signed_note =
        checkpoint ? checkpoint : find_checkpoint(journal, first_seq, origin, proof.index);
    if (!signed_note) return std::unexpected("record " + std::to_string(seq) + " is not signed yet");
    const auto note = parse_note(*signed_note);
    const auto head = note ? Checkpoint::parse(note->text) : std::unexpected(note.error());
    if (!head) return std::unexpected("the checkpoint: " + head.error());
    if (head->origin != origin || head->size <= proof.index)
        return std::unexpected("the checkpoint of " + std::to_string(head->size) + " records of " +
                               head->origin + " does not sign record " + std::to_string(seq) +
                               ", which is leaf " + std::to_string(proof.index) + " of " + origin);
    proof.checkpoint = *signed_note;
    std::erase_if(files, [&](const HashFile& file) { return file.header.origin != origin; });
    const Subtrees subtrees(std::move(files));
    for (const auto& range : inclusion_ranges(proof.index, head->size)) {
        const auto root = subtrees.root(range);
        if (!root) return std::unexpected(root.error());
        proof.hashes.push_back(*root);
    }
    return proof;
}

std::expected<ProofResult, std::string> check_proof(const Proof& proof, const KeyChain& chain) {
    if (proof.record.empty()) return std::unexpected("the proof holds no record");
    const auto note = parse_note(proof.checkpoint);
    if (!note) return std::unexpected("the checkpoint: " + note.error());
    auto checkpoint = Checkpoint::parse(note->text);
    if (!checkpoint) return std::unexpected("the checkpoint: " + checkpoint.error());
    const LogKeys keys(chain, checkpoint->origin);
    if (!keys.known())
        return std::unexpected("the chain of keys does not know the log " + checkpoint->origin);
    if (const auto wrong = keys.objection(*checkpoint, *note); !wrong.empty())
        return std::unexpected("the checkpoint is " + wrong);
    const auto root =
        root_from_inclusion(leaf_hash(proof.record), proof.index, checkpoint->size, proof.hashes);
    if (root != checkpoint->root)
        return std::unexpected("the hashes do not lead from the record to the signed root");
    ProofResult result{std::move(*checkpoint), 0};
    for (const auto* link : keys.links())
        if (note->signed_by(link->public_key())) result.generation = link->generation;
    return result;
}

}  // namespace egresswatch::evidence
