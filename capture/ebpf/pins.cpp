// capture/ebpf/pins.cpp
// SPDX-License-Identifier: Apache-2.0
#include "capture/ebpf/pins.h"

#include <bpf/bpf.h>
#include <dirent.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <sys/file.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statfs.h>

#include <cerrno>
#include <charconv>
#include <cstring>
#include <memory>

namespace egresswatch::capture {
namespace {

constexpr const char* BPFFS = "/sys/fs/bpf";

bool on_bpffs(const std::string& path) {
    struct statfs facts {};
    return ::statfs(path.c_str(), &facts) == 0 && static_cast<unsigned long>(facts.f_type) == BPF_FS_MAGIC;
}

std::string parent_of(const std::string& path) {
    const auto slash = path.rfind('/');
    return slash == std::string::npos || slash == 0 ? "/" : path.substr(0, slash);
}

// The nearest directory above `path` that exists.
std::string existing_ancestor(std::string path) {
    struct stat facts {};
    while (path != "/" && ::stat(path.c_str(), &facts) != 0) path = parent_of(path);
    return path;
}

std::expected<void, OsError> make_directories(const std::string& path) {
    if (const std::string parent = parent_of(path); ::access(parent.c_str(), F_OK) != 0) {
        if (auto made = make_directories(parent); !made) return made;
    }
    if (::mkdir(path.c_str(), 0700) != 0 && errno != EEXIST)
        return os_error("make the pin directory", path, errno);
    return {};
}

std::expected<void, OsError> need_bpffs(const std::string& path) {
    if (on_bpffs(existing_ancestor(path))) return {};
    if (path.rfind(std::string(BPFFS) + "/", 0) != 0)
        return os_error("use the pin directory", path, 0,
                        "it is not on a bpffs; mount one there: mount -t bpf bpf " + parent_of(path));
    if (::mount("bpf", BPFFS, "bpf", MS_NOSUID | MS_NODEV | MS_NOEXEC, "mode=0700") != 0)
        return os_error("mount the bpffs", BPFFS, errno, "as root: mount -t bpf bpf /sys/fs/bpf");
    return {};
}

std::expected<UniqueFd, OsError> lock_directory(const std::string& path) {
    UniqueFd fd(::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    if (!fd) return os_error("open the pin directory", path, errno);
    if (::flock(fd.get(), LOCK_EX | LOCK_NB) != 0) {
        if (errno == EWOULDBLOCK)
            return os_error(
                "lock the pin directory", path, 0,
                "an egresswatchd is running on it; stop that first, or use another pin directory");
        return os_error("lock the pin directory", path, errno);
    }
    return fd;
}

std::vector<std::string> entries_of(const std::string& path) {
    std::vector<std::string> names;
    struct Close {
        void operator()(DIR* directory) const { ::closedir(directory); }
    };
    const std::unique_ptr<DIR, Close> directory(::opendir(path.c_str()));
    if (!directory) return names;
    while (const dirent* entry = ::readdir(directory.get()))
        if (entry->d_name[0] != '.') names.emplace_back(entry->d_name);
    return names;
}

}  // namespace

std::string LinkPin::file_name() const {
    const std::string index = std::to_string(ifindex);
    const char* side = direction == datapath::DIRECTION_OUT ? "_out" : "_in";
    switch (kind) {
        case PinKind::tcx:
            return "tcx_" + index + side;
        case PinKind::clsact:
            return "clsact_" + index + side;
        case PinKind::qdisc:
            break;
    }
    return "qdisc_" + index;
}

std::optional<LinkPin> LinkPin::parse(const std::string& file_name) {
    const auto first = file_name.find('_');
    if (first == std::string::npos) return std::nullopt;
    LinkPin pin{PinKind::qdisc, 0, datapath::DIRECTION_OUT};
    const char* begin = file_name.data() + first + 1;
    const char* end = file_name.data() + file_name.size();
    const auto number = std::from_chars(begin, end, pin.ifindex);
    if (number.ec != std::errc()) return std::nullopt;
    const std::string word = file_name.substr(0, first);
    const std::string rest(number.ptr, end);
    if (word == "qdisc") return rest.empty() ? std::optional(pin) : std::nullopt;
    if (word == "tcx")
        pin.kind = PinKind::tcx;
    else if (word == "clsact")
        pin.kind = PinKind::clsact;
    else
        return std::nullopt;
    if (rest != "_out" && rest != "_in") return std::nullopt;
    pin.direction = rest == "_out" ? datapath::DIRECTION_OUT : datapath::DIRECTION_IN;
    return pin;
}

std::expected<PinDir, OsError> PinDir::make(const std::string& path) {
    if (auto mounted = need_bpffs(path); !mounted) return std::unexpected(mounted.error());
    for (const char* below : {"", "/maps", "/links"})
        if (auto made = make_directories(path + below); !made) return std::unexpected(made.error());
    auto lock = lock_directory(path);
    if (!lock) return std::unexpected(lock.error());
    PinDir directory;
    directory.path_ = path;
    directory.lock_ = std::move(*lock);
    return directory;
}

std::expected<std::optional<PinDir>, OsError> PinDir::find(const std::string& path) {
    if (::access(path.c_str(), F_OK) != 0) {
        if (errno == ENOENT) return std::nullopt;
        return os_error("look into the pin directory", path, errno);
    }
    if (!on_bpffs(path))
        return os_error("use the pin directory", path, 0,
                        "it is not on a bpffs, so nothing can be pinned in it");
    auto lock = lock_directory(path);
    if (!lock) return std::unexpected(lock.error());
    PinDir directory;
    directory.path_ = path;
    directory.lock_ = std::move(*lock);
    return std::optional<PinDir>(std::move(directory));
}

std::vector<LinkPin> PinDir::links() const {
    std::vector<LinkPin> pins;
    for (const std::string& name : entries_of(path_ + "/links"))
        if (const auto pin = LinkPin::parse(name)) pins.push_back(*pin);
    return pins;
}

std::vector<std::string> PinDir::maps() const {
    return entries_of(path_ + "/maps");
}

std::expected<void, OsError> PinDir::pin(int fd, const std::string& path) const {
    if (bpf_obj_pin(fd, path.c_str()) != 0) return os_error("pin", path, errno);
    return {};
}

std::vector<std::string> PinDir::remove_maps_and_self() noexcept {
    std::vector<std::string> removed;
    for (const std::string& name : maps())
        if (::unlink(map_path(name).c_str()) == 0) removed.push_back("map " + name);
    ::rmdir((path_ + "/maps").c_str());
    ::rmdir((path_ + "/links").c_str());
    ::rmdir(path_.c_str());
    lock_.reset();
    return removed;
}

}  // namespace egresswatch::capture
