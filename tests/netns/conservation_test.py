#!/usr/bin/python3
"""tests/netns/conservation_test.py - not one byte is missing: random traffic of all kinds, both directions.

SPDX-License-Identifier: Apache-2.0
"""
import json
import os

from case import SiteCase, main
from scenes import country_totals
from world import HOST4, HOST6, SINK, SOURCE, UDP_SINK, WORLD, wait_for

FRAMES = 30_000


class Conservation(SiteCase):
    def mixed_traffic(self, seed):
        """Frames of every kind from packet sockets both ways, and sockets beside them, all at once."""
        site, mib = self.site, 1 << 20
        running = [site.traffic("host", "send", WORLD["US"][0], SINK, 24 * mib),
                   site.traffic("host", "send", WORLD["CN"][1], SINK, 24 * mib),
                   site.traffic("host", "send", WORLD["DE"][0], UDP_SINK, 8 * mib, udp=True, rate=20e6),
                   site.traffic("host", "send", WORLD["NO"][1], UDP_SINK, 8 * mib, udp=True, udp_gso=True, rate=20e6),
                   # Longer than the MTU: the kernel sends fragments.
                   site.traffic("host", "send", WORLD[None][0], UDP_SINK, 4 * mib, udp=True, payload=8000, rate=10e6),
                   site.traffic("host", "send", WORLD[None][1], UDP_SINK, 4 * mib, udp=True, payload=8000, rate=10e6),
                   site.traffic("world", "pull", HOST4, SOURCE, 16 * mib, source_address=WORLD["SG"][0]),
                   site.traffic("world", "pull", HOST6, SOURCE, 16 * mib, source_address=WORLD["SG"][1]),
                   site.traffic("world", "send", HOST4, SINK, 16 * mib, source_address=WORLD["IE"][0])]
        frames = [self.random_frames(FRAMES, seed), self.random_frames(FRAMES, seed + 1, inbound=True)]
        sent = []
        for process in frames:
            output, _ = process.communicate(timeout=60)
            self.assertEqual(process.returncode, 0, output)
            sent.append(json.loads(output))
        for transfer in running:
            transfer.wait(60)
        return sent

    def conserve(self):
        seed = int(os.environ.get("EGRESSWATCH_TEST_SEED", "20261123"))
        first = self.site.counters()
        observer = self.observer("router", "lan")
        sent, _ = self.mixed_traffic(seed)
        last = self.site.counters()
        peer = self.observed(observer)
        self.balance(last)
        self.agrees_with_link(first, last)

        # The peer's own count of what came in from the host, by a packet socket that knows nothing of us.
        self.assertEqual(peer["drops"], 0, "the observer lost frames: its count proves nothing")
        basis = "as_given" if self.site.offload else "seen"
        self.assertEqual({what: last.hook["out"][basis][what] - first.hook["out"][basis][what] for what in ("packets", "bytes")},
                         {"packets": peer["frames"], "bytes": peer["bytes"]}, "what the hook counted = what the peer received")

        # And the kinds: frames without IP and broken ones are where they belong, every country got its share.
        kinds, out = sent["kinds"], last.hook["out"]
        self.assertGreaterEqual(out["not_ip"]["packets"], kinds["arp"] + kinds["lldp"] + kinds["garbage_type"])
        self.assertGreaterEqual(out["malformed"]["packets"] + out["truncated"]["packets"],
                                kinds["bad_version"] + kinds["bad_header_length"] // 2)
        classes = {key: row["out"]["packets"] for key, row in country_totals(last.classes).items()}
        for wanted in (("home", "IE"), ("home", "DE"), ("home", "NO"), ("outside", "US"), ("outside", "CN"), ("outside", "SG"),
                       ("unknown", "unknown")):
            self.assertGreater(classes.get(wanted, 0), 500, f"packets out to {wanted}")


class WithOffload(Conservation):
    offload = True

    def test_every_byte_is_accounted_for_with_offload(self):
        self.conserve()


class WithoutOffload(Conservation):
    offload = False

    def test_every_byte_is_accounted_for_without_offload(self):
        self.conserve()


class FullTable(SiteCase):
    settings = "flow_slots_per_cpu: 1024\n"

    def test_a_full_flow_table_loses_no_byte_and_says_so(self):
        first = self.site.counters()
        for seed in range(3):
            process = self.random_frames(FRAMES, seed)
            output, _ = process.communicate(timeout=60)
            self.assertEqual(process.returncode, 0, output)
        last = self.site.counters()
        self.balance(last)
        self.agrees_with_link(first, last)
        losses = self.site.status()["losses"]
        self.assertGreater(losses["flows_full_packets"], 0, "30,000 random flows do not fit in 1,024 slots a CPU")
        self.assertGreater(losses["flows_full_bytes"], 0)


class Bypass(SiteCase):
    settings = "coverage_interval: 1s\n"

    def test_frames_around_the_hook_become_a_finding(self):
        site = self.site
        first = site.counters()
        wait_for("the first coverage records", 10, lambda: len(site.journal("coverage")) >= 2)
        output, _ = self.random_frames(4000, 5, way="bypass").communicate(timeout=60)
        sent = json.loads(output)
        found = wait_for("the finding", 15, lambda: [r for r in site.journal("finding")
                                                     if r["rule"]["id"] == "egresswatch/conservation-residual"])
        last = site.counters()
        self.balance(last)
        around = (last.interface["tx"]["bytes"] - first.interface["tx"]["bytes"]
                  - last.hook["out"]["as_given"]["bytes"] + first.hook["out"]["as_given"]["bytes"])
        self.assertEqual(around, sent["bytes"], "what the driver sent and the hook did not see is what went around it")
        self.assertIn("eth0", str(found[0]), "the finding names the interface")
        wait_for("the finding at the syslog server", 5,
                 lambda: [a for a in site.alerts.findings if a.rule == "egresswatch/conservation-residual"])


del Conservation
if __name__ == "__main__":
    main()
