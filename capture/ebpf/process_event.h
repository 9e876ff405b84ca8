// capture/ebpf/process_event.h - what the kernel tells of a process, the first time that it uses the network.
// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only OR BSD-2-Clause
//
// Told while the process runs, so that nothing is lost where it ends before anybody looks.
#pragma once

#include "classifier/datapath/types.h"

DATAPATH_BEGIN

enum {
    PATH_DEPTH_MAX = 14,     // names of an executable's path, from its end; deeper ones are cut in front
    PATH_NAME_BYTES = 64,    // of each, with the zero; longer ones are cut, see exe_names_cut
    CGROUP_DEPTH_MAX = 9,    // likewise; Kubernetes needs four, a user's service seven
    CGROUP_NAME_BYTES = 96,  // "cri-containerd-<64>.scope" has 85
    ARGUMENT_BYTES = 512,    // of the command line, as /proc/PID/cmdline has it
    COMMAND_BYTES = 16       // TASK_COMM_LEN
};

struct process_event {
    __u64 start_ns;   // CLOCK_BOOTTIME
    __u64 told_ns;    // likewise: when this was told, and the process ran that file
    __u64 exe_inode;  // 0: no executable is known
    __u64 cgroup_id;
    __u32 pid;
    __u32 exec_id;
    __u32 exe_device;  // major << 20 | minor
    __u32 uid, gid;    // real ones, as the first user namespace has them
    __u32 login_uid;   // 0xffffffff: none
    __u32 session_id;  // 0xffffffff: none
    __u32 mount_namespace;
    __u32 parent_pid;
    __u32 argument_bytes;  // as many as there are; ARGUMENT_BYTES of them are here
    __u8 exe_deleted;      // the file has no name any more
    __u8 has_arguments;    // 0: it was not itself running when this was told
    __u8 exe_depth;        // names used
    __u8 cgroup_depth;
    __u32 exe_names_cut;  // bit i: of name i there is more
    char command[COMMAND_BYTES];
    char parent_command[COMMAND_BYTES];
    char exe_names[PATH_DEPTH_MAX][PATH_NAME_BYTES];         // the last name of the path first
    char cgroup_names[CGROUP_DEPTH_MAX][CGROUP_NAME_BYTES];  // likewise
    char arguments[ARGUMENT_BYTES];
};
LAYOUT_ASSERT(sizeof(struct process_event) == 32 + 48 + 32 + 14 * 64 + 9 * 96 + 512, "process_event");

DATAPATH_END
