// agent/evidence/key_file.h - a private key on disk: written whole, destroyed by overwriting.
// SPDX-License-Identifier: Apache-2.0
//
// Format:  one line, "egresswatch-key v1 <generation> <made at, ns since 1970> <base64 of the seed>", mode
//          0600. Limits:  overwriting destroys the bytes where the file system writes in place. A
//          copy-on-write file system, a snapshot or a flash disk may keep them: docs/threat-model.md.
#pragma once

#include <cstdint>
#include <expected>
#include <filesystem>
#include <optional>
#include <string>

#include "agent/evidence/note.h"
#include "classifier/flow_update.h"

namespace egresswatch::evidence {

struct StoredKey {
    SigningKey key;
    std::uint64_t generation = 0;
    Timestamp made{};
};

// Nothing where there is no file, or what is in it is no key.
[[nodiscard]] std::optional<StoredKey> read_key(const std::filesystem::path& path);
// Durable when it returns; whole or not at all. errno or 0.
[[nodiscard]] int write_key(const std::filesystem::path& path, const StoredKey& stored);
// Overwrites, syncs, unlinks. errno or 0; no file is no error.
[[nodiscard]] int destroy_file(const std::filesystem::path& path);
[[nodiscard]] int sync_directory(const std::filesystem::path& directory);

}  // namespace egresswatch::evidence
