// agent/journal/reader.cpp - see reader.h.
// SPDX-License-Identifier: Apache-2.0
#include "agent/journal/reader.h"

#include <fcntl.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "agent/journal/reader_state.h"
#include "agent/journal/segment.h"

namespace egresswatch::journal {
namespace {

constexpr std::size_t read_bytes = 128 * 1024;  // more than the longest line

// The file that holds the record after `after`, or the first one behind it.
std::optional<SegmentFile> segment_for(const std::filesystem::path& directory, std::uint64_t after) {
    std::optional<SegmentFile> best;
    for (auto& file : list_segments(directory)) {
        if (file.first_seq <= after + 1 || !best)
            best = std::move(file);
        else
            break;
    }
    return best;
}

std::optional<SegmentFile> segment_behind(const std::filesystem::path& directory, std::uint64_t first_seq) {
    for (auto& file : list_segments(directory))
        if (file.first_seq > first_seq) return std::move(file);
    return std::nullopt;
}

}  // namespace

Reader::Reader(std::unique_ptr<State> state) noexcept : state_(std::move(state)) {}

Reader::~Reader() {
    if (state_->tail) state_->tail->remove(state_->listener);
}

std::unique_ptr<Reader> Reader::of_directory(std::filesystem::path directory, std::uint64_t after) {
    auto state = std::make_unique<State>();
    state->directory = std::move(directory);
    state->position = after;
    return std::unique_ptr<Reader>(new Reader(std::move(state)));
}

bool Reader::State::open_segment(const SegmentFile& file) {
    UniqueFd opened(::open(file.path.c_str(), O_RDONLY | O_CLOEXEC));
    if (!opened) return false;
    fd = std::move(opened);
    segment_first = file.first_seq;
    offset = 0;
    buffer.clear();
    buffer_at = 0;
    return true;
}

void Reader::State::close_segment() {
    fd.reset();
    buffer.clear();
    buffer_at = 0;
}

// The next line with its line feed consumed; nothing at the end of the file. What is behind the last line
// feed may be rewritten by the journal (a write that failed half-way), so it is never kept.
std::optional<std::string> Reader::State::next_line() {
    while (true) {
        const auto end = buffer.find('\n', buffer_at);
        if (end != std::string::npos) {
            std::string line = buffer.substr(buffer_at, end - buffer_at);
            buffer_at = end + 1;
            offset += line.size() + 1;
            return line;
        }
        buffer.resize(read_bytes);
        ssize_t got = 0;
        do got = ::pread(fd.get(), buffer.data(), buffer.size(), static_cast<off_t>(offset));
        while (got < 0 && errno == EINTR);
        buffer.resize(static_cast<std::size_t>(std::max<ssize_t>(got, 0)));
        buffer_at = 0;
        const auto last = buffer.rfind('\n');
        if (last == std::string::npos) {
            if (buffer.size() == read_bytes) {  // no line of ours is so long: damage
                offset += buffer.size();
                ++damaged;
                continue;
            }
            unread_tail = !buffer.empty();
            buffer.clear();
            return std::nullopt;
        }
        buffer.resize(last + 1);
    }
}

void Reader::State::take_missing(std::uint64_t first, std::uint64_t last) {
    if (missing)
        missing->last = last;
    else
        missing = Missing{first, last};
}

std::optional<Entry> Reader::next() {
    auto entry = try_next();
    if (entry || !state_->tail) return entry;
    eventfd_t drained = 0;
    ::eventfd_read(state_->event_fd.get(), &drained);
    return try_next();  // what became visible in front of the drain would wake nobody
}

std::optional<Entry> Reader::try_next() {
    auto& s = *state_;
    if (s.put_back) {
        if (s.tail && s.put_back->seq > visible_seq()) return std::nullopt;
        return s.deliver(*std::exchange(s.put_back, std::nullopt));
    }
    if (s.tail && s.position >= visible_seq()) return std::nullopt;
    while (true) {
        if (!s.fd) {
            const auto file = segment_for(s.directory, s.position);
            if (!file || !s.open_segment(*file)) return std::nullopt;
        }
        auto line = s.next_line();
        if (!line) {
            const auto following = segment_behind(s.directory, s.segment_first);
            if (!following) return std::nullopt;
            // The journal goes to a new file only when the old one is complete: look once more before leaving
            // it.
            line = s.next_line();
            if (!line) {
                if (s.unread_tail) ++s.damaged;
                if (!s.open_segment(*following)) return std::nullopt;
                continue;
            }
        }
        const auto seq = line_seq(*line);
        if (!seq) {
            ++s.damaged;
            continue;
        }
        if (*seq <= s.position) continue;  // on the way to the cursor
        Entry entry{*seq, std::move(*line)};
        if (s.tail && entry.seq > visible_seq()) {  // written, but not durable yet
            s.put_back = std::move(entry);
            return std::nullopt;
        }
        return s.deliver(std::move(entry));
    }
}

Entry Reader::State::deliver(Entry entry) {
    if (entry.seq > position + 1) take_missing(position + 1, entry.seq - 1);
    position = entry.seq;
    return entry;
}

void Reader::seek(std::uint64_t after) {
    auto& s = *state_;
    const bool forward_in_segment = s.fd && after >= s.position && !s.put_back;
    s.put_back.reset();
    s.position = after;
    if (!forward_in_segment) s.close_segment();
    if (s.tail && after < visible_seq()) ::eventfd_write(s.event_fd.get(), 1);
}

int Reader::wake_fd() const noexcept {
    return state_->event_fd.get();
}

void Reader::delivered(std::uint64_t seq) noexcept {
    if (state_->tail) state_->tail->set_delivered(state_->listener, seq);
}

std::uint64_t Reader::position() const noexcept {
    return state_->position;
}

std::uint64_t Reader::visible_seq() const noexcept {
    return state_->tail ? state_->tail->visible.load(std::memory_order_acquire) : ~0ULL;
}

std::optional<Missing> Reader::take_missing() {
    return std::exchange(state_->missing, std::nullopt);
}

std::uint64_t Reader::damaged_lines() const noexcept {
    return state_->damaged;
}

}  // namespace egresswatch::journal
