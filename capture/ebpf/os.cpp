// capture/ebpf/os.cpp
// SPDX-License-Identifier: Apache-2.0
#include "capture/ebpf/os.h"

#include <cerrno>

namespace egresswatch::capture {

std::expected<Mapping, OsError> Mapping::of_map(int map_fd, std::size_t bytes, std::string object) {
    const auto page = static_cast<std::size_t>(::sysconf(_SC_PAGESIZE));
    const std::size_t whole_pages = (bytes + page - 1) / page * page;
    void* base = ::mmap(nullptr, whole_pages, PROT_READ | PROT_WRITE, MAP_SHARED, map_fd, 0);
    if (base == MAP_FAILED) return os_error("map the BPF map into memory", std::move(object), errno);
    Mapping mapping;
    mapping.base_ = base;
    mapping.bytes_ = whole_pages;
    return mapping;
}

std::unexpected<OsError> os_error(std::string operation, std::string object, int error, std::string hint) {
    return std::unexpected(
        OsError{std::move(operation), std::move(object), error < 0 ? -error : error, std::move(hint)});
}

}  // namespace egresswatch::capture
