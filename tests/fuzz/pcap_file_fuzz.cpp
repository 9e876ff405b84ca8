// tests/fuzz/pcap_file_fuzz.cpp - any bytes as a capture file: no crash, and the same packets from memory,
// from a mapped file, and through a window that has to be refilled. SPDX-License-Identifier: Apache-2.0
#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>
#include <cstdlib>
#include <vector>

#include "capture/pcap/file_reader.h"
#include "classifier/link_type.h"

using egresswatch::capture::FileReader;

namespace {

struct Seen {
    std::size_t packets = 0;
    std::size_t bytes = 0;
    bool failed = false;
    std::uint64_t error_offset = 0;

    bool operator==(const Seen&) const = default;
};

Seen read_all(std::expected<FileReader, egresswatch::capture::FileError> reader, std::size_t size) {
    Seen seen;
    if (!reader) return {0, 0, true, reader.error().offset};
    for (;;) {
        const auto batch = reader->next_batch();
        if (!batch) {
            if (batch.error().offset > size) std::abort();
            if (reader->next_batch().has_value()) std::abort();  // an error stays
            seen.failed = true;
            seen.error_offset = batch.error().offset;
            return seen;
        }
        if (batch->empty()) return seen;
        for (const auto& record : *batch) {
            if (record.wire_bytes < record.bytes.size()) std::abort();
            if (record.interface >= reader->interfaces().size()) std::abort();
            const auto place = egresswatch::locate_link(reader->link_type_of(record), record.bytes);
            if (place.start != record.link.start || place.offset != record.link.offset) std::abort();
            if (place.offset > record.bytes.size()) std::abort();
            for (const std::uint8_t byte : record.bytes) seen.bytes += byte;
            ++seen.packets;
        }
    }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    const std::vector<std::uint8_t> exact(data, data + size);
    const Seen memory = read_all(FileReader::from_memory(exact), size);
    static const int file = memfd_create("capture", MFD_CLOEXEC);
    if (ftruncate(file, static_cast<off_t>(size)) == 0 &&
        (size == 0 || ::pwrite(file, data, size, 0) == static_cast<ssize_t>(size)) &&
        read_all(FileReader::open("/dev/fd/" + std::to_string(file)), size) != memory)
        std::abort();
    int ends[2];
    if (size > 60000 || pipe(ends) != 0) return 0;  // what a pipe takes without a reader
    const bool written = size == 0 || ::write(ends[1], data, size) == static_cast<ssize_t>(size);
    ::close(ends[1]);
    if (written && read_all(FileReader::open("/dev/fd/" + std::to_string(ends[0])), size) != memory)
        std::abort();
    ::close(ends[0]);
    return 0;
}
