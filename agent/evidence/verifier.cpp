// agent/evidence/verifier.cpp - one pass over the journal's files. See verifier.h.
// SPDX-License-Identifier: Apache-2.0
#include "agent/evidence/verifier.h"

#include <algorithm>
#include <fstream>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <set>
#include <sstream>

#include "agent/evidence/coverage_check.h"
#include "agent/evidence/line_source.h"
#include "agent/evidence/tree_check.h"
#include "agent/journal/hash_file.h"
#include "agent/journal/journal.h"
#include "agent/journal/segment.h"

namespace egresswatch::evidence {
namespace {

using journal::HashFile;
using Json = nlohmann::json;

struct SeqRange {
    std::uint64_t first = 0;
    std::uint64_t last = 0;
    bool holds(const SeqRange& other) const { return first <= other.first && other.last <= last; }
    auto operator<=>(const SeqRange&) const = default;
};

struct Part {  // a segment, its hashes, or both
    std::uint64_t first_seq = 0;
    std::filesystem::path segment;  // empty: erased
    std::optional<HashFile> hashes;
};

class Verification {
public:
    explicit Verification(const VerifyOptions& options) : options_(options) {}
    std::expected<VerifyReport, std::string> run();

private:
    void problem(std::string code, std::string message, std::optional<std::uint64_t> seq = std::nullopt);
    bool read_chain();
    std::expected<std::vector<Part>, std::string> list_parts();
    void take_part(const Part& part, bool last_part);
    void begin_part(const Part& part, const std::optional<std::string>& genesis_origin);
    void begin_log(const std::string& origin, Frontier start);
    void end_log();
    void take_erased(const Part& part);
    void take_lines(const Part& part, bool last_part);
    bool take_line(std::string_view line, const Part& part, const std::vector<Hash>& kept,
                   std::uint64_t& next_seq);
    void skip_to(std::uint64_t seq, const std::vector<Hash>& kept, std::uint64_t first_seq,
                 std::uint64_t& next_seq);
    void take_record(std::string_view line, std::uint64_t seq);
    void take_signed(std::string_view line, std::uint64_t seq, bool is_key);
    void take_gap(std::string_view line);
    void take_recovery(std::string_view line);
    void expect_links_and_anchors();
    void check_anchors();
    void check_missing();
    void check_coverage();

    const VerifyOptions& options_;
    VerifyReport report_;
    KeyChain chain_;
    std::unique_ptr<LogKeys> keys_;
    TreeCheck tree_;
    bool in_log_ = false;
    std::set<std::string> logs_seen_;
    std::string file_;
    std::uint64_t total_bytes_ = 0;
    std::uint64_t expected_seq_ = 0;  // 0: anything
    std::vector<SeqRange> missing_;   // numbers without a record
    std::vector<SeqRange> erased_;    // whole segments
    std::vector<SeqRange> lost_;      // as recovery records tell
    std::map<SeqRange, std::uint64_t>
        retention_;            // as gap records tell: how many of these numbers were erased
    bool root_wrong_ = false;  // of this log: told once
    std::uint64_t anchors_ours_ = 0;
    CoverageCheck coverage_;
};

void Verification::problem(std::string code, std::string message, std::optional<std::uint64_t> seq) {
    if (report_.problems.size() >= problems_max) {
        ++report_.problems_not_shown;
        return;
    }
    report_.problems.push_back({std::move(code), std::move(message), file_, seq});
}

std::string read_file(const std::filesystem::path& path) {
    std::ifstream in(path, std::ios::binary);
    std::ostringstream text;
    text << in.rdbuf();
    return text.str();
}

bool Verification::read_chain() {
    file_ = keys_file_name;
    const auto path = options_.journal / keys_file_name;
    std::error_code error;
    const auto size = std::filesystem::file_size(path, error);
    if (error || size > keys_bytes_max) {
        problem("key-chain", error ? "the file with the public keys is missing: nothing can be checked"
                                   : "the file with the public keys is too large to be one");
        return false;
    }
    chain_ = KeyChain::read(read_file(path), options_.genesis);
    if (!chain_.problem.empty()) problem("key-chain", chain_.problem);
    file_.clear();
    return !chain_.links.empty();
}

std::expected<std::vector<Part>, std::string> Verification::list_parts() {
    std::error_code error;
    if (!std::filesystem::is_directory(options_.journal, error))
        return std::unexpected(options_.journal.string() + " is no directory that can be read");
    std::vector<std::string> damaged;
    std::vector<Part> parts;
    for (auto& file : journal::list_hash_files(options_.journal, &damaged)) {
        const std::uint64_t first = file.first_seq;
        parts.push_back({first, {}, std::move(file)});
    }
    for (const auto& name : damaged) problem("hash-file", name + ": its header cannot be read");
    for (auto& segment : journal::list_segments(options_.journal)) {
        total_bytes_ += std::filesystem::file_size(segment.path, error);
        const auto found = std::ranges::find(parts, segment.first_seq, &Part::first_seq);
        if (found == parts.end())
            parts.push_back({segment.first_seq, segment.path, std::nullopt});
        else
            found->segment = segment.path;
    }
    std::ranges::sort(parts, {}, &Part::first_seq);
    return parts;
}

std::expected<VerifyReport, std::string> Verification::run() {
    const auto parts = list_parts();
    if (!parts) return std::unexpected(parts.error());
    if (parts->empty()) return std::unexpected("there is no journal in " + options_.journal.string());
    const bool chain = read_chain();
    for (std::size_t i = 0; i < parts->size(); i++) take_part((*parts)[i], i + 1 == parts->size());
    end_log();
    file_.clear();
    for (const auto& link : chain_.links)
        if (!link.begins_log() && !logs_seen_.contains(link.sealed.origin) &&
            logs_seen_.insert(link.sealed.origin).second)
            problem("deleted", "nothing is left of the log " + link.sealed.origin + ", of which " +
                                   std::to_string(link.sealed.size) + " records were signed");
    if (chain) check_anchors();
    check_missing();
    check_coverage();
    return std::move(report_);
}

// ---- logs

void Verification::begin_log(const std::string& origin, Frontier start) {
    end_log();
    in_log_ = true;
    root_wrong_ = false;
    logs_seen_.insert(origin);
    tree_ = TreeCheck(std::move(start));
    keys_ = std::make_unique<LogKeys>(chain_, origin);
    LogReport log;
    log.origin = origin;
    log.first_index = tree_.first();
    report_.logs.push_back(log);
    if (!keys_->known() && !chain_.links.empty())
        problem("key-chain", "the log " + origin + " is not one that the chain of keys knows");
    for (const auto& link : chain_.links)  // how much the log says that it replaces
        if (link.begins_log() && link.sealed.origin == origin && link.previous && link.previous->size != 0)
            problem("signed-records-lost",
                    "the daemon found its signed records gone or changed and began this log: " +
                        link.previous->origin + " had been signed up to " +
                        std::to_string(link.previous->size));
    expect_links_and_anchors();
}

void Verification::expect_links_and_anchors() {
    const std::string origin = report_.logs.back().origin;
    const std::size_t at = report_.logs.size() - 1;
    const auto expect = [&](const Checkpoint& sealed, std::string code, std::string what, bool anchor) {
        const auto outcome = [this, at, sealed, code, what, anchor](bool agrees) {
            auto& log = report_.logs[at];
            if (agrees) {
                log.signed_size = std::max(log.signed_size, sealed.size);
                if (anchor) {
                    ++log.anchors;
                    log.anchored_size = std::max(log.anchored_size, sealed.size);
                }
                return;
            }
            problem(code,
                    what + " of " + std::to_string(sealed.size) +
                        " records has another root than these records have: they are not what was signed");
        };
        return tree_.expect(sealed.size, sealed.root, outcome);
    };
    for (const auto* link : keys_->links()) {
        if (link->begins_log()) continue;
        ++report_.logs.back().keys;
        expect(link->sealed, "altered", "the seal of key " + std::to_string(link->generation), false);
    }
    std::uint64_t before_kept = 0;
    for (const auto& anchor : options_.anchors) {
        if (anchor.checkpoint.origin != origin) continue;
        if (const auto wrong = keys_->objection(anchor.checkpoint, anchor.note); !wrong.empty()) {
            report_.notes.push_back("an anchor of " + std::to_string(anchor.checkpoint.size) +
                                    " records is not counted: " + wrong);
            continue;
        }
        ++anchors_ours_;
        if (!expect(anchor.checkpoint, "forked", "the anchor", true)) ++before_kept;
    }
    if (before_kept != 0)
        report_.notes.push_back(std::to_string(before_kept) +
                                " anchors are older than the hashes that are kept");
}

void Verification::end_log() {
    if (!in_log_) return;
    in_log_ = false;
    tree_.finish();
    auto& log = report_.logs.back();
    log.size = tree_.size();
    log.root = to_base64(tree_.root());
    if (const auto unmet = tree_.unmet(); !unmet.empty())
        problem("truncated", "the log " + log.origin + " was signed up to record " +
                                 std::to_string(unmet.back()) + ", and the journal holds " +
                                 std::to_string(log.size));
    report_.not_signed = log.size - std::min(log.size, log.signed_size);
}

// ---- parts

void Verification::take_part(const Part& part, bool last_part) {
    file_ = part.segment.empty() ? part.hashes->path.filename().string() : part.segment.filename().string();
    std::optional<std::string> genesis_origin;
    if (!part.segment.empty()) {
        std::ifstream in(part.segment, std::ios::binary);
        std::string line;
        if (std::getline(in, line) && journal::text_member(line, "kind") == "genesis")
            genesis_origin = std::string(journal::text_member(line, "origin"));
    }
    begin_part(part, genesis_origin);
    if (part.segment.empty())
        take_erased(part);
    else
        take_lines(part, last_part);
}

// Which log the part belongs to, and whether it goes on where the one before ended.
void Verification::begin_part(const Part& part, const std::optional<std::string>& genesis_origin) {
    if (expected_seq_ != 0 && part.first_seq > expected_seq_)
        missing_.push_back({expected_seq_, part.first_seq - 1});
    if (expected_seq_ != 0 && part.first_seq < expected_seq_)
        problem("inserted", "the numbers of this file begin inside the file before it");
    expected_seq_ = part.first_seq;
    if (report_.first_seq == 0) report_.first_seq = part.first_seq;
    if (genesis_origin) {
        if (part.hashes && part.hashes->header.origin != *genesis_origin)
            problem("hash-file", "its hash file names another log");
        begin_log(*genesis_origin, {});
        return;
    }
    if (!part.hashes) {
        if (!in_log_)
            problem("altered",
                    "it does not begin a log, and there is no hash file that says where it belongs");
        return;
    }
    const auto& header = part.hashes->header;
    // Hashes of erased records are given up some day as well: then retention had erased what is in front.
    if (!in_log_ && header.frontier.size() != 0 && part.first_seq > 1)
        erased_.push_back({part.first_seq - 1, part.first_seq - 1});
    if (!in_log_ || header.origin != report_.logs.back().origin) {
        if (in_log_ && header.frontier.size() == 0 && !part.segment.empty())
            problem("altered", "the hash file begins a log, the records do not");
        begin_log(header.origin, header.frontier);
    } else if (header.frontier.size() != tree_.size()) {
        problem("hash-file", "its hash file continues at record " + std::to_string(header.frontier.size()) +
                                 " of the log, the one before ends at " + std::to_string(tree_.size()));
    }
}

void Verification::take_erased(const Part& part) {
    const auto leaves = journal::read_hashes(*part.hashes, 0, part.hashes->count);
    if (!leaves || leaves->empty()) {
        problem("hash-file", "cannot be read");
        return;
    }
    for (const auto& leaf : *leaves) tree_.add(leaf);
    erased_.push_back({part.first_seq, part.first_seq + leaves->size() - 1});
    report_.erased += leaves->size();
    expected_seq_ = erased_.back().last + 1;
    report_.last_seq = erased_.back().last;
    coverage_.records_missing();
}

void Verification::take_lines(const Part& part, bool last_part) {
    std::vector<Hash> kept;
    if (part.hashes) {
        // Read before the lines: of a journal that is being written, the hashes are never ahead.
        if (auto read = journal::read_hashes(*part.hashes, 0, part.hashes->count)) kept = std::move(*read);
    } else if (!last_part) {  // a segment that was just begun has none yet
        problem("hash-file", "its hash file is missing");
    }
    LineSource lines(part.segment);
    std::uint64_t next_seq = part.first_seq;
    std::uint64_t reported = 0;
    while (const auto line = lines.next()) {
        take_line(*line, part, kept, next_seq);
        if (options_.progress && lines.consumed() - reported > (32U << 20)) {
            reported = lines.consumed();
            options_.progress(report_.bytes + reported, total_bytes_);
        }
    }
    report_.bytes += lines.consumed();
    if (lines.failed()) problem("unreadable", "cannot be read to its end");
    if (lines.torn_bytes() != 0) {
        const std::string text = std::to_string(lines.torn_bytes()) + " bytes at its end are no whole record";
        if (last_part)
            report_.notes.push_back(file_ + ": " + text + "; the next start cuts them off");
        else
            problem("damaged", text);
    }
    const std::uint64_t end_seq = part.first_seq + kept.size();
    if (next_seq < end_seq) {
        const std::uint64_t first = next_seq;
        if (last_part)
            problem("truncated",
                    "hashes are kept for " + std::to_string(end_seq - first) +
                        " records that are not there any more",
                    first);
        skip_to(end_seq, kept, part.first_seq, next_seq);
        if (last_part) missing_.pop_back();
    } else if (part.hashes && !last_part && kept.size() < next_seq - part.first_seq) {
        problem("hash-file", "its hash file ends early");
    }
    expected_seq_ = next_seq;
    report_.last_seq = std::max(report_.last_seq, next_seq - 1);
}

// Numbers that are not in this file: their hashes go on holding the tree together.
void Verification::skip_to(std::uint64_t seq, const std::vector<Hash>& kept, std::uint64_t first_seq,
                           std::uint64_t& next_seq) {
    missing_.push_back({next_seq, seq - 1});
    coverage_.records_missing();
    for (; next_seq < seq; next_seq++) {
        if (next_seq - first_seq < kept.size()) tree_.add(kept[next_seq - first_seq]);
        ++report_.erased;
    }
}

bool Verification::take_line(std::string_view line, const Part& part, const std::vector<Hash>& kept,
                             std::uint64_t& next_seq) {
    const auto seq = journal::line_seq(line);
    const Hash leaf = leaf_hash(line);
    if (!seq || !line.ends_with('}') || line.size() > journal::line_bytes_max) {
        problem("damaged", "a line behind record " + std::to_string(next_seq - 1) + " is no record");
        // Whether it replaces a record or was added, the kept hashes tell; without them it takes a place.
        if (kept.empty()) tree_.add(leaf);
        return false;
    }
    if (*seq < next_seq) {
        problem("inserted",
                "record " + std::to_string(*seq) + " stands behind record " + std::to_string(next_seq - 1) +
                    ": inserted, repeated or out of order",
                *seq);
        return false;
    }
    if (*seq > next_seq) skip_to(*seq, kept, part.first_seq, next_seq);
    const std::uint64_t at = *seq - part.first_seq;
    ++next_seq;
    ++report_.records;
    if (at < kept.size() && kept[at] != leaf) {
        problem("altered", "record " + std::to_string(*seq) + " is not the one whose hash was kept", *seq);
        tree_.add(kept[at]);
        return false;
    }
    tree_.add(leaf);
    take_record(line, *seq);
    return true;
}

// ---- records

void Verification::take_record(std::string_view line, std::uint64_t seq) {
    const auto kind = journal::text_member(line, "kind");
    if (kind == "flow" || kind == "finding") return;
    // What only a daemon that runs writes, by the clock that coverage records have.
    if (kind == "heartbeat") coverage_.other(seq, journal::text_member(line, "time"));
    if (kind == "coverage") {
        coverage_.coverage(seq, journal::text_member(line, "from"), journal::text_member(line, "to"));
    } else if (kind == "checkpoint") {
        take_signed(line, seq, false);
    } else if (kind == "key") {
        take_signed(line, seq, true);
    } else if (kind == "gap") {
        take_gap(line);
    } else if (kind == "recovery") {
        take_recovery(line);
    }
}

void Verification::take_signed(std::string_view line, std::uint64_t seq, bool is_key) {
    const Json record = Json::parse(line, nullptr, false);
    std::string text;
    if (record.is_object())
        if (const auto found = record.find("note"); found != record.end() && found->is_string())
            text = found->get<std::string>();
    if (!in_log_ || keys_ == nullptr) return;
    if (is_key) {
        const bool known =
            std::ranges::any_of(keys_->links(), [&](const auto* link) { return link->note == text; });
        if (!known) problem("key-chain", "a key record whose key the chain does not know", seq);
        return;
    }
    const auto note = parse_note(text);
    const auto checkpoint = note ? Checkpoint::parse(note->text) : std::unexpected(note.error());
    if (!checkpoint) {
        problem("signature", "a checkpoint record without a checkpoint: " + checkpoint.error(), seq);
        return;
    }
    const std::size_t at = report_.logs.size() - 1;
    if (checkpoint->origin != report_.logs[at].origin) {
        problem("signature", "a checkpoint of another log: " + checkpoint->origin, seq);
        return;
    }
    if (const auto wrong = keys_->objection(*checkpoint, *note); !wrong.empty()) {
        problem("signature", "checkpoint of " + std::to_string(checkpoint->size) + " records: " + wrong, seq);
        return;
    }
    const std::uint64_t size = checkpoint->size;
    const bool possible = tree_.expect(size, checkpoint->root, [this, at, size, seq](bool agrees) {
        auto& log = report_.logs[at];
        if (agrees) {
            ++log.checkpoints;
            log.signed_size = std::max(log.signed_size, size);
        } else if (!root_wrong_) {
            root_wrong_ = true;  // every later root is wrong as well
            problem("altered",
                    "the checkpoint of " + std::to_string(size) +
                        " records does not fit them: something between record " +
                        std::to_string(log.signed_size) + " and " + std::to_string(size) +
                        " of the log was changed, removed or added, and the hash files with it",
                    seq);
        }
    });
    if (!possible && size >= tree_.first())
        problem("signature", "a checkpoint far behind the records that it signs", seq);
}

void Verification::take_gap(std::string_view line) {
    const Json record = Json::parse(line, nullptr, false);
    if (!record.is_object()) return;
    const auto number = [&](const char* name) {
        const auto found = record.find(name);
        return found != record.end() && found->is_number_unsigned() ? found->get<std::uint64_t>() : 0;
    };
    const auto reason = journal::text_member(line, "reason");
    // A segment is told of once for each importance that was skipped, and once more when it goes as a whole.
    if (reason == "retention") retention_[{number("first_seq"), number("last_seq")}] += number("records");
    const auto from = journal::text_member(line, "from");
    const auto to = journal::text_member(line, "to");
    if (!from.empty() && !to.empty()) coverage_.gap(from, to);
}

void Verification::take_recovery(std::string_view line) {
    const Json record = Json::parse(line, nullptr, false);
    if (!record.is_object()) return;
    const auto first = record.find("lost_first_seq");
    const auto last = record.find("lost_last_seq");
    if (first != record.end() && last != record.end() && first->is_number_unsigned() &&
        last->is_number_unsigned())
        lost_.push_back({first->get<std::uint64_t>(), last->get<std::uint64_t>()});
}

// ---- what is only known at the end

void Verification::check_anchors() {
    std::uint64_t foreign = 0;
    for (const auto& anchor : options_.anchors) {
        const LogKeys keys(chain_, anchor.checkpoint.origin);
        if (!keys.known()) {
            ++foreign;
        } else if (!logs_seen_.contains(anchor.checkpoint.origin) &&
                   keys.objection(anchor.checkpoint, anchor.note).empty()) {
            ++anchors_ours_;
            problem("deleted", "an anchor of " + std::to_string(anchor.checkpoint.size) +
                                   " records of the log " + anchor.checkpoint.origin +
                                   ", of which nothing is left");
            logs_seen_.insert(anchor.checkpoint.origin);
        }
    }
    if (foreign != 0)
        report_.notes.push_back(std::to_string(foreign) +
                                " anchors belong to logs that this chain of keys does not know");
    if (options_.anchors_given && anchors_ours_ == 0)
        problem("anchors", "none of the " + std::to_string(options_.anchors.size()) +
                               " checkpoints in the anchor file belongs to this journal");
}

void Verification::check_missing() {
    const auto told_of = [&](const SeqRange& wanted) {
        return std::ranges::find_if(retention_, [&](const auto& gap) { return gap.first.holds(wanted); });
    };
    std::map<SeqRange, std::uint64_t> missing_in;  // ranges of which a gap record tells
    for (const auto& range : missing_) {
        if (std::ranges::any_of(lost_, [&](const SeqRange& lost) { return lost.holds(range); })) continue;
        if (const auto gap = told_of(range); gap != retention_.end()) {
            missing_in[gap->first] += range.last - range.first + 1;
            continue;
        }
        problem("deleted",
                "records " + std::to_string(range.first) + " to " + std::to_string(range.last) +
                    " are missing, and no gap or recovery record says why",
                range.first);
    }
    for (const auto& [range, count] : missing_in)
        if (count > retention_[range])
            problem("deleted",
                    std::to_string(count) + " of the records " + std::to_string(range.first) + " to " +
                        std::to_string(range.last) + " are missing, and gap records tell of " +
                        std::to_string(retention_[range]),
                    range.first);
    // Segments are erased from the oldest on, and each leaves a gap record, which is erased with its own
    // segment some day. So those in front of the first one that is told of have been told of, too; where none
    // is told of, nothing was erased by retention.
    bool told_later = false;
    for (auto range = erased_.rbegin(); range != erased_.rend(); ++range) {
        const bool told = told_of(*range) != retention_.end();
        if (!told && !told_later)
            problem("deleted",
                    "records " + std::to_string(range->first) + " to " + std::to_string(range->last) +
                        " are gone, and no gap record says that retention erased them",
                    range->first);
        told_later = told_later || told;
    }
}

void Verification::check_coverage() {
    report_.covered_from = coverage_.first();
    report_.covered_to = coverage_.last();
    for (const auto& hole : coverage_.unexplained())
        problem("missing-time", "nobody says what happened between " + hole.from + " and " + hole.to,
                hole.seq);
}

}  // namespace

LogKeys::LogKeys(const KeyChain& chain, const std::string& origin) {
    for (const auto& link : chain.links)
        if (link.sealed.origin == origin) keys_.push_back(&link);
}

std::string LogKeys::objection(const Checkpoint& checkpoint, const Note& note) const {
    for (std::size_t i = 0; i < keys_.size(); i++) {
        if (!note.signed_by(keys_[i]->public_key())) continue;
        if (checkpoint.size < keys_[i]->sealed.size)
            return "signed by key " + std::to_string(keys_[i]->generation) +
                   ", which came into force later: the past cannot be signed again";
        if (i + 1 < keys_.size() && checkpoint.size > keys_[i + 1]->sealed.size)
            return "signed by key " + std::to_string(keys_[i]->generation) + ", which was destroyed before";
        return {};
    }
    // A link is signed by the key before it, which may belong to the log before: it is in the chain itself.
    for (std::size_t i = 1; i < keys_.size(); i++)
        if (keys_[i]->sealed.text() == note.text) return {};
    return "not signed by a key of the chain";
}

std::expected<VerifyReport, std::string> verify_journal(const VerifyOptions& options) {
    return Verification(options).run();
}

}  // namespace egresswatch::evidence
