// tests/unit/agent/window_keeper_test.cpp - the file of what rules remember: whole or refused.
// SPDX-License-Identifier: Apache-2.0
#include "agent/daemon/window_keeper.h"

#include <fstream>
#include <thread>

#include "tests/support/catch.h"
#include "tests/support/temp_dir.h"

using namespace egresswatch;
using namespace egresswatch::daemon;

namespace {

std::shared_ptr<const rules::Policy> policy() {
    const std::vector<rules::SourceFile> files{
        {"p.yaml",
         "policy: egresswatch/v1\nname: n\nrevision: 1\nowner: o\nregions: {r: {countries: [IE]}}\nhome: r\n"
         "rules:\n  - {id: slow, title: t, level: low, when: {region: outside},"
         " window: {sum: bytes_out, over: 7d, by: [remote], at_least: 100 B}}\n"}};
    return rules::compile_policy(files)->policy;
}

std::size_t send(rules::Evaluator& evaluator, std::uint64_t bytes) {
    FlowUpdate update;
    update.key.l4_proto = 6;
    update.delta.bytes_out = update.total.bytes_out = bytes;
    update.delta.packets_out = update.total.packets_out = 1;
    update.first_seen = update.last_seen = Timestamp(std::chrono::hours(24 * 365 * 50));
    ClassInfo info;
    info.kind = datapath::KIND_OUTSIDE;
    info.country = "US";
    std::vector<rules::Finding> findings;
    evaluator.evaluate(update, info, update.last_seen, findings);
    return findings.size();
}

}  // namespace

TEST_CASE("what rules remember goes through the file, and a damaged file is refused", "[daemon][windows]") {
    const testing::TempDir dir;
    const auto path = dir.path() / "windows.state";
    WindowKeeper keeper(path, std::chrono::seconds(60));
    rules::Evaluator first(policy()), second(policy()), third(policy());
    CHECK(keeper.restore(first)->has_value() == false);  // no file: nothing to take over
    CHECK(send(first, 60) == 0);
    keeper.save_now(first, Timestamp{});
    CHECK(keeper.status().error.empty());
    REQUIRE(keeper.restore(second));
    CHECK(send(second, 40) == 1);

    std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
    file.seekp(40);
    file.put('x');
    file.close();
    CHECK(keeper.restore(third).error().find("checksum") != std::string::npos);
    CHECK(send(third, 40) == 0);
    std::filesystem::resize_file(path, 10);
    CHECK(keeper.restore(third).error().find("cut") != std::string::npos);
}

TEST_CASE("windows are saved at the interval, beside the loop, and a failure is told", "[daemon][windows]") {
    const testing::TempDir dir;
    WindowKeeper keeper(dir.path() / "windows.state", std::chrono::seconds(0));
    WindowKeeper nowhere(dir.path() / "absent" / "windows.state", std::chrono::seconds(0));
    rules::Evaluator evaluator(policy());
    const Timestamp when(std::chrono::hours(1));
    const auto until_news = [&](WindowKeeper& kept) {
        const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(10);
        while (!kept.keep(evaluator, when) && std::chrono::steady_clock::now() < deadline)
            std::this_thread::yield();
        return kept.status();
    };
    CHECK(until_news(keeper).saved == when);
    CHECK(std::filesystem::file_size(dir.path() / "windows.state") == keeper.status().bytes + 32);
    CHECK(!until_news(nowhere).error.empty());
}
