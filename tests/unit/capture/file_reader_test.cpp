// tests/unit/capture/file_reader_test.cpp
// SPDX-License-Identifier: Apache-2.0
#include "capture/pcap/file_reader.h"

#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <iterator>
#include <thread>

#include "tests/support/capture_file.h"
#include "tests/support/catch.h"

using egresswatch::capture::FileError;
using egresswatch::capture::FileReader;
using egresswatch::test::Bytes;
using egresswatch::test::CaptureFile;

namespace {

struct Packet {
    Bytes bytes;
    std::uint32_t wire = 0;
    std::uint32_t link_type = 0;
    std::uint32_t interface = 0;
    std::int64_t at_ns = 0;
};

struct Content {
    std::vector<Packet> packets;
    std::uint64_t without_time = 0;
    std::optional<FileError> error;
};

Content read_all(std::expected<FileReader, FileError> reader) {
    Content content;
    if (!reader) {
        content.error = reader.error();
        return content;
    }
    for (;;) {
        egresswatch::capture::FileBatch batch;
        if (const auto read = reader->next_batch(batch); !read) {
            content.error = read.error();
            return content;
        }
        if (batch.packets.empty()) return content;
        content.without_time += batch.without_time;
        for (const auto& record : batch.packets)
            content.packets.push_back({{record.bytes.begin(), record.bytes.end()},
                                       record.wire_bytes,
                                       reader->link_type_of(record),
                                       record.interface,
                                       static_cast<std::int64_t>(record.at_ns)});
    }
}

Content read_memory(const Bytes& bytes) {
    return read_all(FileReader::from_memory(bytes));
}

Bytes slurp(const std::filesystem::path& path) {
    std::ifstream file(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

const Bytes sample{1, 2, 3, 4, 5, 6, 7};

// Where each packet of a well-formed file ends, found without the reader under test.
std::vector<std::size_t> packet_ends(const Bytes& file) {
    std::vector<std::size_t> ends;
    const auto word = [&](std::size_t at, bool big) {
        std::uint32_t value;
        std::memcpy(&value, file.data() + at, sizeof value);
        return big ? std::byteswap(value) : value;
    };
    if (word(0, false) == 0x0a0d0d0a) {
        bool big = false;
        for (std::size_t at = 0; at + 12 <= file.size();) {
            if (word(at, false) == 0x0a0d0d0a) big = word(at + 8, false) != 0x1a2b3c4d;
            const std::uint32_t type = word(at, big);
            at += word(at + 4, big);
            if (type == 2 || type == 3 || type == 6) ends.push_back(at);
        }
        return ends;
    }
    const bool big = file[0] == 0xa1;
    for (std::size_t at = 24; at + 16 <= file.size();) {
        at += 16 + word(at + 8, big);
        if (at <= file.size()) ends.push_back(at);
    }
    return ends;
}

}  // namespace

TEST_CASE("pcap is read in both byte orders and both resolutions", "[capture][pcap]") {
    for (const bool big : {false, true})
        for (const std::uint32_t magic : {0xa1b2c3d4u, 0xa1b23c4du}) {
            CaptureFile file(big);
            file.pcap_header(101, magic).pcap_record(1700000000, 123456, sample, 1500);
            const auto content = read_memory(file.bytes);
            CHECK_FALSE(content.error);
            REQUIRE(content.packets.size() == 1);
            const auto& packet = content.packets[0];
            CHECK(packet.bytes == sample);
            CHECK(packet.wire == 1500);
            CHECK(packet.link_type == 101);
            CHECK(packet.at_ns == 1700000000000000000 + (magic == 0xa1b23c4d ? 123456 : 123456000));
        }
}

TEST_CASE("the FCS bits of a pcap header are not part of the link type", "[capture][pcap]") {
    CaptureFile file;
    file.pcap_header(0x30000001).pcap_record(1, 0, sample);
    const auto content = read_memory(file.bytes);
    REQUIRE(content.packets.size() == 1);
    CHECK(content.packets[0].link_type == 1);
}

TEST_CASE("pcap before version 2.3 has its two lengths swapped", "[capture][pcap]") {
    CaptureFile file;
    file.pcap_header(1, 0xa1b2c3d4, 2).u32(1).u32(0).u32(900).u32(7).raw(sample);
    const auto content = read_memory(file.bytes);
    REQUIRE(content.packets.size() == 1);
    CHECK(content.packets[0].bytes == sample);
    CHECK(content.packets[0].wire == 900);
}

TEST_CASE("a batch says where the next one lies, as far as the file goes", "[capture][pcap]") {
    CaptureFile file;
    file.pcap_header(1);
    constexpr std::size_t last = 10;
    for (std::size_t i = 0; i < 2 * FileReader::batch_max + last; ++i)
        file.pcap_record(static_cast<std::uint32_t>(i), 0, sample);
    const std::size_t record = 16 + sample.size();
    auto reader = FileReader::from_memory(file.bytes);
    REQUIRE(reader);
    egresswatch::capture::FileBatch batch;
    for (const std::size_t coming :
         {FileReader::batch_max * record, last * record, std::size_t{0}, std::size_t{0}}) {
        REQUIRE(reader->next_batch(batch));
        REQUIRE(batch.coming.size() == coming);
        if (batch.packets.empty()) break;
        const auto& packet = batch.packets.back().bytes;
        CHECK(batch.coming.data() == packet.data() + packet.size());
    }
    CHECK(batch.packets.empty());
}

TEST_CASE("an impossible fraction of a second leaves the whole seconds", "[capture][pcap]") {
    CaptureFile file;
    file.pcap_header(1)
        .pcap_record(10, 999999, sample)
        .pcap_record(11, 1000000, sample)
        .pcap_record(12, 0x80000000, sample);
    const auto content = read_memory(file.bytes);
    REQUIRE(content.packets.size() == 3);
    CHECK(content.packets[0].at_ns == 10999999000);
    CHECK(content.packets[1].at_ns == 11000000000);
    CHECK(content.packets[2].at_ns == 12000000000);
}

TEST_CASE("a record longer than any packet is damage, and what came before it counts", "[capture][pcap]") {
    CaptureFile file;
    file.pcap_header(1).pcap_record(1, 0, sample).pcap_record(2, 0, sample);
    const auto damage_at = file.bytes.size();
    file.u32(3).u32(0).u32(FileReader::packet_bytes_max + 1).u32(60).raw(sample);
    const auto content = read_memory(file.bytes);
    CHECK(content.packets.size() == 2);
    REQUIRE(content.error);
    CHECK(content.error->kind == FileError::Kind::damaged);
    CHECK(content.error->offset == damage_at);
    CHECK(content.error->to_string() ==
          "memory: damaged at byte 70: a record claims 262145 captured bytes; no "
          "capture holds more than 262144");
}

TEST_CASE("the longest packet that is not damage is read", "[capture][pcap]") {
    CaptureFile file;
    file.pcap_header(1).pcap_record(1, 0, Bytes(FileReader::packet_bytes_max));
    const auto content = read_memory(file.bytes);
    CHECK_FALSE(content.error);
    REQUIRE(content.packets.size() == 1);
    CHECK(content.packets[0].bytes.size() == FileReader::packet_bytes_max);
}

TEST_CASE("other formats are refused by name", "[capture][pcap]") {
    const auto message = [](std::string_view start) {
        Bytes bytes(64);
        std::copy(start.begin(), start.end(), bytes.begin());
        const auto content = read_memory(bytes);
        REQUIRE(content.error);
        CHECK(content.error->kind == FileError::Kind::not_a_capture);
        return content.error->to_string();
    };
    using namespace std::string_view_literals;
    CHECK_THAT(message("\x1f\x8b\x08"sv), Catch::Contains("gzip compressed") && Catch::Contains("gunzip -c"));
    CHECK_THAT(message("snoop\0\0\0"sv), Catch::Contains("Solaris snoop"));
    CHECK_THAT(message("\x34\xcd\xb2\xa1"sv), Catch::Contains("modified"));
    CHECK_THAT(message("\xa1\xb2\xcd\x34"sv), Catch::Contains("modified"));
    CHECK_THAT(message("#!/bin/sh"sv), Catch::Contains("neither a pcap nor a pcapng"));
    CHECK(read_memory({}).error->to_string() == "memory: the file is empty");
    CHECK(read_memory({0xd4, 0xc3}).error->kind == FileError::Kind::not_a_capture);
}

TEST_CASE("a file that cannot be opened says why", "[capture][pcap]") {
    const auto content = read_all(FileReader::open("/nonexistent/file.pcap"));
    REQUIRE(content.error);
    CHECK(content.error->kind == FileError::Kind::cannot_open);
    CHECK_THAT(content.error->to_string(), Catch::Contains("No such file"));
    const auto folder = read_all(FileReader::open("/"));
    REQUIRE(folder.error);
    CHECK(folder.error->kind == FileError::Kind::cannot_open);
}

TEST_CASE("pcapng: sections of both byte orders, several interfaces and link types", "[capture][pcap]") {
    CaptureFile first(false);
    first.section()
        .interface(1)
        .interface(113, 4)
        .enhanced(1, 5000000, sample, 99)
        .enhanced(0, 6000000, sample);
    CaptureFile second(true);
    second.section().interface(101).enhanced(0, 7000000, sample);
    Bytes both = first.bytes;
    both.insert(both.end(), second.bytes.begin(), second.bytes.end());
    const auto content = read_memory(both);
    CHECK_FALSE(content.error);
    REQUIRE(content.packets.size() == 3);
    CHECK(content.packets[0].link_type == 113);
    CHECK(content.packets[0].wire == 99);
    CHECK(content.packets[1].link_type == 1);
    CHECK(content.packets[2].link_type == 101);
    CHECK(content.packets[2].interface == 2);
    CHECK(content.packets[2].bytes == sample);
    CHECK(content.packets[2].at_ns == 7000000000);
}

TEST_CASE("pcapng time stamps follow if_tsresol and if_tsoffset", "[capture][pcap]") {
    const auto stamp = [](std::uint8_t resolution, std::uint64_t ticks, std::int64_t offset) {
        const Bytes options = CaptureFile()
                                  .option_u8(9, resolution)
                                  .option_u64(14, static_cast<std::uint64_t>(offset))
                                  .u32(0)
                                  .bytes;
        const auto content =
            read_memory(CaptureFile().section().interface(1, 0, options).enhanced(0, ticks, sample).bytes);
        REQUIRE(content.packets.size() == 1);
        return content;
    };
    const auto at_ns = [&](std::uint8_t resolution, std::uint64_t ticks, std::int64_t offset) {
        const auto content = stamp(resolution, ticks, offset);
        CHECK(content.without_time == 0);
        return content.packets[0].at_ns;
    };
    CHECK(at_ns(6, 1500000, 0) == 1500000000);
    CHECK(at_ns(9, 1500000, 0) == 1500000);
    CHECK(at_ns(0, 15, 0) == 15000000000);
    CHECK(at_ns(12, 1500000, 0) == 1500);
    CHECK(at_ns(0x80 | 20, 3 << 19, 0) == 1500000000);
    CHECK(at_ns(0x80 | 63, 1ull << 62, 0) == 500000000);
    CHECK(at_ns(6, 1500000, 1000) == 1001500000000);
    CHECK(at_ns(6, 1001500000, -1000) == 1500000000);
    CHECK(stamp(6, 1500000, -1000).without_time == 1);  // before the epoch
    CHECK(stamp(0, ~0ull, 0).without_time == 1);        // after 2262
    CHECK(stamp(0, ~0ull, INT64_MAX).without_time == 1);
}

TEST_CASE("a simple packet block has the time of the packet before it and the snapshot length",
          "[capture][pcap]") {
    CaptureFile file;
    file.section()
        .interface(1, 7)
        .enhanced(0, 42000000, sample)
        .simple(1500, sample)
        .simple(5, Bytes{1, 2, 3, 4, 5});
    const auto content = read_memory(file.bytes);
    CHECK_FALSE(content.error);
    REQUIRE(content.packets.size() == 3);
    CHECK(content.packets[1].bytes == sample);
    CHECK(content.packets[1].wire == 1500);
    CHECK(content.without_time == 2);
    CHECK(content.packets[1].at_ns == 42000000000);
    CHECK(content.packets[2].bytes.size() == 5);
}

TEST_CASE("the obsolete packet block is read", "[capture][pcap]") {
    CaptureFile file;
    file.section().interface(1).block(
        2, CaptureFile().u16(0).u16(3).u32(0).u32(9000000).u32(7).u32(70).raw(sample).bytes);
    const auto content = read_memory(file.bytes);
    REQUIRE(content.packets.size() == 1);
    CHECK(content.packets[0].bytes == sample);
    CHECK(content.packets[0].wire == 70);
    CHECK(content.packets[0].at_ns == 9000000000);
}

TEST_CASE("damage in a pcapng file names the block", "[capture][pcap]") {
    struct Case {
        const char* text;
        Bytes block;
    };
    const std::vector<Case> cases{
        {"a packet of interface 1, of which its section has only 1",
         CaptureFile().enhanced(1, 0, sample).bytes},
        {"claims 8 captured bytes, and has room for 4",
         CaptureFile().block(6, CaptureFile().u32(0).u32(0).u32(0).u32(8).u32(8).u32(1).bytes).bytes},
        {"a block claims a length of 13 bytes", CaptureFile().u32(6).u32(13).u32(0).u32(0).u32(13).bytes},
        {"a block claims a length of 4294967292 bytes",
         CaptureFile().u32(6).u32(0xfffffffc).u32(0).u32(0).bytes},
        {"the two lengths of a block differ: 16 and 20", CaptureFile().u32(5).u32(16).u32(0).u32(20).bytes},
        {"a packet block of only 16 bytes", CaptureFile().block(6, Bytes(4)).bytes},
        {"a section header without a byte-order magic", CaptureFile().block(0x0a0d0d0a, Bytes(16)).bytes},
        {"an option of the interface block, 16 bytes into it, claims 4660 bytes",
         CaptureFile().interface(1, 0, CaptureFile().u16(9).u16(0x1234).bytes).bytes},
        {"time stamp resolution of 2^-64",
         CaptureFile().interface(1, 0, CaptureFile().option_u8(9, 0xc0).bytes).bytes},
        {"pcapng version 2.0 is not supported",
         CaptureFile().block(0x0a0d0d0a, CaptureFile().u32(0x1a2b3c4d).u16(2).u16(0).u64(0).bytes).bytes}};
    for (const auto& entry : cases) {
        CaptureFile file;
        file.section().interface(1).enhanced(0, 0, sample);
        const auto damage_at = file.bytes.size();
        file.raw(entry.block);
        const auto content = read_memory(file.bytes);
        INFO(entry.text);
        CHECK(content.packets.size() == 1);
        REQUIRE(content.error);
        CHECK(content.error->offset == damage_at);
        CHECK_THAT(content.error->to_string(), Catch::Contains(entry.text));
    }
}

TEST_CASE("unknown blocks and unknown options are skipped", "[capture][pcap]") {
    CaptureFile file;
    file.section()
        .block(0x0bad, Bytes(40))
        .interface(1, 0, CaptureFile().u16(2988).u16(4).u32(1).bytes)
        .block(5, Bytes(12))
        .enhanced(0, 0, sample);
    const auto content = read_memory(file.bytes);
    CHECK_FALSE(content.error);
    CHECK(content.packets.size() == 1);
}

TEST_CASE("a file cut anywhere gives every complete packet, then the end or where it is cut",
          "[capture][pcap]") {
    const std::filesystem::path captures =
        std::filesystem::path(EGRESSWATCH_SOURCE_DIR) / "tests/corpus/captures";
    for (const char* name :
         {"ah-in-ipv4-ping-fragments.pcap", "badfile-microseconds-over-1e6.pcap", "dns-over-quic.pcap",
          "erspan1-icmp.pcap", "erspan3-vlan-icmp.pcap", "fmt-bigendian-nanosec-http.pcap",
          "fmt-nanosec-sll.pcap", "fmt-null-loopback.pcap", "fmt-pcapng-be-multi-section.pcapng",
          "fmt-sll2-tls13.pcap", "sctp-chunks.pcap", "vntag-vlan-fragments.pcap",
          "malformed/td-zmtp1-inf-loop-1.pcapng", "sixinsixinsix-udp.pcap"}) {
        const Bytes whole = slurp(captures / name);
        REQUIRE(!whole.empty());
        const auto ends = packet_ends(whole);
        std::size_t wrong = 0;
        for (std::size_t cut = 0; cut <= whole.size(); ++cut) {
            // A copy of exactly that size, so that a sanitizer sees every read beyond it.
            const auto content =
                read_memory(Bytes(whole.begin(), whole.begin() + static_cast<std::ptrdiff_t>(cut)));
            const auto complete =
                static_cast<std::size_t>(std::upper_bound(ends.begin(), ends.end(), cut) - ends.begin());
            if (content.packets.size() != complete) ++wrong;
            if (content.error && content.error->offset > cut) ++wrong;
            if (cut < whole.size() && content.error && content.error->kind == FileError::Kind::damaged)
                ++wrong;
        }
        INFO(name);
        CHECK(wrong == 0);
    }
}

TEST_CASE("a pipe gives the same packets as a file, however it is cut into writes", "[capture][pcap]") {
    CaptureFile file;
    file.pcap_header(1);
    for (std::uint32_t i = 0; i < 5000; ++i) file.pcap_record(i, i, Bytes(i % 1500, std::uint8_t(i)));
    const auto expected = read_memory(file.bytes);
    int ends[2];
    REQUIRE(pipe(ends) == 0);
    std::thread writer([&] {
        std::size_t at = 0;
        for (std::size_t step = 1; at < file.bytes.size(); step = step * 7 % 65521 + 1) {
            const auto written =
                ::write(ends[1], file.bytes.data() + at, std::min(step, file.bytes.size() - at));
            if (written <= 0) break;
            at += static_cast<std::size_t>(written);
        }
        ::close(ends[1]);
    });
    const auto content = read_all(FileReader::open("/dev/fd/" + std::to_string(ends[0])));
    writer.join();
    ::close(ends[0]);
    CHECK_FALSE(content.error);
    REQUIRE(content.packets.size() == expected.packets.size());
    bool equal = true;
    for (std::size_t i = 0; i < content.packets.size(); ++i)
        equal = equal && content.packets[i].bytes == expected.packets[i].bytes &&
                content.packets[i].at_ns == expected.packets[i].at_ns;
    CHECK(equal);
}
