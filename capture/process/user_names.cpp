// capture/process/user_names.cpp
// SPDX-License-Identifier: Apache-2.0
#include "capture/process/user_names.h"

#include <sys/stat.h>

#include <charconv>
#include <fstream>

namespace egresswatch::capture {

std::string UserNames::name_of(std::uint32_t uid) {
    struct stat info {};
    if (::stat(file_.c_str(), &info) == 0 &&
        (info.st_mtim.tv_sec != read_at_.tv_sec || info.st_mtim.tv_nsec != read_at_.tv_nsec)) {
        read_at_ = info.st_mtim;
        read();
    }
    const auto at = names_.find(uid);
    return at != names_.end() ? at->second : std::string();
}

// name:password:uid:... (passwd(5)); of several names for one uid the first counts, as for the system.
void UserNames::read() {
    names_.clear();
    std::ifstream file(file_);
    for (std::string line; std::getline(file, line);) {
        const auto first = line.find(':');
        const auto second = first == std::string::npos ? first : line.find(':', first + 1);
        if (second == std::string::npos || first == 0) continue;
        std::uint32_t uid = 0;
        const char* end = line.data() + line.size();
        const auto number = std::from_chars(line.data() + second + 1, end, uid);
        if (number.ec != std::errc() || number.ptr == end || *number.ptr != ':') continue;
        names_.try_emplace(uid, line.substr(0, first));
    }
}

}  // namespace egresswatch::capture
