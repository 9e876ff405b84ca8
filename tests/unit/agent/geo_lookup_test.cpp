// tests/unit/agent/geo_lookup_test.cpp - a program at the other end of both pipes gets every answer.
// SPDX-License-Identifier: Apache-2.0
#include "agent/cli/geo_lookup.h"

#include <poll.h>
#include <sys/wait.h>
#include <unistd.h>

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "classifier/region/geo_builder.h"
#include "tests/support/catch.h"

using namespace egresswatch;

namespace {

constexpr int answer_wait_ms = 20000;

// lookup_addresses({"-"}) in a child whose standard input and output are pipes.
class Child {
public:
    explicit Child(bool json) {
        int to_child[2];
        int from_child[2];
        if (::pipe(to_child) != 0 || ::pipe(from_child) != 0) FAIL("pipe");
        GeoBuilder builder;
        REQUIRE(builder.add_text({GeoFormat::cidr, "geo", "geo", {}},
                                 "9.0.0.0/8 US\n8.0.0.0/8 IE\n7.0.0.0/8 EU\n"));
        const auto geo = builder.finish().value();
        pid_ = ::fork();
        if (pid_ == 0) {
            ::dup2(to_child[0], STDIN_FILENO);
            ::dup2(from_child[1], STDOUT_FILENO);
            for (const int fd : {to_child[0], to_child[1], from_child[0], from_child[1], STDERR_FILENO})
                ::close(fd);
            RegionSpec spec;
            spec.home_countries = {"IE"};
            ::_exit(cli::lookup_addresses(geo, spec, {"-"}, json));
        }
        ::close(to_child[0]);
        ::close(from_child[1]);
        ask_ = to_child[1];
        answers_ = from_child[0];
    }
    Child(const Child&) = delete;
    Child& operator=(const Child&) = delete;
    ~Child() {
        if (ask_ >= 0) ::close(ask_);
        ::close(answers_);
        if (pid_ > 0) (void)finish();
    }

    void ask(const std::string& text) const {
        REQUIRE(::write(ask_, text.data(), text.size()) == static_cast<ssize_t>(text.size()));
    }
    void end_input() {
        ::close(ask_);
        ask_ = -1;
    }
    // The next line; empty at the end, or where none came in time.
    std::string line() {
        while (true) {
            const auto end = pending_.find('\n');
            if (end != std::string::npos) {
                const auto text = pending_.substr(0, end);
                pending_.erase(0, end + 1);
                return text;
            }
            pollfd waiting{answers_, POLLIN, 0};
            char buffer[4096];
            if (::poll(&waiting, 1, answer_wait_ms) != 1) return {};
            const auto count = ::read(answers_, buffer, sizeof buffer);
            if (count <= 0) return {};
            pending_.append(buffer, static_cast<std::size_t>(count));
        }
    }
    int finish() {
        int status = 0;
        ::waitpid(pid_, &status, 0);
        pid_ = 0;
        return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
    }

private:
    pid_t pid_ = 0;
    int ask_ = -1;
    int answers_ = -1;
    std::string pending_;
};

nlohmann::json parsed(const std::string& line) {
    return nlohmann::json::parse(line, nullptr, false);
}

}  // namespace

TEST_CASE("geo lookup answers each line before it waits for the next", "[agent][geo]") {
    Child child(true);
    for (int i = 0; i < 3; i++) {
        child.ask("9.1.2.3\n");
        CHECK(
            child.line() ==
            R"({"address":"9.1.2.3","prefix":"9.0.0.0/8","country":"US","class":"outside","source":"geo"})");
    }
    child.ask("8.8.8");  // half a line is not answered, and not lost
    child.ask(".8\n");
    CHECK(parsed(child.line())["class"] == "home");
    child.end_input();
    CHECK(child.line().empty());
    CHECK(child.finish() == 0);
}

TEST_CASE("geo lookup answers every line in order, also those that are no address", "[agent][geo]") {
    Child child(true);
    child.ask("10.0.0.1\r\n\n nonsense\xff\"\n" + std::string(9000, 'x') +
              "\n6.6.6.6\n7.7.7.7\n2002:901:203::1");
    child.end_input();
    const auto local = parsed(child.line());
    CHECK(local["class"] == "local");
    CHECK(local["country"].is_null());
    CHECK(local["local_kind"] == "private");
    CHECK(local["source"] == "rfc6890");
    CHECK(parsed(child.line())["error"].is_string());  // the empty line
    const auto nonsense = parsed(child.line());
    CHECK(nonsense["error"].is_string());
    CHECK(nonsense["address"].get<std::string>().find("nonsense") == 0);
    CHECK(parsed(child.line())["error"].is_string());  // the long one, once
    const auto nothing = parsed(child.line());
    CHECK(nothing["country"] == "unknown");
    CHECK(nothing["class"] == "unknown");
    CHECK(nothing["prefix"].is_null());
    CHECK(nothing["source"] == "none");
    const auto grouping = parsed(child.line());
    CHECK(grouping["country"] == "unknown");
    CHECK(grouping["recorded"] == "EU");
    const auto embedded = parsed(child.line());
    CHECK(embedded["country"] == "US");
    CHECK(embedded["prefix"] == "2002:900::/24");
    CHECK(child.line().empty());
    CHECK(child.finish() == 1);
}

TEST_CASE("geo lookup in text has a line of five fields for each address", "[agent][geo]") {
    Child child(false);
    child.ask("9.1.2.3\n10.1.1.1\nx\n");
    child.end_input();
    CHECK(child.line() == "9.1.2.3\t9.0.0.0/8\tUS\toutside\tgeo");
    CHECK(child.line() == "10.1.1.1\t10.0.0.0/8\t-\tlocal\trfc6890");
    CHECK(child.line().find("\"x\"\terror\t") == 0);
    CHECK(child.finish() == 1);
}
