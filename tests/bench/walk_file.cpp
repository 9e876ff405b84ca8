// tests/bench/walk_file.cpp - the least that anybody can do with a capture: step from record to record.
//
// In:   a classic pcap file in this machine's byte order, mapped into memory.   Out: one JSON object.
//   walk_file FILE             reads each record's header; what is counted is what it says
//   walk_file --headers FILE   and walks the packet's headers, by the data path's own functions
// SPDX-License-Identifier: Apache-2.0
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include <cinttypes>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <string_view>

#include "tests/support/memory_frame.h"

namespace {

using namespace egresswatch::datapath;

constexpr std::size_t file_head = 24;
struct Record {
    std::uint32_t seconds, fraction, captured, wire;
};

struct Sums {
    std::uint64_t packets = 0, frame_bytes = 0, ip_bytes = 0;
};

std::uint32_t ip_bytes_of(const std::uint8_t* frame, std::uint32_t captured, std::uint32_t wire) {
    walk_result result;
    if (walk_fast(frame, frame + captured, START_ETHERNET, wire, &result)) return result.ip_bytes;
    static walk_state state;
    const MemoryFrame whole{frame, captured};
    frame_facts facts{};
    facts.wire_bytes = wire;
    facts.captured_bytes = captured;
    facts.start = START_ETHERNET;
    walk_full(&whole, &state, &facts);
    return state.result.status == WALK_IP ? state.result.ip_bytes : 0;
}

Sums walk(const std::uint8_t* at, const std::uint8_t* end, bool headers) {
    Sums sums;
    while (static_cast<std::size_t>(end - at) >= sizeof(Record)) {
        Record record;
        std::memcpy(&record, at, sizeof record);
        at += sizeof record;
        if (record.captured > static_cast<std::size_t>(end - at)) break;
        sums.packets++;
        sums.frame_bytes += record.wire;
        if (headers) sums.ip_bytes += ip_bytes_of(at, record.captured, record.wire);
        at += record.captured;
    }
    return sums;
}

}  // namespace

int main(int argc, char** argv) {
    const bool headers = argc == 3 && std::string_view(argv[1]) == "--headers";
    if (argc != (headers ? 3 : 2)) {
        std::fprintf(stderr, "usage: walk_file [--headers] FILE\n");
        return 2;
    }
    const char* path = argv[argc - 1];
    const int descriptor = ::open(path, O_RDONLY);
    struct stat about {};
    if (descriptor < 0 || ::fstat(descriptor, &about) != 0 ||
        static_cast<std::size_t>(about.st_size) < file_head) {
        std::fprintf(stderr, "walk_file: %s cannot be read\n", path);
        return 3;
    }
    const auto size = static_cast<std::size_t>(about.st_size);
    void* mapping = ::mmap(nullptr, size, PROT_READ, MAP_PRIVATE, descriptor, 0);
    if (mapping == MAP_FAILED) {
        std::perror("walk_file: mmap");
        return 3;
    }
    ::madvise(mapping, size, MADV_SEQUENTIAL);
    const auto* bytes = static_cast<const std::uint8_t*>(mapping);
    const Sums sums = walk(bytes + file_head, bytes + size, headers);
    std::printf("{\"packets\":%" PRIu64 ",\"frame_bytes\":%" PRIu64 ",\"ip_bytes\":%" PRIu64 "}\n",
                sums.packets, sums.frame_bytes, sums.ip_bytes);
    return 0;
}
