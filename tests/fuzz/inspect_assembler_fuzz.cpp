// tests/fuzz/inspect_assembler_fuzz.cpp - pieces of a stream in any order: the prefix is what one byte after
// the other would give. SPDX-License-Identifier: Apache-2.0
#include <cstdlib>
#include <map>

#include "classifier/inspect/assembler.h"
#include "tests/fuzz/samples.h"

namespace {

using namespace egresswatch;
using namespace egresswatch::inspect;
using testing::must;

// The same with a byte for each place.
class ByByte {
public:
    void add(std::size_t offset, ByteSpan data) {
        const auto before = bytes_;
        for (std::size_t i = 0; i < data.size() && offset + i < Assembler::bytes_max; ++i)
            bytes_[offset + i] = data[i];
        if (runs() > Assembler::pieces_max) bytes_ = before;
    }
    void drop(std::size_t count) {
        std::map<std::size_t, std::uint8_t> kept;
        for (const auto& [place, byte] : bytes_)
            if (place >= count) kept[place - count] = byte;
        bytes_ = std::move(kept);
    }
    void agrees_with(const Assembler& stream) const {
        const ByteSpan prefix = stream.prefix();
        for (std::size_t i = 0; i < prefix.size(); ++i) must(bytes_.contains(i) && bytes_.at(i) == prefix[i]);
        must(!bytes_.contains(prefix.size()));
        must(stream.empty() == bytes_.empty());
        must(stream.held_to() == (bytes_.empty() ? 0 : bytes_.rbegin()->first + 1));
    }

private:
    [[nodiscard]] std::size_t runs() const {
        std::size_t count = 0;
        for (const auto& [place, byte] : bytes_) count += place == 0 || !bytes_.contains(place - 1) ? 1 : 0;
        return count;
    }
    std::map<std::size_t, std::uint8_t> bytes_;
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    static Assembler stream;
    stream.clear();
    ByByte model;
    std::span<const std::uint8_t> rest(data, size);
    testing::FuzzSample next;
    while (testing::take_sample(rest, next)) {
        if (next.action == 3) {
            stream.drop(next.sequence);
            model.drop(next.sequence);
        } else {
            const std::vector<std::uint8_t> piece(next.payload.begin(), next.payload.end());
            (void)stream.add(next.sequence, piece);
            model.add(next.sequence, piece);
        }
        model.agrees_with(stream);
    }
    return 0;
}
