// capture/dpdk/eal.cpp
// SPDX-License-Identifier: Apache-2.0
#include "capture/dpdk/eal.h"

#include <rte_eal.h>
#include <rte_errno.h>
#include <rte_log.h>
#include <sched.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <iterator>
#include <mutex>
#include <utility>

namespace egresswatch::capture {
namespace {

constexpr std::size_t WORDS_MAX = 600;  // characters of DPDK's errors that an OsError carries

DpdkLogLevel level_of(int eal_level) {
    if (eal_level <= static_cast<int>(RTE_LOG_ERR)) return DpdkLogLevel::error;
    if (eal_level <= static_cast<int>(RTE_LOG_WARNING)) return DpdkLogLevel::warning;
    return eal_level <= static_cast<int>(RTE_LOG_INFO) ? DpdkLogLevel::info : DpdkLogLevel::debug;
}

// "0-3,6": the CPUs that this thread may use. EAL binds the thread that starts it to its first lcore: that
// one is all of them, so that the daemon's threads run where they ran before.
std::string allowed_cpus() {
    cpu_set_t set;
    CPU_ZERO(&set);
    if (::sched_getaffinity(0, sizeof set, &set) != 0) return "0";
    std::string text;
    for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu)
        if (CPU_ISSET(cpu, &set)) text += (text.empty() ? "" : ",") + std::to_string(cpu);
    return text;
}

std::string cure_for(const std::string& words, int error, bool huge_pages) {
    const auto says = [&](std::string_view what) { return words.find(what) != std::string::npos; };
    if (huge_pages && (error == ENOMEM || error == EACCES || says("hugepage") || says("huge page")))
        return "set huge pages aside (sysctl vm.nr_hugepages=512), or write huge_pages: false";
    if (error == EALREADY) return "DPDK starts once in a process: restart egresswatchd";
    if (error == EPERM || error == EACCES || says("Permission denied") || says("permission"))
        return "start as root, or give the capabilities and devices that egresswatch.yaml(5) names";
    if (error == EINVAL) return "look at eal_args: DPDK did not take one of them";
    if (says("vdev") || says("probe") || error == ENODEV || error == ENOTSUP)
        return "look at the devices in eal_args; a NIC must be bound to vfio-pci first (dpdk-devbind.py "
               "--status)";
    return "";
}

}  // namespace

struct Eal::Log {
    std::function<void(DpdkLogLevel, std::string_view)> to;
    std::mutex mutex;
    std::string words;
    FILE* stream = nullptr;

    void take(std::string_view line) {
        while (!line.empty() && (line.back() == '\n' || line.back() == '\r')) line.remove_suffix(1);
        if (line.empty()) return;
        const DpdkLogLevel level = level_of(rte_log_cur_msg_loglevel());
        if (to) to(level, line);
        if (level != DpdkLogLevel::error) return;
        const std::lock_guard lock(mutex);
        if (words.size() + line.size() > WORDS_MAX) return;  // the first ones say why
        words += (words.empty() ? "" : "; ") + std::string(line);
    }
    static ssize_t write(void* self, const char* text, std::size_t size) {
        static_cast<Log*>(self)->take({text, size});
        return static_cast<ssize_t>(size);
    }
};

std::string reserved_eal_option(const std::vector<std::string>& eal_args) {
    static constexpr std::string_view reserved[] = {"-l",
                                                    "-c",
                                                    "-s",
                                                    "-S",
                                                    "-m",
                                                    "-n",
                                                    "-r",
                                                    "-h",
                                                    "-v",
                                                    "--lcores",
                                                    "--main-lcore",
                                                    "--no-huge",
                                                    "--in-memory",
                                                    "--no-shconf",
                                                    "--help",
                                                    "--version",
                                                    "--telemetry",
                                                    "--huge-unlink",
                                                    "--no-telemetry",
                                                    "--proc-type"};
    for (const std::string& argument : eal_args) {
        const std::string_view name = std::string_view(argument).substr(0, argument.find('='));
        if (std::ranges::find(reserved, name) != std::end(reserved)) return std::string(name);
        // "-l0,1": a short option with its value.
        if (name.size() > 2 && name[0] == '-' && name[1] != '-' &&
            std::ranges::find(reserved, name.substr(0, 2)) != std::end(reserved))
            return std::string(name.substr(0, 2));
    }
    return {};
}

Eal::Eal(std::unique_ptr<Log> log) : log_(std::move(log)) {}

std::expected<std::unique_ptr<Eal>, OsError> Eal::start(const DpdkConfig& config, std::uint32_t memory_mb) {
    auto log = std::make_unique<Log>();
    log->to = config.log;
    cookie_io_functions_t functions{};
    functions.write = Log::write;
    log->stream = ::fopencookie(log.get(), "w", functions);
    if (log->stream == nullptr) return std::unexpected(OsError{"open DPDK's log", "", errno, ""});
    ::setvbuf(log->stream, nullptr, _IOLBF, 4096);
    rte_openlog_stream(log->stream);

    // No files are left behind, and nobody else is to attach to this process.
    std::vector<std::string> arguments{"egresswatch", "--lcores=0@(" + allowed_cpus() + ")",
                                       "--no-telemetry"};
    if (config.huge_pages)
        arguments.emplace_back("--in-memory");
    else
        arguments.insert(arguments.end(), {"--no-huge", "--no-shconf"});
    if (memory_mb != 0) arguments.insert(arguments.end(), {"-m", std::to_string(memory_mb)});
    arguments.insert(arguments.end(), config.eal_args.begin(), config.eal_args.end());
    std::vector<char*> argv;
    for (std::string& argument : arguments) argv.push_back(argument.data());
    argv.push_back(nullptr);

    std::unique_ptr<Eal> eal(new Eal(std::move(log)));
    if (rte_eal_init(static_cast<int>(arguments.size()), argv.data()) >= 0) return eal;
    const int error = rte_errno;
    const std::string words = eal->take_words();
    const OsError failed{"start DPDK", words, error, cure_for(words, error, config.huge_pages)};
    // rte_eal_cleanup(3) is for an EAL that started.
    rte_openlog_stream(nullptr);
    ::fclose(std::exchange(eal->log_->stream, nullptr));
    return std::unexpected(failed);
}

Eal::~Eal() {
    if (log_->stream == nullptr) return;
    (void)rte_eal_cleanup();
    rte_openlog_stream(nullptr);
    ::fclose(log_->stream);
}

std::string Eal::take_words() {
    ::fflush(log_->stream);
    const std::lock_guard lock(log_->mutex);
    return std::exchange(log_->words, {});
}

}  // namespace egresswatch::capture
