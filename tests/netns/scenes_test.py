#!/usr/bin/python3
"""tests/netns/scenes_test.py - the demo's seven scenes as assertions, with segmentation offload and without.

SPDX-License-Identifier: Apache-2.0
"""
from case import SiteCase, main
from scenes import SCENES, check_addresses


class Scenes(SiteCase):
    def play_all(self):
        self.assertEqual(check_addresses()[0], [], "the geo data no longer agrees with tests/support/world.py")
        first = self.site.counters()
        self.play(*SCENES)
        last = self.site.counters()
        self.balance(last)
        self.agrees_with_link(first, last)
        alerts = {via: sorted(a.get("event.id") for a in self.site.alerts.findings if a.via == via)
                  for via in ("imptcp", "imudp")}
        self.assertEqual(alerts["imptcp"], alerts["imudp"], "both outputs delivered the same alerts")
        self.assertEqual(self.site.alerts.broken, [], "rsyslogd parsed every message whole")


class WithOffload(Scenes):
    offload = True

    def test_the_seven_scenes_with_segmentation_offload(self):
        self.play_all()


class WithoutOffload(Scenes):
    offload = False

    def test_the_seven_scenes_without_segmentation_offload(self):
        self.play_all()


del Scenes
if __name__ == "__main__":
    main()
