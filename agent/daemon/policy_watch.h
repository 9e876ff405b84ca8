// agent/daemon/policy_watch.h - tells that the policy on disk has changed, by inotify.
// SPDX-License-Identifier: Apache-2.0
//
// Watched: the policy directory, and every directory in which a rename or a new symbolic link can put another
// policy under its path: those of each link on the way to it, and to each of its files. So a swapped link
// (configuration management, mounted volumes), a renamed directory and an editor's file that is moved into
// place are all seen.
// Threads: one.    Clock: monotonic, for settling only.
// Limits:  watches_max; changes are told once they have rested for `settle`, or after `settle_max`.
// Fails:   a directory that cannot be watched is named in problem(): what changes there is read on SIGHUP
//          only.
// Not here: whether the contents differ from what is in force (policy_state.h).
#pragma once

#include <chrono>
#include <expected>
#include <filesystem>
#include <map>
#include <set>
#include <string>

#include "agent/unique_fd.h"
#include "capture/engine.h"

namespace egresswatch::daemon {

class PolicyWatch {
public:
    using Clock = std::chrono::steady_clock;
    // An editor's several steps and a copy of many files are one change.
    static constexpr std::chrono::milliseconds settle{100};
    static constexpr std::chrono::milliseconds settle_max{2000};
    static constexpr std::size_t watches_max = 1024;

    [[nodiscard]] static std::expected<PolicyWatch, capture::OsError> open(std::filesystem::path policy);

    // Never blocks. True once when a change has come to rest.
    [[nodiscard]] bool due(Clock::time_point now);
    // The files are about to be read: what has happened so far is forgotten, and the links are followed anew.
    void restart();
    // Why not everything is watched; empty: everything is.
    [[nodiscard]] const std::string& problem() const noexcept { return problem_; }

private:
    PolicyWatch(UniqueFd fd, std::filesystem::path policy) : fd_(std::move(fd)), policy_(std::move(policy)) {}
    void watch_all();
    void follow(const std::filesystem::path& path);
    void add(const std::filesystem::path& directory, const std::string& name);
    bool drain();
    bool concerns(int watch, const char* name, std::uint32_t mask) const;

    struct Watched {
        std::filesystem::path directory;
        std::set<std::string> names;  // empty: every name in it
    };

    UniqueFd fd_;
    std::filesystem::path policy_;
    std::map<int, Watched> watched_;
    std::string problem_;
    Clock::time_point first_change_{};  // zero: none
    Clock::time_point last_change_{};
};

}  // namespace egresswatch::daemon
