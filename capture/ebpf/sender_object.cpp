// capture/ebpf/sender_object.cpp
// SPDX-License-Identifier: Apache-2.0
#include "capture/ebpf/sender_object.h"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <fcntl.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <iterator>
#include <vector>

#include "capture/ebpf/libbpf_words.h"
#include "capture/ebpf/process_event.h"
#include "capture/process/process_cache.h"
#include "capture/process/process_start.h"
#include "capture/process/user_names.h"
#include "sender.skel.h"

namespace egresswatch::capture {
namespace {

constexpr std::uint32_t NO_ID = 0xffffffff;

#ifdef __x86_64__
constexpr std::uint32_t TASK_STACK_BYTES = 16384;  // arch/x86/include/asm/page_64_types.h, THREAD_SIZE
#else
constexpr std::uint32_t TASK_STACK_BYTES = 0;  // only what the sockets say
#endif

std::unexpected<OsError> libbpf_failed(std::string operation, int error, const LibbpfWords& words) {
    return os_error(std::move(operation), "sender", error < 0 ? -error : error,
                    "libbpf says: " + words.tail());
}

// A path from names that begin with the last one. `cut`: there is more in front; bit i of `names_cut`: of
// name i. Either way it begins with "...", and is equal to no path that a rule names.
template <std::size_t Names, std::size_t Bytes>
std::string path_of(const char (&names)[Names][Bytes], std::size_t depth, bool cut,
                    std::uint32_t names_cut = 0) {
    std::string path = cut || names_cut != 0 ? "..." : "";
    for (std::size_t i = std::min(depth, Names); i-- > 0;) {
        path.append("/").append(names[i], ::strnlen(names[i], Bytes));
        if ((names_cut >> i & 1) != 0) path += "...";
    }
    return path;
}

template <std::size_t Bytes>
std::string text_of(const char (&text)[Bytes]) {
    return {text, ::strnlen(text, Bytes)};
}

Process process_of(const datapath::process_event& event, UserNames& users, ArgumentPolicy policy) {
    Process process;
    process.id = {event.start_ns, event.pid, event.exec_id};
    process.command = text_of(event.command);
    process.executable = path_of(event.exe_names, event.exe_depth,
                                 event.exe_depth >= datapath::PATH_DEPTH_MAX, event.exe_names_cut);
    process.executable_deleted = event.exe_deleted != 0;
    process.uid = event.uid;
    process.gid = event.gid;
    process.user = users.name_of(event.uid);
    if (event.login_uid != NO_ID) process.login_uid = event.login_uid;
    if (event.session_id != NO_ID) process.session_id = event.session_id;
    process.cgroup =
        path_of(event.cgroup_names, event.cgroup_depth, event.cgroup_depth >= datapath::CGROUP_DEPTH_MAX);
    if (process.cgroup.empty()) process.cgroup = "/";
    process.names = names_of_cgroup(process.cgroup);
    process.parent_pid = event.parent_pid;
    process.parent_command = text_of(event.parent_command);
    process.mount_namespace = event.mount_namespace;
    if (event.has_arguments != 0) {
        const std::size_t bytes = std::min<std::size_t>(event.argument_bytes, datapath::ARGUMENT_BYTES);
        process.command_line = command_line_of({event.arguments, bytes}, policy);
        process.command_line_cut = event.argument_bytes > datapath::ARGUMENT_BYTES;
    }
    return process;
}

// Of a process that did not run when it was told of; without CAP_SYS_PTRACE it may be hidden from us.
void read_arguments(Process& process, ArgumentPolicy policy) {
    if (policy == ArgumentPolicy::none) return;
    std::ifstream file("/proc/" + std::to_string(process.id.pid) + "/cmdline", std::ios::binary);
    std::string words(datapath::ARGUMENT_BYTES + 1, '\0');
    file.read(words.data(), static_cast<std::streamsize>(words.size()));
    words.resize(static_cast<std::size_t>(std::max<std::streamsize>(file.gcount(), 0)));
    if (!runs_still(process.id)) return;  // another one's, perhaps
    process.command_line_cut = words.size() > datapath::ARGUMENT_BYTES;
    if (process.command_line_cut) words.resize(datapath::ARGUMENT_BYTES);
    process.command_line = command_line_of(words, policy);
}

int reuse_maps(sender_bpf* skeleton, const SharedMaps& maps) {
    int failed = bpf_map__reuse_fd(skeleton->maps.flows, maps.flows.get());
    if (!failed) failed = bpf_map__reuse_fd(skeleton->maps.senders, maps.senders.get());
    if (!failed) failed = bpf_map__reuse_fd(skeleton->maps.sections, maps.sections.get());
    if (!failed) failed = bpf_map__reuse_fd(skeleton->maps.losses, maps.losses.get());
    if (!failed) failed = bpf_map__reuse_fd(skeleton->maps.events, maps.events.get());
    return failed;
}

struct FreeLink {
    void operator()(bpf_link* link) const noexcept { bpf_link__destroy(link); }
};
using Link = std::unique_ptr<bpf_link, FreeLink>;

}  // namespace

// Fields of a line: id parent device root MOUNT-POINT options [tags] - TYPE source options (proc(5)).
std::string cgroup2_mount(std::string_view mountinfo) {
    while (!mountinfo.empty()) {
        const auto end = mountinfo.find('\n');
        const std::string_view line = mountinfo.substr(0, end);
        mountinfo.remove_prefix(end == std::string_view::npos ? mountinfo.size() : end + 1);
        if (line.find(" - cgroup2 ") == std::string_view::npos) continue;
        std::string_view rest = line;
        for (int field = 0; field < 4; field++)
            rest.remove_prefix(std::min(rest.find(' '), rest.size() - 1) + 1);
        return std::string(rest.substr(0, rest.find(' ')));
    }
    return {};
}

struct SenderObject::State {
    struct Destroy {
        void operator()(sender_bpf* loaded) const noexcept { sender_bpf::destroy(loaded); }
    };
    struct FreeRing {
        void operator()(ring_buffer* made) const noexcept { ring_buffer__free(made); }
    };
    struct Reading {
        ProcessCache* cache = nullptr;
        UserNames* users = nullptr;
        ArgumentPolicy policy = ArgumentPolicy::none;
    };
    std::unique_ptr<sender_bpf, Destroy> skeleton;
    std::vector<Link> links;
    std::unique_ptr<ring_buffer, FreeRing> ring;
    Reading reading;
    int sender_prog = -1;  // the map

    ~State() {
        // Without this the program would live on in the array, with nobody to read what it tells.
        const std::uint32_t zero = 0;
        if (sender_prog >= 0) bpf_map_delete_elem(sender_prog, &zero);
    }
    std::expected<void, OsError> attach();
    static int on_process(void* self, void* data, std::size_t bytes);
};

int SenderObject::State::on_process(void* self, void* data, std::size_t bytes) {
    const Reading& reading = static_cast<State*>(self)->reading;
    if (bytes < sizeof(datapath::process_event) || reading.cache == nullptr) return 0;
    const auto& event = *static_cast<const datapath::process_event*>(data);
    Process process = process_of(event, *reading.users, reading.policy);
    if (event.has_arguments == 0) read_arguments(process, reading.policy);
    reading.cache->add(std::move(process), event.exe_inode, event.exe_device, event.told_ns);
    return 0;
}

std::expected<void, OsError> SenderObject::State::attach() {
    std::ifstream file("/proc/self/mountinfo");
    const std::string mountinfo((std::istreambuf_iterator<char>(file)), {});
    const std::string root = cgroup2_mount(mountinfo);
    if (root.empty()) return os_error("find cgroup v2", "/proc/self/mountinfo", 0, "mount it");
    const UniqueFd directory(::open(root.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    if (!directory) return os_error("open the root of cgroup v2", root, errno);
    for (const bpf_program* program :
         {skeleton->progs.ew_socket, skeleton->progs.ew_connect4, skeleton->progs.ew_connect6,
          skeleton->progs.ew_sendmsg4, skeleton->progs.ew_sendmsg6}) {
        Link link(bpf_program__attach_cgroup(program, directory.get()));
        if (!link) return os_error("attach to the cgroups", bpf_program__name(program), errno);
        links.push_back(std::move(link));
    }
    return {};
}

SenderObject::SenderObject(std::unique_ptr<State> state) : state_(std::move(state)) {}
SenderObject::~SenderObject() = default;

std::expected<std::unique_ptr<SenderObject>, OsError> SenderObject::load(const SharedMaps& maps,
                                                                         std::uint32_t flow_slots) {
    const LibbpfWords words;
    auto state = std::make_unique<State>();
    state->skeleton.reset(sender_bpf::open());
    if (!state->skeleton) return libbpf_failed("open the BPF object", errno, words);
    state->skeleton->rodata->flow_slots = flow_slots;
    state->skeleton->rodata->task_stack_bytes = TASK_STACK_BYTES;
    if (const int failed = reuse_maps(state->skeleton.get(), maps))
        return libbpf_failed("share the engine's maps", failed, words);
    if (const int failed = sender_bpf::load(state->skeleton.get()))
        return libbpf_failed("load the BPF programs", failed, words);
    State* made = state.get();
    state->ring.reset(
        ring_buffer__new(bpf_map__fd(state->skeleton->maps.processes), State::on_process, made, nullptr));
    if (!state->ring) return os_error("open the process ring", "processes", errno);
    if (auto attached = state->attach(); !attached) return std::unexpected(attached.error());
    const std::uint32_t zero = 0;
    const int program = bpf_program__fd(state->skeleton->progs.ew_sender);
    if (bpf_map_update_elem(maps.sender_prog.get(), &zero, &program, BPF_ANY) != 0)
        return os_error("put the sender's program in place", "sender_prog", errno);
    state->sender_prog = maps.sender_prog.get();
    return std::unique_ptr<SenderObject>(new SenderObject(std::move(state)));
}

std::expected<void, OsError> SenderObject::look_for_older_sockets() {
    const LibbpfWords words;
    const Link link(bpf_program__attach_iter(state_->skeleton->progs.ew_older, nullptr));
    if (!link) return libbpf_failed("attach the iterator of open files", errno, words);
    const UniqueFd iterator(bpf_iter_create(bpf_link__fd(link.get())));
    if (!iterator) return os_error("make the iterator of open files", "ew_older", errno);
    char nothing[64];
    while (::read(iterator.get(), nothing, sizeof nothing) > 0) continue;
    return {};
}

int SenderObject::fd() const noexcept {
    return ring_buffer__epoll_fd(state_->ring.get());
}

void SenderObject::read_processes(ProcessCache& cache, UserNames& users, ArgumentPolicy policy) {
    state_->reading = {&cache, &users, policy};
    ring_buffer__consume(state_->ring.get());
    state_->reading = {};
}

void SenderObject::forget(std::uint32_t pid) noexcept {
    bpf_map_delete_elem(bpf_map__fd(state_->skeleton->maps.announced), &pid);
}

std::uint64_t SenderObject::lost() const noexcept {
    std::uint64_t count = 0;
    (void)sum_per_cpu(bpf_map__fd(state_->skeleton->maps.process_losses), 0, {&count, 1});
    return count;
}

}  // namespace egresswatch::capture
