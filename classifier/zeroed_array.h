// classifier/zeroed_array.h - a large array of zero bytes that costs memory only where it is touched.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/mman.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <new>
#include <type_traits>
#include <utility>

namespace egresswatch {

// Page-aligned; address space only until it is written to, so that it may be made as large as it can ever
// get. Throws std::bad_alloc when the system refuses.
template <typename T>
class ZeroedArray {
    static_assert(std::is_trivially_copyable_v<T> && std::is_trivially_destructible_v<T>);

public:
    ZeroedArray() = default;
    explicit ZeroedArray(std::size_t count, bool huge_pages = true) : count_(count) {
        if (count == 0) return;
        void* mapped = mmap(nullptr, count * sizeof(T), PROT_READ | PROT_WRITE,
                            MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (mapped == MAP_FAILED) throw std::bad_alloc();
        // Fewer TLB misses; not every kernel has it.
        (void)madvise(mapped, count * sizeof(T), huge_pages ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
        data_ = static_cast<T*>(mapped);
    }
    ZeroedArray(ZeroedArray&& other) noexcept
        : data_(std::exchange(other.data_, nullptr)), count_(std::exchange(other.count_, 0)) {}
    ZeroedArray& operator=(ZeroedArray&& other) noexcept {
        std::swap(data_, other.data_);
        std::swap(count_, other.count_);
        return *this;
    }
    ZeroedArray(const ZeroedArray&) = delete;
    ZeroedArray& operator=(const ZeroedArray&) = delete;
    // An array that has grown beyond so many bytes gets what it still grows by in small pages; what it has
    // stays in huge ones. Huge pages may be dear: a virtual machine whose host has taken back what was free
    // (free page reporting) gets 0.3 GB of them a second, and 1.7 GB of small ones. They spare no TLB miss to
    // what is written from its beginning to its end, but one an access to what is found by a hash.
    static constexpr std::size_t small_pages = 0;
    static constexpr std::size_t huge_bytes_in_order = std::size_t{32} << 20;
    static constexpr std::size_t huge_bytes_at_random = std::size_t{128} << 20;
    // Makes room for more elements, the new ones zero. Moves pages, not bytes; pointers into the array die.
    void extend(std::size_t count, std::size_t huge_bytes_max = huge_bytes_in_order) {
        if (count <= count_) return;
        if (count_ == 0) {
            *this = ZeroedArray(count, huge_bytes_max != small_pages);
            return;
        }
        void* moved = mremap(data_, count_ * sizeof(T), count * sizeof(T), MREMAP_MAYMOVE);
        if (moved == MAP_FAILED) throw std::bad_alloc();
        data_ = static_cast<T*>(moved);
        count_ = count;
        if (count * sizeof(T) > huge_bytes_max) (void)madvise(moved, count * sizeof(T), MADV_NOHUGEPAGE);
    }
    // Memory for these elements, which are going to be written, in one call in place of a fault a page. Where
    // the kernel cannot (before 5.14), or has none, they get it when they are touched.
    void populate(std::size_t first, std::size_t count) noexcept {
        constexpr std::uintptr_t page = 4096;
        const auto begin = reinterpret_cast<std::uintptr_t>(data_ + first) & ~(page - 1);
        const auto end = reinterpret_cast<std::uintptr_t>(data_ + std::min(first + count, count_));
        (void)madvise(reinterpret_cast<void*>(begin), (end - begin + page - 1) & ~(page - 1),
                      MADV_POPULATE_WRITE);
    }
    ~ZeroedArray() {
        if (data_ != nullptr) munmap(data_, count_ * sizeof(T));
    }

    [[nodiscard]] T& operator[](std::size_t index) noexcept { return data_[index]; }
    [[nodiscard]] const T& operator[](std::size_t index) const noexcept { return data_[index]; }
    [[nodiscard]] T* data() noexcept { return data_; }
    [[nodiscard]] const T* data() const noexcept { return data_; }
    [[nodiscard]] std::size_t size() const noexcept { return count_; }

private:
    T* data_ = nullptr;
    std::size_t count_ = 0;
};

}  // namespace egresswatch
