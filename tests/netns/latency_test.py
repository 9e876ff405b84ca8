#!/usr/bin/python3
"""tests/netns/latency_test.py - from the first byte past the threshold to the syslog datagram: under 50 ms.

SPDX-License-Identifier: Apache-2.0
"""
import json
import statistics
import threading
import unittest

from case import SiteCase, main
from world import PYTHON, SUPPORT, UDP_SINK, wait_for

LISTEN = 15999
THRESHOLD = 50 << 20
ROUNDS = 9
BUDGET_S = 0.050


class Latency(SiteCase):
    settings = f"  - {{name: watch, type: syslog, transport: udp, address: 127.0.0.1, port: {LISTEN}, body: ecs}}\n"

    def test_an_alert_leaves_within_50_ms_of_the_byte_that_crosses_the_threshold(self):
        site, arrived = self.site, {}
        listener = site.start("host", PYTHON, SUPPORT / "traffic.py", "listen", LISTEN)
        self.assertIn("ready", listener.stdout.readline())

        def follow():
            for line in listener.stdout:
                news = json.loads(line)
                for number in range(1, ROUNDS + 1):
                    if f"114.114.3.{number}" in news["text"] and "bulk-to-outside" in news["text"]:
                        arrived.setdefault(number, news["at"])
        threading.Thread(target=follow, daemon=True).start()

        delays = []
        for number in range(1, ROUNDS + 1):
            # The rule counts IP bytes: 28 of header on each datagram of 1,400. The mark is the last datagram below.
            mark = THRESHOLD // 1428 * 1400
            transfer = site.traffic("host", "send", f"114.114.3.{number}", UDP_SINK, 60 << 20, udp=True, rate=60e6, mark=mark)
            transfer.wait()
            wait_for(f"alert {number}", 5, lambda number=number: number in arrived)
            delays.append(arrived[number] - transfer.marked_at)
        delays.sort()
        print("  threshold to syslog datagram, ms: min {:.1f} median {:.1f} max {:.1f}, {} rounds".format(
            1000 * delays[0], 1000 * statistics.median(delays), 1000 * delays[-1], ROUNDS), flush=True)
        self.assertGreater(delays[0], -0.001, "an alert cannot come before its reason")
        self.assertLess(statistics.median(delays), BUDGET_S)


if __name__ == "__main__":
    main()
