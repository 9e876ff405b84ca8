// agent/journal/recovery.cpp - opens a journal: takes the lock, finds out how the last run ended, goes on
// behind it. SPDX-License-Identifier: Apache-2.0
//
// Which number comes next. `sequence` (one disk sector, rewritten in place) holds the last number given out
// and the last number reserved. After kill -9 the page cache has both right: go on behind the last one given
// out. After a power loss the disk may be up to a commit interval behind, and receivers may have records that
// this disk lost: go on behind the last one *reserved*, which was made durable before any number below it was
// used. So no number is ever used twice.
#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <fstream>

#include "agent/journal/journal_state.h"

namespace egresswatch::journal {

JournalError os_error(std::string operation, const std::filesystem::path& path, int error, std::string hint) {
    return {std::move(operation), path.string(), error, std::move(hint)};
}

std::expected<void, JournalError> Journal::State::open() {
    std::error_code made;
    std::filesystem::create_directories(config.directory, made);
    if (made) return std::unexpected(os_error("make journal directory", config.directory, made.value()));
    ::chmod(config.directory.c_str(), 0750);
    directory.reset(::open(config.directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    if (!directory) return std::unexpected(os_error("open journal directory", config.directory, errno));

    const auto lock_path = config.directory / "lock";
    lock.reset(::open(lock_path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0640));
    if (!lock) return std::unexpected(os_error("open", lock_path, errno));
    if (::flock(lock.get(), LOCK_EX | LOCK_NB) != 0)
        return std::unexpected(os_error("lock", lock_path, errno,
                                        errno == EWOULDBLOCK
                                            ? "another egresswatchd writes this journal; give this one "
                                              "a state_dir of its own"
                                            : ""));

    // What a crash left of a segment that was being thinned: the whole one is still there.
    std::error_code ignored;
    std::vector<std::filesystem::path> unfinished;
    for (const auto& entry : std::filesystem::directory_iterator(config.directory, ignored))
        if (entry.path().extension() == ".thin") unfinished.push_back(entry.path());
    for (const auto& path : unfinished) std::filesystem::remove(path, ignored);

    const auto sequence_path = config.directory / "sequence";
    auto opened = SectorFile::open(sequence_path);
    if (!opened) return std::unexpected(os_error("open", sequence_path, opened.error()));
    sequence = std::move(*opened);
    const auto& fields = sequence.fields();
    const auto boot = fields.find("boot");
    const bool same_boot = boot != fields.end() && boot->second == config.boot_id;
    if (auto recovered = recover(list_segments(config.directory), same_boot); !recovered) return recovered;
    return {};
}

// Finds the end of the last segment, cuts what is torn behind it and goes on in that file where it can.
std::expected<SegmentScan, JournalError> Journal::State::adopt_last(const SegmentFile& last,
                                                                    records::Recovery& recovery) {
    const auto scan = scan_segment(last);
    if (!scan) return std::unexpected(os_error("read", last.path, scan.error()));
    recovery.segment = last.path.filename().string();
    recovery.damaged_lines = scan->damaged_lines;
    recovery.cut_at = scan->valid_bytes;
    recovery.cut_bytes = scan->file_bytes - scan->valid_bytes;
    if (scan->valid_bytes ==
        0) {  // nothing complete in it: the name would stand in the way of the next segment
        if (::unlink(last.path.c_str()) != 0) return std::unexpected(os_error("delete", last.path, errno));
        ::unlink((config.directory / hash_file_name(last.first_seq)).c_str());
        directory_unsynced = true;
        return *scan;
    }
    auto fd = std::make_shared<UniqueFd>(::open(last.path.c_str(), O_RDWR | O_CLOEXEC));
    if (!*fd) return std::unexpected(os_error("open", last.path, errno));
    if (recovery.cut_bytes != 0 && ::ftruncate(fd->get(), static_cast<off_t>(scan->valid_bytes)) != 0)
        return std::unexpected(os_error("cut the torn tail of", last.path, errno));
    segment = OpenSegment{
        std::move(fd), last, scan->valid_bytes, scan->last_written.value_or(Timestamp{}), {}, scan->last_seq};
    return *scan;
}

std::expected<void, JournalError> Journal::State::recover(const std::vector<SegmentFile>& files,
                                                          bool same_boot) {
    const auto& fields = sequence.fields();
    const bool clean = fields.contains("clean") && fields.at("clean") == "1";
    const std::uint64_t given = number_field(fields, "given");
    const std::uint64_t reserved = number_field(fields, "reserved");

    restore_refused();

    records::Recovery recovery;
    recovery.host_restarted = !same_boot && !fields.empty();
    std::uint64_t last_seq = 0;
    for (std::size_t at = files.size(); at-- > 0;) {
        if (last_seq == 0) {
            const std::uint64_t cut_before = recovery.cut_bytes;
            const auto scan = adopt_last(files[at], recovery);
            if (!scan) return std::unexpected(scan.error());
            recovery.cut_bytes += cut_before;
            last_seq = scan->last_seq;
            continue;
        }
        const auto scan = scan_segment_end(files[at]);
        if (!scan) return std::unexpected(os_error("read", files[at].path, scan.error()));
        // A thinned segment has fewer lines than numbers: its hash file knows where it ended.
        const auto hashes = read_hash_file(config.directory / hash_file_name(files[at].first_seq));
        const std::uint64_t end = hashes && hashes->count != 0 ? files[at].first_seq + hashes->count - 1 : 0;
        closed_segments.push_back({files[at], std::max(scan->last_seq, end), scan->file_bytes,
                                   scan->last_written.value_or(Timestamp{})});
    }
    std::reverse(closed_segments.begin(), closed_segments.end());

    auto new_log = adopt_tree(last_seq);
    if (!new_log) return std::unexpected(new_log.error());

    std::uint64_t used = std::max(last_seq, given);
    if (!same_boot && !clean) used = std::max(used, reserved);
    next_seq = used + 1;
    recovery.last_seq = last_seq;
    if (used > last_seq) {
        recovery.lost_first_seq = last_seq + 1;
        recovery.lost_last_seq = used;
        close_segment();  // numbers inside one file have no holes
    }
    tail->publish(used);
    status.durable_seq = status.last_seq = last_seq;
    reserve(used + reserve_records);
    if (status.commit_failures != 0)
        return std::unexpected(os_error("reserve sequence numbers in", config.directory / "sequence", EIO));

    const bool fresh = files.empty() && used == 0;
    const bool torn = recovery.cut_bytes != 0 || recovery.damaged_lines != 0 || used > last_seq;
    if (*new_log) {  // a log begins with its genesis record, in a segment of its own
        close_segment();
        tree = {(*new_log)->origin, {}};
        owed.push_back((*new_log)->genesis);
    }
    if (!fresh && (!clean || torn || sequence.damaged()))
        owed.push_back(records::recovery_record(config.origin, recovery));
    if (const auto told = tell_first(); !told) {
        // A full disk does not keep the daemon from watching: it goes on owing.
        if (told.error().error != ENOSPC) return std::unexpected(told.error());
        fail(told.error());
    }
    return {};
}

}  // namespace egresswatch::journal
