// classifier/region/page_array.h - a large array that is filled once: whole pages, huge ones where it can.
// SPDX-License-Identifier: Apache-2.0
//
// Why not std::vector: with a country database a table takes 25 MB and twice that while it is made; growing
// vectors and 4 KiB page faults were half of the time to compile it.
#pragma once

#include <sys/mman.h>

#include <cstddef>
#include <cstring>
#include <new>
#include <span>
#include <type_traits>
#include <utility>

namespace egresswatch {

// The capacity is fixed; memory that was never written takes no room. Move-only owner of its mapping.
template <typename Value>
class PageArray {
    static_assert(std::is_trivially_copyable_v<Value>);

public:
    PageArray() = default;
    explicit PageArray(std::size_t capacity) : bytes_(round_up(capacity * sizeof(Value))) {
        void* memory = ::mmap(nullptr, bytes_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (memory == MAP_FAILED) throw std::bad_alloc();
        (void)::madvise(memory, bytes_, MADV_HUGEPAGE);  // a refusal costs time only
        data_ = static_cast<Value*>(memory);
    }
    PageArray(PageArray&& other) noexcept
        : data_(std::exchange(other.data_, nullptr)),
          size_(std::exchange(other.size_, 0)),
          bytes_(std::exchange(other.bytes_, 0)) {}
    PageArray& operator=(PageArray&& other) noexcept {
        std::swap(data_, other.data_);
        std::swap(size_, other.size_);
        std::swap(bytes_, other.bytes_);
        return *this;
    }
    ~PageArray() {
        if (data_ != nullptr) ::munmap(data_, bytes_);
    }

    // The caller keeps the size below the capacity.
    void push_back(const Value& value) { data_[size_++] = value; }
    void append(std::span<const Value> values) {
        std::memcpy(data_ + size_, values.data(), values.size_bytes());
        size_ += values.size();
    }
    void append_zeros(std::size_t count) { size_ += count; }  // fresh pages are zero

    [[nodiscard]] Value* data() noexcept { return data_; }
    [[nodiscard]] const Value* data() const noexcept { return data_; }
    [[nodiscard]] std::size_t size() const noexcept { return size_; }
    [[nodiscard]] bool empty() const noexcept { return size_ == 0; }
    [[nodiscard]] Value& back() noexcept { return data_[size_ - 1]; }
    [[nodiscard]] const Value& operator[](std::size_t i) const noexcept { return data_[i]; }
    [[nodiscard]] std::span<const Value> view() const noexcept { return {data_, size_}; }

private:
    static constexpr std::size_t huge_page = std::size_t{2} << 20;
    static std::size_t round_up(std::size_t bytes) {
        return bytes == 0 ? huge_page : (bytes + huge_page - 1) / huge_page * huge_page;
    }

    Value* data_ = nullptr;
    std::size_t size_ = 0;
    std::size_t bytes_ = 0;  // of the mapping
};

}  // namespace egresswatch
