// tests/support/corpus_frames.cpp
// SPDX-License-Identifier: Apache-2.0
#include "tests/support/corpus_frames.h"

#include <algorithm>
#include <array>
#include <string>

#include "classifier/link_type.h"
#include "tests/support/test_region.h"

namespace egresswatch::test {
namespace {

constexpr std::uint16_t ether_type_experimental = 0x88b5;  // IEEE 802 local experimental: nothing we walk
constexpr std::uint16_t ether_type_ppp = 0x880b;
constexpr std::uint32_t wire_bytes_max = 65536;

}  // namespace

EthernetFrame as_ethernet(const PacketInput& record) {
    const LinkPlace& place = record.link;
    EthernetFrame frame;
    if (place.start != LinkStart::ethernet) {
        std::uint16_t type = ether_type_experimental;
        const auto payload = record.bytes.subspan(place.offset);
        if (place.start == LinkStart::ether_type) type = place.ether_type;
        if (place.start == LinkStart::ppp) type = ether_type_ppp;
        if (place.start == LinkStart::ip) type = !payload.empty() && payload[0] >> 4 == 6 ? 0x86dd : 0x0800;
        frame.bytes.assign(14, 0x02);
        frame.bytes[12] = static_cast<std::uint8_t>(type >> 8);
        frame.bytes[13] = static_cast<std::uint8_t>(type);
    }
    const auto rest = record.bytes.subspan(place.offset);
    frame.bytes.insert(frame.bytes.end(), rest.begin(), rest.end());
    frame.wire_bytes =
        std::min(static_cast<std::uint32_t>(frame.bytes.size() - record.bytes.size() + record.wire_bytes),
                 wire_bytes_max);
    frame.bytes.resize(std::min(frame.bytes.size(), std::size_t{frame.wire_bytes}));
    return frame;
}

std::vector<std::filesystem::path> corpus_captures(const std::filesystem::path& source_dir) {
    std::vector<std::filesystem::path> paths;
    for (const auto& entry :
         std::filesystem::recursive_directory_iterator(source_dir / "tests/corpus/captures"))
        if (entry.is_regular_file()) paths.push_back(entry.path());
    std::ranges::sort(paths);
    return paths;
}

std::shared_ptr<const RegionTable> patchwork_region() {
    constexpr std::array countries{"IE", "US", "CN", "DE", "SG", "NO"};
    std::string lines;
    for (std::size_t byte = 1; byte < 224; ++byte)
        if (byte % 7 != 0)  // every seventh is in no record: unknown
            lines += std::to_string(byte) + ".0.0.0/8 " + countries[byte % countries.size()] + "\n";
    lines += "2001::/16 IE\n2400::/8 CN\n2600::/8 US\n2a00::/8 DE\n";
    return make_region(lines);
}

}  // namespace egresswatch::test
