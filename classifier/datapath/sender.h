// classifier/datapath/sender.h - who sends a flow: shared by kernel and user space, byte for byte.
// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only OR BSD-2-Clause
//
// Rules as in layout.h; a change raises SENDER_LAYOUT_VERSION.
#pragma once

#include "classifier/datapath/types.h"

DATAPATH_BEGIN

enum { SENDER_LAYOUT_VERSION = 1 };

// Who sends a flow, or why nobody can be named. The first says that nothing has been sent yet, or that the
// engine cannot look (capture files, mirror ports).
enum sender_outcome {
    SENDER_UNSEEN = 0,
    SENDER_PROCESS = 1,      // pid, start_ns and exec_id name it
    SENDER_ROUTED = 2,       // came in by an interface: another network namespace, a guest, another host
    SENDER_KERNEL = 3,       // a socket that the kernel made for itself
    SENDER_HANDSHAKE = 4,    // a SYN-ACK, a reset, a last acknowledgement: no whole socket stands behind it
    SENDER_NO_SOCKET = 5,    // made on this host, and no socket with it
    SENDER_OLDER = 6,        // a socket older than the daemon, of which nobody was found who holds it
    SENDER_PACKET = 7,       // a packet socket, used where no process could be seen
    SENDER_DAEMON_AWAY = 8,  // counted while nobody looked: no daemon, or attribution is off
    SENDER_OUTCOME_COUNT = 9
};

// How the process of a flow is known.
enum sender_how {
    HOW_UNKNOWN = 0,
    HOW_SENT = 1,       // seen sending, on a socket that it opened
    HOW_OPENED = 2,     // opened or connected the socket; was not seen sending
    HOW_ACCEPTED = 3,   // seen sending, on a connection that came in
    HOW_LISTENED = 4,   // opened the listening socket; who accepted the connection was not seen
    HOW_INHERITED = 5,  // seen sending, on a socket that another process opened
    HOW_FOUND = 6,      // held the socket when the daemon looked for sockets older than itself
    HOW_COUNT = 7
};

// The sender of a flow, same index as its flow_entry. Written by the CPU that owns the section; a reader may
// meet it half written, which names a process that never was: the next read mends it.
struct flow_sender {
    __u64 start_ns;  // of the process, CLOCK_BOOTTIME
    __u32 pid;       // as the first PID namespace has it; threads count as their process
    __u32 exec_id;   // counts the programs that the process has executed: another one, another executable
    __u32 ingress_ifindex;  // of routed packets
    __u8 outcome;           // enum sender_outcome
    __u8 how;               // enum sender_how
    __u8 changes;           // times that another process was seen sending; stops at 255
    __u8 reserved;
};
LAYOUT_ASSERT(sizeof(struct flow_sender) == 24, "flow_sender");

DATAPATH_END
