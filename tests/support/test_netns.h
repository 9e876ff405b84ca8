// tests/support/test_netns.h - network namespaces of this process alone: gone when it ends, however it ends.
//
// Two namespaces, `host` and `world`, joined by a veth pair: ew0 (10.77.0.1/24) and ew1 (10.77.0.2/24),
// default route of the host through the world, neighbours set by hand, IPv6 off: no packet moves that the
// test did not send. The process also gets a mount namespace with a bpffs at /sys/fs/bpf that nobody else
// sees. SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>

#include "capture/ebpf/os.h"

namespace egresswatch::test {

class TestNetns {
public:
    TestNetns();   // enters `host`; aborts the program where the machine refuses
    ~TestNetns();  // back to where it was

    void enter_host() const;
    void enter_world() const;
    // A shell command in the namespace that was entered last; aborts where it fails.
    static void run(const std::string& command);
    // `packets` UDP datagrams of `payload` bytes from the host's address and `source_port`.
    static void send_udp(const std::string& to, std::uint16_t port, std::uint16_t source_port,
                         unsigned packets, unsigned payload);
    [[nodiscard]] static std::uint32_t ifindex(const std::string& name);

private:
    capture::UniqueFd before_, host_, world_;
};

}  // namespace egresswatch::test
