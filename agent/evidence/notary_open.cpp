// agent/evidence/notary_open.cpp - opening: finds the keys, judges what is left of the journal, begins logs.
// SPDX-License-Identifier: Apache-2.0
#include <fcntl.h>
#include <openssl/rand.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <sstream>

#include "agent/evidence/notary.h"

namespace egresswatch::evidence {
namespace {

using Clock = std::chrono::steady_clock;

Timestamp wall_clock() {
    return std::chrono::time_point_cast<std::chrono::nanoseconds>(std::chrono::system_clock::now());
}

std::string read_file(const std::filesystem::path& path) {
    std::ifstream in(path, std::ios::binary);
    std::ostringstream text;
    text << in.rdbuf();
    return text.str();
}

// Appends and syncs; what was there before stays as it was if it fails. errno or 0.
int append_durably(const std::filesystem::path& path, std::string_view text) {
    const UniqueFd fd(::open(path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0640));
    struct stat before {};
    if (!fd || ::fstat(fd.get(), &before) != 0) return errno;
    const auto put = ::write(fd.get(), text.data(), text.size());
    int error = 0;
    if (put != static_cast<ssize_t>(text.size())) error = put < 0 ? errno : ENOSPC;
    if (error == 0 && ::fsync(fd.get()) != 0) error = errno;
    if (error != 0 && ::ftruncate(fd.get(), before.st_size) != 0) error = errno;
    return error == 0 ? sync_directory(path.parent_path()) : error;
}

std::string new_origin(const std::string& host) {
    std::array<unsigned char, 8> random{};
    if (RAND_bytes(random.data(), static_cast<int>(random.size())) != 1) std::abort();  // no entropy: no name
    std::string name = host.empty() ? "host" : host.substr(0, 128);
    for (char& c : name)
        if (c <= ' ' || c >= 0x7f || c == '+' || c == '=') c = '-';
    name += "/egresswatch/";
    static constexpr char digits[] = "0123456789abcdef";
    for (const unsigned char byte : random) {
        name += digits[byte >> 4];
        name += digits[byte & 15];
    }
    return name;
}

std::unexpected<std::string> os_problem(const std::string& what, const std::filesystem::path& path,
                                        int error) {
    return std::unexpected(what + " " + path.string() + ": " + std::strerror(error));
}

}  // namespace

std::expected<std::unique_ptr<Notary>, std::string> Notary::open(NotaryConfig config) {
    std::unique_ptr<Notary> notary(new Notary(std::move(config)));
    if (auto loaded = notary->load(); !loaded) return std::unexpected(loaded.error());
    return notary;
}

std::expected<void, std::string> Notary::load() {
    std::error_code made;
    std::filesystem::create_directories(config_.directory, made);
    std::filesystem::create_directories(config_.journal, made);
    if (::chmod(config_.directory.c_str(), 0700) != 0) return os_problem("chmod", config_.directory, errno);
    auto sector = journal::SectorFile::open(file("signed"));
    if (!sector) return os_problem("open", file("signed"), sector.error());
    signed_ = std::move(*sector);
    const std::string text = read_file(file(keys_file_name));
    const KeyChain chain = KeyChain::read(text, std::nullopt);
    if (chain.good_bytes < text.size()) {  // a note torn by a crash, or damage behind the last good link
        if (::truncate(file(keys_file_name).c_str(), static_cast<off_t>(chain.good_bytes)) != 0)
            return os_problem("cut", file(keys_file_name), errno);
    }
    status_.state = "ok";
    if (chain.last() == nullptr) return make_genesis_key();
    origin_ = status_.origin = chain.last()->sealed.origin;
    genesis_key_ = status_.genesis_key = chain.links.front().public_key().vkey();
    return load_key(*chain.last());
}

std::expected<void, std::string> Notary::load_key(const KeyLink& last) {
    auto current = read_key(file("key"));
    auto next = read_key(file("key.next"));
    if (current && current->key.public_bytes() == last.key) {
        // A change that did not come as far as the chain never happened.
        if (const int error = destroy_file(file("key.next")); error != 0)
            return os_problem("destroy", file("key.next"), error);
    } else if (next && next->key.public_bytes() == last.key) {
        int error = destroy_file(file("key"));
        if (error == 0 && ::rename(file("key.next").c_str(), file("key").c_str()) != 0) error = errno;
        if (error == 0) error = sync_directory(config_.directory);
        if (error != 0) return os_problem("replace", file("key"), error);
        current = std::move(next);
    } else {
        report("egresswatch/evidence-key-lost", "The private key of the evidence is gone",
               "the key of generation " + std::to_string(last.generation) + " is not in " +
                   config_.directory.string() +
                   "; a new genesis key begins a new chain, which the old genesis key does not vouch for: "
                   "find out who removed it, and give the new key to the auditors",
               {{"origin", last.sealed.origin}, {"generation", last.generation}});
        const auto aside = file("keys.lost-" + std::to_string(wall_clock().time_since_epoch().count()));
        if (::rename(file(keys_file_name).c_str(), aside.c_str()) != 0)
            return os_problem("put aside", file(keys_file_name), errno);
        return make_genesis_key();
    }
    key_ = std::move(current->key);
    generation_ = status_.generation = current->generation;
    status_.key_since = records::format_time(current->made);
    const auto age =
        std::clamp(std::chrono::duration_cast<std::chrono::milliseconds>(wall_clock() - current->made),
                   std::chrono::milliseconds{0}, config_.key_interval);
    key_since_ = Clock::now() - age;
    return copy_keys();
}

std::expected<void, std::string> Notary::make_genesis_key() {
    auto key = SigningKey::generate();
    if (!key) return std::unexpected("no random numbers for the genesis key");
    for (const char* old : {"key", "key.next"})
        if (const int error = destroy_file(file(old)); error != 0)
            return os_problem("destroy", file(old), error);
    StoredKey stored{std::move(*key), 0, wall_clock()};
    if (const int error = write_key(file("key"), stored); error != 0)
        return os_problem("write", file("key"), error);
    key_ = std::move(stored.key);
    generation_ = status_.generation = 0;
    status_.key_since = records::format_time(stored.made);
    key_since_ = Clock::now();
    made_genesis_ = true;
    return {};
}

// The copy that auditors read: the same bytes.
std::expected<void, std::string> Notary::copy_keys() {
    const auto copy = config_.journal / keys_file_name;
    const std::string ours = read_file(file(keys_file_name));
    const std::string theirs = read_file(copy);
    if (theirs == ours) return {};
    if (ours.starts_with(theirs)) {
        if (const int error = append_durably(copy, std::string_view(ours).substr(theirs.size())); error != 0)
            return os_problem("write", copy, error);
        return {};
    }
    auto beside = copy;
    beside += ".new";
    std::error_code ignored;
    std::filesystem::remove(beside, ignored);
    int error = append_durably(beside, ours);
    if (error == 0 && ::rename(beside.c_str(), copy.c_str()) != 0) error = errno;
    if (error != 0) return os_problem("write", copy, error);
    return {};
}

std::expected<void, std::string> Notary::store_link(const KeyLink& link) {
    if (const int error = append_durably(file(keys_file_name), link.note); error != 0)
        return os_problem("write", file(keys_file_name), error);
    if (auto copied = copy_keys(); !copied) fail(copied.error());  // tried again with the next link
    return {};
}

std::optional<PreviousLog> Notary::signed_last() const {
    const auto& fields = signed_.fields();
    const auto origin = fields.find("origin");
    const auto root = fields.find("root");
    if (origin == fields.end() || root == fields.end()) return std::nullopt;
    const auto hash = hash_from_hex(root->second);
    if (!hash) return std::nullopt;
    return PreviousLog{origin->second, journal::number_field(fields, "size"), *hash};
}

journal::NewLog Notary::begin_log(const std::optional<PreviousLog>& previous) {
    origin_ = new_origin(config_.origin.host);
    const Checkpoint empty{origin_, 0, empty_root(),
                           link_extensions(generation_, key_->public_bytes(), previous)};
    std::string text;
    if (const auto note = sign_note(empty.text(), origin_, *key_)) {
        text = note->to_string();
        auto link = parse_link(text);
        if (link && !store_link(*link)) unstored_ = std::move(*link);
    }
    if (genesis_key_.empty()) genesis_key_ = public_key().vkey();
    const std::lock_guard guard(mutex_);
    status_.origin = origin_;
    status_.genesis_key = genesis_key_;
    return {origin_, records::genesis_record(config_.origin, origin_, public_key().vkey(), text)};
}

std::optional<journal::NewLog> Notary::judge(const journal::RecoveredTree& tree) {
    const auto last = signed_last();
    const bool ours = !made_genesis_ && !tree.origin.empty() && tree.origin == origin_;
    if (ours) {
        if (!last || last->origin != origin_) return std::nullopt;  // nothing of this log is signed yet
        if (tree.size >= last->size && tree.root_at(last->size) == last->root) return std::nullopt;
    }
    if (last && last->size != 0) {
        const bool shorter = !ours || tree.size < last->size;
        report(
            "egresswatch/evidence-lost",
            shorter ? "Signed records of the journal are gone" : "Signed records of the journal were changed",
            "the journal was signed up to record " + std::to_string(last->size) + " of " + last->origin +
                (shorter ? ", and " + std::to_string(ours ? tree.size : 0) + " are left"
                         : ", and its records are not the ones that were signed") +
                "; a new log begins that points at the old one, and nothing is signed over it",
            {{"origin", last->origin},
             {"signed_size", last->size},
             {"signed_root", to_base64(last->root)},
             {"found_size", ours ? tree.size : 0}});
    }
    std::optional<PreviousLog> previous = last;
    if (!previous && !made_genesis_) previous = PreviousLog{origin_, 0, empty_root()};
    return begin_log(previous);
}

}  // namespace egresswatch::evidence
