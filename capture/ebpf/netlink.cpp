// capture/ebpf/netlink.cpp
// SPDX-License-Identifier: Apache-2.0
#include "capture/ebpf/netlink.h"

#include <fnmatch.h>
#include <linux/if_arp.h>
#include <linux/if_link.h>
#include <linux/net_namespace.h>
#include <linux/netlink.h>
#include <linux/pkt_sched.h>
#include <linux/rtnetlink.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <functional>
#include <memory>

namespace egresswatch::capture {
namespace {

constexpr std::size_t MESSAGE_BYTES_MAX = 64 * 1024;  // the kernel's dumps fill at most 32 KiB a message
constexpr const char* ALL_PHYSICAL = "all-physical";
constexpr int SOCKET_BUFFER_BYTES = 1 << 20;

std::expected<UniqueFd, OsError> open_socket(std::uint32_t groups) {
    UniqueFd fd(::socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE));
    if (!fd) return os_error("open an rtnetlink socket", {}, errno);
    ::setsockopt(fd.get(), SOL_SOCKET, SO_RCVBUF, &SOCKET_BUFFER_BYTES, sizeof SOCKET_BUFFER_BYTES);
    sockaddr_nl address{};
    address.nl_family = AF_NETLINK;
    address.nl_groups = groups;
    if (::bind(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0)
        return os_error("bind the rtnetlink socket", {}, errno);
    return fd;
}

using Visit = std::function<void(const nlmsghdr&)>;

// One datagram. Returns 0: read, go on; NLMSG_DONE as 1: the dump is complete; otherwise -errno.
int receive(int fd, int flags, const Visit& visit) {
    // On the heap: what a program declares thread_local is taken from the stack of every thread, those of
    // libraries too.
    static thread_local const auto buffer = std::make_unique<char[]>(MESSAGE_BYTES_MAX);
    const ssize_t received = ::recv(fd, buffer.get(), MESSAGE_BYTES_MAX, flags);
    if (received < 0) return -errno;
    auto bytes = static_cast<std::uint32_t>(received);
    for (const auto* message = reinterpret_cast<const nlmsghdr*>(buffer.get()); NLMSG_OK(message, bytes);
         message = NLMSG_NEXT(message, bytes)) {
        if (message->nlmsg_type == NLMSG_DONE) return 1;
        if (message->nlmsg_type == NLMSG_ERROR) {
            const auto* error = static_cast<const nlmsgerr*>(NLMSG_DATA(message));
            return error->error < 0 ? error->error : 1;
        }
        visit(*message);
    }
    return 0;
}

int receive_all(int fd, const Visit& visit) {
    int state = 0;
    while (state == 0 || state == -EINTR) state = receive(fd, 0, visit);
    return state > 0 ? 0 : state;
}

const rtattr* find_attribute(const rtattr* attribute, int bytes, int type) {
    for (; RTA_OK(attribute, bytes); attribute = RTA_NEXT(attribute, bytes))
        if ((attribute->rta_type & NLA_TYPE_MASK) == type) return attribute;
    return nullptr;
}

std::string text_of(const rtattr* attribute) {
    const auto* text = static_cast<const char*>(RTA_DATA(attribute));
    return {text, ::strnlen(text, RTA_PAYLOAD(attribute))};
}

void add_link(const nlmsghdr& message, std::vector<LinkNews>& links) {
    if (message.nlmsg_type != RTM_NEWLINK && message.nlmsg_type != RTM_DELLINK) return;
    const auto* info = static_cast<const ifinfomsg*>(NLMSG_DATA(&message));
    // A bridge tells of its ports in its own family, with RTM_DELLINK when a port leaves: not of the device.
    if (info->ifi_family != AF_UNSPEC) return;
    LinkNews link;
    link.ifindex = static_cast<std::uint32_t>(info->ifi_index);
    link.arphrd = info->ifi_type;
    link.gone = message.nlmsg_type == RTM_DELLINK;
    const rtattr* first = IFLA_RTA(info);
    const auto bytes = static_cast<int>(IFLA_PAYLOAD(&message));
    if (const rtattr* name = find_attribute(first, bytes, IFLA_IFNAME)) link.name = text_of(name);
    if (const rtattr* address = find_attribute(first, bytes, IFLA_ADDRESS);
        address != nullptr && RTA_PAYLOAD(address) == link.address.size())
        std::memcpy(link.address.data(), RTA_DATA(address), link.address.size());
    if (const rtattr* mtu = find_attribute(first, bytes, IFLA_MTU);
        mtu != nullptr && RTA_PAYLOAD(mtu) == sizeof link.mtu)
        std::memcpy(&link.mtu, RTA_DATA(mtu), sizeof link.mtu);
    if (const rtattr* details = find_attribute(first, bytes, IFLA_LINKINFO))
        if (const rtattr* kind = find_attribute(static_cast<const rtattr*>(RTA_DATA(details)),
                                                static_cast<int>(RTA_PAYLOAD(details)), IFLA_INFO_KIND))
            link.kind = text_of(kind);
    links.push_back(std::move(link));
}

template <typename Body>
bool request_dump(int fd, std::uint16_t type, const Body& body) {
    struct {
        nlmsghdr header;
        Body body;
    } request{};
    request.header.nlmsg_len = sizeof request;
    request.header.nlmsg_type = type;
    request.header.nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP;
    request.body = body;
    return ::send(fd, &request, sizeof request, 0) == static_cast<ssize_t>(sizeof request);
}

}  // namespace

bool interface_wanted(const std::vector<std::string>& patterns, const LinkNews& link) {
    for (const std::string& pattern : patterns) {
        if (pattern == link.name) return true;
        if (link.arphrd == ARPHRD_LOOPBACK) continue;
        if (pattern == ALL_PHYSICAL) {
            if (link.arphrd == ARPHRD_ETHER && link.kind.empty()) return true;
        } else if (::fnmatch(pattern.c_str(), link.name.c_str(), 0) == 0) {
            return true;
        }
    }
    return false;
}

std::expected<LinkWatcher, OsError> LinkWatcher::open() {
    auto fd = open_socket(RTMGRP_LINK);
    if (!fd) return std::unexpected(fd.error());
    LinkWatcher watcher;
    watcher.fd_ = std::move(*fd);
    return watcher;
}

std::expected<std::vector<LinkNews>, OsError> LinkWatcher::all() {
    // On a socket of its own: the answer must not mix with the news.
    auto fd = open_socket(0);
    if (!fd) return std::unexpected(fd.error());
    ifinfomsg body{};
    body.ifi_family = AF_UNSPEC;
    if (!request_dump(fd->get(), RTM_GETLINK, body)) return os_error("ask for the interfaces", {}, errno);
    std::vector<LinkNews> links;
    if (const int failed = receive_all(fd->get(), [&](const nlmsghdr& message) { add_link(message, links); });
        failed != 0)
        return os_error("read the interfaces", {}, failed);
    return links;
}

std::expected<LinkWatcher::News, OsError> LinkWatcher::read() {
    News news;
    for (;;) {
        const int state =
            receive(fd_.get(), MSG_DONTWAIT, [&](const nlmsghdr& message) { add_link(message, news.links); });
        if (state == -EAGAIN) return news;
        if (state == -ENOBUFS)
            news.missed = true;
        else if (state < 0 && state != -EINTR)
            return os_error("read news of interfaces", {}, state);
    }
}

std::expected<NamespaceNumbers, OsError> NamespaceNumbers::open() {
    auto fd = open_socket(0);
    if (!fd) return std::unexpected(fd.error());
    NamespaceNumbers made;
    made.fd_ = std::move(*fd);
    return made;
}

std::optional<NamespaceNumbers::Peers> NamespaceNumbers::peers_of(std::uint32_t ifindex) {
    ifinfomsg body{};
    body.ifi_family = AF_UNSPEC;
    if (!request_dump(fd_.get(), RTM_GETLINK, body)) return std::nullopt;
    std::optional<Peers> out;
    std::vector<std::int32_t> of_ports;
    const int failed = receive_all(fd_.get(), [&](const nlmsghdr& message) {
        if (message.nlmsg_type != RTM_NEWLINK) return;
        const auto* info = static_cast<const ifinfomsg*>(NLMSG_DATA(&message));
        const rtattr* first = IFLA_RTA(info);
        const auto bytes = static_cast<int>(IFLA_PAYLOAD(&message));
        const auto number = [&](int type) -> std::optional<std::int32_t> {
            const rtattr* attribute = find_attribute(first, bytes, type);
            if (attribute == nullptr || RTA_PAYLOAD(attribute) != sizeof(std::int32_t)) return std::nullopt;
            std::int32_t value = 0;
            std::memcpy(&value, RTA_DATA(attribute), sizeof value);
            return value;
        };
        const auto peer = number(IFLA_LINK_NETNSID);
        if (info->ifi_index == static_cast<int>(ifindex)) {
            out.emplace();
            if (const rtattr* name = find_attribute(first, bytes, IFLA_IFNAME))
                out->interface = text_of(name);
            if (peer) out->namespaces.push_back(*peer);
        } else if (peer && number(IFLA_MASTER) == static_cast<std::int32_t>(ifindex)) {
            of_ports.push_back(*peer);
        }
    });
    if (failed != 0) return std::nullopt;
    if (out) out->namespaces.insert(out->namespaces.end(), of_ports.begin(), of_ports.end());
    return out;
}

std::optional<std::int32_t> NamespaceNumbers::of_process(std::uint32_t pid) {
    struct {
        nlmsghdr header;
        rtgenmsg body;
        alignas(NLMSG_ALIGNTO) rtattr attribute;
        std::uint32_t pid;
    } request{};
    request.header.nlmsg_len = sizeof request;
    request.header.nlmsg_type = RTM_GETNSID;
    request.header.nlmsg_flags = NLM_F_REQUEST;
    request.body.rtgen_family = AF_UNSPEC;
    request.attribute.rta_type = NETNSA_PID;
    request.attribute.rta_len = RTA_LENGTH(sizeof request.pid);
    request.pid = pid;
    if (::send(fd_.get(), &request, sizeof request, 0) != static_cast<ssize_t>(sizeof request))
        return std::nullopt;
    std::optional<std::int32_t> out;
    // One message, the answer or an error: not a list that ends by itself.
    (void)receive(fd_.get(), 0, [&](const nlmsghdr& message) {
        if (message.nlmsg_type != RTM_NEWNSID) return;
        const auto* first = reinterpret_cast<const rtattr*>(static_cast<const char*>(NLMSG_DATA(&message)) +
                                                            NLMSG_ALIGN(sizeof(rtgenmsg)));
        const auto bytes = static_cast<int>(message.nlmsg_len - NLMSG_LENGTH(NLMSG_ALIGN(sizeof(rtgenmsg))));
        const rtattr* attribute = find_attribute(first, bytes, NETNSA_NSID);
        std::int32_t number = NETNSA_NSID_NOT_ASSIGNED;
        if (attribute != nullptr && RTA_PAYLOAD(attribute) == sizeof number)
            std::memcpy(&number, RTA_DATA(attribute), sizeof number);
        if (number != NETNSA_NSID_NOT_ASSIGNED) out = number;
    });
    return out;
}

int clsact_filters(std::uint32_t ifindex) {
    auto fd = open_socket(0);
    if (!fd) return -1;
    int filters = 0;
    for (const std::uint32_t side : {TC_H_MIN_EGRESS, TC_H_MIN_INGRESS}) {
        tcmsg body{};
        body.tcm_family = AF_UNSPEC;
        body.tcm_ifindex = static_cast<int>(ifindex);
        body.tcm_parent = TC_H_MAKE(TC_H_CLSACT, side);
        if (!request_dump(fd->get(), RTM_GETTFILTER, body)) return -1;
        const int failed = receive_all(fd->get(), [&](const nlmsghdr& message) {
            const auto* filter = static_cast<const tcmsg*>(NLMSG_DATA(&message));
            if (message.nlmsg_type == RTM_NEWTFILTER && filter->tcm_handle != 0) filters++;
        });
        if (failed != 0) return -1;
    }
    return filters;
}

std::uint64_t netns_inode() {
    struct stat facts {};
    return ::stat("/proc/thread-self/ns/net", &facts) == 0 ? facts.st_ino : 0;
}

}  // namespace egresswatch::capture
