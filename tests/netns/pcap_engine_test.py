#!/usr/bin/python3
"""tests/netns/pcap_engine_test.py - engine pcap: the daemon on a real interface, on a mirror port, and when it cannot
keep up.

SPDX-License-Identifier: Apache-2.0
"""
import json
import signal
import socket
import struct

from case import SiteCase, main
from scenes import MIB, scene_allowed, scene_bulk_tcp, scene_bulk_udp6, scene_pull
from world import PYTHON, SINK, WORLD, wait_for

CLIENT, SERVER = "8.8.8.8", "87.32.112.10"  # a client in the US and a server at home, as a mirror port sees them
OWN_MAC, ROUTER_MAC = b"\x02\0\0\0\0\x55", b"\x02\0\0\0\0\x66"  # of neither end of the mirror port


class PcapCase(SiteCase):
    engine = "pcap"

    def lost(self, counters):
        return sum(counters.hook["dropped"].values())


class OwnInterface(PcapCase):
    settings = "idle_timeout: 3s\n"

    def test_scenes_with_super_packets(self):
        site = self.site
        first = site.counters()
        self.play(scene_allowed, scene_bulk_tcp, scene_bulk_udp6, scene_pull)
        last = site.counters()
        self.assertEqual(self.lost(last), 0, "nothing was lost")
        self.balance(last)
        self.agrees_with_link(first, last)
        # Which packets left and which came, without a word in the configuration, is what the device says: the line above.
        self.assertGreater(last.hook["unsegmented"]["packets"], 1000, "super-packets are counted as such")
        self.assertGreater(last.hook["unsegmented"]["bytes"], 100 * MIB)
        self.assertEqual(last.hook["out"]["as_given"], last.hook["out"]["seen"])

    def test_what_it_holds_and_what_it_leaves(self):
        site = self.site
        status = site.status()
        self.assertEqual(status["engine"], "pcap")
        self.assertEqual(status["privileges"]["effective"], ["cap_net_raw"], "nothing else is kept")

        def promiscuity():
            return json.loads(site.run_in("host", "ip", "-d", "-j", "link", "show", "eth0").stdout)[0]["promiscuity"]
        self.assertEqual(promiscuity(), 1)
        self.assertFalse(site.pin_dir.exists(), "no pins")
        self.assertIn("pcap", site.tool("status").stdout)
        self.assertEqual(site.stop(site.daemon), 0, "exit status")
        self.assertEqual(promiscuity(), 0)
        self.assertTrue(site.journal("stop"))


class WithoutOffload(PcapCase):
    offload = False

    def test_frames_of_every_kind_are_counted_to_the_byte(self):
        site = self.site
        first = site.counters()
        for inbound in (False, True):
            process = self.random_frames(20_000, 7, inbound=inbound)
            output, _ = process.communicate(timeout=60)
            self.assertEqual(process.returncode, 0, output)
        site.traffic("host", "send", WORLD["US"][0], SINK, 8 * MIB).wait()
        last = site.counters()
        self.assertEqual(self.lost(last), 0, "nothing was lost")
        seen = self.balance(last, first)
        # Random frames have anybody's Ethernet addresses: which way they go is told by address, and is not always what
        # the device says. The sum is.
        self.assertEqual(sum(seen.values()), sum(last.interface[way]["bytes"] - first.interface[way]["bytes"]
                                                 for way in ("tx", "rx")))
        self.assertEqual(last.hook["unsegmented"]["packets"], 0)


class CannotKeepUp(PcapCase):
    settings = "coverage_interval: 1s\npcap: {buffer: 1 MiB}\n"

    def test_lost_and_counted_is_what_the_interface_saw(self):
        site = self.site
        first = site.counters()
        # A daemon that gets no CPU: its buffer holds a fraction of what comes.
        site.daemon.send_signal(signal.SIGSTOP)
        try:
            for inbound in (False, True):
                process = self.random_frames(20_000, 3, inbound=inbound)
                output, _ = process.communicate(timeout=60)
                self.assertEqual(process.returncode, 0, output)
        finally:
            site.daemon.send_signal(signal.SIGCONT)
        last = site.counters()
        self.balance(last)

        def packets(counters):
            return sum(counters.hook[way]["seen"]["packets"] for way in ("out", "in"))
        counted, lost = packets(last) - packets(first), self.lost(last) - self.lost(first)
        sent = sum(last.interface[way]["packets"] - first.interface[way]["packets"] for way in ("tx", "rx"))
        print(f"  {sent} packets: {counted} counted, {lost} lost", flush=True)
        self.assertGreater(lost, 10_000, "the buffer was too small on purpose")
        self.assertGreater(counted, 0)
        self.assertEqual(counted + lost, sent)
        self.assertEqual(site.status()["losses"]["capture_dropped_packets"], self.lost(last))
        self.assertIn("LOST BEFORE COUNTED", site.tool("status").stdout)

        found = wait_for("the finding", 10, lambda: [r for r in site.journal("finding")
                                                     if r["rule"]["id"] == "egresswatch/capture-drops"])
        self.assertEqual(found[0]["value"], lost)
        self.assertEqual(found[0]["details"]["interfaces"], {"eth0": lost})
        wait_for("the finding at the syslog server", 5,
                 lambda: [a for a in site.alerts.findings if a.rule == "egresswatch/capture-drops"])
        wait_for("coverage records of all the losses", 5, lambda: sum(
            r["losses"]["capture_dropped_packets"] for r in site.journal("coverage")) == self.lost(last))
        # The driver sent what the engine did not see: in such a period that is no sign of a bypass.
        self.assertFalse([r for r in site.journal("finding") if r["rule"]["id"] == "egresswatch/conservation-residual"])


class GoesAround(PcapCase):
    settings = "coverage_interval: 1s\n"

    def test_frames_around_packet_sockets_become_a_finding(self):
        site = self.site
        wait_for("the first coverage records", 10, lambda: len(site.journal("coverage")) >= 2)
        self.random_frames(4000, 5, way="bypass").communicate(timeout=60)
        wait_for("the finding", 15, lambda: [r for r in site.journal("finding")
                                             if r["rule"]["id"] == "egresswatch/conservation-residual"])


class ComesAndGoes(PcapCase):
    def row(self, name):
        return next((row for row in self.site.status()["interfaces"] if row["name"] == name), None)

    def test_interfaces_are_opened_when_they_come_and_named_while_they_are_not(self):
        site = self.site
        site.stop(site.daemon)
        site.interfaces = '[eth0, "late*"]'
        site.write_config()
        site.start_daemon()
        site.run_in("host", "ip", "link", "add", "late0", "type", "veth", "peer", "name", "far0")
        blind = wait_for("late0 as a blind spot", 3, lambda: self.row("late0"))
        self.assertFalse(blind["hooked"])
        self.assertIn("not up", blind["why_not_hooked"])
        site.run_in("host", "ip", "link", "set", "far0", "up")
        site.run_in("host", "ip", "link", "set", "late0", "up")
        wait_for("the capture on late0", 3, lambda: self.row("late0")["hooked"])
        send = "import socket; s = socket.socket(17, 3); s.bind(('far0', 0)); [s.send(bytes(100)) for _ in range(500)]"
        site.run_in("host", PYTHON, "-c", send)

        def seen(row):
            return sum(row[way]["seen"]["packets"] for way in ("out", "in"))
        wait_for("500 packets", 3, lambda: seen(self.row("late0")) >= 500)
        site.run_in("host", "ip", "link", "set", "late0", "down")
        site.run_in("host", "ip", "link", "set", "late0", "up")
        site.run_in("host", PYTHON, "-c", send)
        wait_for("packets after it was down and up", 5, lambda: seen(self.row("late0")) >= 1000)
        site.run_in("host", "ip", "link", "del", "late0")
        wait_for("late0 to go", 3, lambda: not self.row("late0"))
        self.assertGreaterEqual(seen(self.row("(gone)")), 1000, "what it counted stays in the sum")
        self.assertIsNone(site.daemon.poll(), "the daemon lives on")


class MirrorPort(PcapCase):
    settings = "idle_timeout: 2s\ntrack: all\n"

    def frame(self, from_server, flags, payload=0):
        source, target = (SERVER, CLIENT) if from_server else (CLIENT, SERVER)
        ports = (443, 40_000) if from_server else (40_000, 443)
        macs = OWN_MAC + ROUTER_MAC if from_server else ROUTER_MAC + OWN_MAC
        tcp = struct.pack("!HHIIBBHHH", *ports, 1, 2, 5 << 4, flags, 512, 0, 0) + bytes(payload)
        ip = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(tcp), 1, 0, 64, 6, 0, socket.inet_aton(source),
                         socket.inet_aton(target))
        return macs + b"\x08\0" + ip + tcp

    def test_a_pull_seen_from_the_middle(self):
        """No address, no route, no word about networks: a client abroad pulls from a server at home."""
        site = self.site
        site.stop(site.daemon)
        site.run_in("host", "ip", "link", "add", "mir0", "type", "veth", "peer", "name", "span0",
                    "netns", site.ns("router"))
        for which, dev in (("router", "span0"), ("host", "mir0")):
            site.run_in(which, "sysctl", "-qw", f"net.ipv6.conf.{dev}.disable_ipv6=1")
            site.run_in(which, "ip", "link", "set", dev, "up")
        site.interfaces = "[mir0]"
        site.write_config()
        site.start_daemon()
        wait_for("the capture on mir0", 5, lambda: site.hook("mir0"))
        frames = [(self.frame(False, 0x02), 1), (self.frame(True, 0x12), 1), (self.frame(False, 0x10), 1),
                  (self.frame(False, 0x18, 200), 1), (self.frame(True, 0x10, 1400), 50), (self.frame(False, 0x10), 25)]
        sender = "\n".join(["import socket", "s = socket.socket(17, 3)", "s.bind(('span0', 0))"]
                           + [f"for _ in range({count}): s.send(bytes.fromhex('{frame.hex()}'))" for frame, count in frames])
        site.run_in("router", PYTHON, "-c", sender)
        # Nothing else comes on this interface: time has to pass by itself for the flow to end.
        flow = wait_for("the flow's record", 15, lambda: [r for r in site.journal("flow") if r["flow"]["remote"] == CLIENT])
        flow = flow[0]["flow"]
        self.assertEqual((flow["local"], flow["local_port"], flow["remote_port"]), (SERVER, 443, 40_000))
        self.assertEqual((flow["initiator"], flow["initiator_sure"]), ("remote", True))
        self.assertEqual((flow["class"], flow["country"]), ("outside", "US"))
        self.assertEqual((flow["packets_out"], flow["bytes_out"]), (51, 40 + 50 * 1440))
        self.assertEqual((flow["packets_in"], flow["bytes_in"]), (28, 28 * 40 + 200))
        hook = site.hook("mir0")
        self.assertEqual(hook["out"]["outside"]["packets"], 51)
        self.assertEqual(hook["in"]["outside"]["packets"], 28)
        self.assertEqual(site.status()["losses"]["direction_guessed_packets"], 0)


if __name__ == "__main__":
    main()
