#!/usr/bin/python3
"""tests/netns/sender_scenes_test.py - the demo's scenes of senders and names as assertions.

SPDX-License-Identifier: Apache-2.0
"""
from case import SiteCase, main
from sender_scenes import SENDER_SCENES, prepare


class Senders(SiteCase):
    def test_each_alert_names_sender_and_destination(self):
        prepare(self.site)
        self.play(*SENDER_SCENES)
        totals = self.site.status()["engine_details"]
        self.assertGreater(totals["bytes_out.process"], 400_000)
        self.assertLess(totals["bytes_out.no-socket"] + totals["bytes_out.older"] + totals["bytes_out.daemon-away"], 1,
                        "nothing without a sender")


if __name__ == "__main__":
    main()
