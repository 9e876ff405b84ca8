// tests/support/mmdb_writer.h - writes small MaxMind DB files, so that the repository ships none.
// SPDX-License-Identifier: Apache-2.0
//
// After the public MaxMind DB file format specification 2.0. Records of 24, 28 or 32 bits, data of maps and
// strings, and the aliases of the IPv4 tree that real databases have.
#pragma once

#include <array>
#include <cstdint>
#include <cstdio>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "classifier/address.h"

namespace egresswatch::test {

class MmdbWriter {
public:
    enum class Form { nested, flat_code, flat_country, no_country, asn, asn_text };

    explicit MmdbWriter(unsigned ip_version = 6, unsigned record_bits = 24, std::string type = "Test")
        : ip_version_(ip_version), record_bits_(record_bits), type_(std::move(type)) {}

    // A shorter prefix before the longer ones inside it.
    void add(const Prefix& prefix, std::string_view country, Form form = Form::nested) {
        const auto bits = bits_of(prefix);
        std::size_t node = 0;
        for (std::size_t depth = 0; depth + 1 < bits.size(); depth++) node = step(node, bits[depth]);
        nodes_[node][bits.back()] = {Kind::data, data_offset(country, form)};
    }

    // Makes ::ffff:0:0/96, 2001::/32 and 2002::/16 point at the IPv4 tree, as writers of real databases do.
    void alias_ipv4() {
        std::size_t ipv4 = 0;
        for (int depth = 0; depth < 96; depth++) ipv4 = step(ipv4, 0);
        for (const char* text : {"::ffff:0:0", "2001::", "2002::"}) {
            const bool mapped = std::string_view(text) == "::ffff:0:0";
            const std::size_t length = mapped ? 96 : std::string_view(text) == "2001::" ? 32 : 16;
            const auto address = Address::parse(text).value();
            std::size_t node = 0;
            for (std::size_t depth = 0; depth + 1 < length; depth++)
                node = step(node, bit_of(address, depth));
            nodes_[node][bit_of(address, length - 1)] = {Kind::node, ipv4};
        }
    }

    [[nodiscard]] std::string bytes() const {
        std::string out;
        for (const auto& node : nodes_) append_node(out, value_of(node[0]), value_of(node[1]));
        out.append(16, '\0');
        out += data_;
        out += "\xab\xcd\xefMaxMind.com";
        out += map_head(9);
        out += string("binary_format_major_version") + number(5, 2) + string("binary_format_minor_version") +
               number(5, 0) + string("build_epoch") + extended_number(9, 1767225600) +
               string("database_type") + string(type_) + string("description") + map_head(0) +
               string("ip_version") + number(5, ip_version_) + string("languages") +
               std::string("\x00\x04", 2) + string("node_count") +
               number(6, static_cast<std::uint32_t>(nodes_.size())) + string("record_size") +
               number(5, record_bits_);
        return out;
    }

    void write(const std::string& path) const {
        const auto content = bytes();
        std::FILE* file = std::fopen(path.c_str(), "wb");
        std::fwrite(content.data(), 1, content.size(), file);
        std::fclose(file);
    }

private:
    enum class Kind { empty, node, data };
    struct Record {
        Kind kind = Kind::empty;
        std::size_t value = 0;
    };

    static unsigned bit_of(const Address& address, std::size_t depth) {
        return address.bytes[depth / 8] >> (7 - depth % 8) & 1;
    }

    std::vector<unsigned> bits_of(const Prefix& prefix) const {
        std::vector<unsigned> bits;
        if (prefix.is_ipv4()) {
            if (ip_version_ == 6) bits.assign(96, 0);
            for (unsigned i = 0; i < prefix.length; i++) bits.push_back(bit_of(prefix.base, 96 + i));
        } else {
            for (unsigned i = 0; i < prefix.length; i++) bits.push_back(bit_of(prefix.base, i));
        }
        return bits;
    }

    // The node below; a record with data is pushed down to both sides of a new node.
    std::size_t step(std::size_t node, unsigned bit) {
        if (nodes_[node][bit].kind != Kind::node) {
            const Record above = nodes_[node][bit];
            nodes_.push_back({above, above});
            nodes_[node][bit] = {Kind::node, nodes_.size() - 1};
        }
        return nodes_[node][bit].value;
    }

    std::size_t data_offset(std::string_view country, Form form) {
        const auto [found, fresh] = offsets_.try_emplace({std::string(country), form}, data_.size());
        if (!fresh) return found->second;
        switch (form) {
            case Form::nested:
                data_ += map_head(2) + string("continent") + map_head(1) + string("code") + string("EU") +
                         string("country") + map_head(1) + string("iso_code") + string(country);
                break;
            case Form::flat_code:
                data_ += map_head(1) + string("country_code") + string(country);
                break;
            case Form::flat_country:
                data_ += map_head(1) + string("country") + string(country);
                break;
            case Form::asn:  // `country` is the number
                data_ += map_head(1) + string("autonomous_system_number") +
                         number(6, static_cast<std::uint32_t>(std::stoul(std::string(country))));
                break;
            case Form::asn_text:
                data_ += map_head(1) + string("asn") + string(country);
                break;
            case Form::no_country:
                data_ += map_head(1) + string("is_anycast") + string("yes");
                break;
        }
        return found->second;
    }

    [[nodiscard]] std::uint32_t value_of(const Record& record) const {
        const std::size_t count = nodes_.size();
        if (record.kind == Kind::empty) return static_cast<std::uint32_t>(count);
        if (record.kind == Kind::node) return static_cast<std::uint32_t>(record.value);
        return static_cast<std::uint32_t>(count + 16 + record.value);
    }

    void append_node(std::string& out, std::uint32_t left, std::uint32_t right) const {
        const auto byte = [&](std::uint32_t value) { out += static_cast<char>(value & 0xff); };
        const auto low24 = [&](std::uint32_t value) {
            byte(value >> 16);
            byte(value >> 8);
            byte(value);
        };
        if (record_bits_ == 32) byte(left >> 24);
        low24(left);
        if (record_bits_ == 28) byte((left >> 20 & 0xf0) | (right >> 24 & 0x0f));
        if (record_bits_ == 32) byte(right >> 24);
        low24(right);
    }

    static std::string map_head(unsigned pairs) { return std::string(1, static_cast<char>(7u << 5 | pairs)); }

    static std::string string(std::string_view text) {
        std::string out;
        if (text.size() < 29) {
            out += static_cast<char>(2u << 5 | text.size());
        } else {
            out += static_cast<char>(2u << 5 | 29u);
            out += static_cast<char>(text.size() - 29);
        }
        return out += text;
    }

    static std::string number(unsigned type, std::uint32_t value) {
        std::string digits;
        for (; value != 0; value >>= 8) digits.insert(digits.begin(), static_cast<char>(value & 0xff));
        return std::string(1, static_cast<char>(type << 5 | digits.size())) + digits;
    }

    static std::string extended_number(unsigned type, std::uint32_t value) {
        std::string out = number(0, value);
        return out.insert(1, 1, static_cast<char>(type - 7));
    }

    unsigned ip_version_;
    unsigned record_bits_;
    std::string type_;
    std::vector<std::array<Record, 2>> nodes_{{}};
    std::map<std::pair<std::string, Form>, std::size_t> offsets_;
    std::string data_;
};

}  // namespace egresswatch::test
