// capture/pcap/file_reader.cpp
// SPDX-License-Identifier: Apache-2.0
#include "capture/pcap/file_reader.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cerrno>
#include <cstring>

#include "classifier/link_type.h"

namespace egresswatch::capture {
namespace {

// Magic numbers as a little-endian machine reads them from the file.
constexpr std::uint32_t magic_micro = 0xa1b2c3d4;
constexpr std::uint32_t magic_nano = 0xa1b23c4d;
constexpr std::uint32_t magic_section = 0x0a0d0d0a;  // a palindrome: the same in both byte orders
constexpr std::uint32_t magic_order = 0x1a2b3c4d;

constexpr std::uint32_t linktype_ethernet = 1;
constexpr std::size_t pcap_header_bytes = 24;
constexpr std::size_t pcap_record_bytes = 16;
constexpr std::uint64_t nanoseconds_per_second = 1000000000;
constexpr std::size_t prefetch_bytes = 2048;  // ahead of the record that is read

enum BlockType : std::uint32_t {
    block_interface = 1,
    block_packet = 2,
    block_simple = 3,
    block_enhanced = 6
};
enum OptionCode : std::uint16_t { option_end = 0, if_name = 2, if_tsresol = 9, if_tsoffset = 14 };

struct OtherFormat {
    std::string_view magic;
    const char* name;
    const char* cure;
};
using namespace std::string_view_literals;
constexpr std::array other_formats{
    OtherFormat{"\x1f\x8b"sv, "gzip compressed", "gunzip -c FILE | egresswatch replay -"},
    OtherFormat{"\x28\xb5\x2f\xfd"sv, "zstd compressed", "zstd -dc FILE | egresswatch replay -"},
    OtherFormat{"\xfd"
                "7zXZ"sv,
                "xz compressed", "xz -dc FILE | egresswatch replay -"},
    OtherFormat{"\x04\x22\x4d\x18"sv, "lz4 compressed", "lz4 -dc FILE | egresswatch replay -"},
    OtherFormat{"BZh"sv, "bzip2 compressed", "bzip2 -dc FILE | egresswatch replay -"},
    OtherFormat{"snoop\0\0\0"sv, "a Solaris snoop capture", "convert it: editcap -F pcapng FILE NEW"},
    OtherFormat{"\x34\xcd\xb2\xa1"sv, "a \"modified\" pcap file (Kuznetzov)",
                "convert it: editcap -F pcapng FILE NEW"},
    OtherFormat{"\xa1\xb2\xcd\x34"sv, "a \"modified\" pcap file (Kuznetzov), big-endian",
                "convert it: editcap -F pcapng FILE NEW"},
    OtherFormat{"XCP\0"sv, "a NetXRay capture", "convert it: editcap -F pcapng FILE NEW"},
    OtherFormat{"TRSNIFF data"sv, "a Sniffer capture", "convert it: editcap -F pcapng FILE NEW"},
};

std::uint32_t load32(const std::uint8_t* at) noexcept {
    std::uint32_t value;
    std::memcpy(&value, at, sizeof value);
    return value;
}

bool is_pcap_magic(std::uint32_t magic) noexcept {
    return magic == magic_micro || magic == magic_nano;
}

constexpr std::uint64_t align4(std::uint64_t length) noexcept {
    return (length + 3) & ~std::uint64_t{3};
}

}  // namespace

std::string FileError::to_string() const {
    std::string message = path + ": ";
    if (kind == Kind::damaged) message += "damaged at byte " + std::to_string(offset) + ": ";
    if (kind == Kind::cut_off) message += "cut off at byte " + std::to_string(offset) + ": ";
    message += text;
    if (!hint.empty()) message += "; " + hint;
    return message;
}

std::expected<FileReader, FileError> FileReader::open(const std::string& path) {
    const bool standard_input = path == "-";
    const std::string shown = standard_input ? "standard input" : path;
    const int descriptor =
        standard_input ? STDIN_FILENO : ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOCTTY);
    if (descriptor < 0)
        return std::unexpected(FileError{FileError::Kind::cannot_open, shown, 0,
                                         std::string("cannot open: ") + std::strerror(errno), ""});
    FileReader reader{ByteSource(descriptor, !standard_input), shown};
    struct stat status {};
    if (fstat(descriptor, &status) == 0 && S_ISREG(status.st_mode)) {
        reader.file_bytes_ = static_cast<std::uint64_t>(status.st_size);
        (void)posix_fadvise(descriptor, 0, 0, POSIX_FADV_SEQUENTIAL);
    }
    if (auto opened = reader.read_magic(); !opened) return std::unexpected(opened.error());
    return reader;
}

std::expected<FileReader, FileError> FileReader::from_memory(std::span<const std::uint8_t> bytes,
                                                             std::string name) {
    FileReader reader{ByteSource(bytes), std::move(name)};
    reader.file_bytes_ = bytes.size();
    if (auto opened = reader.read_magic(); !opened) return std::unexpected(opened.error());
    return reader;
}

std::uint16_t FileReader::u16(const std::uint8_t* at) const noexcept {
    std::uint16_t value;
    std::memcpy(&value, at, sizeof value);
    return swapped_ ? std::byteswap(value) : value;
}

std::uint32_t FileReader::u32(const std::uint8_t* at) const noexcept {
    const std::uint32_t value = load32(at);
    return swapped_ ? std::byteswap(value) : value;
}

std::uint64_t FileReader::u64(const std::uint8_t* at) const noexcept {
    std::uint64_t value;
    std::memcpy(&value, at, sizeof value);
    return swapped_ ? std::byteswap(value) : value;
}

bool FileReader::fail(FileError::Kind kind, std::string text, std::string hint) {
    error_ = FileError{kind, path_, source_.offset(), std::move(text), std::move(hint)};
    return false;
}

bool FileReader::fail_end(std::string_view within, std::size_t wanted) {
    if (source_.error() != 0)
        return fail(FileError::Kind::cannot_open,
                    std::string("cannot read on: ") + std::strerror(source_.error()));
    return fail(FileError::Kind::cut_off, "the file ends within " + std::string(within) + ": " +
                                              std::to_string(wanted) + " bytes announced, " +
                                              std::to_string(source_.buffered()) + " there");
}

std::expected<void, FileError> FileReader::outcome() const {
    if (error_) return std::unexpected(*error_);
    return {};
}

std::expected<void, FileError> FileReader::read_magic() {
    const bool four = source_.ensure(4);
    if (source_.error() != 0)
        fail(FileError::Kind::cannot_open, std::string("cannot read: ") + std::strerror(source_.error()));
    else if (source_.buffered() == 0)
        fail(FileError::Kind::not_a_capture, "the file is empty");
    else if (!four)
        fail(FileError::Kind::not_a_capture, "too short for a capture file");
    if (error_) return outcome();

    (void)source_.ensure(16);  // for longer magic words
    const std::string_view start{reinterpret_cast<const char*>(source_.data()),
                                 std::min<std::size_t>(source_.buffered(), 16)};
    for (const auto& format : other_formats)
        if (start.starts_with(format.magic)) {
            fail(FileError::Kind::not_a_capture,
                 std::string("this is ") + format.name + ", not pcap or pcapng", format.cure);
            return outcome();
        }
    const std::uint32_t magic = load32(source_.data());
    if (magic == magic_section) {
        pcapng_ = true;
        PacketInput none;
        (void)next_block(true, batch_, none);  // the section header: says the byte order
    } else if (is_pcap_magic(magic) || is_pcap_magic(std::byteswap(magic))) {
        swapped_ = !is_pcap_magic(magic);
        (void)read_pcap_header();
    } else {
        fail(FileError::Kind::not_a_capture, "neither a pcap nor a pcapng file (unknown first four bytes)");
    }
    return outcome();
}

bool FileReader::read_pcap_header() {
    if (!source_.ensure(pcap_header_bytes)) return fail_end("the file header", pcap_header_bytes);
    const std::uint8_t* header = source_.data();
    const std::uint16_t major = u16(header + 4);
    minor_ = u16(header + 6);
    if (major != 2)
        return fail(
            FileError::Kind::unsupported,
            "pcap version " + std::to_string(major) + "." + std::to_string(minor_) + " is not supported",
            "only version 2 is");
    FileInterface interface;
    interface.snap_bytes = u32(header + 16);
    // Bits 16 to 31 hold the FCS length and reserved bits, not the link type (draft-ietf-opsawg-pcap).
    interface.link_type = u32(header + 20) & 0xffff;
    interfaces_.push_back(std::move(interface));
    if (u32(header) == magic_nano)
        clocks_.push_back({nanoseconds_per_second, 0, 1});
    else
        clocks_.push_back({});
    source_.skip(pcap_header_bytes);
    return true;
}

std::expected<std::span<const PacketInput>, FileError> FileReader::next_batch() {
    if (auto read = next_batch(batch_); !read) return std::unexpected(read.error());
    return std::span<const PacketInput>(batch_.packets);
}

std::expected<void, FileError> FileReader::next_batch(FileBatch& batch) {
    batch.without_time = 0;
    batch.out_of_order = 0;
    batch.unsupported.clear();
    batch.packets.resize(batch_max);
    const std::uint64_t begin = source_.offset();
    std::size_t count = 0;
    // Only the first packet of a batch may refill the window: the views of the others stay valid.
    for (Step step = Step::packet; count < batch_max && step != Step::end && step != Step::failed;) {
        if (!pcapng_) count = take_pcap(batch, count);
        if (count == batch_max) break;
        const bool may_refill = count == 0;
        PacketInput& next = batch.packets[count];
        step = error_    ? Step::failed
               : pcapng_ ? next_block(may_refill, batch, next)
                         : next_pcap(may_refill, batch, next);
        count += step == Step::packet ? 1 : 0;
    }
    batch.packets.resize(count);
    batch.coming = {
        source_.data(),
        std::min<std::size_t>(source_.buffered(), static_cast<std::size_t>(source_.offset() - begin))};
    // What came before the damage first; the error with the next call.
    if (count == 0 && error_) return std::unexpected(*error_);
    return {};
}

// The records from the one in `first` on that are whole and ordinary, one after the other; next_pcap() has
// the rest. Returns the place behind the last.
std::size_t FileReader::take_pcap(FileBatch& batch, std::size_t first) {
    if (error_ || minor_ <= 3 || !link_type_supported(interfaces_[0].link_type)) return first;
    return swapped_ ? take_pcap_as<true>(batch, first) : take_pcap_as<false>(batch, first);
}

template <bool swapped>
std::size_t FileReader::take_pcap_as(FileBatch& batch, std::size_t first) {
    const auto u32_at = [](const std::uint8_t* from) {
        const std::uint32_t value = load32(from);
        return swapped ? std::byteswap(value) : value;
    };
    const std::uint8_t* at = source_.data();
    const std::uint8_t* const end = at + source_.buffered();
    const Clock clock = clocks_[0];
    const std::uint32_t link_type = interfaces_[0].link_type;
    const bool is_ethernet = link_type == linktype_ethernet;
    const LinkPlace ethernet{LinkStart::ethernet, 0, 0};
    std::uint64_t last = last_ns_;
    std::uint64_t latest = latest_ns_;
    std::uint64_t out_of_order = 0;
    PacketInput* out = batch.packets.data() + first;
    PacketInput* const out_end = batch.packets.data() + batch.packets.size();
    for (; out != out_end && end - at >= static_cast<std::ptrdiff_t>(pcap_record_bytes); ++out) {
        // The length of this record is needed to find the next: without this each would wait for memory.
        __builtin_prefetch(at + prefetch_bytes);
        __builtin_prefetch(at + prefetch_bytes + 64);
        const std::uint32_t fraction = u32_at(at + 4);
        const std::uint32_t captured = u32_at(at + 8);
        const std::size_t whole = pcap_record_bytes + captured;
        if (fraction >= clock.units || captured > packet_bytes_max ||
            whole > static_cast<std::size_t>(end - at))
            break;
        last = u32_at(at) * nanoseconds_per_second + fraction * clock.unit_ns;
        out_of_order += last < latest ? 1 : 0;
        latest = std::max(latest, last);
        out->bytes = {at + pcap_record_bytes, captured};
        out->wire_bytes = std::max(u32_at(at + 12), captured);
        out->interface = 0;
        out->at_ns = last;
        if (is_ethernet)
            out->link = ethernet;
        else
            out->link = locate_link(link_type, out->bytes);
        at += whole;
    }
    last_ns_ = last;
    latest_ns_ = latest;
    batch.out_of_order += out_of_order;
    source_.skip(static_cast<std::size_t>(at - source_.data()));
    return static_cast<std::size_t>(out - batch.packets.data());
}

FileReader::Step FileReader::next_pcap(bool may_refill, FileBatch& batch, PacketInput& out) {
    if (source_.buffered() < pcap_record_bytes) {
        if (!may_refill) return Step::end;
        if (!source_.ensure(pcap_record_bytes)) {
            if (source_.buffered() == 0 && source_.error() == 0) return Step::end;
            fail_end("a record header", pcap_record_bytes);
            return Step::failed;
        }
    }
    const std::uint8_t* header = source_.data();
    std::uint32_t captured = u32(header + 8);
    std::uint32_t wire = u32(header + 12);
    // Before 2.3 the two lengths stood the other way round; in 2.3 some writers still did so.
    if (minor_ < 3 || (minor_ == 3 && captured > wire)) std::swap(captured, wire);
    if (captured > packet_bytes_max) {
        fail(FileError::Kind::damaged, "a record claims " + std::to_string(captured) +
                                           " captured bytes; no capture holds more than " +
                                           std::to_string(packet_bytes_max));
        return Step::failed;
    }
    const std::size_t whole = pcap_record_bytes + captured;
    if (source_.buffered() < whole) {
        if (!may_refill) return Step::end;
        if (!source_.ensure(whole)) {
            fail_end("a packet", whole);
            return Step::failed;
        }
        header = source_.data();
    }
    out.bytes = {header + pcap_record_bytes, captured};
    out.wire_bytes = std::max(wire, captured);
    out.interface = 0;
    const std::uint64_t units = clocks_[0].units;
    // A fraction of a second or more is nonsense: the whole seconds are what can be believed.
    const std::uint64_t fraction = u32(header + 4) < units ? u32(header + 4) : 0;
    stamp(batch, std::uint64_t{u32(header)} * units + fraction, clocks_[0]);
    describe(batch, out);
    source_.skip(whole);
    return Step::packet;
}

void FileReader::stamp(FileBatch& batch, std::uint64_t ticks, const Clock& clock) noexcept {
    if (clock.unit_ns != 0 && clock.offset_seconds == 0 && ticks <= INT64_MAX / clock.unit_ns) {
        last_ns_ = ticks * clock.unit_ns;
        return;
    }
    __extension__ typedef __int128 Wide;
    const Wide nanoseconds =
        Wide{clock.offset_seconds} * static_cast<Wide>(nanoseconds_per_second) +
        Wide{ticks} * static_cast<Wide>(nanoseconds_per_second) / static_cast<Wide>(clock.units);
    // Times before the epoch or after 2262 are nonsense in a capture; the clock of windows must not leap.
    if (nanoseconds >= 0 && nanoseconds <= INT64_MAX)
        last_ns_ = static_cast<std::uint64_t>(nanoseconds);
    else
        ++batch.without_time;
}

// What follows from the time of the packet and from its interface.
void FileReader::describe(FileBatch& batch, PacketInput& out) {
    out.at_ns = last_ns_;
    batch.out_of_order += last_ns_ < latest_ns_ ? 1 : 0;
    latest_ns_ = std::max(latest_ns_, last_ns_);
    const std::uint32_t link_type = link_type_of(out);
    out.link = locate_link(link_type, out.bytes);
    if (out.link.start == LinkStart::not_ip && !link_type_supported(link_type))
        ++batch.unsupported[link_type];
}

FileReader::Step FileReader::next_block(bool may_refill, FileBatch& batch, PacketInput& out) {
    const auto have = [&](std::size_t count) {
        return source_.buffered() >= count || (may_refill && source_.ensure(count));
    };
    if (!have(12)) {
        if (!may_refill) return Step::end;
        if (source_.buffered() == 0 && source_.error() == 0) return Step::end;
        fail_end("a block header", 12);
        return Step::failed;
    }
    const bool section = load32(source_.data()) == magic_section;
    if (section) {
        const std::uint32_t order = load32(source_.data() + 8);
        if (order != magic_order && order != std::byteswap(magic_order)) {
            fail(FileError::Kind::damaged, "a section header without a byte-order magic");
            return Step::failed;
        }
        swapped_ = order != magic_order;
    }
    const std::uint32_t type = u32(source_.data());
    const std::uint32_t length = u32(source_.data() + 4);
    if (length < 12 || length % 4 != 0 || length > block_bytes_max) {
        fail(FileError::Kind::damaged, "a block claims a length of " + std::to_string(length) +
                                           " bytes; 12 to " + std::to_string(block_bytes_max) +
                                           " in steps of 4 are possible");
        return Step::failed;
    }
    if (!have(length)) {
        if (!may_refill) return Step::end;
        fail_end("a block", length);
        return Step::failed;
    }
    const std::span<const std::uint8_t> block{source_.data(), length};
    if (u32(block.data() + length - 4) != length) {
        fail(FileError::Kind::damaged, "the two lengths of a block differ: " + std::to_string(length) +
                                           " and " + std::to_string(u32(block.data() + length - 4)));
        return Step::failed;
    }
    bool good = true;
    Step step = Step::skipped;
    if (section) {
        good = read_section(block);
    } else if (type == block_interface) {
        good = read_interface(block);
    } else if (type == block_enhanced || type == block_simple || type == block_packet) {
        good = read_packet(type, block, batch, out);
        step = Step::packet;
    }
    if (!good) return Step::failed;
    source_.skip(length);
    return step;
}

bool FileReader::read_section(std::span<const std::uint8_t> block) {
    if (block.size() < 28) return fail(FileError::Kind::damaged, "a section header of less than 28 bytes");
    const std::uint16_t major = u16(block.data() + 12);
    if (major != 1)
        return fail(FileError::Kind::unsupported,
                    "pcapng version " + std::to_string(major) + "." + std::to_string(u16(block.data() + 14)) +
                        " is not supported",
                    "only version 1 is");
    section_first_ = interfaces_.size();
    return walk_options(block.subspan(24, block.size() - 28), 24, "section header", nullptr, nullptr);
}

bool FileReader::read_interface(std::span<const std::uint8_t> block) {
    if (block.size() < 20) return fail(FileError::Kind::damaged, "an interface block of less than 20 bytes");
    if (interfaces_.size() >= interfaces_max)
        return fail(FileError::Kind::unsupported,
                    "more than " + std::to_string(interfaces_max) + " interfaces in one file",
                    "split the file");
    FileInterface interface;
    Clock clock;
    interface.link_type = u16(block.data() + 8);
    interface.snap_bytes = u32(block.data() + 12);
    if (!walk_options(block.subspan(16, block.size() - 20), 16, "interface", &interface, &clock))
        return false;
    interfaces_.push_back(std::move(interface));
    clocks_.push_back(clock);
    return true;
}

bool FileReader::walk_options(std::span<const std::uint8_t> options, std::size_t at, const char* block,
                              FileInterface* interface, Clock* clock) {
    while (options.size() >= 4) {
        const std::uint16_t code = u16(options.data());
        const std::uint16_t length = u16(options.data() + 2);
        if (code == option_end) return true;
        if (length > options.size() - 4)
            return fail(FileError::Kind::damaged, "an option of the " + std::string(block) + " block, " +
                                                      std::to_string(at) + " bytes into it, claims " +
                                                      std::to_string(length) + " bytes; " +
                                                      std::to_string(options.size() - 4) + " are left");
        const std::uint8_t* value = options.data() + 4;
        if (interface != nullptr && code == if_name)
            interface->name.assign(reinterpret_cast<const char*>(value), length);
        if (clock != nullptr && code == if_tsoffset && length == 8)
            clock->offset_seconds = static_cast<std::int64_t>(u64(value));
        if (clock != nullptr && code == if_tsresol && length == 1) {
            // The top bit chooses powers of two or of ten; both must fit a 64-bit count of units.
            const unsigned exponent = *value & 0x7f;
            const bool binary = (*value & 0x80) != 0;
            if (exponent > (binary ? 63u : 19u))
                return fail(FileError::Kind::damaged, "an interface's time stamp resolution of " +
                                                          std::string(binary ? "2" : "10") + "^-" +
                                                          std::to_string(exponent) + " seconds");
            clock->units = 1;
            for (unsigned i = 0; i < exponent; ++i) clock->units *= binary ? 2 : 10;
            clock->unit_ns =
                nanoseconds_per_second % clock->units == 0 ? nanoseconds_per_second / clock->units : 0;
        }
        const std::size_t step = std::min<std::size_t>(4 + align4(length), options.size());
        options = options.subspan(step);
        at += step;
    }
    return true;
}

bool FileReader::read_packet(std::uint32_t type, std::span<const std::uint8_t> block, FileBatch& batch,
                             PacketInput& out) {
    const std::size_t header = type == block_simple ? 12 : 28;
    if (block.size() < header + 4)
        return fail(FileError::Kind::damaged,
                    "a packet block of only " + std::to_string(block.size()) + " bytes");
    const std::uint8_t* at = block.data();
    const std::size_t room = block.size() - header - 4;
    std::uint32_t number = 0;
    if (type == block_enhanced) number = u32(at + 8);
    if (type == block_packet) number = u16(at + 8);  // two further bytes: a drop counter
    const std::size_t index = section_first_ + number;
    if (index >= interfaces_.size())
        return fail(FileError::Kind::damaged, "a packet of interface " + std::to_string(number) +
                                                  ", of which its section has only " +
                                                  std::to_string(interfaces_.size() - section_first_));
    std::uint32_t captured = 0;
    if (type == block_simple) {
        out.wire_bytes = u32(at + 8);
        // A simple block does not say how much was captured: it is the snapshot length at the most.
        captured = out.wire_bytes;
        const std::uint32_t snap = interfaces_[index].snap_bytes;
        if (snap != 0) captured = std::min(captured, snap);
        captured = static_cast<std::uint32_t>(std::min<std::size_t>(captured, room));
    } else {
        captured = u32(at + 20);
        out.wire_bytes = u32(at + 24);
    }
    if (captured > room || captured > packet_bytes_max)
        return fail(FileError::Kind::damaged, "a packet block claims " + std::to_string(captured) +
                                                  " captured bytes, and has room for " +
                                                  std::to_string(room));
    out.bytes = block.subspan(header, captured);
    out.wire_bytes = std::max(out.wire_bytes, captured);
    out.interface = static_cast<std::uint32_t>(index);
    if (type == block_simple)
        ++batch.without_time;
    else
        stamp(batch, std::uint64_t{u32(at + 12)} << 32 | u32(at + 16), clocks_[index]);
    describe(batch, out);
    return true;
}

}  // namespace egresswatch::capture
