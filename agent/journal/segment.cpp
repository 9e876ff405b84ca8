// agent/journal/segment.cpp - see segment.h.
// SPDX-License-Identifier: Apache-2.0
#include "agent/journal/segment.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <utility>

#include "agent/journal/journal.h"
#include "agent/unique_fd.h"

namespace egresswatch::journal {
namespace {

constexpr std::string_view name_prefix = "seg-";
constexpr std::string_view name_suffix = ".jsonl";
constexpr std::size_t digits = 20;
constexpr std::string_view seq_prefix = "{\"seq\":";
constexpr std::string_view written_key = ",\"written\":\"";

// Judges lines one after the other.
class LineJudge {
public:
    explicit LineJudge(std::uint64_t first_seq) : next_(first_seq) {}
    // `end`: offset behind the line feed.
    void line(std::string_view text, std::uint64_t end) {
        const auto seq = line_seq(text);
        if (!seq || *seq < next_ || text.size() > line_bytes_max || !records::Json::accept(text)) {
            ++damaged_since_;
            return;
        }
        scan.damaged_lines += std::exchange(damaged_since_, 0);
        scan.last_seq = *seq;
        scan.valid_bytes = end;
        scan.last_written = line_written(text);
        next_ = *seq + 1;
    }
    SegmentScan scan;

private:
    std::uint64_t next_;
    std::uint64_t damaged_since_ = 0;  // part of the torn tail, unless a readable line follows
};

std::expected<SegmentScan, int> scan_from(const SegmentFile& file, std::uint64_t tail_bytes) {
    const UniqueFd fd(::open(file.path.c_str(), O_RDONLY | O_CLOEXEC));
    struct stat about {};
    if (!fd || ::fstat(fd.get(), &about) != 0) return std::unexpected(errno);
    const auto size = static_cast<std::uint64_t>(about.st_size);
    const std::uint64_t start = tail_bytes != 0 && size > tail_bytes ? size - tail_bytes : 0;
    LineJudge judge(file.first_seq);
    std::string buffer;
    std::uint64_t buffer_at = start;
    bool skip_first = start != 0;  // most likely the middle of a line
    for (std::uint64_t at = start; at < size;) {
        constexpr std::size_t chunk = 1 << 20;
        const std::size_t old = buffer.size();
        buffer.resize(old + chunk);
        const auto got = ::pread(fd.get(), buffer.data() + old, chunk, static_cast<off_t>(at));
        const int read_error = errno;
        buffer.resize(old + static_cast<std::size_t>(std::max<ssize_t>(got, 0)));
        if (got < 0 && read_error == EINTR) continue;
        if (got < 0) return std::unexpected(read_error);
        if (got == 0) break;
        at += static_cast<std::uint64_t>(got);
        std::size_t from = 0;
        for (std::size_t end; (end = buffer.find('\n', from)) != std::string::npos; from = end + 1) {
            if (!std::exchange(skip_first, false))
                judge.line(std::string_view(buffer).substr(from, end - from), buffer_at + end + 1);
        }
        buffer.erase(0, from);
        buffer_at += from;
    }
    judge.scan.file_bytes = size;
    return judge.scan;
}

}  // namespace

std::string segment_name(std::uint64_t first_seq) {
    std::string number = std::to_string(first_seq);
    return std::string(name_prefix) + std::string(digits - number.size(), '0') + number +
           std::string(name_suffix);
}

std::optional<std::uint64_t> parse_segment_name(std::string_view name) noexcept {
    if (name.size() != name_prefix.size() + digits + name_suffix.size() || !name.starts_with(name_prefix) ||
        !name.ends_with(name_suffix))
        return std::nullopt;
    const auto number = name.substr(name_prefix.size(), digits);
    std::uint64_t value = 0;
    const auto [end, error] = std::from_chars(number.data(), number.data() + number.size(), value);
    if (error != std::errc{} || end != number.data() + number.size()) return std::nullopt;
    return value;
}

std::vector<SegmentFile> list_segments(const std::filesystem::path& directory) {
    std::vector<SegmentFile> out;
    std::error_code error;
    for (std::filesystem::directory_iterator entry(directory, error), end; !error && entry != end;
         entry.increment(error))
        if (const auto first = parse_segment_name(entry->path().filename().native()))
            out.push_back({*first, entry->path()});
    std::sort(out.begin(), out.end(),
              [](const SegmentFile& a, const SegmentFile& b) { return a.first_seq < b.first_seq; });
    return out;
}

std::optional<std::uint64_t> line_seq(std::string_view line) noexcept {
    if (!line.starts_with(seq_prefix)) return std::nullopt;
    line.remove_prefix(seq_prefix.size());
    std::uint64_t value = 0;
    const auto [end, error] = std::from_chars(line.data(), line.data() + line.size(), value);
    if (error != std::errc{} || end == line.data() + line.size() || (*end != ',' && *end != '}'))
        return std::nullopt;
    return value;
}

std::optional<Timestamp> line_written(std::string_view line) noexcept {
    const auto at = line.find(written_key);
    if (at == std::string_view::npos) return std::nullopt;
    return records::parse_time(line.substr(at + written_key.size(), 30));
}

std::string_view text_member(std::string_view line, std::string_view name) noexcept {
    // Quotes inside a text are escaped, so this pattern stands for a member only.
    for (std::size_t at = 0; (at = line.find(name, at)) != std::string_view::npos; at++) {
        if (at < 2 || line[at - 1] != '"' || (line[at - 2] != ',' && line[at - 2] != '{')) continue;
        const auto rest = line.substr(at + name.size());
        if (!rest.starts_with("\":\"")) continue;
        const auto value = rest.substr(3, rest.find('"', 3) - 3);
        return value.find('\\') == std::string_view::npos ? value : std::string_view{};
    }
    return {};
}

std::expected<SegmentScan, int> scan_segment(const SegmentFile& file) {
    return scan_from(file, 0);
}

std::expected<SegmentScan, int> scan_segment_end(const SegmentFile& file) {
    return scan_from(file, 2 * (line_bytes_max + 1));
}

}  // namespace egresswatch::journal
