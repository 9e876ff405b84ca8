// agent/daemon/rtnetlink.cpp
// SPDX-License-Identifier: Apache-2.0
#include "agent/daemon/rtnetlink.h"

#include <linux/if_link.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <functional>

namespace egresswatch::daemon {

namespace {

// A dump message is at most this long: what iproute2 and the kernel agree on (netlink_dump, 32 KiB).
constexpr std::size_t receive_bytes = 32768;

std::unexpected<capture::OsError> failed(const char* operation, int error) {
    return std::unexpected(capture::OsError{operation, "rtnetlink", error, ""});
}

std::expected<UniqueFd, capture::OsError> open_socket(std::uint32_t groups) {
    UniqueFd fd(
        ::socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC | (groups != 0 ? SOCK_NONBLOCK : 0), NETLINK_ROUTE));
    if (!fd) return failed("open socket", errno);
    sockaddr_nl address{};
    address.nl_family = AF_NETLINK;
    address.nl_groups = groups;
    if (::bind(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0)
        return failed("bind socket", errno);
    return fd;
}

// Calls `on_message` for every message of one dump.
std::expected<void, capture::OsError> dump(int fd, std::uint32_t sequence, std::uint16_t type,
                                           const std::function<void(const nlmsghdr&)>& on_message) {
    struct {
        nlmsghdr header;
        rtgenmsg body;
    } request{};
    request.header.nlmsg_len = NLMSG_LENGTH(sizeof(rtgenmsg));
    request.header.nlmsg_type = type;
    request.header.nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP;
    request.header.nlmsg_seq = sequence;
    request.body.rtgen_family = AF_UNSPEC;
    if (::send(fd, &request, request.header.nlmsg_len, 0) < 0) return failed("send dump request", errno);
    alignas(nlmsghdr) std::array<char, receive_bytes> buffer;
    for (;;) {
        ssize_t got = ::recv(fd, buffer.data(), buffer.size(), 0);
        if (got < 0 && errno == EINTR) continue;
        if (got <= 0) return failed("receive dump", got < 0 ? errno : EPIPE);
        auto left = static_cast<unsigned>(got);
        for (auto* header = reinterpret_cast<const nlmsghdr*>(buffer.data()); NLMSG_OK(header, left);
             header = NLMSG_NEXT(header, left)) {
            if (header->nlmsg_seq != sequence) continue;
            if (header->nlmsg_type == NLMSG_DONE) return {};
            if (header->nlmsg_type == NLMSG_ERROR) {
                const auto* error = static_cast<const nlmsgerr*>(NLMSG_DATA(header));
                return failed("dump", -error->error);
            }
            on_message(*header);
        }
    }
}

void read_link_info(const rtattr* info, LinkCounters& link) {
    auto left = static_cast<int>(RTA_PAYLOAD(info));
    for (auto* attribute = static_cast<const rtattr*>(RTA_DATA(info)); RTA_OK(attribute, left);
         attribute = RTA_NEXT(attribute, left)) {
        if (attribute->rta_type == IFLA_INFO_KIND)
            link.kind.assign(
                static_cast<const char*>(RTA_DATA(attribute)),
                ::strnlen(static_cast<const char*>(RTA_DATA(attribute)), RTA_PAYLOAD(attribute)));
    }
}

LinkCounters read_link(const nlmsghdr& header) {
    LinkCounters link;
    const auto* body = static_cast<const ifinfomsg*>(NLMSG_DATA(&header));
    link.ifindex = static_cast<std::uint32_t>(body->ifi_index);
    link.loopback = (body->ifi_flags & IFF_LOOPBACK) != 0;
    link.up = (body->ifi_flags & IFF_UP) != 0;
    auto left = static_cast<int>(IFLA_PAYLOAD(&header));
    for (auto* attribute = IFLA_RTA(body); RTA_OK(attribute, left); attribute = RTA_NEXT(attribute, left)) {
        if (attribute->rta_type == IFLA_IFNAME) {
            link.name = static_cast<const char*>(RTA_DATA(attribute));
        } else if (attribute->rta_type == IFLA_LINKINFO) {
            read_link_info(attribute, link);
        } else if (attribute->rta_type == IFLA_STATS64) {
            rtnl_link_stats64 stats{};
            std::memcpy(&stats, RTA_DATA(attribute), std::min(sizeof stats, RTA_PAYLOAD(attribute)));
            link.rx_packets = stats.rx_packets;
            link.tx_packets = stats.tx_packets;
            link.rx_bytes = stats.rx_bytes;
            link.tx_bytes = stats.tx_bytes;
            link.tx_dropped = stats.tx_dropped;
        }
    }
    return link;
}

void read_address(const nlmsghdr& header, std::vector<Address>& addresses) {
    const auto* body = static_cast<const ifaddrmsg*>(NLMSG_DATA(&header));
    auto left = static_cast<int>(IFA_PAYLOAD(&header));
    const rtattr* local = nullptr;
    for (auto* attribute = IFA_RTA(body); RTA_OK(attribute, left); attribute = RTA_NEXT(attribute, left)) {
        // On a point-to-point link IFA_ADDRESS is the peer and IFA_LOCAL ours; IPv6 without a peer has only
        // IFA_ADDRESS.
        if (attribute->rta_type == IFA_LOCAL || (attribute->rta_type == IFA_ADDRESS && local == nullptr))
            local = attribute;
    }
    if (local == nullptr) return;
    if (body->ifa_family == AF_INET && RTA_PAYLOAD(local) == 4) {
        std::uint32_t network_order = 0;
        std::memcpy(&network_order, RTA_DATA(local), 4);
        addresses.push_back(Address::from_ipv4(datapath::host32(network_order)));
    } else if (body->ifa_family == AF_INET6 && RTA_PAYLOAD(local) == 16) {
        addresses.push_back(Address::from_bytes(static_cast<const std::uint8_t*>(RTA_DATA(local))));
    }
}

}  // namespace

std::expected<Rtnetlink, capture::OsError> Rtnetlink::open() {
    auto fd = open_socket(0);
    if (!fd) return std::unexpected(fd.error());
    timeval limit{.tv_sec = 2, .tv_usec = 0};  // a dump that does not come must not stop the loop
    if (::setsockopt(fd->get(), SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit) != 0)
        return failed("set receive timeout", errno);
    return Rtnetlink(std::move(*fd));
}

std::expected<std::vector<LinkCounters>, capture::OsError> Rtnetlink::links() {
    std::vector<LinkCounters> links;
    auto done = dump(fd_.get(), ++sequence_, RTM_GETLINK, [&](const nlmsghdr& header) {
        if (header.nlmsg_type == RTM_NEWLINK) links.push_back(read_link(header));
    });
    if (!done) return std::unexpected(done.error());
    return links;
}

std::expected<std::vector<Address>, capture::OsError> Rtnetlink::addresses() {
    std::vector<Address> addresses;
    auto done = dump(fd_.get(), ++sequence_, RTM_GETADDR, [&](const nlmsghdr& header) {
        if (header.nlmsg_type == RTM_NEWADDR) read_address(header, addresses);
    });
    if (!done) return std::unexpected(done.error());
    std::ranges::sort(addresses);
    const auto doubles = std::ranges::unique(addresses);
    addresses.erase(doubles.begin(), doubles.end());
    return addresses;
}

std::expected<AddressWatch, capture::OsError> AddressWatch::open() {
    auto fd = open_socket(RTMGRP_IPV4_IFADDR | RTMGRP_IPV6_IFADDR);
    if (!fd) return std::unexpected(fd.error());
    return AddressWatch(std::move(*fd));
}

bool AddressWatch::changed() noexcept {
    bool any = false;
    alignas(nlmsghdr) std::array<char, 8192> buffer;
    for (;;) {
        const ssize_t got = ::recv(fd_.get(), buffer.data(), buffer.size(), MSG_DONTWAIT);
        if (got > 0 || (got < 0 && errno == ENOBUFS)) {
            any = true;
        } else if (got == 0 || errno != EINTR) {
            return any;
        }
    }
}

}  // namespace egresswatch::daemon
