// rules/policy_files.h - the files that make up a policy, beside loading one path (policy.h).
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <filesystem>
#include <optional>
#include <span>
#include <string>

#include "rules/policy.h"

namespace egresswatch::rules {

// The files of several directories and files as one set, in that order.
[[nodiscard]] Compiled<LoadedPolicy> load_policy_set(std::span<const std::filesystem::path> paths);
// The hash that the policy at `path` would have, without reading it as one; nothing where a file of it cannot
// be read.
[[nodiscard]] std::optional<std::string> content_hash(const std::filesystem::path& path);

}  // namespace egresswatch::rules
