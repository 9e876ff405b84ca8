// rules/state_bytes.h - what an evaluator remembers, as bytes and back. Internal to rules/.
// SPDX-License-Identifier: Apache-2.0
//
// Little-endian hosts only, as the whole product. A reader that runs over the end answers zeros and says so
// by ok(): whoever restores checks it last and throws away what it made.
#pragma once

#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>
#include <type_traits>

namespace egresswatch::rules {

class StateWriter {
public:
    template <typename T>
    void put(const T& value) {
        static_assert(std::is_trivially_copyable_v<T>);
        bytes_.append(reinterpret_cast<const char*>(&value), sizeof value);
    }
    void text(std::string_view text) {
        put(static_cast<std::uint32_t>(text.size()));
        bytes_.append(text);
    }
    // A part with its length in front, so that a reader can leave it out.
    [[nodiscard]] std::size_t begin_part() {
        put(std::uint64_t{0});
        return bytes_.size();
    }
    void end_part(std::size_t begin) {
        const std::uint64_t size = bytes_.size() - begin;
        std::memcpy(bytes_.data() + begin - sizeof size, &size, sizeof size);
    }
    [[nodiscard]] std::string take() { return std::move(bytes_); }

private:
    std::string bytes_;
};

class StateReader {
public:
    explicit StateReader(std::string_view bytes) : bytes_(bytes) {}
    template <typename T>
    T get() {
        static_assert(std::is_trivially_copyable_v<T>);
        T value{};
        if (bytes_.size() < sizeof value) {
            ok_ = false;
            bytes_ = {};
            return value;
        }
        std::memcpy(&value, bytes_.data(), sizeof value);
        bytes_.remove_prefix(sizeof value);
        return value;
    }
    std::string_view raw(std::uint64_t size) {
        if (size > bytes_.size()) {
            ok_ = false;
            size = bytes_.size();
        }
        const std::string_view out = bytes_.substr(0, size);
        bytes_.remove_prefix(size);
        return out;
    }
    std::string_view text() { return raw(get<std::uint32_t>()); }
    [[nodiscard]] StateReader part() { return StateReader(raw(get<std::uint64_t>())); }
    [[nodiscard]] bool ok() const noexcept { return ok_; }
    [[nodiscard]] bool at_end() const noexcept { return bytes_.empty(); }
    // A count that the bytes left can hold, each of at least `size`.
    std::uint64_t count(std::size_t size) {
        const auto wanted = get<std::uint64_t>();
        if (wanted <= bytes_.size() / size) return wanted;
        ok_ = false;
        return 0;
    }

private:
    std::string_view bytes_;
    bool ok_ = true;
};

}  // namespace egresswatch::rules
