// capture/pcap/file_reader.h - reads pcap and pcapng capture files, packet by packet.
// SPDX-License-Identifier: Apache-2.0
//
// In:      a path, "-" for standard input, or bytes in memory.
// Out:     batches of packets in file order, ready to be classified. What they point at dies with the next
//          call, unless window() is held.
// Formats: pcap 2.0 to 2.4 (both byte orders, micro- and nanoseconds) and pcapng 1.x
// (draft-ietf-opsawg-pcapng:
//          any number of sections, byte orders, interfaces and link types; enhanced, simple and the obsolete
//          packet block; if_tsresol, if_tsoffset). Written here because libpcap refuses a pcapng file with
//          two link types or two snapshot lengths, or two byte orders, which mergecap and `tcpdump -i any`
//          beside Ethernet make; and does not say at which byte a file is damaged.
// Limits:  packet_bytes_max, block_bytes_max, interfaces_max below; a length above one is damage.
// Fails:   FileError with the byte offset. Everything before the damage has been handed out.
#pragma once

#include <cstdint>
#include <expected>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "capture/pcap/byte_source.h"
#include "classifier/packet_classifier.h"

namespace egresswatch::capture {

struct FileError {
    enum class Kind {
        cannot_open,    // the system refused: errno in `text`
        not_a_capture,  // another format, named where we know it
        unsupported,    // a capture file, but of a variant that we refuse
        damaged,        // lengths that cannot be, or a header that contradicts itself
        cut_off         // the file ends within a record
    };
    Kind kind = Kind::damaged;
    std::string path;
    std::uint64_t offset = 0;  // of the record or block that is wrong
    std::string text;
    std::string hint;  // the cure, where there is one

    [[nodiscard]] std::string to_string() const;
};

// Some packets of a file, and what is to be said about them.
struct FileBatch {
    // `wire_bytes` at least bytes.size(); `interface` a running number over all sections, 0 in a pcap file. A
    // packet without a time stamp (simple packet block), or with one that cannot be represented, has that of
    // the packet before it, so that time never leaps for want of one.
    std::vector<PacketInput> packets;
    // What the next batch will probably be made of: as many bytes as this one, where they are there. To be
    // fetched, not to be read: it lives no longer than the packets.
    std::span<const std::uint8_t> coming;
    std::uint64_t without_time = 0;
    std::uint64_t out_of_order = 0;                      // stamped earlier than a packet before them
    std::map<std::uint32_t, std::uint64_t> unsupported;  // packets by link type number
};

struct FileInterface {
    std::uint32_t link_type = 0;   // LINKTYPE_ number (tcpdump.org/linktypes.html)
    std::uint32_t snap_bytes = 0;  // 0: no limit was set
    std::string name;              // if_name, empty where the file has none
};

class FileReader {
public:
    static constexpr std::uint32_t packet_bytes_max = 262144;    // tcpdump's and wireshark's limit too
    static constexpr std::uint32_t block_bytes_max = 16u << 20;  // of a pcapng block; wireshark's limit
    static constexpr std::size_t interfaces_max = 65536;         // over all sections of one file
    static constexpr std::size_t batch_max = 1024;

    [[nodiscard]] static std::expected<FileReader, FileError> open(const std::string& path);
    [[nodiscard]] static std::expected<FileReader, FileError> from_memory(std::span<const std::uint8_t> bytes,
                                                                          std::string name = "memory");

    // At most batch_max packets; an empty batch is the end of the file. After an error every call gives the
    // same error again.
    [[nodiscard]] std::expected<std::span<const PacketInput>, FileError> next_batch();
    // The same into the caller's; what it held is gone.
    [[nodiscard]] std::expected<void, FileError> next_batch(FileBatch& batch);
    // Keeps what the last batch points at, whatever is read afterwards.
    [[nodiscard]] std::shared_ptr<const void> window() const noexcept { return source_.window(); }

    [[nodiscard]] std::uint32_t link_type_of(const PacketInput& packet) const noexcept {
        return interfaces_[packet.interface].link_type;
    }
    [[nodiscard]] const std::vector<FileInterface>& interfaces() const noexcept { return interfaces_; }
    [[nodiscard]] std::uint64_t offset() const noexcept { return source_.offset(); }
    [[nodiscard]] std::optional<std::uint64_t> file_bytes() const noexcept { return file_bytes_; }
    [[nodiscard]] std::string_view format() const noexcept { return pcapng_ ? "pcapng" : "pcap"; }

private:
    struct Clock {                      // how an interface's time stamps are meant
        std::uint64_t units = 1000000;  // a second
        std::int64_t offset_seconds = 0;
        std::uint64_t unit_ns = 1000;  // 0 where that is no whole number
    };
    enum class Step { packet, skipped, end, failed };

    FileReader(ByteSource source, std::string path) : source_(std::move(source)), path_(std::move(path)) {}
    [[nodiscard]] std::expected<void, FileError> read_magic();
    [[nodiscard]] bool read_pcap_header();
    [[nodiscard]] Step next_pcap(bool may_refill, FileBatch& batch, PacketInput& out);
    [[nodiscard]] std::size_t take_pcap(FileBatch& batch, std::size_t first);
    template <bool swapped>
    [[nodiscard]] std::size_t take_pcap_as(FileBatch& batch, std::size_t first);
    [[nodiscard]] Step next_block(bool may_refill, FileBatch& batch, PacketInput& out);
    [[nodiscard]] bool read_section(std::span<const std::uint8_t> block);
    [[nodiscard]] bool read_interface(std::span<const std::uint8_t> block);
    [[nodiscard]] bool read_packet(std::uint32_t type, std::span<const std::uint8_t> block, FileBatch& batch,
                                   PacketInput& out);
    [[nodiscard]] bool walk_options(std::span<const std::uint8_t> options, std::size_t at, const char* block,
                                    FileInterface* interface, Clock* clock);
    // Of the packet that comes next in the file.
    void stamp(FileBatch& batch, std::uint64_t ticks, const Clock& clock) noexcept;
    void describe(FileBatch& batch, PacketInput& out);
    [[nodiscard]] std::uint16_t u16(const std::uint8_t* at) const noexcept;
    [[nodiscard]] std::uint32_t u32(const std::uint8_t* at) const noexcept;
    [[nodiscard]] std::uint64_t u64(const std::uint8_t* at) const noexcept;
    bool fail(FileError::Kind kind, std::string text, std::string hint = {});
    bool fail_end(std::string_view within, std::size_t wanted);
    std::expected<void, FileError> outcome() const;

    ByteSource source_;
    std::string path_;
    std::optional<std::uint64_t> file_bytes_;
    bool pcapng_ = false;
    bool swapped_ = false;
    std::uint16_t minor_ = 4;
    std::vector<FileInterface> interfaces_;
    std::vector<Clock> clocks_;
    std::size_t section_first_ = 0;  // index in interfaces_ of the section's interface 0
    std::uint64_t last_ns_ = 0;      // of the packet read last, since the epoch
    std::uint64_t latest_ns_ = 0;    // of all packets
    std::optional<FileError> error_;
    FileBatch batch_;
};

}  // namespace egresswatch::capture
