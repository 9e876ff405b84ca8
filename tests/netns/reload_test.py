#!/usr/bin/python3
"""tests/netns/reload_test.py - a thousand reloads under load: every finding once, memory flat; and what changes on
disk comes into force by itself, however it is put there.

SPDX-License-Identifier: Apache-2.0
"""
import json
import os
import signal
import socket
import time
from collections import Counter

from case import SiteCase, main
from scenes import MIB
from world import SINK, WORLD, wait_for

RELOADS = 1000
ADDRESSES = 2400           # each gets one connection, and is to be one finding
BYTES, THRESHOLD = 32 << 10, 20 << 10
RATE = ADDRESSES * BYTES / 24  # bytes per second: connections go on for 24 s
MEMORY_MAX = 8 << 20       # growth over the last three quarters of the reloads

POLICY = """\
policy: egresswatch/v1
name: reload
revision: {revision}
owner: secops@example.org
regions:
  europe: {{groups: [EEA], countries: [GB, CH], as_of: 2026-02-01}}
home: europe
lists:
  changing: {{cidr: [{prefix}]}}
rules:
  - id: each-address
    title: More than a page to one address
    level: medium
    when: {{region: outside}}
    window: {{sum: bytes_out, over: 1d, by: [remote], at_least: {threshold} B}}
    suppress: {{for: 30d, by: [remote]}}
  - id: other
    title: Uses the list that changes
    level: low
    when: {{list: changing}}
    window: {{sum: bytes_out, over: 1d, by: [remote], at_least: 1 TiB}}
"""


class Reload(SiteCase):
    def ask(self, request):
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(20)
            client.connect(str(self.site.socket))
            client.sendall(json.dumps({"request": request}).encode() + b"\n")
            answer = b""
            while not answer.endswith(b"\n"):
                piece = client.recv(1 << 20)
                if not piece:
                    break
                answer += piece
        return json.loads(answer)

    def policy_status(self):
        return self.ask("status")["status"]["policy"]

    def put(self, text, name="10-dublin.yaml"):
        """As an editor or configuration management does: beside it, then moved into place."""
        new = self.site.policy_dir / f".{name}.new"
        new.write_text(text)
        os.rename(new, self.site.policy_dir / name)

    def policy(self, revision, prefix="198.51.100.0/25"):
        return POLICY.format(revision=revision, prefix=prefix, threshold=THRESHOLD)

    def anonymous_memory(self):
        with open(f"/proc/{self.site.daemon.pid}/status", encoding="ascii") as lines:
            return next(int(line.split()[1]) << 10 for line in lines if line.startswith("RssAnon"))

    def test_a_thousand_reloads_under_load_lose_and_double_no_finding(self):
        site = self.site
        self.put(self.policy(1))
        self.assertTrue(self.ask("reload")["ok"])
        before = self.policy_status()["reloads"]
        load = site.traffic("host", "many", "114.114.0.0/16", SINK, BYTES, count=ADDRESSES, rate=RATE)
        busy = site.traffic("host", "send", WORLD["IE"][0], SINK, 2000 * MIB, rate=60e6)
        began, memory, broken, quickest, slowest = time.monotonic(), [], 0, 99.0, 0.0
        while_traffic = 0
        for number in range(2, RELOADS + 2):
            # Every tenth time the region table is another one as well; every fiftieth time the set is broken.
            prefix = "198.51.100.128/25" if number // 10 % 2 else "198.51.100.0/25"
            bad = number % 50 == 0
            text = self.policy(number, prefix)
            self.put(text.replace("by: [remote]", "by: [remotee]") if bad else text)
            asked = time.monotonic()
            answer = self.ask("reload")
            took = time.monotonic() - asked
            quickest, slowest = min(quickest, took), max(slowest, took)
            self.assertEqual(answer["ok"], not bad, answer)
            broken += bad
            self.assertEqual(answer["reload"]["revision"], number - bad)
            while_traffic += load.running
            if not load.running:  # the same addresses again: none of them is to be found twice
                load.wait(5)
                load = site.traffic("host", "many", "114.114.0.0/16", SINK, BYTES, count=ADDRESSES, rate=RATE)
            memory.append(self.anonymous_memory())
        seconds = time.monotonic() - began
        load.wait(90)
        # What is held from one reload to the next, and not what one of them takes and gives back.
        early = memory[RELOADS // 4 - 20:RELOADS // 4 + 20]
        grown = min(memory[-40:]) - max(early)
        busy.process.terminate()
        self.assertGreater(while_traffic, RELOADS // 4, "reloads while connections were made")
        wait_for("the findings", 20, lambda: len([r for r in site.journal("finding")
                                                  if r["rule"]["id"] == "each-address"]) >= ADDRESSES)
        time.sleep(1.5)  # a double would come with the next drain
        found = Counter(r["flow"]["remote"] for r in site.journal("finding") if r["rule"]["id"] == "each-address")
        self.assertEqual(len(found), ADDRESSES, "addresses with a finding")
        self.assertEqual([address for address, times in found.items() if times > 1], [], "found twice")
        after = self.policy_status()
        # On a slow machine the change on disk may be seen before the request comes: some sets are read twice.
        self.assertGreaterEqual(after["reloads"]["accepted"] - before["accepted"], RELOADS - broken)
        self.assertGreaterEqual(after["reloads"]["rejected"] - before["rejected"], broken)
        self.assertIsNone(after["broken"], "mended")
        findings = [r for r in site.journal("finding") if r["rule"]["id"] == "egresswatch/policy-broken"]
        self.assertEqual(len(findings), broken, "one finding for each broken set")
        print(f"  {RELOADS} reloads in {seconds:.1f} s ({quickest * 1000:.0f} to {slowest * 1000:.0f} ms each), "
              f"{while_traffic} of them while {ADDRESSES} connections were made; {len(found)} findings, none twice; "
              f"memory grew by {grown / MIB:.1f} MiB from {min(early) / MIB:.1f} to {max(early) / MIB:.1f}", flush=True)
        self.assertLess(grown, MEMORY_MAX)

    def test_what_changes_on_disk_comes_into_force_by_itself(self):
        site, revision = self.site, 100

        def arrives(how):
            wait_for(how, 5, lambda: self.policy_status()["revision"] == revision)
            status = self.policy_status()
            self.assertEqual(status["content_hash"], site.journal("policy")[-1]["content_hash"])
            self.assertEqual(status["last_reload"]["trigger"], "change on disk", how)

        self.put(self.policy(revision))
        arrives("a file moved into place")
        revision += 1
        (site.policy_dir / "10-dublin.yaml").write_text(self.policy(revision))
        arrives("a file written in place")
        # The directory becomes a link to a release, and the link is swapped.
        for release in (102, 103):
            (site.dir / f"release-{release}").mkdir()
            (site.dir / f"release-{release}" / "10.yaml").write_text(self.policy(release))
        os.symlink("release-102", site.dir / "current")
        os.rename(site.policy_dir, site.dir / "old")
        os.rename(site.dir / "current", site.policy_dir)
        revision = 102
        arrives("a link in the place of the directory")
        os.symlink("release-103", site.dir / "next")
        os.rename(site.dir / "next", site.policy_dir)
        revision = 103
        arrives("a swapped link")
        # Forty files at once, the header among them changed twice: one or two reloads, not eighty.
        before = self.policy_status()["reloads"]
        for number in range(40):
            (site.policy_dir / f"{20 + number}-more.yaml").write_text("policy: egresswatch/v1\nrules: []\n")
        revision = 104
        (site.policy_dir / "10.yaml").write_text(self.policy(revision))
        arrives("many files at once")
        after = self.policy_status()["reloads"]
        self.assertLessEqual(sum(after.values()) - sum(before.values()), 3, "reloads for many files")
        # A broken set stays visible until it is mended.
        (site.policy_dir / "10.yaml").write_text("policy: egresswatch/v1\nrulez: []\n")
        broken = wait_for("the refusal", 5, lambda: self.policy_status()["broken"])
        self.assertIn("rulez", str(broken["problems"]))
        self.assertTrue(site.wait_alerts(0, lambda a: a.rule == "egresswatch/policy-broken"), "an alert about it")
        self.assertIn("BROKEN on disk", site.tool("status").stdout)
        revision = 105
        (site.policy_dir / "10.yaml").write_text(self.policy(revision))
        arrives("the mended file")
        self.assertIsNone(self.policy_status()["broken"])
        # And a signal reads it whether or not it has changed.
        accepted = self.policy_status()["reloads"]["accepted"]
        site.daemon.send_signal(signal.SIGHUP)
        wait_for("the signal", 5, lambda: self.policy_status()["reloads"]["accepted"] == accepted + 1)


if __name__ == "__main__":
    main()
