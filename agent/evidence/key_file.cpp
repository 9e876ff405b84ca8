// agent/evidence/key_file.cpp - see key_file.h.
// SPDX-License-Identifier: Apache-2.0
#include "agent/evidence/key_file.h"

#include <fcntl.h>
#include <openssl/crypto.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <sstream>

#include "agent/unique_fd.h"

namespace egresswatch::evidence {
namespace {

constexpr std::string_view magic = "egresswatch-key v1";
constexpr std::size_t key_file_bytes_max = 512;

// errno or 0.
int write_and_sync(int fd, std::string_view text) {
    for (std::size_t done = 0; done < text.size();) {
        const auto put = ::pwrite(fd, text.data() + done, text.size() - done, static_cast<off_t>(done));
        if (put < 0 && errno == EINTR) continue;
        if (put <= 0) return put < 0 ? errno : ENOSPC;
        done += static_cast<std::size_t>(put);
    }
    return ::fsync(fd) == 0 ? 0 : errno;
}

}  // namespace

int sync_directory(const std::filesystem::path& directory) {
    const UniqueFd fd(::open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    return fd && ::fsync(fd.get()) == 0 ? 0 : errno;
}

std::optional<StoredKey> read_key(const std::filesystem::path& path) {
    const UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
    if (!fd) return std::nullopt;
    std::string text(key_file_bytes_max, '\0');
    const auto got = ::pread(fd.get(), text.data(), text.size(), 0);
    text.resize(static_cast<std::size_t>(std::max<ssize_t>(got, 0)));
    std::optional<StoredKey> out;
    std::string magic_word, version, seed64;
    std::uint64_t generation = 0;
    std::int64_t made = 0;
    std::istringstream in(text);
    if (text.ends_with('\n') && in >> magic_word >> version >> generation >> made >> seed64 &&
        magic_word + " " + version == magic) {
        if (auto bytes = from_base64(seed64); bytes && bytes->size() == sizeof(SigningKey::Seed)) {
            SigningKey::Seed seed;
            std::copy(bytes->begin(), bytes->end(), seed.begin());
            if (auto key = SigningKey::from_seed(seed))
                out = StoredKey{std::move(*key), generation, Timestamp{std::chrono::nanoseconds{made}}};
            OPENSSL_cleanse(seed.data(), seed.size());
            OPENSSL_cleanse(bytes->data(), bytes->size());
        }
    }
    OPENSSL_cleanse(text.data(), text.size());
    OPENSSL_cleanse(seed64.data(), seed64.size());
    return out;
}

int write_key(const std::filesystem::path& path, const StoredKey& stored) {
    const UniqueFd fd(::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600));
    if (!fd) return errno;
    const auto& seed = stored.key.seed();
    std::string seed64 = to_base64(std::string_view(reinterpret_cast<const char*>(seed.data()), seed.size()));
    std::string text = std::string(magic) + " " + std::to_string(stored.generation) + " " +
                       std::to_string(stored.made.time_since_epoch().count()) + " " + seed64 + "\n";
    int error = write_and_sync(fd.get(), text);
    if (error == 0) error = sync_directory(path.parent_path());
    OPENSSL_cleanse(text.data(), text.size());
    OPENSSL_cleanse(seed64.data(), seed64.size());
    return error;
}

int destroy_file(const std::filesystem::path& path) {
    const UniqueFd fd(::open(path.c_str(), O_WRONLY | O_CLOEXEC));
    if (!fd) return errno == ENOENT ? 0 : errno;
    struct stat about {};
    if (::fstat(fd.get(), &about) != 0) return errno;
    if (const int error = write_and_sync(fd.get(), std::string(static_cast<std::size_t>(about.st_size), '0'));
        error != 0)
        return error;
    if (::unlink(path.c_str()) != 0) return errno;
    return sync_directory(path.parent_path());
}

}  // namespace egresswatch::evidence
