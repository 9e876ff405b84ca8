#!/usr/bin/python3
"""tests/netns/devices_test.py - devices without a link header, and headers outside the linear part of a packet.

SPDX-License-Identifier: Apache-2.0
"""
import json
import subprocess

from case import SiteCase, main
from devices import ipv4, udp
from scenes import grown
from world import HOST4, PYTHON, SUPPORT, WORLD, wait_for

DATAGRAMS = 50


class Layer3Device(SiteCase):
    def test_a_tun_device_is_hooked_as_bare_ip_and_counted_both_ways(self):
        site = self.site
        config = site.dir / "egresswatch.yaml"
        config.write_text(config.read_text().replace("interfaces: [eth0]", 'interfaces: [eth0, "tun*"]'))
        site.stop(site.daemon)
        site.start_daemon()
        far = subprocess.Popen(site.inside("host", PYTHON, SUPPORT / "devices.py", "tun", "tun7"), text=True,
                               stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        site.processes.append(far)
        self.assertEqual(far.stdout.readline().strip(), "ready")
        site.run_in("host", "ip", "link", "set", "tun7", "up")
        for destination in WORLD["CN"]:
            site.run_in("host", "ip", "-6" if ":" in destination else "-4", "route", "add", destination, "dev",
                "tun7")
        hook = wait_for("the hook on tun7", 3, lambda: site.hook("tun7"))
        self.assertEqual(hook["starts_with"], "ip", "the status names it as a device without a link header")
        first = site.counters()
        for destination, size in zip(WORLD["CN"], (1000, 900)):
            site.run_in("host", PYTHON, SUPPORT / "devices.py", "datagrams", destination, DATAGRAMS, size)
        answer = ipv4(WORLD["CN"][0], HOST4, 17, udp(9, 7, bytes(100)))
        far.stdin.write(answer.hex() + "\n")
        far.stdin.flush()
        hook = wait_for("the answer", 3, lambda: (now := site.hook("tun7"))["in"]["outside"]["packets"] and now)
        last = site.counters()
        far.terminate()
        count = json.loads(far.communicate(timeout=10)[0].splitlines()[-1])
        self.assertEqual(count, {"packets": 2 * DATAGRAMS, "bytes": DATAGRAMS * (1028 + 948)}, "what the far end got")
        self.assertEqual(hook["out"]["outside"], count, "what the hook counted")
        self.assertEqual(hook["in"]["outside"], {"packets": 1, "bytes": 128})
        self.assertEqual(grown(first.classes, last.classes, "outside", "CN"), count["bytes"])


class PagedFrames(SiteCase):
    def test_headers_outside_linear_memory_are_read_not_skipped(self):
        site = self.site
        for which, dev in (("host", "eth0"), ("router", "lan")):
            site.run_in(which, "ip", "link", "set", dev, "mtu", "9000")
        first = site.counters()
        number = 40
        site.run_in("host", PYTHON, SUPPORT / "devices.py", "paged", "eth0", self.link_address("router", "lan"), HOST4,
                    WORLD["CN"][0], number)
        last = site.counters()
        self.balance(last)
        self.agrees_with_link(first, last)
        packets = grown(first.classes, last.classes, "outside", "CN", what="packets")
        self.assertEqual(packets, number, "plain ones and those inside a tunnel to Germany")
        self.assertEqual(last.hook["out"]["malformed"], first.hook["out"]["malformed"])
        self.assertEqual(grown(first.classes, last.classes, "outside", "CN"), number // 2 * (5978 + 5928),
                         "IP bytes of the innermost layer")


if __name__ == "__main__":
    main()
