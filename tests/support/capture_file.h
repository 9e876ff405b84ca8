// tests/support/capture_file.h - writes small pcap and pcapng files in memory, right or wrong on purpose.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <bit>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <vector>

namespace egresswatch::test {

using Bytes = std::vector<std::uint8_t>;

// Appends integers in one byte order.
class CaptureFile {
public:
    explicit CaptureFile(bool big_endian = false) : big_endian_(big_endian) {}

    template <typename Integer>
    CaptureFile& put(Integer value) {
        if (big_endian_) value = std::byteswap(value);
        std::uint8_t raw[sizeof value];
        std::memcpy(raw, &value, sizeof value);
        bytes.insert(bytes.end(), raw, raw + sizeof value);
        return *this;
    }
    CaptureFile& u16(std::uint16_t value) { return put(value); }
    CaptureFile& u32(std::uint32_t value) { return put(value); }
    CaptureFile& u64(std::uint64_t value) { return put(value); }
    CaptureFile& raw(std::span<const std::uint8_t> data) {
        bytes.insert(bytes.end(), data.begin(), data.end());
        return *this;
    }

    CaptureFile& pcap_header(std::uint32_t link_type, std::uint32_t magic = 0xa1b2c3d4,
                             std::uint16_t minor = 4) {
        return u32(magic).u16(2).u16(minor).u32(0).u32(0).u32(65535).u32(link_type);
    }
    CaptureFile& pcap_record(std::uint32_t seconds, std::uint32_t fraction,
                             std::span<const std::uint8_t> data, std::uint32_t wire = 0) {
        const auto captured = static_cast<std::uint32_t>(data.size());
        return u32(seconds).u32(fraction).u32(captured).u32(wire != 0 ? wire : captured).raw(data);
    }

    // A pcapng block around a body, padded to four bytes.
    CaptureFile& block(std::uint32_t type, const Bytes& body) {
        const std::size_t padded = (body.size() + 3) & ~std::size_t{3};
        const auto length = static_cast<std::uint32_t>(padded + 12);
        u32(type).u32(length).raw(body);
        bytes.resize(bytes.size() + padded - body.size());
        return u32(length);
    }
    CaptureFile& section() {
        return block(0x0a0d0d0a, CaptureFile(big_endian_).u32(0x1a2b3c4d).u16(1).u16(0).u64(~0ull).bytes);
    }
    CaptureFile& interface(std::uint16_t link_type, std::uint32_t snap = 0, const Bytes& options = {}) {
        return block(1, CaptureFile(big_endian_).u16(link_type).u16(0).u32(snap).raw(options).bytes);
    }
    CaptureFile& option_u8(std::uint16_t code, std::uint8_t value) {
        return u16(code).u16(1).raw(Bytes{value, 0, 0, 0});
    }
    CaptureFile& option_u64(std::uint16_t code, std::uint64_t value) { return u16(code).u16(8).u64(value); }
    CaptureFile& enhanced(std::uint32_t interface_id, std::uint64_t ticks, std::span<const std::uint8_t> data,
                          std::uint32_t wire = 0) {
        const auto captured = static_cast<std::uint32_t>(data.size());
        return block(6, CaptureFile(big_endian_)
                            .u32(interface_id)
                            .u32(static_cast<std::uint32_t>(ticks >> 32))
                            .u32(static_cast<std::uint32_t>(ticks))
                            .u32(captured)
                            .u32(wire != 0 ? wire : captured)
                            .raw(data)
                            .bytes);
    }
    CaptureFile& simple(std::uint32_t wire, std::span<const std::uint8_t> data) {
        return block(3, CaptureFile(big_endian_).u32(wire).raw(data).bytes);
    }

    Bytes bytes;

private:
    bool big_endian_;
};

}  // namespace egresswatch::test
