// agent/journal/retention.cpp - what goes when the limit of age or size is reached, and what is said of it.
// SPDX-License-Identifier: Apache-2.0
//
// Whole segments, the oldest first; their leaf hashes stay, so that what is left can be proved to be part of
// the same log. Where an output has not delivered the oldest segment yet and size is the limit, records are
// skipped by importance first, flows before coverage and low findings, and so on: the receiver that comes
// back gets the alerts that matter. A gap record tells of every step, in front of it wherever the disk
// allows.
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <fstream>

#include "agent/journal/journal_state.h"

namespace egresswatch::journal {
namespace {

// Skipped in this order; what is not listed goes with its whole segment only.
constexpr int importance_flow = 0;
constexpr int importance_low = 1;  // and coverage
constexpr int importance_medium = 2;
constexpr int importance_high = 3;
constexpr int importance_last = 4;
constexpr std::string_view importance_names[] = {"flow records", "coverage records and low findings",
                                                 "medium findings", "high findings"};

int importance_of(std::string_view line) {
    const auto kind = text_member(line, "kind");
    if (kind == "flow") return importance_flow;
    if (kind == "coverage") return importance_low;
    if (kind != "finding") return importance_last;
    const auto level = text_member(line, "level");
    if (level == "low") return importance_low;
    if (level == "medium") return importance_medium;
    if (level == "high") return importance_high;
    return importance_last;
}

struct Thinned {
    std::uint64_t bytes = 0;
    std::uint64_t skipped = 0;
};

// Writes the lines above `importance` to a file beside it. errno on failure.
std::expected<Thinned, int> copy_above(const std::filesystem::path& from, const std::filesystem::path& to,
                                       int importance) {
    std::ifstream in(from, std::ios::binary);
    std::ofstream out(to, std::ios::binary | std::ios::trunc);
    if (!in || !out) return std::unexpected(errno == 0 ? EIO : errno);
    Thinned done;
    for (std::string line; std::getline(in, line);) {
        if (importance_of(line) <= importance) {
            ++done.skipped;
            continue;
        }
        line += '\n';
        out << line;
        done.bytes += line.size();
    }
    if (in.bad()) return std::unexpected(EIO);  // what cannot be read now must not be erased for it
    if (!out.flush()) return std::unexpected(ENOSPC);
    const UniqueFd fd(::open(to.c_str(), O_RDONLY | O_CLOEXEC));
    if (!fd || ::fsync(fd.get()) != 0) return std::unexpected(errno);
    return done;
}

}  // namespace

void Journal::State::apply_retention() {
    while (true) {
        ClosedSegment oldest;
        bool too_old = false;
        {
            const std::lock_guard guard(mutex);
            if (closed || closed_segments.empty()) return;  // a stopped journal cannot tell of it
            oldest = closed_segments.front();
            std::uint64_t total = segment ? segment->bytes : 0;
            for (const auto& old : closed_segments) total += old.bytes;
            too_old = config.retention_age.count() != 0 &&
                      oldest.last_written + config.retention_age < config.clock();
            const bool too_much = config.retention_bytes_max != 0 && total > config.retention_bytes_max;
            if (!too_old && !too_much) break;
        }
        if (!too_old && !tail->behind(oldest.last_seq).empty() && thin_one()) continue;
        erase_segment(std::move(oldest));
    }
    trim_hashes();
}

// The gap record is durable before the segment goes. On a full disk it cannot be: then it follows as soon as
// the space is there.
void Journal::State::erase_segment(ClosedSegment old) {
    records::Gap gap;
    gap.reason = "retention";
    gap.outputs = tail->behind(old.last_seq);
    gap.first_seq = old.file.first_seq;
    gap.last_seq = old.last_seq;
    gap.records = old.last_seq - old.file.first_seq + 1;
    gap.to = old.last_written;
    gap.detail = old.file.path.filename().string() + " reached the limit of age or size" +
                 (gap.outputs.empty() ? ", delivered everywhere" : " before delivery") +
                 "; its leaf hashes are kept";
    bool told = false;
    std::shared_ptr<UniqueFd> fd;
    {
        const std::lock_guard guard(mutex);
        if (closed_segments.empty() || closed_segments.front().file.first_seq != old.file.first_seq) return;
        closed_segments.erase(closed_segments.begin());
        ++status.segments_deleted;
        directory_unsynced = true;
        owed.push_back(records::gap_record(config.origin, gap));
        told = !closed && tell_first().has_value();
        if (segment) fd = segment->fd;
    }
    if (told && fd) ::fdatasync(fd->get());
    if (old.hashes && old.hashes->flush(old.hashes->take_pending()) == 0) {
        if (old.hashes->sync() == 0) old.hashes.reset();
    }
    ::unlink(old.file.path.c_str());
    if (old.hashes && (old.hashes->flush({}) != 0 || old.hashes->sync() != 0)) {
        const std::lock_guard guard(mutex);
        ++status.hash_failures;
    }
}

// One segment, one importance; false when there is nothing left to skip.
bool Journal::State::thin_one() {
    for (int importance = importance_flow; importance < importance_last; importance++) {
        ClosedSegment chosen;
        {
            const std::lock_guard guard(mutex);
            const auto found = std::ranges::find_if(closed_segments, [&](const ClosedSegment& old) {
                return old.kept_above < importance && !old.hashes && !tail->behind(old.last_seq).empty();
            });
            if (found == closed_segments.end()) continue;
            chosen = *found;
        }
        auto beside = chosen.file.path;
        beside += ".thin";
        const auto thinned = copy_above(chosen.file.path, beside, importance);
        const bool usable = thinned && thinned->skipped != 0 && thinned->bytes != 0;
        records::Gap gap;
        gap.reason = "retention";
        gap.outputs = tail->behind(chosen.last_seq);
        gap.first_seq = chosen.file.first_seq;
        gap.last_seq = chosen.last_seq;
        gap.to = chosen.last_written;
        if (usable) {
            gap.records = thinned->skipped;
            gap.detail = chosen.file.path.filename().string() + ": " +
                         std::string(importance_names[importance]) +
                         " skipped to stay below the limit of size before delivery";
        }
        std::shared_ptr<UniqueFd> fd;
        bool told = false;
        {
            const std::lock_guard guard(mutex);
            if (usable && !closed && tell_first())
                told = write_record(records::gap_record(config.origin, gap), Urgency::normal).has_value();
            for (auto& old : closed_segments) {
                if (old.file.first_seq != chosen.file.first_seq) continue;
                old.kept_above = importance;
                if (told) old.bytes = thinned->bytes;
            }
            if (told) status.records_thinned += thinned->skipped;
            if (segment) fd = segment->fd;
            directory_unsynced = true;
        }
        if (told && fd) ::fdatasync(fd->get());
        if (!told || ::rename(beside.c_str(), chosen.file.path.c_str()) != 0) ::unlink(beside.c_str());
        return true;
    }
    return false;
}

// Hashes of erased segments only: those of the others are needed to check what is there.
void Journal::State::trim_hashes() {
    std::uint64_t first_kept = 0;
    {
        const std::lock_guard guard(mutex);
        if (status.segments_deleted == hashes_trimmed_at) return;
        hashes_trimmed_at = status.segments_deleted;
        if (!closed_segments.empty())
            first_kept = closed_segments.front().file.first_seq;
        else
            first_kept = segment ? segment->file.first_seq : next_seq;
    }
    auto files = list_hash_files(config.directory);
    std::erase_if(files, [&](const HashFile& file) { return file.first_seq >= first_kept; });
    std::uint64_t total = 0;
    for (const auto& file : files) total += hash_header_bytes + file.count * hash_bytes;
    for (const auto& file : files) {
        if (total <= config.hash_bytes_max) break;
        total -= hash_header_bytes + file.count * hash_bytes;
        ::unlink(file.path.c_str());
    }
}

}  // namespace egresswatch::journal
