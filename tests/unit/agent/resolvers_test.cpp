// tests/unit/agent/resolvers_test.cpp - which name servers count: the machine's own, local ones, listed ones.
// SPDX-License-Identifier: Apache-2.0
#include <fstream>

#include "agent/resolvers.h"
#include "tests/support/catch.h"
#include "tests/support/temp_dir.h"

using namespace egresswatch;

namespace {

Address address(std::string_view text) {
    return *Address::parse(text);
}

}  // namespace

TEST_CASE("the name servers of this machine are those of its resolv.conf", "[resolvers]") {
    const testing::TempDir dir;
    const std::string file = (dir.path() / "resolv.conf").string();
    std::ofstream(file)
        << "# nameserver 192.0.2.1\n; nameserver 192.0.2.2\nsearch example.org\n"
           "nameserver 192.0.2.3\n  nameserver\t2001:db8::53 # ours\nnameserver fe80::1%eth0\n"
           "nameserver not-an-address\nnameservers 192.0.2.4\noptions edns0\nnameserver 192.0.2.5";
    const char* const files[] = {"/nonexistent/resolv.conf", file.c_str()};
    const auto servers = resolvers_of({.system = true}, {}, files);
    for (const char* one : {"192.0.2.3", "2001:db8::53", "fe80::1", "192.0.2.5"})
        CHECK(servers.include(address(one)));
    for (const char* other : {"192.0.2.1", "192.0.2.2", "192.0.2.4", "10.0.0.1"})
        CHECK_FALSE(servers.include(address(other)));
    CHECK(resolvers_of({}, {}, files).prefixes.empty());
}

TEST_CASE("local name servers are private addresses and those of local_networks", "[resolvers]") {
    const Prefix ours = *Prefix::parse("203.0.113.0/24");
    const auto servers = resolvers_of({.local = true}, {&ours, 1});
    for (const char* one :
         {"10.0.0.1", "192.168.1.1", "100.64.0.1", "fd00::1", "127.0.0.53", "::1", "203.0.113.9"})
        CHECK(servers.include(address(one)));
    for (const char* other : {"8.8.8.8", "224.0.0.251", "2001:db8::1", "0.0.0.0"})
        CHECK_FALSE(servers.include(address(other)));
}

TEST_CASE("any name server counts where any is written, and a listed one by its prefix", "[resolvers]") {
    ResolverSettings settings;
    CHECK(add_resolver("192.0.2.0/24", settings));
    CHECK_FALSE(add_resolver("192.0.2.1/24", settings));
    CHECK_FALSE(add_resolver("home", settings));
    CHECK(resolvers_of(settings, {}).include(address("192.0.2.200")));
    CHECK_FALSE(resolvers_of(settings, {}).include(address("8.8.8.8")));
    CHECK(add_resolver("any", settings));
    CHECK(resolvers_of(settings, {}).include(address("8.8.8.8")));
}
