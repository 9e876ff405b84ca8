// rules/policy.cpp - a policy set from the disk or from memory to a Policy.
// SPDX-License-Identifier: Apache-2.0
#include "rules/policy.h"

#include <openssl/evp.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <system_error>

#include "rules/compiler.h"
#include "rules/limits.h"
#include "rules/policy_files.h"
#include "rules/yaml_reader.h"

namespace egresswatch::rules {

namespace {

namespace fs = std::filesystem;

// Names without their directory: the same set of files has the same hash wherever it lies. Lengths go in, so
// that no two sets share one stream of bytes.
std::string hash_of(std::span<const SourceFile> files) {
    std::unique_ptr<EVP_MD_CTX, void (*)(EVP_MD_CTX*)> context(EVP_MD_CTX_new(), EVP_MD_CTX_free);
    unsigned char digest[EVP_MAX_MD_SIZE];
    unsigned length = 0;
    bool ok = context && EVP_DigestInit_ex(context.get(), EVP_sha256(), nullptr) == 1;
    const auto add = [&](const std::string& text) {
        const std::string head = std::to_string(text.size()) + ":";
        ok = ok && EVP_DigestUpdate(context.get(), head.data(), head.size()) == 1 &&
             EVP_DigestUpdate(context.get(), text.data(), text.size()) == 1;
    };
    for (const SourceFile& file : files) {
        add(fs::path(file.name).filename().string());
        add(file.text);
    }
    ok = ok && EVP_DigestFinal_ex(context.get(), digest, &length) == 1;
    std::string out;
    for (unsigned i = 0; ok && i < length; ++i) {
        constexpr char hex[] = "0123456789abcdef";
        out += {hex[digest[i] >> 4], hex[digest[i] & 15]};
    }
    return out;
}

void read_file(const fs::path& path, std::vector<SourceFile>& files, Problems& problems) {
    std::error_code error;
    const auto size = fs::file_size(path, error);
    if (!error && size > limits::file_bytes_max) {
        problems.error(path.string(), "file-too-big",
                       "the file has " + std::to_string(size) + " bytes; at most " +
                           std::to_string(limits::file_bytes_max) + " are read",
                       "split it: every *.yaml of the directory is read");
        return;
    }
    // A pipe would have to be waited for.
    if (fs::exists(path, error) && !fs::is_regular_file(path, error)) {
        problems.error(path.string(), "cannot-read", "this is no file", "remove it, or name it otherwise");
        return;
    }
    std::ifstream stream(path, std::ios::binary);
    std::string text;
    if (stream) {
        // One byte more than the limit: a file that grew meanwhile is refused by the reader.
        text.resize(limits::file_bytes_max + 1);
        stream.read(text.data(), static_cast<std::streamsize>(text.size()));
        text.resize(static_cast<std::size_t>(stream.gcount()));
    }
    if (!stream && !stream.eof()) {
        problems.error(path.string(), "cannot-read",
                       std::string("cannot read the file: ") + std::strerror(errno), {});
        return;
    }
    files.push_back({path.string(), std::move(text)});
}

std::vector<fs::path> files_of(const fs::path& directory, Problems& problems) {
    std::vector<fs::path> out;
    std::error_code error;
    for (fs::directory_iterator at(directory, error), end; !error && at != end; at.increment(error)) {
        const fs::path& path = at->path();
        if (path.filename().string().starts_with('.')) continue;         // editors, configuration management
        if (path.filename().string().ends_with(".test.yaml")) continue;  // tests of the rules beside them
        if (path.extension() == ".yaml") out.push_back(path);
        std::string extension = path.extension().string();
        std::ranges::transform(extension, extension.begin(),
                               [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; });
        if (path.extension() != ".yaml" && (extension == ".yml" || extension == ".yaml"))
            problems.warning(path.string(), "not-read", "only *.yaml is read", "rename it to end in .yaml");
        if (at->is_directory(error) && path.extension() != ".yaml")
            problems.warning(path.string(), "not-read", "directories below the policy's are not read",
                             "move its files up, or out of the policy's directory");
    }
    if (error)
        problems.error(directory.string(), "cannot-read", "cannot read the directory: " + error.message(),
                       {});
    std::ranges::sort(out);
    return out;
}

// Of a directory or one file. Empty where nothing can be read; `problems` then says why.
std::vector<SourceFile> read_files(const fs::path& path, Problems& problems) {
    std::vector<SourceFile> files;
    std::error_code error;
    const fs::file_status status = fs::status(path, error);
    if (!fs::exists(status)) {
        problems.error(path.string(), "cannot-read", "there is no such file or directory",
                       "name a policy file, or a directory of *.yaml files");
        return files;
    }
    if (!fs::is_directory(status)) {
        read_file(path, files, problems);
        return files;
    }
    const std::vector<fs::path> paths = files_of(path, problems);
    if (paths.empty() && problems.errors() == 0)
        problems.error(path.string(), "no-policy", "the directory has no *.yaml file",
                       "put the policy there; docs/examples/policy.d is one to start from");
    if (paths.size() > limits::files_max)
        problems.error(path.string(), "too-many-files",
                       "more than " + std::to_string(limits::files_max) + " policy files",
                       "join some of them");
    if (problems.errors() != 0) return files;
    for (const fs::path& file : paths) read_file(file, files, problems);
    return files;
}

Compiled<LoadedPolicy> compile(std::span<const SourceFile> files, Problems& problems) {
    // Unreadable files leave `files` without being in it: the errors are in `problems` already.
    std::vector<SourceText> sources;
    sources.reserve(files.size());
    PolicyBuilder builder(problems);
    for (const SourceFile& file : files) {
        sources.emplace_back(file.name, file.text);
        Compiled<NodePtr> root = read_yaml(sources.back());
        if (!root) problems.add(std::move(root.error()));
        builder.add_file(sources.back(), root.value_or(nullptr));
    }
    std::shared_ptr<const Policy> policy = builder.build(hash_of(files));
    if (!policy || problems.errors() != 0) return std::unexpected(problems.take());
    return LoadedPolicy{std::move(policy), problems.take()};
}

Diagnostic expiry_warning(const Expiry& expiry, const std::string& context, std::string message,
                          std::string_view code, std::string help) {
    return {Severity::warning, "rules/" + std::string(code),
            expiry.place,      std::move(message),
            std::move(help),   context,
            expiry.source_line};
}

}  // namespace

const Site* Policy::find_site(std::string_view site_name) const noexcept {
    const auto found = std::ranges::find(sites, site_name, &Site::name);
    return found == sites.end() ? nullptr : &*found;
}

std::vector<std::string> Policy::named_lists(const ClassInfo& info, PrefixIndex::Place place) const {
    std::vector<std::string> out;
    for (const std::uint16_t index : info.lists)
        if (index < list_is_named_.size() && list_is_named_[index] != 0)
            out.push_back(region_spec_.list_names[index]);
    prefix_index_.each_set(place, [&](std::uint32_t set) {
        if (!place_set_names_[set].empty()) out.push_back(place_set_names_[set]);
    });
    return out;
}

Compiled<LoadedPolicy> load_policy(const fs::path& path) {
    return load_policy_set(std::span(&path, 1));
}

Compiled<LoadedPolicy> load_policy_set(std::span<const fs::path> paths) {
    Problems problems;
    std::vector<SourceFile> files;
    for (const fs::path& path : paths)
        for (SourceFile& file : read_files(path, problems)) files.push_back(std::move(file));
    if (files.empty()) return std::unexpected(problems.take());
    return compile(files, problems);
}

std::optional<std::string> content_hash(const fs::path& path) {
    Problems problems;
    const std::vector<SourceFile> files = read_files(path, problems);
    if (problems.errors() != 0) return std::nullopt;
    return hash_of(files);
}

Compiled<LoadedPolicy> compile_policy(std::span<const SourceFile> files) {
    Problems problems;
    return compile(files, problems);
}

bool has_site(const Policy& policy, std::string_view site) {
    return policy.sites.empty() || std::ranges::find(policy.sites, site, &Site::name) != policy.sites.end();
}

std::vector<Diagnostic> data_warnings(const Policy& policy, bool has_asn_data) {
    if (has_asn_data || !policy.asks_for_asn()) return {};
    return {*policy.asks_for_asn()};
}

std::vector<Diagnostic> expiry_warnings(const Policy& policy, Timestamp now) {
    std::vector<Diagnostic> out;
    const auto look = [&](const Expiry& expiry, const std::string& context, const std::string& what,
                          const std::string& effect) {
        if (expiry.at <= now)
            out.push_back(expiry_warning(expiry, context, what + " expired " + expiry.text + ": it " + effect,
                                         "expired", "ask its owner to renew it, or remove it"));
        else if (expiry.at - now <= limits::expiry_notice)
            out.push_back(expiry_warning(expiry, context,
                                         what + " expires " + expiry.text + ", in less than " +
                                             std::to_string(limits::expiry_notice.count()) + " days",
                                         "expires-soon", "ask its owner to renew it in time"));
    };
    for (const AllowEntry& entry : policy.allows)
        look(entry.expires,
             "allow entry \"" + entry.id + "\" (line " + std::to_string(entry.place.line) + ")", "the entry",
             "allows nothing");
    for (const Rule& rule : policy.rules)
        for (const RuleException& exception : rule.exceptions)
            look(exception.expires, "rule \"" + rule.id + "\" (line " + std::to_string(rule.place.line) + ")",
                 "the exception", "excuses nothing");
    return out;
}

}  // namespace egresswatch::rules
