#!/usr/bin/python3
"""tests/netns/leftovers_test.py - a test that fails, or is ended, in the middle leaves nothing on the machine.

SPDX-License-Identifier: Apache-2.0
"""
import signal
import subprocess
import sys
import unittest
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "support"))

from world import PYTHON, leftovers  # noqa: E402

FAILING = """
import sys
sys.path[:0] = [{here!r}, {support!r}]
import unittest
from case import SiteCase
from scenes import bulk, SINK

class Failing(SiteCase):
    def test_fails_in_the_middle_of_a_scene(self):
        print("prefix", self.site.prefix, flush=True)
        transfer = self.site.traffic("host", "send", "114.114.114.114", SINK, 1 << 30, rate=1e6)
        {how}

unittest.main()
"""


class Leftovers(unittest.TestCase):
    def start(self, how):
        script = FAILING.format(here=str(HERE), support=str(HERE.parent / "support"), how=how)
        process = subprocess.Popen([PYTHON, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        words = process.stdout.readline().split()
        if not words:
            self.fail("the scene did not start:\n" + process.communicate()[1])
        return process, words[1]

    def test_a_failing_scene_leaves_nothing_behind(self):
        process, prefix = self.start('self.assertEqual("alert", "silence")')
        _, errors = process.communicate(timeout=120)
        self.assertEqual(process.returncode, 1, "the scene was to fail")
        self.assertIn("silence", errors)
        self.assertNotIn("left behind", errors)
        self.assertEqual(leftovers(prefix), [])

    def test_a_scene_ended_from_outside_leaves_nothing_behind(self):
        process, prefix = self.start("transfer.wait(100)")
        self.assertTrue(leftovers(prefix), "something runs, or this test proves nothing")
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=120)
        self.assertNotEqual(process.returncode, 0)
        self.assertEqual(leftovers(prefix), [])


if __name__ == "__main__":
    unittest.main(verbosity=2, warnings="ignore")
