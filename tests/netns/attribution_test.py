#!/usr/bin/python3
"""tests/netns/attribution_test.py - who sends: every way in which a process comes to a socket, and the flows of which
nobody can be named, each with its reason.

SPDX-License-Identifier: Apache-2.0
"""
import hashlib
import json
import os
import shutil
import subprocess
import time
from pathlib import Path

from case import SiteCase, main
from world import HOST4, PYTHON, SINK, SUPPORT, UDP_SINK, WORLD, run, wait_for

SENDERS = SUPPORT / "senders.py"
ALLOWED = "165.21.83.10"       # SG, by an allow entry that asks for path and hash
CN = "114.114.7."
POLICY = """\
policy: egresswatch/v1
name: senders
revision: 2
owner: secops@example.org
sites:
  dublin: {{title: "Dublin", country: IE, latitude: 53.35, longitude: -6.26}}
regions:
  europe: {{groups: [EEA], countries: [GB, CH], as_of: 2026-02-01}}
home: europe
unknown_country: outside
allow:
  - id: nightly-copy
    to: {{cidr: [165.21.83.0/24]}}
    from: {{executable: "{tool}", sha256: {sha256}}}
    owner: backup@example.org
    reason: Nightly copy
    legal_basis: art-46-scc
    ticket: SEC-102
    expires: 2036-12-31
rules:
  - id: anything
    title: Anything that is not allowed
    level: high
    when: {{region: outside, allowed: false}}
    window: {{sum: bytes_out, over: 10m, by: [remote], at_least: 500 B}}
    suppress: {{for: 1h, by: [remote]}}
  - id: nobody
    title: Nobody can be named
    level: medium
    when: {{region: outside, executable: unknown}}
    window: {{sum: bytes_out, over: 10m, by: [remote], at_least: 500 B}}
  - id: from-a-container
    title: Out of that container
    level: medium
    when: {{region: outside, sender: routed, container: {container}}}
    window: {{sum: bytes_out, over: 10m, by: [remote], at_least: 500 B}}
"""
CONTAINER = "ab" * 32


def sha256(path):
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


class SenderCase(SiteCase):
    def make_group(self, path):
        root = Path(next(line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()
                         if " - cgroup2 " in line))
        group = root / path
        group.mkdir(parents=True)
        for place in [p for p in (*reversed(group.parents), group) if root in p.parents]:  # the last one goes first
            self.addCleanup(lambda place=place: place.exists() and not list(place.glob("*/")) and place.rmdir())
        return group

    def setUp(self):
        super().setUp()
        self.tool = self.site.dir / "nightly-copy"
        shutil.copy(os.path.realpath(PYTHON), self.tool)
        self.revision = POLICY.format(tool=self.tool, sha256=sha256(self.tool), container=CONTAINER)
        (self.site.policy_dir / "10-dublin.yaml").write_text(self.revision)
        wait_for("the policy", 10, lambda: self.site.status()["policy"]["revision"] == 2)

    def start(self, *words, which="host", program=PYTHON, stdin=None):
        process = subprocess.Popen(self.site.inside(which, program, SENDERS, *words), text=True, stdin=stdin,
                                   stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        self.site.processes.append(process)
        return process

    def said(self, process, name):
        """Reads until it says that; what it said."""
        for line in process.stdout:
            words = json.loads(line)
            if name in words:
                return words[name]
        raise AssertionError(f"it never said {name}")

    def finding(self, remote, rule="anything"):
        def found():
            return [r for r in self.site.journal("finding")
                    if r["rule"]["id"] == rule and r.get("flow", {}).get("remote") == remote]
        return wait_for(f"a finding for {remote}", 5, found)[0]

    def counted(self):
        """Bytes out, by what is known of their sender."""
        details = self.site.status()["engine_details"]
        return {name.removeprefix("bytes_out."): details[name] for name in details if name.startswith("bytes_out.")}

    def sent_by(self, record, pid, how):
        """The finding names that process; returns what it says of it."""
        sender = record["sender"]
        self.assertEqual((sender["known"], sender["how"]), ("process", how), record)
        self.assertEqual(record["process"]["pid"], pid, record["process"])
        return record["process"]


class Ways(SenderCase):
    def test_the_process_that_sends_is_named_with_its_file_and_place(self):
        # One site for all: setting one up takes longer than any of these.
        for check in (self.named, self.accepted, self.short_lived, self.deleted, self.long_name, self.groups,
                      self.allowed):
            with self.subTest(check.__doc__):
                check()

    def named(self):
        """The process that sends is named."""
        python = os.path.realpath(PYTHON)
        ways = {"plain": "sent", "forked": "inherited", "passed": "inherited", "sendto": "sent",
                "forked-sendto": "inherited", "ping": "sent"}
        expected = {}
        for number, (way, how) in enumerate(ways.items(), start=1):
            port = UDP_SINK if "sendto" in way else SINK
            process = self.start(way, f"{CN}{number}", port)
            expected[way] = (f"{CN}{number}", self.said(process, "sender"), how)
            self.assertEqual(process.wait(10), 0, way)
        mac = self.link_address("router", "lan")
        process = self.start("frame", f"{CN}20", UDP_SINK, "--source", HOST4, "--to-mac", mac)
        expected["frame"] = (f"{CN}20", self.said(process, "sender"), "sent")
        for way, (remote, pid, how) in expected.items():
            with self.subTest(way):
                process = self.sent_by(self.finding(remote), pid, how)
                self.assertEqual(process["executable"], python)
                self.assertEqual(process["sha256"], sha256(python))
                self.assertEqual((process["uid"], process["user"]), (0, "root"))
                self.assertEqual(process["command_line"].split()[:3], [PYTHON, "***", "***"], "nothing of the arguments")
                self.assertEqual(process["command"], "python3")
                parent = process["parent"]["pid"]
                self.assertNotEqual(parent, 0)
                if way == "plain":
                    self.assertEqual(parent, os.getpid())
        counted = self.counted()
        self.assertGreater(counted["process"], 6 * 1000, "bytes of named processes")
        self.assertEqual(sum(counted[name] for name in counted if name not in ("process", "handshake", "kernel")), 0, counted)

    def accepted(self):
        """An accepted connection is of the process that accepted it."""
        process = self.start("accepting", HOST4, 8085)
        self.said(process, "ready")
        self.start("pull", HOST4, 8085, "--source", "165.21.83.77", which="world").wait(10)
        child = self.said(process, "sender")
        record = self.finding("165.21.83.77")
        self.sent_by(record, child, "accepted")
        self.assertNotEqual(child, process.pid)
        self.assertEqual(record["flow"]["initiator"], "remote")

    def short_lived(self):
        """A sender that ends at once is known with its hash."""
        bash = os.path.realpath("/bin/bash")
        shell = self.site.start("host", bash, "-c", f"printf '%900s' x > /dev/udp/{CN}30/{UDP_SINK}; exit 0")
        process = self.sent_by(self.finding(f"{CN}30"), shell.pid, "sent")
        self.assertEqual((process["executable"], process["sha256"]), (bash, sha256(bash)))
        pipeline = self.site.start("host", bash, "-c",
                                   f"head -c 900 /dev/zero | cat > /dev/udp/{CN}31/{UDP_SINK}")
        pipeline.wait(10)
        # The shell opens the socket in the child that becomes cat: the same pid, another program.
        process = self.finding(f"{CN}31")["process"]
        self.assertEqual(process["executable"], os.path.realpath("/bin/cat"))
        self.assertEqual(process["sha256"], sha256("/bin/cat"))
        self.assertEqual(process["parent"]["pid"], pipeline.pid)

    def deleted(self):
        """A deleted executable has the hash of what runs."""
        copy = self.site.dir / "gone"
        shutil.copy(os.path.realpath(PYTHON), copy)
        with open(copy, "ab") as file:
            file.write(b"x")  # not the file that everybody else runs
        right = sha256(copy)
        process = self.start("deleted", f"{CN}40", SINK, program=copy, stdin=subprocess.PIPE)
        pid = self.said(process, "sender")
        found = self.sent_by(self.finding(f"{CN}40"), pid, "sent")
        self.assertFalse(copy.exists())
        self.assertEqual(found["sha256"], right, found)
        self.assertTrue(found["executable_deleted"])
        self.assertEqual(Path(found["executable"]).name, "gone")
        process.stdin.close()

    def long_name(self):
        """A name that the kernel cuts is told as cut, and is no path that a rule names."""
        for length in (63, 64):
            copy = self.site.dir / ("n" * length)
            shutil.copy(os.path.realpath(PYTHON), copy)
            remote, read = f"{CN}{length}", self.site.status()["engine_details"]["hashes.files_read"]
            process = self.start("older", remote, SINK, program=copy, stdin=subprocess.PIPE)
            self.said(process, "ready")
            # A path that was cut leads to no file: it is read while its process lives.
            wait_for("the file to be read", 10,
                     lambda read=read: self.site.status()["engine_details"]["hashes.files_read"] > read)
            process.stdin.write("\n")
            process.stdin.close()
            self.assertEqual(process.wait(10), 0)
            found = self.finding(remote)["process"]
            whole = str(copy) if length == 63 else f"...{copy.parent}/{'n' * 63}..."
            self.assertEqual((found["executable"], found["sha256"]), (whole, sha256(copy)), found)

    def groups(self):
        """Units and containers are read from the control group."""
        container = CONTAINER
        pod = "0f5f2b4c_1e2d_4c3b_9a8f_001122334455"
        groups = {f"{CN}50": f"{self.site.prefix}.slice/nightly.service",
                  f"{CN}51": f"{self.site.prefix}.slice/docker-{container}.scope",
                  f"{CN}52": f"{self.site.prefix}.slice/kubepods-burstable-pod{pod}.slice/cri-containerd-{container}.scope"}
        for remote, path in groups.items():
            group = self.make_group(path)
            process = self.start("plain", remote, SINK, "--wait", stdin=subprocess.PIPE)
            self.said(process, "ready")
            (group / "cgroup.procs").write_text(str(process.pid))
            process.stdin.write("\n")
            process.stdin.close()
            self.assertEqual(process.wait(10), 0)
        found = {remote: self.finding(remote)["process"] for remote in groups}
        for remote, path in groups.items():
            self.assertTrue(found[remote]["cgroup"].endswith(path), found[remote])
        self.assertEqual(found[f"{CN}50"]["unit"], "nightly.service")
        self.assertEqual((found[f"{CN}51"]["container"], found[f"{CN}51"]["runtime"]), (container, "docker"))
        self.assertEqual((found[f"{CN}52"]["container"], found[f"{CN}52"]["runtime"], found[f"{CN}52"]["pod"]),
                         (container, "containerd", pod.replace("_", "-")))

    def allowed(self):
        """An allow entry by path and hash holds for that file only."""
        process = self.start("plain", ALLOWED, SINK, program=self.tool)
        self.assertEqual(process.wait(10), 0)
        allows = wait_for("the entry to match", 5, lambda: [
            a for a in self.site.status()["evaluation"]["allows"] if a["id"] == "nightly-copy" and a["matched"]])
        self.assertTrue(allows)
        # Another program, to the same network.
        self.start("plain", "165.21.83.11", SINK).wait(10)
        self.assertIn("executable", self.finding("165.21.83.11")["decision"]["reason"])
        # The same path, another file.
        other = self.site.dir / "other"
        shutil.copy(self.tool, other)
        with open(other, "ab") as file:
            file.write(b"x")
        other.rename(self.tool)
        self.start("plain", "165.21.83.12", SINK, program=self.tool).wait(10)
        self.assertIn("sha256", self.finding("165.21.83.12")["decision"]["reason"])
        self.assertFalse([r for r in self.site.journal("finding") if r.get("flow", {}).get("remote") == ALLOWED],
                         "what is allowed is no finding")


class Nobody(SenderCase):
    def test_what_has_no_sender_says_why_and_what_is_older_is_found(self):
        for check in (self.routed, self.routed_from_a_container, self.older):
            with self.subTest(check.__doc__):
                check()

    def guest_of(self, guest, group):
        """A process that lives in the namespace, in the control group, until the test is over."""
        process = subprocess.Popen(["nsenter", f"--net=/run/netns/{guest}", "--", "sleep", "300"])
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        (group / "cgroup.procs").write_text(str(process.pid))
        wait_for("it to live there", 10, lambda: os.stat(f"/proc/{process.pid}/ns/net").st_ino ==
                 os.stat(f"/run/netns/{guest}").st_ino)

    def routed_from_a_container(self):
        """Behind a veth pair, and behind a bridge with one port, lives a container: what all processes there share."""
        site, guest = self.site, f"{self.site.prefix}-box"
        whole = f"{site.prefix}.slice/docker-{CONTAINER}.scope"
        outer, inner = self.make_group(whole), self.make_group(f"{whole}/worker")
        run("ip", "netns", "add", guest)
        self.addCleanup(run, "ip", "netns", "del", guest, check=False)

        def inside(*words):
            return run("nsenter", f"--net=/run/netns/{guest}", "--", *words)
        for way, network in (("vbox", "87.32.2"), ("box0", "87.32.3")):
            port = "pbox" if way == "box0" else way
            site.run_in("host", "ip", "link", "add", port, "type", "veth", "peer", "name", f"in-{way}", "netns", guest)
            if way == "box0":
                site.run_in("host", "ip", "link", "add", way, "type", "bridge")
                site.run_in("host", "ip", "link", "set", port, "master", way, "up")
            site.run_in("host", "ip", "addr", "add", f"{network}.1/30", "dev", way)
            site.run_in("host", "ip", "link", "set", way, "up")
            inside("ip", "addr", "add", f"{network}.2/30", "dev", f"in-{way}")
            inside("ip", "link", "set", f"in-{way}", "up")
        site.run_in("host", "sysctl", "-qw", "net.ipv4.ip_forward=1")
        self.guest_of(guest, inner)
        self.guest_of(guest, inner)
        for number, (way, network) in enumerate((("vbox", "87.32.2"), ("box0", "87.32.3"), ("vbox", "87.32.2"))):
            if number == 2:  # the two no longer share the child group
                self.guest_of(guest, outer)
                time.sleep(10.5)  # PeerNamespaces::KEPT
            remote = f"{CN}{61 + number}"
            inside("ip", "route", "replace", "default", "via", f"{network}.1")
            # The sender lives there too, while it does.
            run("sh", "-c", 'echo $$ > "$0/cgroup.procs" && exec "$@"', inner, "nsenter", f"--net=/run/netns/{guest}", "--",
                PYTHON, SENDERS, "sendto", remote, str(UDP_SINK))
            came = self.finding(remote, "from-a-container")["sender"]["came_by"]
            self.assertEqual((came["interface"], came["container"], came["runtime"]), (way, CONTAINER, "docker"))
            self.assertTrue(came["cgroup"].endswith(whole if number == 2 else f"{whole}/worker"), came)
            alert = site.wait_alerts(0, lambda a, r=remote: a.remote == r and a.rule == "from-a-container")[0]
            self.assertEqual(alert.get("container.id"), CONTAINER)

    def routed(self):
        """Routed traffic says where it came in."""
        site, guest = self.site, f"{self.site.prefix}-guest"
        run("ip", "netns", "add", guest)
        self.addCleanup(run, "ip", "netns", "del", guest, check=False)
        site.run_in("host", "ip", "link", "add", "vguest", "type", "veth", "peer", "name", "eth0", "netns", guest)
        site.run_in("host", "ip", "addr", "add", "87.32.1.1/30", "dev", "vguest")
        site.run_in("host", "ip", "link", "set", "vguest", "up")
        site.run_in("host", "sysctl", "-qw", "net.ipv4.ip_forward=1")
        for words in (["addr", "add", "87.32.1.2/30", "dev", "eth0"], ["link", "set", "eth0", "up"],
                      ["route", "add", "default", "via", "87.32.1.1"]):
            run("nsenter", f"--net=/run/netns/{guest}", "--", "ip", *words)
        subprocess.run(["nsenter", f"--net=/run/netns/{guest}", "--", PYTHON, SENDERS, "sendto", f"{CN}60", str(UDP_SINK)],
                       check=True, stdout=subprocess.DEVNULL)
        record = self.finding(f"{CN}60")
        index = json.loads(site.run_in("host", "ip", "-j", "link", "show", "vguest").stdout)[0]["ifindex"]
        self.assertEqual(record["sender"], {
            "known": "routed", "how": None, "changes": 0, "came_by_ifindex": index,
            "came_by": dict(dict.fromkeys(("cgroup", "unit", "container", "runtime", "pod")), interface="vguest")})
        self.assertIsNone(record["process"])
        self.finding(f"{CN}60", "nobody")  # a rule that asks for what cannot be attributed
        self.assertEqual(self.counted()["routed"], 1028)

    def older(self):
        """Sockets older than the daemon are found."""
        site = self.site
        site.stop(site.daemon)
        talks = self.start("older", f"{CN}70", SINK, stdin=subprocess.PIPE)
        sink = self.start("sluggish", f"{CN}71", 7071, which="world", stdin=subprocess.PIPE)
        self.said(talks, "ready")
        wait_for("the sink", 5, lambda: ":7071 " in site.run_in("world", "ss", "-lntH").stdout)
        sleeps = self.start("stuffed", f"{CN}71", 7071, stdin=subprocess.PIPE)
        sleeper = self.said(sleeps, "sender")
        self.said(sleeps, "ready")
        self.said(sink, "ready")
        site.start_daemon()
        talks.stdin.write("\n")
        talks.stdin.close()
        self.sent_by(self.finding(f"{CN}70"), self.said(talks, "sender"), "sent")
        # Now the kernel sends, while the process does nothing.
        sink.stdin.write("\n")
        sink.stdin.close()
        found = self.sent_by(self.finding(f"{CN}71"), sleeper, "found")
        self.assertEqual(found["executable"], os.path.realpath(PYTHON))
        sleeps.stdin.close()


if __name__ == "__main__":
    main()
