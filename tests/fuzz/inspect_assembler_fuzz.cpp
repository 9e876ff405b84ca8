// tests/fuzz/inspect_assembler_fuzz.cpp - pieces of a stream in any order: the prefix is what one byte after
// the other would give. SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <array>
#include <cstdlib>

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
        if (offset >= bytes_.size()) return;
        data = data.first(std::min(data.size(), bytes_.size() - offset));
        const auto held = held_;
        std::fill_n(held_.begin() + static_cast<std::ptrdiff_t>(offset), data.size(), 1);
        if (runs() > Assembler::pieces_max)
            held_ = held;
        else
            std::ranges::copy(data, bytes_.begin() + static_cast<std::ptrdiff_t>(offset));
    }
    void drop(std::size_t count) {
        const auto from = static_cast<std::ptrdiff_t>(std::min(count, bytes_.size()));
        std::copy(bytes_.begin() + from, bytes_.end(), bytes_.begin());
        std::fill(std::copy(held_.begin() + from, held_.end(), held_.begin()), held_.end(), 0);
    }
    void agrees_with(const Assembler& stream) const {
        const ByteSpan prefix = stream.prefix();
        const auto gap = std::ranges::find(held_, 0);
        must(prefix.size() == static_cast<std::size_t>(gap - held_.begin()));
        must(std::ranges::equal(prefix, std::span(bytes_).first(prefix.size())));
        std::size_t end = held_.size();
        while (end > 0 && held_[end - 1] == 0) --end;
        must(stream.held_to() == end && stream.empty() == (end == 0));
    }

private:
    [[nodiscard]] std::size_t runs() const {
        std::size_t count = held_[0];
        for (std::size_t i = 1; i < held_.size(); ++i) count += held_[i] > held_[i - 1] ? 1 : 0;
        return count;
    }
    std::array<std::uint8_t, Assembler::bytes_max> bytes_{};
    std::array<std::uint8_t, Assembler::bytes_max> held_{};  // 1: there
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
