// classifier/region/asn_data.cpp
// SPDX-License-Identifier: Apache-2.0
#include "classifier/region/asn_data.h"

#include <maxminddb.h>
#include <netinet/in.h>

#include <charconv>
#include <cstring>
#include <string>
#include <string_view>

namespace egresswatch {

struct AsnData::Storage {
    MMDB_s db{};
    ~Storage() { MMDB_close(&db); }
};

AsnData::AsnData(std::unique_ptr<Storage> storage) : storage_(std::move(storage)) {}
AsnData::~AsnData() = default;

std::expected<std::shared_ptr<const AsnData>, RegionError> AsnData::open(const std::filesystem::path& path) {
    MMDB_s db{};
    const int status = MMDB_open(path.c_str(), MMDB_MODE_MMAP, &db);
    if (status != MMDB_SUCCESS)
        return std::unexpected(
            RegionError{RegionError::Code::input,
                        path.string() + ": not a readable MaxMind DB: " + MMDB_strerror(status)});
    auto storage = std::make_unique<Storage>();
    storage->db = db;
    const std::string_view type(db.metadata.database_type != nullptr ? db.metadata.database_type : "");
    if (type.find("ASN") == std::string_view::npos && type.find("asn") == std::string_view::npos)
        return std::unexpected(RegionError{RegionError::Code::input,
                                           path.string() + ": a database of type \"" + std::string(type) +
                                               "\", which has no AS numbers; name one as GeoLite2-ASN"});
    return std::shared_ptr<const AsnData>(new AsnData(std::move(storage)));
}

namespace {

sockaddr_storage socket_address(const Address& address) {
    sockaddr_storage out{};
    const auto& bytes = address.bytes;
    constexpr std::uint8_t nat64[12] = {0, 0x64, 0xff, 0x9b};  // RFC 6052
    const std::uint8_t* four = address.is_ipv4() || std::memcmp(bytes.data(), nat64, sizeof nat64) == 0
                                   ? bytes.data() + 12
                               : bytes[0] == 0x20 && bytes[1] == 0x02 ? bytes.data() + 2  // RFC 3056
                                                                      : nullptr;
    if (four != nullptr) {
        auto& in = reinterpret_cast<sockaddr_in&>(out);
        in.sin_family = AF_INET;
        std::memcpy(&in.sin_addr, four, 4);
    } else {
        auto& in = reinterpret_cast<sockaddr_in6&>(out);
        in.sin6_family = AF_INET6;
        std::memcpy(&in.sin6_addr, bytes.data(), 16);
    }
    return out;
}

std::uint32_t number_of(MMDB_entry_s entry) {
    for (const char* name : {"autonomous_system_number", "asn"}) {
        MMDB_entry_data_s data{};
        if (MMDB_get_value(&entry, &data, name, nullptr) != MMDB_SUCCESS || !data.has_data) continue;
        if (data.type == MMDB_DATA_TYPE_UINT32) return data.uint32;
        if (data.type == MMDB_DATA_TYPE_UINT16) return data.uint16;
        if (data.type != MMDB_DATA_TYPE_UTF8_STRING) continue;
        std::string_view text(data.utf8_string, data.data_size);  // "AS64500"
        if (text.starts_with("AS")) text.remove_prefix(2);
        std::uint32_t out = 0;
        std::from_chars(text.data(), text.data() + text.size(), out);
        return out;
    }
    return 0;
}

}  // namespace

std::uint32_t AsnData::find(const Address& address) const noexcept {
    const sockaddr_storage where = socket_address(address);
    int error = MMDB_SUCCESS;
    const MMDB_lookup_result_s found =
        MMDB_lookup_sockaddr(&storage_->db, reinterpret_cast<const sockaddr*>(&where), &error);
    if (error != MMDB_SUCCESS || !found.found_entry) return 0;
    return number_of(found.entry);
}

}  // namespace egresswatch
