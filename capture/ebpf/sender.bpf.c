// capture/ebpf/sender.bpf.c - who sends: which process stands behind a flow, or why none can be named.
// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
//
// In:   tail calls of the egress programs (new flows, news of flows, sender_due()); socket(), connect() and
//       sendto() of every cgroup; open files, once, when the daemon starts.
// Out:  `senders`, then the event that was due; process_events.
// A flow's sender is the process that runs while its packet passes the hook, where that is a process at all
// and not an interrupt: it calls send(). Else it is what the socket's storage says: who was seen sending on
// it last, else who opened it. Kernel structures are read by CO-RE; only the members named below. Where the
// kernel lets none of this in, the tc programs count as ever and senders stay unseen.
#include <linux/bpf.h>
#include <linux/pkt_cls.h>

#include <bpf/bpf_helpers.h>

#include <bpf/bpf_core_read.h>
#include <bpf/bpf_tracing.h>

#include "capture/ebpf/process_event.h"
#include "classifier/datapath/layout.h"

typedef struct __sk_buff* platform_ctx;
#include "capture/ebpf/shared_maps.h"
#include "classifier/datapath/section.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

#define KERNEL __attribute__((preserve_access_index))

// include/linux, as far as it is read here.
typedef struct {
    __u32 val;
} kernel_id;
struct qstr {
    union {
        struct {
            __u32 hash, len;
        };
        __u64 hash_len;
    };
    const unsigned char* name;
} KERNEL;
struct super_block {
    __u32 s_dev;
} KERNEL;
struct inode {
    unsigned long i_ino;
    unsigned int i_nlink;
    struct super_block* i_sb;
} KERNEL;
struct dentry {
    struct dentry* d_parent;
    struct qstr d_name;
} KERNEL;
struct vfsmount {
    struct dentry* mnt_root;
} KERNEL;
struct mount {
    struct mount* mnt_parent;
    struct dentry* mnt_mountpoint;
    struct vfsmount mnt;
} KERNEL;
struct path {
    struct vfsmount* mnt;
    struct dentry* dentry;
} KERNEL;
struct file {
    struct path f_path;
    struct inode* f_inode;
} KERNEL;
struct mm_struct {
    struct file* exe_file;
    unsigned long arg_start, arg_end;
} KERNEL;
struct cred {
    kernel_id uid, gid;
} KERNEL;
struct ns_common {
    unsigned int inum;
} KERNEL;
struct mnt_namespace {
    struct ns_common ns;
} KERNEL;
struct nsproxy {
    struct mnt_namespace* mnt_ns;
} KERNEL;
struct kernfs_node {
    struct kernfs_node* parent;
    const char* name;
    __u64 id;
} KERNEL;
struct kernfs_node___renamed {  // Linux 6.15
    struct kernfs_node* __parent;
} KERNEL;
struct cgroup {
    struct kernfs_node* kn;
} KERNEL;
struct css_set {
    struct cgroup* dfl_cgrp;
} KERNEL;
struct task_struct {
    unsigned int flags;
    int pid, tgid;
    __u64 start_boottime;
    __u64 self_exec_id;
    void* stack;
    struct task_struct *group_leader, *real_parent;
    struct mm_struct* mm;
    const struct cred* cred;
    struct nsproxy* nsproxy;
    struct css_set* cgroups;
    kernel_id loginuid;
    unsigned int sessionid;
    char comm[COMMAND_BYTES];
} KERNEL;
struct sock {
    __u8 sk_kern_sock : 1;
} KERNEL;
struct socket {
    struct sock* sk;
} KERNEL;
struct bpf_iter_meta {
    __u64 seq_num;
} KERNEL;
struct bpf_iter__task_file {
    struct bpf_iter_meta* meta;
    struct task_struct* task;
    __u32 fd;
    struct file* file;
} KERNEL;
// Of a task's kernel stack, set before load; 0: this machine's stacks do not tell, see running_process().
const volatile __u32 task_stack_bytes = 0;

enum {
    PF_KTHREAD = 0x00200000,  // include/linux/sched.h
    STACK_PADDING = 16,  // arch/x86/include/asm/thread_info.h: above the registers, where built with FRED
    AF_INET = 2,
    AF_INET6 = 10,
    AF_PACKET = 17,
    ANNOUNCED_MAX = 16384
};

// What is known of a socket. key: the socket. Lives and dies with it; an accepted socket begins with a copy
// of the listening one's, whose cookie tells. Memory: 64 B and the kernel's own. Writer and reader: these
// programs. When full: no memory; the socket stays without, and the flow with what is seen at the hook.
struct socket_owner {
    __u64 start_ns;
    __u64 cookie;
    __u32 pid, exec_id;
    __u32 opener_pid;
    __u8 how;
    __u8 reserved[3];
};
struct {
    __uint(type, BPF_MAP_TYPE_SK_STORAGE);
    __uint(map_flags, BPF_F_NO_PREALLOC | BPF_F_CLONE);
    __type(key, int);
    __type(value, struct socket_owner);
} socket_owners SEC(".maps");

// Which processes user space was told of. key: pid. Memory: 40 B an entry, 640 KiB. When full: forgets the
// one that was asked for longest ago, which is told again.
struct announced {
    __u64 start_ns;
    __u32 exec_id, uid;
};
struct {
    __uint(type, BPF_MAP_TYPE_LRU_HASH);
    __uint(max_entries, ANNOUNCED_MAX);
    __type(key, __u32);
    __type(value, struct announced);
} announced SEC(".maps");

// value: struct process_event, 2.4 KiB. 2 MiB: 850 processes between two looks.
// When full: the loss is counted in process_losses, and the process is told of again at its next use.
struct {
    __uint(type, BPF_MAP_TYPE_RINGBUF);
    __uint(max_entries, 1 << 21);
} processes SEC(".maps");

// key: 0. Process events that found no room.
struct {
    __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
    __uint(max_entries, 1);
    __type(key, __u32);
    __type(value, __u64);
} process_losses SEC(".maps");

struct identity {
    __u64 start_ns;
    __u32 pid, exec_id;
};

static __always_inline struct identity identity_of(struct task_struct* task) {
    struct identity who;
    who.start_ns = task->group_leader->start_boottime;
    who.pid = (__u32)task->tgid;
    who.exec_id = (__u32)task->self_exec_id;
    return who;
}

// What user space had in its registers when it entered the kernel, as far as it is asked for here: the end of
// struct pt_regs on x86-64 (arch/x86/include/asm/ptrace.h), which ends where the task's stack does.
struct entry_frame {
    __u64 orig_ax;  // number of the system call; -1: an interrupt or an exception
    __u64 ip, cs, flags, sp, ss;
};

static __always_inline int in_system_call(__u64 stack_end) {
    struct entry_frame frame;
    if (bpf_probe_read_kernel(&frame, sizeof frame, (void*)(stack_end - sizeof frame)) != 0) return 0;
    // __USER_CS and __USER32_CS (arch/x86/include/asm/segment.h): else these are not the registers.
    __u16 selector = (__u16)frame.cs;  // FRED keeps more above it
    return (selector == 0x33 || selector == 0x23) && (__s64)frame.orig_ax >= 0;
}

// Through memory a pointer becomes a number, with which the verifier lets us reckon.
static __always_inline __u64 number_of(struct section_state* section, const volatile void* pointer) {
    *(volatile __u64*)&section->number = (__u64)pointer;
    return *(volatile __u64*)&section->number;
}

// The process whose system call this packet is sent in, or NULL: then whoever runs has nothing to do with it.
// No helper tells an interrupt from a system call, but the stack does: on x86-64 soft interrupts that come
// upon the kernel run on a stack of their own, and those that come upon user space have no system call
// beneath them.
static __always_inline struct task_struct* running_process(struct section_state* section) {
    struct task_struct* task = bpf_get_current_task_btf();
    char here = 0;
    if (!task_stack_bytes) return 0;
    __u64 frame = number_of(section, &here);
    __u64 stack = (__u64)task->stack;
    __u64 end = stack + task_stack_bytes;
    if (frame < stack || frame >= end) return 0;
    if (task->flags & PF_KTHREAD) return 0;
    return in_system_call(end) || in_system_call(end - STACK_PADDING) ? task : 0;
}

// The path from its end, over the mounts on the way up. Its depth is kept in memory that the verifier does
// not track: as a register it doubles the states of each turn, and the program costs half a second to load.
static __always_inline void read_executable(struct process_event* event, struct file* file) {
    struct vfsmount* vfsmount = BPF_CORE_READ(file, f_path.mnt);
    struct dentry* dentry = BPF_CORE_READ(file, f_path.dentry);
    struct mount* mount = (struct mount*)((char*)vfsmount - bpf_core_field_offset(struct mount, mnt));
    volatile __u8* kept = &event->exe_depth;
    volatile __u32* cut = &event->exe_names_cut;
    for (__u32 i = 0; i < PATH_DEPTH_MAX + 6; i++) {
        struct dentry* parent = BPF_CORE_READ(dentry, d_parent);
        if (dentry == BPF_CORE_READ(mount, mnt.mnt_root) || dentry == parent) {
            struct mount* above = BPF_CORE_READ(mount, mnt_parent);
            if (above == mount) break;
            dentry = BPF_CORE_READ(mount, mnt_mountpoint);
            mount = above;
            continue;
        }
        __u32 depth = *kept;
        if (depth >= PATH_DEPTH_MAX) break;
        bpf_probe_read_kernel_str(event->exe_names[depth], PATH_NAME_BYTES,
                                  BPF_CORE_READ(dentry, d_name.name));
        // A difference below zero has the highest bit: no branch, which would double the states.
        *cut |= (PATH_NAME_BYTES - 1 - BPF_CORE_READ(dentry, d_name.len)) >> 31 << depth;
        *kept = (__u8)(depth + 1);
        dentry = parent;
    }
    event->exe_inode = BPF_CORE_READ(file, f_inode, i_ino);
    event->exe_device = BPF_CORE_READ(file, f_inode, i_sb, s_dev);
    event->exe_deleted = BPF_CORE_READ(file, f_inode, i_nlink) == 0;
}

static __always_inline void read_cgroup(struct process_event* event, struct task_struct* task) {
    struct kernfs_node* node = BPF_CORE_READ(task, cgroups, dfl_cgrp, kn);
    event->cgroup_id = BPF_CORE_READ(node, id);
    __u32 depth = 0;
    for (; depth < CGROUP_DEPTH_MAX; depth++) {
        struct kernfs_node* parent;
        struct kernfs_node___renamed* renamed = (struct kernfs_node___renamed*)node;
        if (bpf_core_field_exists(renamed->__parent))
            parent = BPF_CORE_READ(renamed, __parent);
        else
            parent = BPF_CORE_READ(node, parent);
        if (!parent) break;
        bpf_probe_read_kernel_str(event->cgroup_names[depth], CGROUP_NAME_BYTES, BPF_CORE_READ(node, name));
        node = parent;
    }
    event->cgroup_depth = (__u8)depth;
}

// Tells user space of a process, once. Returns nothing: where there is no room, its next use tells.
static __noinline int announce(struct task_struct* task, int is_running) {
    if (!task) return 0;
    struct identity who = identity_of(task);
    __u32 uid = task->cred->uid.val;
    struct announced* before = (struct announced*)bpf_map_lookup_elem(&announced, &who.pid);
    if (before && before->start_ns == who.start_ns && before->exec_id == who.exec_id && before->uid == uid)
        return 0;
    struct process_event* event = (struct process_event*)bpf_ringbuf_reserve(&processes, sizeof *event, 0);
    if (!event) {
        __u32 zero = 0;
        __u64* lost = (__u64*)bpf_map_lookup_elem(&process_losses, &zero);
        if (lost) *lost += 1;
        return 0;
    }
    event->start_ns = who.start_ns;
    event->told_ns = bpf_ktime_get_boot_ns();
    event->pid = who.pid;
    event->exec_id = who.exec_id;
    event->uid = uid;
    event->gid = BPF_CORE_READ(task, cred, gid.val);
    event->login_uid = event->session_id = 0xffffffff;
    if (bpf_core_field_exists(task->loginuid)) {
        event->login_uid = BPF_CORE_READ(task, loginuid.val);
        event->session_id = BPF_CORE_READ(task, sessionid);
    }
    event->mount_namespace = BPF_CORE_READ(task, nsproxy, mnt_ns, ns.inum);
    struct task_struct* parent = BPF_CORE_READ(task, group_leader, real_parent);
    event->parent_pid = (__u32)BPF_CORE_READ(parent, tgid);
    event->exe_names_cut = 0;
    bpf_probe_read_kernel_str(event->command, COMMAND_BYTES, &task->group_leader->comm);
    bpf_probe_read_kernel_str(event->parent_command, COMMAND_BYTES, &parent->comm);
    event->exe_depth = event->exe_deleted = event->has_arguments = 0;
    event->exe_inode = 0;
    event->exe_device = 0;
    event->argument_bytes = 0;
    struct mm_struct* mm = BPF_CORE_READ(task, mm);
    if (mm) {
        struct file* file = BPF_CORE_READ(mm, exe_file);
        if (file) read_executable(event, file);
        unsigned long start = BPF_CORE_READ(mm, arg_start);
        unsigned long bytes = BPF_CORE_READ(mm, arg_end) - start;
        __u32 size = bytes < ARGUMENT_BYTES ? (__u32)bytes : ARGUMENT_BYTES;
        asm volatile("" : "+r"(size));  // the verifier has to see the bound on the register that is used
        if (is_running && size > 0 && size <= ARGUMENT_BYTES &&
            bpf_probe_read_user(event->arguments, size, (void*)start) == 0) {
            event->has_arguments = 1;
            event->argument_bytes = (__u32)bytes;
        }
    }
    read_cgroup(event, task);
    bpf_ringbuf_submit(event, 0);
    struct announced now = {who.start_ns, who.exec_id, uid};
    bpf_map_update_elem(&announced, &who.pid, &now, BPF_ANY);
    return 0;
}

static __always_inline int is_same(const struct socket_owner* owner, const struct identity* who) {
    return owner->start_ns == who->start_ns && owner->pid == who->pid && owner->exec_id == who->exec_id;
}

// A process was seen using the socket.
static __always_inline void use_socket(struct socket_owner* owner, const struct identity* who, __u64 cookie,
                                       __u8 how) {
    if (owner->cookie != cookie) {  // new, or a copy of the listening socket's
        owner->how = owner->cookie == 0 ? how : HOW_ACCEPTED;
        owner->opener_pid = who->pid;
        owner->cookie = cookie;
    } else if (!is_same(owner, who)) {
        owner->how = who->pid == owner->opener_pid ? HOW_SENT : HOW_INHERITED;
    } else if (owner->how == HOW_OPENED || owner->how == HOW_FOUND) {
        owner->how = how;
    }
    owner->start_ns = who->start_ns;
    owner->pid = who->pid;
    owner->exec_id = who->exec_id;
}

static __always_inline void name_sender(struct flow_sender* sender, const struct socket_owner* owner,
                                        __u8 how) {
    if (sender->pid != 0 && (sender->pid != owner->pid || sender->start_ns != owner->start_ns) &&
        sender->changes != 255)
        sender->changes++;
    sender->start_ns = owner->start_ns;
    sender->pid = owner->pid;
    sender->exec_id = owner->exec_id;
    sender->how = how;
    sender->outcome = SENDER_PROCESS;
}

// Nobody can be named. What was found out before about the same flow is better than nothing.
static __always_inline void name_nobody(struct flow_sender* sender, __u8 outcome) {
    if (sender->outcome == SENDER_UNSEEN || sender->outcome == SENDER_HANDSHAKE) sender->outcome = outcome;
}

static __always_inline void find_sender(struct __sk_buff* skb, struct section_state* section,
                                        struct flow_sender* sender) {
    struct bpf_sock* any = skb->sk;
    if (!any) {
        sender->ingress_ifindex = skb->ingress_ifindex;
        name_nobody(sender, skb->ingress_ifindex ? SENDER_ROUTED : SENDER_NO_SOCKET);
        return;
    }
    struct bpf_sock* socket = bpf_sk_fullsock(any);
    if (!socket) {
        name_nobody(sender, SENDER_HANDSHAKE);
        return;
    }
    struct task_struct* task = running_process(section);
    __u32 family = socket->family;
    struct sock* sock = (struct sock*)number_of(section, socket);
    if (BPF_CORE_READ_BITFIELD_PROBED(sock, sk_kern_sock)) {
        name_nobody(sender, SENDER_KERNEL);
        return;
    }
    __u64 cookie = bpf_get_socket_cookie(skb);
    struct socket_owner* owner = (struct socket_owner*)bpf_sk_storage_get(
        &socket_owners, socket, 0, task ? BPF_SK_STORAGE_GET_F_CREATE : 0);
    if (task) {
        struct identity who = identity_of(task);
        struct socket_owner seen = {};
        if (owner) {
            use_socket(owner, &who, cookie, HOW_SENT);
            name_sender(sender, owner, owner->how);
        } else {
            use_socket(&seen, &who, cookie, HOW_SENT);
            name_sender(sender, &seen, seen.how);
        }
        announce(task, 1);
    } else if (owner && owner->pid != 0) {
        name_sender(sender, owner, owner->cookie == cookie ? owner->how : HOW_LISTENED);
    } else {
        name_nobody(sender, family == AF_PACKET ? SENDER_PACKET : SENDER_OLDER);
    }
}

SEC("tc")
int ew_sender(struct __sk_buff* skb) {
    __u32 zero = 0;
    struct section_state* section = (struct section_state*)bpf_map_lookup_elem(&sections, &zero);
    if (!section) return TC_ACT_UNSPEC;
    __u32 slot = section->wish_slot;
    __u32 event = section->wish_event;
    if (slot >= flow_slots) return TC_ACT_UNSPEC;
    __u32 key = bpf_get_smp_processor_id() * flow_slots + slot;
    struct flow_entry* entry = (struct flow_entry*)bpf_map_lookup_elem(&flows, &key);
    struct flow_sender* sender = (struct flow_sender*)bpf_map_lookup_elem(&senders, &key);
    if (!entry || !sender) return TC_ACT_UNSPEC;
    find_sender(skb, section, sender);
    if (event)
        send_event(skb, event, slot, &entry->head.key, entry->counts.bytes_out, bpf_ktime_get_coarse_ns());
    return TC_ACT_UNSPEC;
}

// A process uses a socket; `how` says for what. Kernel sockets do not come here.
static __always_inline void note(void* socket, __u64 cookie, __u8 how) {
    struct task_struct* task = bpf_get_current_task_btf();
    if (task->flags & PF_KTHREAD) return;
    struct socket_owner* owner =
        (struct socket_owner*)bpf_sk_storage_get(&socket_owners, socket, 0, BPF_SK_STORAGE_GET_F_CREATE);
    if (!owner) return;
    struct identity who = identity_of(task);
    if (owner->cookie == cookie && is_same(owner, &who)) return;
    use_socket(owner, &who, cookie, how);
    announce(task, 1);
}

SEC("cgroup/sock_create")
int ew_socket(struct bpf_sock* socket) {
    if (socket->family == AF_INET || socket->family == AF_INET6)
        note(socket, bpf_get_socket_cookie(socket), HOW_OPENED);
    return 1;
}

SEC("cgroup/connect4")
int ew_connect4(struct bpf_sock_addr* address) {
    if (address->sk) note(address->sk, bpf_get_socket_cookie(address), HOW_OPENED);
    return 1;
}

SEC("cgroup/connect6")
int ew_connect6(struct bpf_sock_addr* address) {
    if (address->sk) note(address->sk, bpf_get_socket_cookie(address), HOW_OPENED);
    return 1;
}

SEC("cgroup/sendmsg4")
int ew_sendmsg4(struct bpf_sock_addr* address) {
    if (address->sk) note(address->sk, bpf_get_socket_cookie(address), HOW_SENT);
    return 1;
}

SEC("cgroup/sendmsg6")
int ew_sendmsg6(struct bpf_sock_addr* address) {
    if (address->sk) note(address->sk, bpf_get_socket_cookie(address), HOW_SENT);
    return 1;
}

// Sockets older than the daemon: whoever has one open is taken for its owner.
SEC("iter/task_file")
int ew_older(struct bpf_iter__task_file* at) {
    struct task_struct* task = at->task;
    struct file* file = at->file;
    if (!task || !file) return 0;
    struct socket* socket = (struct socket*)bpf_sock_from_file((void*)file);
    if (!socket) return 0;
    struct sock* sock = socket->sk;
    if (!sock) return 0;
    struct socket_owner* owner =
        (struct socket_owner*)bpf_sk_storage_get(&socket_owners, (void*)sock, 0, BPF_SK_STORAGE_GET_F_CREATE);
    if (!owner || owner->pid != 0) return 0;
    struct identity who = identity_of(task);
    use_socket(owner, &who, bpf_get_socket_cookie((void*)sock), HOW_FOUND);
    return announce(task, 0);
}
