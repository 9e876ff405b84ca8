// tests/fuzz/policy_fuzz.cpp - any bytes as a policy file, read and compiled; what compiles is evaluated.
// SPDX-License-Identifier: Apache-2.0
#include <cstdint>
#include <cstdlib>
#include <string>
#include <vector>

#include "rules/evaluator.h"
#include "rules/policy.h"

using namespace egresswatch;

namespace {

// The lines that every policy needs, so that mutations reach the rules behind them.
const std::string header =
    "policy: egresswatch/v1\nname: fuzz\nrevision: 1\nowner: o\nregions: {europe: {countries: [IE]}}\n"
    "home: europe\n";

void require(bool condition) {
    if (!condition) std::abort();
}

void check(const rules::Compiled<rules::LoadedPolicy>& loaded) {
    if (!loaded) {
        require(rules::count_errors(loaded.error()) > 0);
        for (const rules::Diagnostic& diagnostic : loaded.error()) {
            require(!rules::format_diagnostic(diagnostic).empty());
            require(!diagnostic.code.empty() && diagnostic.message.find('\n') == std::string::npos);
        }
        return;
    }
    require(rules::count_errors(loaded->warnings) == 0);
    rules::Evaluator evaluator(loaded->policy);
    std::vector<rules::Finding> findings;
    FlowUpdate update;
    update.key.l4_proto = 6;
    update.delta.bytes_out = update.total.bytes_out = 1 << 30;
    update.delta.packets_out = update.total.packets_out = 1 << 20;
    ClassInfo info;
    info.kind = datapath::KIND_OUTSIDE;
    info.country = "US";
    for (std::size_t list = 0; list < loaded->policy->region_spec().list_names.size() && list < 4; ++list)
        info.lists.push_back(static_cast<std::uint16_t>(list));
    evaluator.evaluate(update, info, Timestamp{}, findings);
    (void)rules::expiry_warnings(*loaded->policy, Timestamp{});
    for (const rules::Finding& finding : findings) require(finding.value >= finding.threshold);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    const std::string text(reinterpret_cast<const char*>(data), size);
    const std::vector<rules::SourceFile> alone{{"fuzz.yaml", text}};
    check(rules::compile_policy(alone));
    const std::vector<rules::SourceFile> behind_header{{"10.yaml", header}, {"20.yaml", text}};
    check(rules::compile_policy(behind_header));
    return 0;
}
