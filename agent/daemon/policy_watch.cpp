// agent/daemon/policy_watch.cpp
// SPDX-License-Identifier: Apache-2.0
#include "agent/daemon/policy_watch.h"

#include <sys/inotify.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <deque>

namespace egresswatch::daemon {

namespace {

namespace fs = std::filesystem;

// A file that is still being written is not read: IN_CLOSE_WRITE ends it, IN_MODIFY is left out.
constexpr std::uint32_t changes = IN_CLOSE_WRITE | IN_MOVED_TO | IN_MOVED_FROM | IN_CREATE | IN_DELETE |
                                  IN_ATTRIB | IN_DELETE_SELF | IN_MOVE_SELF | IN_ONLYDIR;
constexpr int links_max = 40;  // as the kernel follows (path_resolution(7))

capture::OsError os_error(const fs::path& object) {
    return {"watch", object.string(), errno, "changes of the policy are read on SIGHUP only"};
}

}  // namespace

std::expected<PolicyWatch, capture::OsError> PolicyWatch::open(fs::path policy) {
    UniqueFd fd(::inotify_init1(IN_NONBLOCK | IN_CLOEXEC));
    if (!fd) return std::unexpected(os_error("inotify"));
    PolicyWatch watch(std::move(fd), fs::absolute(policy).lexically_normal());
    watch.watch_all();
    return watch;
}

bool PolicyWatch::due(Clock::time_point now) {
    if (drain()) {
        last_change_ = now;
        if (first_change_ == Clock::time_point{}) first_change_ = now;
    }
    if (first_change_ == Clock::time_point{}) return false;
    if (now - last_change_ < settle && now - first_change_ < settle_max) return false;
    first_change_ = {};
    return true;
}

void PolicyWatch::restart() {
    // Another path under the links may be a policy that no watch has seen yet. Watches that are there already
    // stay: a change between two of them cannot be missed. What cannot be watched now (a link that leads
    // nowhere) will be when the directory above it changes.
    watch_all();
    (void)drain();
    first_change_ = {};
}

void PolicyWatch::watch_all() {
    const std::map<int, Watched> before = std::exchange(watched_, {});
    problem_.clear();
    follow(policy_);
    add(policy_, {});
    std::error_code error;
    for (fs::directory_iterator at(policy_, error), end; !error && at != end; at.increment(error))
        if (at->path().extension() == ".yaml" && fs::is_symlink(at->symlink_status(error)))
            follow(at->path());
    for (const auto& [watch, directory] : before)
        if (!watched_.contains(watch)) ::inotify_rm_watch(fd_.get(), watch);
}

// Watches the directory of every link on the way, and that of what stands at its end.
void PolicyWatch::follow(const fs::path& path) {
    std::deque<fs::path> rest(path.begin(), path.end());
    fs::path at = "/";
    int links = 0;
    while (!rest.empty()) {
        const fs::path name = rest.front();
        rest.pop_front();
        if (name.empty() || name == "/" || name == ".") continue;
        if (name == "..") {
            at = at.parent_path();
            continue;
        }
        std::error_code error;
        const bool link = fs::is_symlink(at / name, error);
        if (link || rest.empty()) add(at, name.string());
        if (!link) {
            at /= name;
            continue;
        }
        if (++links > links_max) break;
        const fs::path target = fs::read_symlink(at / name, error);
        if (target.is_absolute()) at = "/";
        rest.insert(rest.begin(), target.begin(), target.end());
    }
}

void PolicyWatch::add(const fs::path& directory, const std::string& name) {
    const int watch = watched_.size() < watches_max
                          ? ::inotify_add_watch(fd_.get(), directory.c_str(), changes)
                          : (errno = ENOSPC, -1);
    if (watch < 0) {
        // The policy may be gone for a moment: its parent is watched, and will tell when it is back.
        if (errno != ENOENT && errno != ENOTDIR && problem_.empty())
            problem_ = os_error(directory).to_string();
        return;
    }
    const auto [entry, is_new] = watched_.try_emplace(watch, Watched{directory, {}});
    if (name.empty())
        entry->second.names.clear();
    else if (is_new || !entry->second.names.empty())
        entry->second.names.insert(name);
}

bool PolicyWatch::drain() {
    alignas(inotify_event) std::array<char, 16384> buffer;
    bool changed = false;
    for (;;) {
        const ssize_t got = ::read(fd_.get(), buffer.data(), buffer.size());
        if (got <= 0) return changed;
        for (const char* at = buffer.data(); at < buffer.data() + got;) {
            const auto* event = reinterpret_cast<const inotify_event*>(at);
            changed |= concerns(event->wd, event->len > 0 ? event->name : "", event->mask);
            at += sizeof(inotify_event) + event->len;
        }
    }
}

bool PolicyWatch::concerns(int watch, const char* name, std::uint32_t mask) const {
    if ((mask & IN_Q_OVERFLOW) != 0) return true;  // events were lost: something has changed
    if ((mask & IN_IGNORED) != 0) return false;
    const auto found = watched_.find(watch);
    if (found == watched_.end()) return false;
    const Watched& directory = found->second;
    if ((mask & (IN_DELETE_SELF | IN_MOVE_SELF)) != 0) return true;
    if (!directory.names.empty() && !directory.names.contains(name)) return false;
    if ((mask & IN_CREATE) != 0) {
        // A new regular file is empty yet, and will be closed; a link or a second name is complete.
        struct stat info {};
        return ::lstat((directory.directory / name).c_str(), &info) != 0 || !S_ISREG(info.st_mode) ||
               info.st_nlink > 1;
    }
    return true;
}

}  // namespace egresswatch::daemon
