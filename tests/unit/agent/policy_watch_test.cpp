// tests/unit/agent/policy_watch_test.cpp - which changes on disk are seen as a change of the policy, and
// which are not. SPDX-License-Identifier: Apache-2.0
#include "agent/daemon/policy_watch.h"

#include <fstream>

#include "tests/support/catch.h"
#include "tests/support/temp_dir.h"

using egresswatch::daemon::PolicyWatch;
namespace fs = std::filesystem;

namespace {

// A policy directory in a folder, watched. Time is what the test says.
struct Watched {
    egresswatch::testing::TempDir folder;
    fs::path policy = folder.path() / "policy.d";
    std::optional<PolicyWatch> watch;
    PolicyWatch::Clock::time_point now{std::chrono::hours(1)};

    void write(const fs::path& path, const std::string& text = "x") const { std::ofstream(path) << text; }
    void begin() {
        auto opened = PolicyWatch::open(policy);
        REQUIRE(opened);
        watch = std::move(*opened);
        REQUIRE(watch->problem().empty());
    }
    // Whether something that has happened since the last call comes to rest as one change.
    bool changed() {
        if (watch->due(now)) return true;
        now += PolicyWatch::settle;
        const bool told = watch->due(now);
        now += PolicyWatch::settle;
        if (told) CHECK(!watch->due(now));  // once
        if (told) watch->restart();
        return told;
    }
};

}  // namespace

TEST_CASE("a policy file that is written, moved into place or removed is a change", "[agent][policy_watch]") {
    Watched site;
    fs::create_directory(site.policy);
    site.write(site.policy / "10.yaml");
    site.begin();
    CHECK(!site.changed());
    site.write(site.policy / "10.yaml", "y");
    CHECK(site.changed());
    CHECK(!site.changed());
    site.write(site.policy / ".10.yaml.swp");  // an editor's own: seen, and the contents will tell
    (void)site.changed();
    fs::rename(site.policy / ".10.yaml.swp", site.policy / "10.yaml");
    CHECK(site.changed());
    fs::remove(site.policy / "10.yaml");
    CHECK(site.changed());
}

TEST_CASE("a file that is still being written is not read", "[agent][policy_watch]") {
    Watched site;
    fs::create_directory(site.policy);
    site.begin();
    std::ofstream half(site.policy / "10.yaml");
    half << "half a policy" << std::flush;
    CHECK(!site.changed());
    half.close();
    CHECK(site.changed());
}

TEST_CASE("many changes at once are one", "[agent][policy_watch]") {
    Watched site;
    fs::create_directory(site.policy);
    site.begin();
    for (int i = 0; i < 200; ++i) {
        site.write(site.policy / (std::to_string(i) + ".yaml"));
        CHECK(!site.watch->due(site.now));
        site.now += std::chrono::milliseconds(5);
    }
    CHECK(site.changed());
    CHECK(!site.changed());
}

TEST_CASE("changes that never rest are told all the same", "[agent][policy_watch]") {
    Watched site;
    fs::create_directory(site.policy);
    site.begin();
    int told = 0;
    for (int i = 0; i < 500; ++i) {
        site.write(site.policy / "10.yaml", std::to_string(i));
        told += site.watch->due(site.now) ? 1 : 0;
        site.now += PolicyWatch::settle / 10;
    }
    CHECK(told == 500 * (PolicyWatch::settle / 10) / PolicyWatch::settle_max);
}

TEST_CASE("the directory may be a link that is swapped", "[agent][policy_watch]") {
    Watched site;
    for (const char* release : {"1", "2"}) {
        fs::create_directories(site.folder.path() / release / "policy.d");
        site.write(site.folder.path() / release / "policy.d/10.yaml", release);
    }
    fs::create_symlink("1", site.folder.path() / "current");
    site.policy = site.folder.path() / "current/policy.d";
    site.begin();
    fs::create_symlink("2", site.folder.path() / "next");
    CHECK(!site.changed());  // nothing of ours yet
    fs::rename(site.folder.path() / "next", site.folder.path() / "current");
    CHECK(site.changed());
    // And what it leads to now is what is watched.
    site.write(site.folder.path() / "2/policy.d/10.yaml", "y");
    CHECK(site.changed());
    site.write(site.folder.path() / "1/policy.d/10.yaml", "y");
    CHECK(!site.changed());
}

TEST_CASE("files may be links into a folder that is swapped, as a mounted volume has them",
          "[agent][policy_watch]") {
    Watched site;
    fs::create_directories(site.policy / "..2026_1");
    fs::create_directories(site.policy / "..2026_2");
    site.write(site.policy / "..2026_1/10.yaml");
    site.write(site.policy / "..2026_2/10.yaml", "y");
    fs::create_symlink("..2026_1", site.policy / "..data");
    fs::create_symlink("..data/10.yaml", site.policy / "10.yaml");
    site.begin();
    fs::create_symlink("..2026_2", site.policy / "..data_tmp");
    (void)site.changed();
    fs::rename(site.policy / "..data_tmp", site.policy / "..data");
    CHECK(site.changed());
    site.write(site.policy / "..2026_2/10.yaml", "z");
    CHECK(site.changed());
}

TEST_CASE("a file may be a link to somewhere else", "[agent][policy_watch]") {
    Watched site;
    fs::create_directory(site.policy);
    fs::create_directory(site.folder.path() / "elsewhere");
    site.write(site.folder.path() / "elsewhere/shared.yaml");
    fs::create_symlink(site.folder.path() / "elsewhere/shared.yaml", site.policy / "10.yaml");
    site.begin();
    site.write(site.folder.path() / "elsewhere/other.yaml");
    CHECK(!site.changed());
    site.write(site.folder.path() / "elsewhere/shared.yaml", "y");
    CHECK(site.changed());
}

TEST_CASE("the directory may be moved away and another one put there", "[agent][policy_watch]") {
    Watched site;
    fs::create_directory(site.policy);
    site.begin();
    fs::rename(site.policy, site.folder.path() / "old");
    CHECK(site.changed());
    fs::create_directory(site.folder.path() / "new");
    fs::rename(site.folder.path() / "new", site.policy);
    CHECK(site.changed());
    site.write(site.policy / "10.yaml");
    CHECK(site.changed());
}
