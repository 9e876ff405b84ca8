// capture/process/user_names.h - names of user ids, by the host's own list.
//
// /etc/passwd only: the name service may ask the network, which a monitor of the network must not do while it
// looks at it.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <ctime>
#include <string>
#include <unordered_map>

namespace egresswatch::capture {

class UserNames {
public:
    explicit UserNames(std::string file = "/etc/passwd") : file_(std::move(file)) {}
    // Empty where there is none. Reads the file anew when it has changed.
    [[nodiscard]] std::string name_of(std::uint32_t uid);

private:
    void read();
    std::string file_;
    timespec read_at_{};  // mtime of what was read
    std::unordered_map<std::uint32_t, std::string> names_;
};

}  // namespace egresswatch::capture
