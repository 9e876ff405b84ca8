// tests/support/corpus_frames.h - the captures of tests/corpus as Ethernet frames, for engines that take
// nothing else; and a region table that places them all over. SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <vector>

#include "classifier/packet_classifier.h"
#include "classifier/region/region_table.h"

namespace egresswatch::test {

struct EthernetFrame {
    std::vector<std::uint8_t> bytes;  // the captured part
    std::uint32_t wire_bytes = 0;     // at most 65,536
};

// A capture of another link type gets an Ethernet header in place of its own.
[[nodiscard]] EthernetFrame as_ethernet(const PacketInput& record);

// Every file below tests/corpus/captures of the source tree, sorted.
[[nodiscard]] std::vector<std::filesystem::path> corpus_captures(const std::filesystem::path& source_dir);

// Countries by first byte, so that captures of any addresses meet every kind.
[[nodiscard]] std::shared_ptr<const RegionTable> patchwork_region();

}  // namespace egresswatch::test
