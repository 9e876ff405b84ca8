// capture/process/process_start.cpp
// SPDX-License-Identifier: Apache-2.0
#include "capture/process/process_start.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <string>
#include <string_view>

#include "capture/ebpf/os.h"

namespace egresswatch::capture {

// Field 22 of /proc/PID/stat: start of the process in ticks, behind a command that may contain anything but
// ends at the last parenthesis (proc(5)).
bool runs_still(const ProcessId& process) {
    const std::string path = "/proc/" + std::to_string(process.pid) + "/stat";
    const UniqueFd file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
    char text[1024];
    const ssize_t bytes = file ? ::read(file.get(), text, sizeof text) : -1;
    if (bytes <= 0) return false;
    std::string_view rest(text, static_cast<std::size_t>(bytes));
    rest.remove_prefix(std::min(rest.rfind(')') + 1, rest.size()));
    for (int field = 2; field < 22; field++) {
        const auto space = rest.find(' ');
        if (space == std::string_view::npos) return false;
        rest.remove_prefix(space + 1);
    }
    std::uint64_t ticks = 0;
    std::from_chars(rest.data(), rest.data() + rest.size(), ticks);
    const auto tick_ns = 1'000'000'000U / static_cast<std::uint64_t>(::sysconf(_SC_CLK_TCK));
    return ticks == process.start_ns / tick_ns;
}

}  // namespace egresswatch::capture
