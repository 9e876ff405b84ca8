// classifier/region/file_io.cpp
// SPDX-License-Identifier: Apache-2.0
#include "classifier/region/file_io.h"

#include <fcntl.h>
#include <openssl/evp.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <memory>
#include <utility>

namespace egresswatch {

namespace {

class Descriptor {
public:
    explicit Descriptor(int fd) : fd_(fd) {}
    Descriptor(const Descriptor&) = delete;
    Descriptor& operator=(const Descriptor&) = delete;
    ~Descriptor() {
        if (fd_ >= 0) ::close(fd_);
    }
    [[nodiscard]] int get() const noexcept { return fd_; }

private:
    int fd_;
};

RegionError io_error(std::string_view operation, const std::filesystem::path& path, int error) {
    return {RegionError::Code::io,
            std::string(operation) + " " + path.string() + ": " + std::strerror(error)};
}

bool write_all(int fd, std::span<const std::byte> bytes) {
    while (!bytes.empty()) {
        const ssize_t written = ::write(fd, bytes.data(), bytes.size());
        if (written < 0 && errno == EINTR) continue;
        if (written <= 0) return false;
        bytes = bytes.subspan(static_cast<std::size_t>(written));
    }
    return true;
}

}  // namespace

std::expected<MappedFile, RegionError> MappedFile::open(const std::filesystem::path& path) {
    const Descriptor file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
    if (file.get() < 0) return std::unexpected(io_error("cannot open", path, errno));
    struct stat status {};
    if (::fstat(file.get(), &status) != 0) return std::unexpected(io_error("cannot stat", path, errno));
    if (!S_ISREG(status.st_mode))
        return std::unexpected(RegionError{RegionError::Code::io, path.string() + ": not a regular file"});
    if (status.st_size == 0) return MappedFile{};
    const auto size = static_cast<std::size_t>(status.st_size);
    void* memory = ::mmap(nullptr, size, PROT_READ, MAP_PRIVATE | MAP_POPULATE, file.get(), 0);
    if (memory == MAP_FAILED) return std::unexpected(io_error("cannot map", path, errno));
    return MappedFile{static_cast<const std::byte*>(memory), size};
}

MappedFile::MappedFile(MappedFile&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}

MappedFile& MappedFile::operator=(MappedFile&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
    return *this;
}

MappedFile::~MappedFile() {
    if (data_ != nullptr) ::munmap(const_cast<std::byte*>(data_), size_);
}

Sha256 sha256_of(std::initializer_list<std::span<const std::byte>> parts) {
    Sha256 digest{};
    const std::unique_ptr<EVP_MD_CTX, decltype(&EVP_MD_CTX_free)> context(EVP_MD_CTX_new(), &EVP_MD_CTX_free);
    bool good = context && EVP_DigestInit_ex(context.get(), EVP_sha256(), nullptr) == 1;
    for (const auto part : parts)
        good = good && EVP_DigestUpdate(context.get(), part.data(), part.size()) == 1;
    good = good && EVP_DigestFinal_ex(context.get(), digest.data(), nullptr) == 1;
    if (!good) std::abort();  // SHA-256 of memory fails only when memory is exhausted
    return digest;
}

std::string hex_of(const Sha256& digest) {
    constexpr std::string_view digits = "0123456789abcdef";
    std::string text;
    for (const auto byte : digest) {
        text += digits[byte >> 4];
        text += digits[byte & 15];
    }
    return text;
}

std::expected<void, RegionError> write_file_atomically(
    const std::filesystem::path& path, std::initializer_list<std::span<const std::byte>> parts) {
    std::string temporary = path.string() + ".XXXXXX";
    const Descriptor file(::mkostemp(temporary.data(), O_CLOEXEC));
    if (file.get() < 0) return std::unexpected(io_error("cannot create a file beside", path, errno));
    bool good = ::fchmod(file.get(), 0644) == 0;
    for (const auto part : parts) good = good && write_all(file.get(), part);
    good = good && ::fsync(file.get()) == 0 && ::rename(temporary.c_str(), path.c_str()) == 0;
    if (good) return {};
    const int error = errno;
    ::unlink(temporary.c_str());
    return std::unexpected(io_error("cannot write", path, error));
}

}  // namespace egresswatch
