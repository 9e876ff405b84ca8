"""tests/netns/case.py - what every namespace test shares.

SPDX-License-Identifier: Apache-2.0
"""
import json
import sys
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))

from scenes import Site  # noqa: E402
from world import HOST4, HOST6, PYTHON, SUPPORT, leftovers  # noqa: E402

# Engine dpdk on eth0. A frame of the ring holds 1,952 bytes: without offload none is longer.
TWO_DPDK_QUEUES = """\
dpdk:
  eal_args: [--no-pci, "--vdev={port},iface=eth0,qpairs=2,framecnt=8192"]
  queues: 2
  cores: [0, 1]
  huge_pages: false
  mbufs: 4095
"""
CLASS_OUTCOMES = ("local", "home", "unknown", "outside")
OTHER_OUTCOMES = ("not_ip", "malformed", "truncated")


class SiteCase(unittest.TestCase):
    """One monitored host per test; whatever happens, nothing of it may be left behind."""
    offload = True
    settings = ""
    engine = "ebpf"
    policy_source = SUPPORT / "policy.d"

    def setUp(self):
        self.site = self.make_site()
        self.addCleanup(self.nothing_left)
        self.addCleanup(self.site.close)
        self.site.__enter__()

    def make_site(self):
        return Site("ewtest", offload=self.offload, settings=self.settings, engine=self.engine, policy=self.policy_source)

    def run(self, result=None):
        before = len(result.failures) + len(result.errors) if result else 0
        super().run(result)
        if result and len(result.failures) + len(result.errors) > before and hasattr(self, "log"):
            print(f"--- egresswatchd's log\n{self.log}---", file=sys.stderr)

    def nothing_left(self):
        self.assertEqual(leftovers(self.site.prefix), [], "left behind")

    def tearDown(self):
        self.log = self.site.daemon_log()

    def balance(self, counters, first=None):
        """Every frame the hook saw is in exactly one place: asserts it, and returns {direction: frame bytes}."""
        seen = {}
        for way in ("out", "in"):
            hook = counters.hook[way]
            for what, by_class in (("packets", "packets"), ("bytes", "frame_bytes")):
                outcomes = sum(hook[name][what] for name in CLASS_OUTCOMES + OTHER_OUTCOMES)
                self.assertEqual(hook["seen"][what], outcomes, f"{what} {way}: seen by the hook = sum of outcomes")
                classes = sum(row[way][by_class] for row in counters.classes)
                others = sum(hook[name][what] for name in OTHER_OUTCOMES)
                self.assertEqual(hook["seen"][what], classes + others,
                                 f"{what} {way}: seen by the hook = totals per class + not IP + malformed + truncated")
            seen[way] = hook["seen"]["bytes"] - (first.hook[way]["seen"]["bytes"] if first else 0)
        return seen

    def agrees_with_link(self, first, last):
        """The interface's own counters say the same, to the byte. With offload a virtual device counts a
        super-packet once, as it was handed over; without, it sends segments."""
        basis = "as_given" if self.site.offload else "seen"
        for way, link_way in (("out", "tx"), ("in", "rx")):
            for what in ("packets", "bytes"):
                # A super-packet may be received as such even where we do not send any: compare what was handed over.
                name = basis if way == "out" else "as_given"
                hook = last.hook[way][name][what] - first.hook[way][name][what]
                link = last.interface[link_way][what] - first.interface[link_way][what]
                self.assertEqual(hook, link, f"{name} {what} {way} = the interface's own {link_way} {what}")

    def link_address(self, which, dev):
        return json.loads(self.site.run_in(which, "ip", "-j", "link", "show", "dev", dev).stdout)[0]["address"]

    def play(self, *scenes):
        """Each scene in turn; those that fail are named, and the others are played all the same."""
        for scene in scenes:
            result = scene(self.site)
            print(f"  {'pass' if result.passed else 'FAIL'}  scene {result.number}: {result.title}: {result.seen}", flush=True)
            with self.subTest(scene=result.number):
                self.assertTrue(result.passed, f"{result.title}\n  expected: {result.expected}\n  seen:     {result.seen}")

    def random_frames(self, count, seed, inbound=False, way="hooked"):
        """Starts the frame generator: out of the host, or at it; way "bypass" goes around the hook."""
        sender, dev, target = ("router", "lan", ("host", "eth0")) if inbound else ("host", "eth0", ("router", "lan"))
        return self.site.start(sender, PYTHON, SUPPORT / "packets.py", "send", dev, count, seed, HOST4, HOST6,
                               self.link_address(*target), "inbound" if inbound else "outbound", way)

    def observer(self, which, dev):
        process = self.site.start(which, PYTHON, SUPPORT / "packets.py", "observe", dev)
        self.assertIn("ready", process.stdout.readline())
        return process

    def observed(self, process):
        process.terminate()
        output, _ = process.communicate(timeout=20)
        return json.loads(output.splitlines()[-1])


def main():
    unittest.main(verbosity=2, warnings="ignore")
