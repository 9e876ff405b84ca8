// tests/unit/capture/cgroup_path_test.cpp - names in the paths of control groups, as each runtime writes
// them. SPDX-License-Identifier: Apache-2.0
#include "capture/process/cgroup_path.h"

#include "tests/support/catch.h"

using egresswatch::capture::names_of_cgroup;

using namespace std::string_literals;

namespace {

const std::string id = "3f4e1d2c3b4a5968778695a4b3c2d1e0f00112233445566778899aabbccddeeff"s.substr(0, 64);
const std::string uid = "2f7a6d1e-0b1c-4d2e-8f3a-4b5c6d7e8f90";
const std::string uid_ = "2f7a6d1e_0b1c_4d2e_8f3a_4b5c6d7e8f90";

struct Row {
    std::string path, unit, container, runtime, pod;
};

}  // namespace

TEST_CASE("each runtime's path names its container", "[capture][unit]") {
    // Sources: systemd.slice(5); moby daemon/oci_linux.go; containerd and cri-o under kubelet's
    // --cgroup-driver systemd and cgroupfs (kubernetes pkg/kubelet/cm/cgroup_manager_linux.go); podman-run(1)
    // --cgroups.
    const Row rows[] = {
        {"/system.slice/docker-" + id + ".scope", "docker-" + id + ".scope", id, "docker", ""},
        {"/docker/" + id, "", id, "docker", ""},
        {"/docker/" + id + "/init", "", id, "docker", ""},
        {"/machine.slice/libpod-" + id + ".scope/container", "libpod-" + id + ".scope", id, "podman", ""},
        {"/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-" + id + ".scope/container",
         "user@1000.service", id, "podman", ""},
        {"/libpod_parent/libpod-" + id, "", id, "podman", ""},
        {"/system.slice/app.service/libpod-payload-" + id, "app.service", id, "podman", ""},
        {"/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod" + uid_ + ".slice/cri-containerd-" +
             id + ".scope",
         "cri-containerd-" + id + ".scope", id, "containerd", uid},
        {"/kubepods.slice/kubepods-pod" + uid_ + ".slice/crio-" + id + ".scope", "crio-" + id + ".scope", id,
         "cri-o", uid},
        {"/kubepods/besteffort/pod" + uid + "/" + id, "", id, "kubernetes", uid},
        {"/kubepods/pod" + uid + "/crio-" + id, "", id, "cri-o", uid},
        {"/kubepods/burstable/pod7d1c3a0b2f4e5d6c7b8a90817263544f/" + id, "", id, "kubernetes",
         "7d1c3a0b2f4e5d6c7b8a90817263544f"},  // a static pod: a hash
        {"/system.slice/containerd.service/kubepods-besteffort-pod" + uid_ + ".slice:cri-containerd:" + id,
         "containerd.service", id, "containerd", uid},
        {"/system.slice/nerdctl-" + id + ".scope", "nerdctl-" + id + ".scope", id, "containerd", ""},
        {"/lxc.payload.web1/system.slice/nginx.service", "", "web1", "lxc", ""},
    };
    for (const Row& row : rows) {
        INFO(row.path);
        const auto names = names_of_cgroup(row.path);
        CHECK(names.unit == row.unit);
        CHECK(names.container == row.container);
        CHECK(names.runtime == row.runtime);
        CHECK(names.pod == row.pod);
        CHECK(names.of_user == (row.path.find("/user@") != std::string::npos));
    }
}

TEST_CASE("what only looks like a container is none", "[capture][unit]") {
    for (const std::string& path :
         {"/system.slice/crio-conmon-" + id + ".scope", "/machine.slice/libpod-conmon-" + id + ".scope",
          "/system.slice/docker-" + id.substr(1) + ".scope", "/docker/" + id + "0",
          "/system.slice/docker-" + std::string(64, 'g') + ".scope",
          std::string("/system.slice/docker.service"), std::string("/"), std::string(),
          std::string("//::://"), std::string(":"), std::string("/podium.slice")}) {
        INFO(path);
        const auto names = names_of_cgroup(path);
        CHECK(names.container.empty());
        CHECK(names.pod.empty());
    }
}

TEST_CASE("the unit is the first group that is no slice", "[capture][unit]") {
    CHECK(names_of_cgroup("/system.slice/nightly.service").unit == "nightly.service");
    CHECK(names_of_cgroup("/system.slice/system-getty.slice/getty@tty1.service").unit ==
          "getty@tty1.service");
    CHECK(names_of_cgroup("/system.slice/nightly.service/worker-3").unit == "nightly.service");
    CHECK(names_of_cgroup("/user.slice/user-1000.slice/session-3.scope").unit == "session-3.scope");
    CHECK(names_of_cgroup("/init.scope").unit == "init.scope");
    CHECK(names_of_cgroup("/system.slice/_cgroup.procs.service").unit == "cgroup.procs.service");
    CHECK(names_of_cgroup("/system.slice").unit.empty());
    const auto of_user =
        names_of_cgroup("/user.slice/user-1000.slice/user@1000.service/app.slice/sync.service");
    CHECK(of_user.unit == "user@1000.service");
    CHECK(of_user.inner_unit == "sync.service");
    const auto in_machine =
        names_of_cgroup("/machine.slice/machine-web.scope/payload/system.slice/nightly.service");
    CHECK(in_machine.unit == "machine-web.scope");
    CHECK(in_machine.inner_unit == "nightly.service");
    CHECK(in_machine.container == "web");
    CHECK(in_machine.runtime == "nspawn");
    const auto by_hand = names_of_cgroup("/payload/system.slice/nightly.service");
    CHECK(by_hand.unit.empty());
    CHECK(by_hand.inner_unit == "nightly.service");
}

using egresswatch::capture::common_cgroup;

TEST_CASE("what control groups have in common ends where a name does", "[capture][cgroup]") {
    CHECK(common_cgroup("/a.slice/docker-1.scope/x", "/a.slice/docker-1.scope/y/z") ==
          "/a.slice/docker-1.scope");
    CHECK(common_cgroup("/a.slice/docker-1.scope", "/a.slice/docker-1.scope/y") == "/a.slice/docker-1.scope");
    CHECK(common_cgroup("/a.slice/docker-1.scope", "/a.slice/docker-12.scope") == "/a.slice");
    CHECK(common_cgroup("/a.slice", "/a.slice") == "/a.slice");
    CHECK(common_cgroup("/a.slice/x", "/b.slice/x") == "");
    CHECK(common_cgroup("/", "/a") == "");
    CHECK(common_cgroup("", "/a") == "");
}
