#!/usr/bin/python3
"""tests/netns/dpdk_engine_test.py - engine dpdk: the daemon on net_af_packet and net_tap devices, two queues, two cores.

SPDX-License-Identifier: Apache-2.0
"""
import json
import os
import signal
import subprocess
import unittest

from case import TWO_DPDK_QUEUES, SiteCase, main
from scenes import MIB, Counters, scene_allowed, scene_bulk_tcp, scene_bulk_udp6, scene_pull
from world import BIN, BUILD, PYTHON, SINK, WORLD, WorldError, wait_for

AF_PACKET = "net_af_packet0"
ROUTER_MACS = "0200000000550200000000660800"  # to nobody: what counts is that they left


class DpdkCase(SiteCase):
    engine = "dpdk"
    offload = False
    port = AF_PACKET
    more = ""

    @property
    def settings(self):
        return TWO_DPDK_QUEUES.format(port=self.port) + self.more

    def send(self, dev, frames, macs):
        """UDP to 50 addresses of the US, a frame each time. No fragments: the kernel puts them together before it deals
        packets out to the queues of net_af_packet."""
        self.site.run_in("host", PYTHON, "-c", f"""if True:
            import socket, struct
            s = socket.socket(17, 3)
            s.bind(({dev!r}, 0))
            for i in range({frames}):
                ip = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 34, i & 65535, 0, 64, 17, 0, bytes([87, 32, 0, 2]),
                                 bytes([8, 8, 8, i % 50]))
                s.send(bytes.fromhex({macs!r}) + ip + struct.pack("!HHHH6s", 5000, 53, 14, 0, b"abcdef"))
        """)

    def details(self):
        return self.site.status()["engine_details"]


class OwnInterface(DpdkCase):
    more = "idle_timeout: 3s\ncoverage_interval: 1s\n"

    def test_scenes(self):
        site = self.site
        first = site.counters()
        self.play(scene_allowed, scene_bulk_tcp, scene_bulk_udp6, scene_pull)
        # The scenes' four connections fall to one core now and then: what is dealt out between two is many flows.
        before = sum(int(self.details()[f"core.{core}.packets"]) for core in (0, 1))
        self.send("eth0", 4000, ROUTER_MACS)
        wait_for("the frames", 10, lambda: sum(int(self.details()[f"core.{core}.packets"]) for core in (0, 1)) +
                 site.status()["losses"]["capture_dropped_packets"] >= before + 4000)
        last = site.counters()
        seen = self.balance(last, first)
        lost = sum(last.hook["dropped"].values())
        packets = sum(last.hook[way]["seen"]["packets"] - first.hook[way]["seen"]["packets"] for way in ("out", "in"))
        link = sum(last.interface[way]["packets"] - first.interface[way]["packets"] for way in ("tx", "rx"))
        details = self.details()
        print(f"  {link} packets: {packets} counted, {lost} lost; by core "
              f"{details['core.0.packets']} and {details['core.1.packets']}, {details['flows_split']} flows split", flush=True)
        self.assertEqual(packets + lost, link)
        if lost == 0:
            self.assertEqual(sum(seen.values()), sum(last.interface[way]["bytes"] - first.interface[way]["bytes"]
                                                     for way in ("tx", "rx")))
        self.assertEqual(details["spread"], "driver hash")
        self.assertGreater(min(details["core.0.packets"], details["core.1.packets"]), 1000, "both cores work")
        self.assertEqual(site.status()["losses"]["capture_dropped_packets"], lost)

    def test_reload_under_load_and_a_clean_stop(self):
        site = self.site
        self.assertEqual(site.status()["privileges"]["effective"], ["cap_net_admin"], "nothing else is kept")
        self.assert_threads_hold_nothing()
        traffic = site.traffic("host", "send", WORLD["US"][0], SINK, 64 * MIB)
        for _ in range(5):
            before = site.status()["policy"]["last_reload"]
            site.daemon.send_signal(signal.SIGHUP)
            done = wait_for("the reload", 10, lambda: site.status()["policy"]["last_reload"] not in (None, before)
                            and site.status()["policy"]["last_reload"])
            self.assertTrue(done["ok"])
        traffic.wait()
        counters = site.counters()
        self.balance(counters)
        self.assertEqual(site.status()["losses"]["no_region_table_packets"], 0)
        self.assertEqual(site.stop(site.daemon), 0, "exit status")
        self.assertTrue(site.journal("stop"))
        flows = [record for record in site.journal("flow") if record["flow"]["remote"] == WORLD["US"][0]]
        self.assertGreaterEqual(sum(record["flow"]["bytes_out"] for record in flows), 64 * MIB)
        self.assertNotIn("promiscuity 1", site.run_in("host", "ip", "-d", "link", "show", "eth0").stdout)

    def assert_threads_hold_nothing(self):
        tasks = f"/proc/{self.site.daemon.pid}/task"
        polling = 0
        for task in os.listdir(tasks):
            with open(f"{tasks}/{task}/status", encoding="ascii") as file:
                status = dict(line.split(":\t", 1) for line in file.read().splitlines() if ":\t" in line)
            if status["Name"].startswith("ew-poll"):
                polling += 1
                self.assertEqual(int(status["CapEff"], 16) | int(status["CapPrm"], 16), 0, status["Name"])
        self.assertEqual(polling, 2)


class CannotKeepUp(DpdkCase):
    @property
    def settings(self):
        return super().settings.replace("framecnt=8192", "framecnt=64")

    def test_lost_and_counted_is_what_the_interface_saw(self):
        site = self.site
        first = site.counters()
        site.daemon.send_signal(signal.SIGSTOP)  # rings of 64 frames hold a fraction of what comes
        try:
            self.send("eth0", 20_000, ROUTER_MACS)
        finally:
            site.daemon.send_signal(signal.SIGCONT)

        def numbers():
            """What was counted, lost and sent. What two rings of 64 frames hold, the cores have still to fetch when the
            daemon answers again."""
            last = site.counters()
            self.balance(last)
            counted = sum(last.hook[way]["seen"]["packets"] - first.hook[way]["seen"]["packets"] for way in ("out", "in"))
            lost = sum(last.hook["dropped"].values())
            sent = sum(last.interface[way]["packets"] - first.interface[way]["packets"] for way in ("tx", "rx"))
            return counted, lost, sent
        try:
            wait_for("the rings to be empty", 10, lambda: sum(numbers()[:2]) >= numbers()[2])
        except WorldError as error:
            print(f"  {error}")  # the numbers say how many are missing
        counted, lost, sent = numbers()
        print(f"  {sent} packets: {counted} counted, {lost} lost", flush=True)
        self.assertGreater(lost, 10_000, "the rings were too small on purpose")
        self.assertEqual(counted + lost, sent)
        wait_for("the finding", 10, lambda: [r for r in site.journal("finding")
                                             if r["rule"]["id"] == "egresswatch/capture-drops"])


class Tap(DpdkCase):
    port = "net_tap0"

    @property
    def settings(self):
        return TWO_DPDK_QUEUES.format(port=self.port).replace("iface=eth0,qpairs=2,framecnt=8192", "iface=ewtap")

    def test_what_the_kernel_sends_into_a_tap_is_counted(self):
        site = self.site
        frames = 4000
        site.run_in("host", "sysctl", "-qw", "net.ipv6.conf.ewtap.disable_ipv6=1")
        self.send("ewtap", frames, ROUTER_MACS)

        def row():
            return next(item for item in site.status()["interfaces"] if item["name"] == self.port)
        # What finds the tap's queue full, the kernel drops and counts.
        link = json.loads(site.run_in("host", "ip", "-s", "-j", "link", "show", "ewtap").stdout)[0]["stats64"]["tx"]
        wait_for("all frames", 10, lambda: row()["out"]["outside"]["packets"] + link["dropped"] >= frames)
        self.assertEqual(row()["out"]["outside"]["packets"] + link["dropped"], frames)
        self.assertGreater(row()["out"]["outside"]["packets"], frames / 4)
        details = self.details()
        self.assertEqual(details["spread"], "driver hash")
        self.assertEqual(details["port.net_tap0.missed"], "not told by this driver")
        self.assertEqual(details["flows_split"], 0)
        print(f"  by core {details['core.0.packets']} and {details['core.1.packets']}", flush=True)
        self.assertIn("ewtap", json.dumps(json.loads(site.run_in("host", "ip", "-j", "link").stdout)))
        self.assertEqual(site.stop(site.daemon), 0, "exit status")
        self.assertNotIn("ewtap", site.run_in("host", "ip", "-j", "link").stdout, "the tap goes with the daemon")


class WithoutDpdk(unittest.TestCase):
    def test_programs_without_dpdk(self):
        """Only the module needs DPDK: the daemon and the command line start where it is not installed."""
        for program in ("egresswatchd", "egresswatch"):
            needed = subprocess.run(["ldd", BIN / program], capture_output=True, text=True, check=True).stdout
            self.assertNotIn("librte", needed)
        needed = subprocess.run(["ldd", BUILD / "lib/egresswatch/engine-dpdk.so"], capture_output=True, text=True,
                                check=True).stdout
        self.assertIn("librte_ethdev", needed)
        self.assertNotIn("not found", needed)


if __name__ == "__main__":
    main()
