// capture/process/cgroup_path.cpp
// SPDX-License-Identifier: Apache-2.0
#include "capture/process/cgroup_path.h"

#include <algorithm>
#include <array>
#include <optional>
#include <vector>

namespace egresswatch::capture {
namespace {

// What lies between prefix and suffix is the id. `hex`: it has to be 64 hex digits.
struct Form {
    std::string_view prefix, suffix, runtime;
    bool hex;
};

// Names that runtimes give to a container's group. Their helpers ("crio-conmon-<id>.scope") match none.
constexpr std::array forms{
    Form{"docker-", ".scope", "docker", true},              // Docker, systemd driver
    Form{"cri-containerd-", ".scope", "containerd", true},  // containerd under Kubernetes, systemd driver
    Form{"nerdctl-", ".scope", "containerd", true},         // nerdctl, systemd driver
    Form{"crio-", ".scope", "cri-o", true},                 // CRI-O, systemd driver
    Form{"crio-", "", "cri-o", true},                       // CRI-O, cgroupfs driver
    Form{"libpod-", ".scope", "podman", true},              // Podman, systemd driver
    Form{"libpod-", "", "podman", true},                    // Podman, cgroupfs driver
    Form{"libpod-payload-", "", "podman", true},            // Podman with split groups
    Form{"lxc.payload.", "", "lxc", false},                 // LXC 4 and later
    Form{"", "", "", true},                                 // cgroupfs drivers: the bare id
};

bool is_hex(std::string_view text) {
    return std::ranges::all_of(text, [](char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'); });
}

std::vector<std::string_view> parts_of(std::string_view path) {
    std::vector<std::string_view> parts;
    while (!path.empty()) {
        const auto slash = path.find('/');
        const std::string_view part = path.substr(0, slash);
        if (!part.empty()) parts.push_back(part);
        if (slash == std::string_view::npos) break;
        path.remove_prefix(slash + 1);
    }
    return parts;
}

std::optional<std::string_view> id_by(const Form& form, std::string_view part) {
    constexpr std::size_t ID_DIGITS = 64;
    if (part.size() <= form.prefix.size() + form.suffix.size()) return std::nullopt;
    if (!part.starts_with(form.prefix) || !part.ends_with(form.suffix)) return std::nullopt;
    const std::string_view id =
        part.substr(form.prefix.size(), part.size() - form.prefix.size() - form.suffix.size());
    if (form.hex && (id.size() != ID_DIGITS || !is_hex(id))) return std::nullopt;
    return id;
}

// The runtime that a bare id belongs to, by the group above it.
std::string_view runtime_above(std::string_view part) {
    if (part == "docker") return "docker";
    if (part == "libpod_parent") return "podman";
    return {};
}

bool read_container(std::string_view part, std::string_view above, CgroupNames& names) {
    // A systemd group under a cgroupfs driver: "kubepods-...-pod<uid>.slice:cri-containerd:<id>".
    if (const auto last = part.rfind(':'); last != std::string_view::npos) {
        const auto first = part.rfind(':', last - 1);
        if (first == std::string_view::npos || last == 0) return false;
        const std::string_view id = part.substr(last + 1);
        if (id.size() != 64 || !is_hex(id)) return false;
        const std::string_view word = part.substr(first + 1, last - first - 1);
        names.container = id;
        names.runtime = word == "cri-containerd" ? "containerd" : word == "crio" ? "cri-o" : word;
        return true;
    }
    for (const Form& form : forms) {
        const auto id = id_by(form, part);
        if (!id) continue;
        names.container = *id;
        names.runtime = form.runtime.empty() ? runtime_above(above) : form.runtime;
        return true;
    }
    return false;
}

// "pod<uid>" or "kubepods-burstable-pod<uid with _>.slice": the uid of a pod, or of a static pod its hash.
void read_pod(std::string_view part, CgroupNames& names) {
    part = part.substr(0, part.find(".slice"));
    const auto at = part.rfind("pod");
    if (at == std::string_view::npos) return;
    if (at != 0 && (part[at - 1] != '-' || !part.starts_with("kubepods"))) return;
    std::string uid(part.substr(at + 3));
    std::ranges::replace(uid, '_', '-');
    std::string digits = uid;
    std::erase(digits, '-');
    if (digits.size() == 32 && is_hex(digits)) names.pod = uid;
}

bool is_unit(std::string_view part) {
    return part.ends_with(".service") || part.ends_with(".scope") || part.ends_with(".socket") ||
           part.ends_with(".mount") || part.ends_with(".swap");
}

// A name that would clash with the kernel's files has "_" in front (systemd, src/basic/cgroup-util.c).
std::string_view unescaped(std::string_view part) {
    return part.starts_with('_') ? part.substr(1) : part;
}

// The first group that is no slice is the unit of the host's systemd; what is called like one below that, or
// below a group that is none, is of another systemd.
void read_units(const std::vector<std::string_view>& parts, CgroupNames& names) {
    std::size_t at = 0;
    while (at < parts.size() && parts[at].ends_with(".slice")) at++;
    if (at < parts.size() && is_unit(parts[at])) names.unit = unescaped(parts[at]);
    for (std::size_t below = at + 1; below < parts.size(); below++)
        if (is_unit(parts[below])) names.inner_unit = unescaped(parts[below]);
}

// systemd-nspawn: "machine-<name>.scope/payload" or "systemd-nspawn@<name>.service/payload".
bool read_machine(std::string_view part, std::string_view above, CgroupNames& names) {
    constexpr std::array nspawn{Form{"machine-", ".scope", "nspawn", false},
                                Form{"systemd-nspawn@", ".service", "nspawn", false}};
    if (part != "payload") return false;
    for (const Form& form : nspawn) {
        const auto name = id_by(form, above);
        if (!name) continue;
        names.container = *name;
        names.runtime = form.runtime;
        return true;
    }
    return false;
}

}  // namespace

CgroupNames names_of_cgroup(std::string_view path) {
    CgroupNames names;
    const auto parts = parts_of(path);
    read_units(parts, names);
    for (std::size_t i = 0; i < parts.size(); i++) {
        if (parts[i].starts_with("user@")) names.of_user = true;
        read_pod(parts[i].substr(0, parts[i].find(':')), names);
        // The outermost container is the one that the host knows.
        const std::string_view above = i == 0 ? std::string_view{} : parts[i - 1];
        if (names.container.empty())
            (void)(read_container(parts[i], above, names) || read_machine(parts[i], above, names));
    }
    if (!names.container.empty() && !names.pod.empty() && names.runtime.empty()) names.runtime = "kubernetes";
    return names;
}

std::string common_cgroup(std::string_view a, std::string_view b) {
    std::size_t whole = 0;  // up to here both are equal, and a name ends
    const std::size_t shorter = std::min(a.size(), b.size());
    std::size_t at = 0;
    while (at < shorter && a[at] == b[at]) {
        if (a[at] == '/') whole = at;
        ++at;
    }
    const auto ends = [&](std::string_view path) { return at == path.size() || path[at] == '/'; };
    if (ends(a) && ends(b)) whole = at;
    return std::string(a.substr(0, whole));
}

}  // namespace egresswatch::capture
