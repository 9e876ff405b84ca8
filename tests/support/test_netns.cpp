// tests/support/test_netns.cpp
// SPDX-License-Identifier: Apache-2.0
#include "tests/support/test_netns.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <net/if.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/socket.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "capture/ebpf/detach.h"
#include "capture/ebpf/ebpf_engine.h"

namespace egresswatch::test {
namespace {

void need(bool good, const std::string& what) {
    if (good) return;
    std::fprintf(stderr, "test namespaces: %s: %s\n", what.c_str(), std::strerror(errno));
    std::abort();
}

capture::UniqueFd current_netns() {
    capture::UniqueFd fd(::open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC));
    need(static_cast<bool>(fd), "open the network namespace");
    return fd;
}

void private_bpffs() {
    static bool done = false;
    if (done) return;
    done = true;
    need(::unshare(CLONE_NEWNS) == 0, "make a mount namespace");
    need(::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) == 0, "make mounts private");
    need(::mount("bpf", "/sys/fs/bpf", "bpf", 0, nullptr) == 0, "mount a bpffs");
}

}  // namespace

TestNetns::TestNetns() : before_(current_netns()) {
    private_bpffs();
    need(::unshare(CLONE_NEWNET) == 0, "make a network namespace");
    world_ = current_netns();
    need(::unshare(CLONE_NEWNET) == 0, "make a network namespace");
    host_ = current_netns();
    const std::string world_path =
        "/proc/" + std::to_string(::getpid()) + "/fd/" + std::to_string(world_.get());
    const std::string quiet =
        "echo 1 > /proc/sys/net/ipv6/conf/all/disable_ipv6; echo 1 > "
        "/proc/sys/net/ipv6/conf/default/disable_ipv6; ";
    run(quiet +
        "ip link set lo up; ip link add ew0 address 02:00:00:00:00:01 type veth "
        "peer name ew1 address 02:00:00:00:00:02; ip link set ew1 netns " +
        world_path);
    enter_world();
    run(quiet +
        "ip link set lo up; ip address add 10.77.0.2/24 dev ew1; ip link set ew1 up; "
        "ip neigh replace 10.77.0.1 lladdr 02:00:00:00:00:01 dev ew1 nud permanent");
    enter_host();
    run("ip address add 10.77.0.1/24 dev ew0; ip link set ew0 up; "
        "ip neigh replace 10.77.0.2 lladdr 02:00:00:00:00:02 dev ew0 nud permanent; "
        "ip route add default via 10.77.0.2");
}

TestNetns::~TestNetns() {
    // What a test that failed has left pinned would fail those after it.
    if (::setns(host_.get(), CLONE_NEWNET) == 0) (void)capture::detach(capture::PIN_DIR_DEFAULT);
    if (::setns(before_.get(), CLONE_NEWNET) != 0) std::abort();
}

void TestNetns::enter_host() const {
    need(::setns(host_.get(), CLONE_NEWNET) == 0, "enter the host's namespace");
}

void TestNetns::enter_world() const {
    need(::setns(world_.get(), CLONE_NEWNET) == 0, "enter the world's namespace");
}

void TestNetns::run(const std::string& command) {
    const std::string strict = "set -e; " + command;
    // iproute2 and tc live in /sbin, which is not on everybody's path.
    ::setenv("PATH", "/usr/sbin:/usr/bin:/sbin:/bin", 1);
    need(std::system(strict.c_str()) == 0, command);
}

void TestNetns::send_udp(const std::string& to, std::uint16_t port, std::uint16_t source_port,
                         unsigned packets, unsigned payload) {
    const capture::UniqueFd fd(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    need(static_cast<bool>(fd), "open a UDP socket");
    const int yes = 1;
    ::setsockopt(fd.get(), SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
    sockaddr_in local{}, remote{};
    local.sin_family = remote.sin_family = AF_INET;
    local.sin_port = htons(source_port);
    remote.sin_port = htons(port);
    need(::inet_pton(AF_INET, to.c_str(), &remote.sin_addr) == 1, to);
    need(::bind(fd.get(), reinterpret_cast<const sockaddr*>(&local), sizeof local) == 0, "bind");
    const std::vector<char> bytes(payload, 'x');
    for (unsigned i = 0; i < packets; i++)
        need(::sendto(fd.get(), bytes.data(), bytes.size(), 0, reinterpret_cast<const sockaddr*>(&remote),
                      sizeof remote) == static_cast<ssize_t>(payload),
             "send to " + to);
}

std::uint32_t TestNetns::ifindex(const std::string& name) {
    return ::if_nametoindex(name.c_str());
}

}  // namespace egresswatch::test
