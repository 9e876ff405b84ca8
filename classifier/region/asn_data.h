// classifier/region/asn_data.h - the autonomous system that an address is routed by, from a MaxMind DB file.
// SPDX-License-Identifier: Apache-2.0
//
// In:       a file with `autonomous_system_number` (GeoLite2-ASN, DB-IP) or `asn` (IPinfo), which stays
// mapped. Threads:  find() on any; the file is read-only.      Cost: a lookup of 60 to 300 ns, and only where
// asked. Fails:    RegionError when it cannot be opened; an address that it does not know is 0.
#pragma once

#include <cstdint>
#include <expected>
#include <filesystem>
#include <memory>

#include "classifier/address.h"
#include "classifier/region/region_error.h"

namespace egresswatch {

class AsnData {
public:
    [[nodiscard]] static std::expected<std::shared_ptr<const AsnData>, RegionError> open(
        const std::filesystem::path& path);
    ~AsnData();
    AsnData(const AsnData&) = delete;
    AsnData& operator=(const AsnData&) = delete;

    // 0: unknown. An address that stands for an IPv4 address is looked up as that one.
    [[nodiscard]] std::uint32_t find(const Address& address) const noexcept;

private:
    struct Storage;
    explicit AsnData(std::unique_ptr<Storage> storage);
    std::unique_ptr<Storage> storage_;
};

}  // namespace egresswatch
