// tests/bench/run_measured.cpp - runs a command on one core and says what it cost, it and all its
// descendants.
//
// Out:   as the last line of standard error: one JSON object with user and system CPU seconds, wall seconds,
// the
//        sum of the processes' largest resident sets, and the exit status.
// Counts daemons that leave their parent behind too: this process is the reaper of everything below it. Not
// counted: a child whose parent ignores SIGCHLD.
// SPDX-License-Identifier: Apache-2.0
#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace {

constexpr long look_every_ns = 5'000'000;

bool late = false;
long anonymous_kb = 0;

[[noreturn]] void die(const char* what) {
    std::fprintf(stderr, "run_measured: %s: %s\n", what, std::strerror(errno));
    std::exit(125);
}

// Anonymous and shared memory of a process and, added to it, of its descendants.
long memory_of(pid_t pid) {
    char path[64];
    char line[256];
    long kilobytes = 0;
    std::snprintf(path, sizeof path, "/proc/%d/status", pid);
    if (std::FILE* status = std::fopen(path, "re")) {
        long value = 0;
        while (std::fgets(line, sizeof line, status) != nullptr)
            if (std::sscanf(line, "RssAnon: %ld", &value) == 1 ||
                std::sscanf(line, "RssShmem: %ld", &value) == 1)
                kilobytes += value;
        std::fclose(status);
    }
    std::snprintf(path, sizeof path, "/proc/%d/task/%d/children", pid, pid);
    if (std::FILE* children = std::fopen(path, "re")) {
        pid_t child = 0;
        while (std::fscanf(children, "%d", &child) == 1) kilobytes += memory_of(child);
        std::fclose(children);
    }
    return kilobytes;
}

double seconds(const timeval& time) {
    return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_usec) * 1e-6;
}

pid_t start(int core, char** command) {
    const pid_t child = ::fork();
    if (child < 0) die("fork");
    if (child > 0) return child;
    ::setpgid(0, 0);
    cpu_set_t cpus;
    CPU_ZERO(&cpus);
    CPU_SET(static_cast<unsigned>(core), &cpus);
    if (::sched_setaffinity(0, sizeof cpus, &cpus) != 0) die("sched_setaffinity");
    ::execvp(command[0], command);
    die(command[0]);
}

}  // namespace

int main(int argc, char** argv) {
    if (argc < 4) {
        std::fprintf(stderr, "usage: run_measured CORE SECONDS-AT-MOST COMMAND [ARGUMENT ...]\n");
        return 125;
    }
    if (::prctl(PR_SET_CHILD_SUBREAPER, 1) != 0) die("prctl");
    const long own_kb = memory_of(::getpid());
    const auto begin = std::chrono::steady_clock::now();
    const pid_t child = start(std::atoi(argv[1]), argv + 3);
    ::setpgid(child, child);  // whoever comes first
    const auto deadline = begin + std::chrono::seconds(std::atoi(argv[2]));

    double user = 0;
    double system = 0;
    long kilobytes = 0;
    int exit_status = 125;
    for (;;) {
        int status = 0;
        rusage used{};
        const pid_t pid = ::wait4(-1, &status, WNOHANG, &used);
        if (pid == 0) {
            if (!late && std::chrono::steady_clock::now() > deadline) {
                late = true;
                ::kill(-child, SIGKILL);
            }
            anonymous_kb = std::max(anonymous_kb, memory_of(::getpid()) - own_kb);
            const timespec pause{0, look_every_ns};
            ::nanosleep(&pause, nullptr);
            continue;
        }
        if (pid < 0) break;  // none left
        user += seconds(used.ru_utime);
        system += seconds(used.ru_stime);
        kilobytes += used.ru_maxrss;
        if (pid == child) exit_status = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
    }
    const std::chrono::duration<double> wall = std::chrono::steady_clock::now() - begin;
    std::fprintf(stderr,
                 "\n{\"user\":%.6f,\"system\":%.6f,\"wall\":%.6f,\"anonymous_kb\":%ld,\"max_rss_kb\":%ld,"
                 "\"exit\":%d,\"timed_out\":%s}\n",
                 user, system, wall.count(), anonymous_kb, kilobytes, exit_status, late ? "true" : "false");
    return 0;
}
