#!/usr/bin/python3
"""tests/netns/policy_tools_test.py - the policy's tools on what a real daemon saw: its live flows, and its journal.

SPDX-License-Identifier: Apache-2.0
"""
import json
import subprocess
import threading

from case import SiteCase, main
from scenes import MIB
from world import BIN, BUILD, SINK, WORLD, wait_for

GEO = BUILD / "share/geo.ewgeo"


class PolicyTools(SiteCase):
    def bulk_to(self, country, mib):
        self.site.traffic("host", "send", WORLD[country][0], SINK, mib * MIB).wait()

    def egresswatch(self, *words, check=True):
        done = subprocess.run([str(BIN / "egresswatch"), *map(str, words)], capture_output=True, text=True, timeout=60)
        if check:
            self.assertEqual(done.returncode, 0, f"{words}\n{done.stdout}{done.stderr}")
        return done

    def recorded_flows(self, count):
        """Flows are in the journal once they have ended."""
        wait_for(f"the records of {count} flows", 30, lambda: len(self.site.journal("flow")) >= count)

    def test_learn_from_the_running_daemon(self):
        learned = {}

        def learn():
            learned["done"] = self.site.run_in("host", BIN / "egresswatch", "learn", "--socket", self.site.socket,
                                               "--for", "4s", check=False)
        observer = threading.Thread(target=learn)
        observer.start()
        while observer.is_alive():
            self.bulk_to("US", 1)
        observer.join()
        done = learned["done"]
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn("8.8.8.0/24", done.stdout, "the network of the address that was sent to")
        self.assertIn(f"{SINK}/tcp", done.stdout)
        self.assertIn("owner: FILL-IN", done.stdout, "left to a human")
        self.assertNotIn(WORLD["IE"][0].rsplit(".", 1)[0], done.stdout, "home needs no permission")

    def test_the_journal_answers_what_happened_and_what_would_have(self):
        site = self.site
        mark = len(site.alerts.findings)
        self.bulk_to("CN", 60)
        alert = site.wait_alerts(mark, lambda a: a.rule == "bulk-to-outside")
        self.assertTrue(alert)
        self.bulk_to("US", 10)
        site.stop(site.daemon)  # the last flows are recorded
        self.recorded_flows(2)
        journal = site.dir / "state"
        finding = [r for r in site.journal("finding") if r["rule"]["id"] == "bulk-to-outside"][0]
        flows = site.journal("flow")
        self.assertEqual({f["flow"]["remote"] for f in flows if f["flow"]["bytes_out"] > MIB},
                         {WORLD["CN"][0], WORLD["US"][0]})

        # explain: the finding that is in the journal, by the policy that made it.
        for name in (finding["seq"], alert[0].get("event.id")):  # as the journal has it, and as the SIEM was told
            words = self.egresswatch("explain", name, "--journal", journal, "--policy", site.policy_dir, "--geo", GEO).stdout
            self.assertIn("bulk-to-outside", words)
            self.assertIn(WORLD["CN"][0], words)
            self.assertIn("CN", words)

        # replay --old --new: a threshold of 5 MiB would have found the transfer to the US too.
        other = site.dir / "stricter"
        other.mkdir()
        for file in site.policy_dir.glob("*.yaml"):
            (other / file.name).write_text(file.read_text().replace("at_least: 50 MiB", "at_least: 5 MiB"))
        self.assertIn("at_least: 5 MiB", "".join(f.read_text() for f in other.glob("*.yaml")))
        done = self.egresswatch("replay", "--old", site.policy_dir, "--new", other, "--geo", GEO, "--json", journal)
        told = json.loads(done.stdout)
        self.assertIn(WORLD["US"][0], json.dumps(told), "gained")
        same = self.egresswatch("replay", "--old", site.policy_dir, "--new", site.policy_dir, "--geo", GEO, "--json",
                                "--fail-on-findings", journal)
        self.assertEqual(same.returncode, 0, "a policy gains and loses nothing against itself")
        changed = self.egresswatch("replay", "--old", site.policy_dir, "--new", other, "--geo", GEO, "--fail-on-findings",
                                   journal, check=False)
        self.assertEqual(changed.returncode, 1, "the exit status of a pipeline")

        # learn: what the journal's flows would need.
        learned = self.egresswatch("learn", journal).stdout
        self.assertIn("114.114.114.0/24", learned)
        self.assertIn("8.8.8.0/24", learned)
        large = self.egresswatch("learn", "--min-bytes", "20 MiB", journal).stdout
        self.assertIn("114.114.114.0/24", large)
        self.assertNotIn("8.8.8.0/24", large, "less than was asked for")


if __name__ == "__main__":
    main()
