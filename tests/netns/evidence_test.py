#!/usr/bin/python3
"""tests/netns/evidence_test.py - what an auditor does with the journal of a real daemon, and disks that fail.

SPDX-License-Identifier: Apache-2.0
"""
import ctypes
import json
import os
import shutil
import signal
import subprocess
import sys

from case import SiteCase, main
from scenes import MIB
from world import BIN, PYTHON, SINK, SUPPORT, run, wait_for

sys.path.insert(0, str(SUPPORT))
from journal_schema import check as check_schema  # noqa: E402

CLONE_NEWNS = 0x20000
CN = "114.114.114.114"
BULK = 55 * MIB
TOOLS = SUPPORT.parents[1] / "tools"


class EvidenceCase(SiteCase):
    settings = ("coverage_interval: 1s\njournal: {segment_size: 1 MiB}\n"
                "evidence: {checkpoint_interval: 1s, key_interval: 10s}\n")

    @property
    def state(self):
        return self.site.dir / "state"

    def journal(self):
        return self.state / "journal"

    def alert(self, remote):
        """A transfer that becomes a high finding; the alert as the SIEM has it."""
        mark = len(self.site.alerts.findings)
        transfer = self.site.traffic("host", "send", remote, SINK, BULK)
        found = self.site.wait_alerts(mark, lambda a: a.rule == "bulk-to-outside" and a.remote == remote, seconds=15)
        transfer.wait()
        self.assertEqual(len(found), 1, f"alerts about {remote}")
        return found[0]

    def verify(self, *words):
        done = subprocess.run([BIN / "egresswatch", "verify", self.journal(), "--key", self.genesis, "--json", *words],
                              capture_output=True, text=True, check=False)
        self.assertIn(done.returncode, (0, 1), done.stderr)
        report = json.loads(done.stdout)
        self.assertEqual(report["good"], done.returncode == 0)
        return report


class Audit(EvidenceCase):
    def test_a_journal_over_crash_and_restart_is_good_and_a_changed_one_is_not(self):
        site = self.site
        self.genesis = run(BIN / "egresswatch", "key", "--journal", self.journal()).stdout.strip()
        self.assertIn(self.genesis, site.daemon_log(), "the first start tells the genesis key")
        self.assertEqual(site.status()["evidence"]["genesis_key"], self.genesis)

        self.alert(CN)
        finding = next(r for r in site.journal("finding") if r["rule"]["id"] == "bulk-to-outside")
        # At once, not at the next interval: the interval is made so long below that it cannot be that.
        wait_for("a checkpoint over the finding", 5,
                 lambda: any(r["seq"] > finding["seq"] and r["size"] >= finding["seq"] for r in site.journal("checkpoint")))
        wait_for("a change of key", 25, lambda: site.journal("key"))

        site.stop(site.daemon, signal.SIGKILL)
        site.start_daemon()
        self.alert("114.114.7.7")
        # The kernel told the successor of the first transfer again; the journal, that it had been reported.
        reported = [r["flow"]["remote"] for r in site.journal("finding") if r["rule"]["id"] == "bulk-to-outside"]
        self.assertEqual(sorted(reported), [CN, "114.114.7.7"])
        site.stop(site.daemon)
        wait_for("the stop record's checkpoint in the SIEM", 10, lambda: any(
            '"checkpoint"' in json.dumps(e) and str(site.journal("checkpoint")[-1]["note"].split("\n")[2]) in json.dumps(e)
            for e in map(json.loads, (site.dir / "alerts.json").read_text().splitlines())))

        report = self.verify("--anchors", site.dir / "alerts.json")
        self.assertEqual(report["problems"], [])
        log = report["logs"][0]
        self.assertEqual(len(report["logs"]), 1)
        self.assertGreater(log["anchors"], 5)
        self.assertEqual(log["anchored_size"], log["signed_size"], "the SIEM has the last checkpoint")
        self.assertEqual(report["not_signed"], 1)
        kinds, complaints = check_schema(self.journal())
        self.assertEqual(complaints, [])
        for kind in ("genesis", "policy", "coverage", "finding", "flow", "checkpoint", "key", "gap", "recovery", "stop"):
            self.assertGreater(kinds[kind], 0, kind)

        by_hand = [PYTHON, "-B", TOOLS / "verify-by-hand.py", self.journal(), self.genesis]
        self.assertIn("GOOD", run(*by_hand).stdout)

        proof = site.dir / "proof"
        proof.write_text(run(BIN / "egresswatch", "prove", finding["seq"], "--journal", self.journal()).stdout)
        proved = json.loads(run(BIN / "egresswatch", "verify", "--json", "--key", self.genesis, "--keys",
                                self.journal() / "keys", "--proof", proof).stdout)
        self.assertTrue(proved["good"])
        self.assertEqual(proved["record"], finding)

        self.change_the_finding(by_hand)

    def change_the_finding(self, by_hand):
        """The attacker makes the transfer small, then cuts the journal off behind an old checkpoint."""
        kept = self.site.dir / "kept"
        shutil.copytree(self.journal(), kept)
        for segment in self.journal().glob("seg-*.jsonl"):
            segment.write_text(segment.read_text().replace('"rule":{"id":"bulk-to-outside"', '"rule":{"id":"bulk-to-inside_"'))
        self.assertIn("altered", [p["code"] for p in self.verify()["problems"]])
        self.assertIn("BAD", run(*by_hand, check=False).stdout)
        shutil.rmtree(self.journal())
        shutil.copytree(kept, self.journal())

        segments = sorted(self.journal().glob("seg-*.jsonl"))
        lines = segments[-1].read_text().splitlines(keepends=True)
        at = [i for i, line in enumerate(lines) if '"kind":"checkpoint"' in line][-2]
        segments[-1].write_text("".join(lines[:at + 1]))
        hashes = segments[-1].with_suffix(".hashes")
        hashes.write_bytes(hashes.read_bytes()[:4096 + 32 * (at + 1)])
        self.assertEqual(self.verify()["problems"], [], "documented: only an anchor tells")
        codes = [p["code"] for p in self.verify("--anchors", self.site.dir / "alerts.json")["problems"]]
        self.assertIn("truncated", codes)


class Disks(EvidenceCase):
    """In a mount namespace of this process: what is mounted here is gone with it."""

    def remount(self, mount):
        self.site.stop(self.site.daemon)
        shutil.rmtree(self.state)
        self.state.mkdir()
        mount()
        os.chmod(self.state, 0o750)
        self.site.start_daemon()
        self.genesis = self.site.status()["evidence"]["genesis_key"]

    def fill(self, folder):
        with open(folder / "filler", "wb", buffering=0) as filler:
            try:
                while True:
                    filler.write(b"x" * 4096)
            except OSError:
                pass

    def failing(self):
        return self.site.status()["journal"]["state"] == "failing"

    def test_a_full_disk(self):
        self.remount(lambda: run("mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", self.state))
        self.addCleanup(run, "umount", "-l", self.state, check=False)
        self.fill(self.state)
        # The rest of the journal's last page takes some gap records before nothing fits any more.
        wait_for("the journal to fail", 90, lambda: self.site.status()["journal"]["unjournaled"] >= 12)
        alert = self.alert(CN)
        self.assertTrue(alert.get("egresswatch.unjournaled"), "marked")
        status = self.site.status()["journal"]
        self.assertGreater(status["unjournaled"], 0)
        self.assertIn("No space left", status["last_error"])
        os.unlink(self.state / "filler")
        wait_for("a gap record", 15, lambda: any(r["reason"] == "unjournaled" for r in self.site.journal("gap")))
        wait_for("the journal to work", 10, lambda: not self.failing())
        after = self.alert("114.114.7.7")
        self.assertIsNone(after.get("egresswatch.unjournaled"))
        self.site.stop(self.site.daemon)
        self.assertEqual(self.verify()["problems"], [], "also: no second of coverage is missing")

    def test_a_disk_with_errors_that_becomes_read_only(self):
        disk = self.site.dir / "disk"
        disk.mkdir()

        def mount():
            # A file system that promises 256 MiB on a device that has room for few: writing it back fails with EIO.
            run("mount", "-t", "tmpfs", "-o", "size=100m", "tmpfs", disk)
            with open(disk / "image", "wb") as image:
                image.truncate(256 * MIB)
            run("mkfs.ext4", "-q", "-E", "lazy_itable_init=0", disk / "image")
            run("mount", "-o", "loop,errors=remount-ro", disk / "image", self.state)
        self.addCleanup(run, "umount", "-l", disk, check=False)
        self.addCleanup(run, "umount", "-l", self.state, check=False)
        self.remount(mount)
        self.alert(CN)
        self.fill(disk)
        wait_for("the journal to fail", 30, self.failing)
        alert = self.alert("114.114.7.7")
        self.assertEqual(alert.level, "high")
        status = self.site.status()["journal"]
        self.assertRegex(status["last_error"], "Input/output error|Read-only file system|No space left")
        self.assertIsNone(self.site.daemon.poll(), "the daemon runs on")
        os.unlink(disk / "filler")
        self.site.stop(self.site.daemon)
        run("umount", self.state)
        run("fsck.ext4", "-p", disk / "image", check=False)
        run("mount", "-o", "loop", disk / "image", self.state)
        self.site.start_daemon()
        self.alert("114.114.8.8")
        self.site.stop(self.site.daemon)
        # Whether signed records were lost is the disk's affair; that it is never silent is ours.
        codes = {problem["code"] for problem in self.verify()["problems"]}
        lost = any(r["rule"]["id"] == "egresswatch/evidence-lost" for r in self.site.journal("finding"))
        self.assertTrue(not codes or lost, codes)


if __name__ == "__main__":
    if ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWNS) != 0:
        sys.exit(f"unshare: {os.strerror(ctypes.get_errno())}")
    run("mount", "--make-rprivate", "/")
    main()
