#!/usr/bin/python3
"""tests/netns/sender_scenes_test.py - the demo's scenes of senders and names as assertions.

SPDX-License-Identifier: Apache-2.0
"""
import json
import re
import shutil

from case import SiteCase, main
from sender_scenes import CN, RULE, SENDER_SCENES, SETTINGS, prepare
from world import BIN, BUILD, wait_for


class Senders(SiteCase):
    settings = SETTINGS

    def test_each_alert_names_sender_and_destination(self):
        prepare(self.site)
        self.play(*SENDER_SCENES)
        totals = self.site.status()["engine_details"]
        self.assertGreater(totals["bytes_out.process"], 400_000)
        self.assertLess(totals["bytes_out.no-socket"] + totals["bytes_out.older"] + totals["bytes_out.daemon-away"], 1,
                        "nothing without a sender")
        self.check_the_journal()

    def check_the_journal(self):
        """What a flow record says of name and sender counts where the journal is replayed."""
        site, other = self.site, self.site.dir / "without"
        geo = ["--geo", BUILD / "share/geo.ewgeo"]
        wait_for("the records of ended flows", 20, lambda: any(
            r["ended"] and r["flow"]["remote"] == f"{CN}37" for r in site.journal("flow")))
        site.run_in("host", BIN / "egresswatch", "replay", "--old", site.policy_dir, "--new", site.policy_dir, *geo,
                    "--fail-on-findings", site.dir / "state")
        shutil.copytree(site.policy_dir, other)
        rules = (other / "20-senders.yaml").read_text()
        (other / "20-senders.yaml").write_text(re.sub("from: .*", "from: {executable: /usr/bin/curl}", rules))
        told = json.loads(site.run_in("host", BIN / "egresswatch", "replay", "--old", site.policy_dir, "--new", other, *geo,
                                      "--json", site.dir / "state").stdout)
        lost = [example["remote"] for rule in told["rules"] if rule["id"] == RULE for example in rule["lost_examples"]]
        self.assertEqual(lost, ["8.8.8.11"], told)
        learned = site.run_in("host", BIN / "egresswatch", "learn", site.dir / "state").stdout
        self.assertIn("from: {executable: \"/usr/bin/curl\"}", learned)


if __name__ == "__main__":
    main()
