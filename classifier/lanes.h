// classifier/lanes.h - eight words of 32 bits, compared with one word at once: what a bucket of a hash table
// is searched with. SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>

#ifdef __SSE2__
#include <emmintrin.h>
#endif

namespace egresswatch {

// A bit for each of the eight words, from the lowest on, that is equal to `wanted`. `words`: on a multiple of
// 16 bytes.
[[gnu::always_inline]] inline unsigned lanes_equal_to(const std::uint32_t* words,
                                                      std::uint32_t wanted) noexcept {
#ifdef __SSE2__
    const auto* halves = reinterpret_cast<const __m128i*>(words);
    const __m128i all = _mm_set1_epi32(static_cast<int>(wanted));
    const __m128i low = _mm_cmpeq_epi32(_mm_load_si128(halves), all);
    const __m128i high = _mm_cmpeq_epi32(_mm_load_si128(halves + 1), all);
    const __m128i both = _mm_packs_epi32(low, high);
    return static_cast<unsigned>(_mm_movemask_epi8(_mm_packs_epi16(both, both))) & 0xff;
#else
    unsigned out = 0;
    for (std::size_t i = 0; i < 8; ++i) out |= (words[i] == wanted ? 1u : 0u) << i;
    return out;
#endif
}

}  // namespace egresswatch
