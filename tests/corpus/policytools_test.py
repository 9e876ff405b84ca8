#!/usr/bin/python3
"""tests/corpus/policytools_test.py - learn, replay --old --new, explain and the rule packs on captures
of others.

SPDX-License-Identifier: Apache-2.0

Usage: policytools_test.py EGRESSWATCH [test names]
"""
import json
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

import junitparser

ROOT = Path(__file__).resolve().parents[2]
CAPTURES = ROOT / "tests/corpus/captures"
UPLOAD = CAPTURES / "http-many-hosts.pcap"  # 121 connections of one host to the web
TOOL = sys.argv.pop(1)

HEADER = """\
policy: egresswatch/v1
name: captures
revision: 1
owner: secops@example.org
regions:
  europe: {groups: [EEA], as_of: 2026-02-01}
home: europe
"""
RULE = """\
  - id: %s
    title: Volume to one address
    level: medium
    when: {region: unknown, allowed: false}
    window: {sum: bytes_out, over: 1h, by: [remote], at_least: %s}
    suppress: {for: 1d, by: [remote]}
"""
CASES = """\
tests: egresswatch-tests/v1
policy: [%s]
cases:
  - name: "%s"
    flows: [{at: 0s, remote: 203.0.113.9, country: unknown, bytes_out: %s}]
    expect: []
"""


def tool(*words, code=0):
    done = subprocess.run([TOOL, *map(str, words)], capture_output=True, text=True, check=False)
    assert done.returncode == code, f"{words}: exit {done.returncode}\n{done.stdout}{done.stderr}"
    return done


class Tools(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.dir = Path(folder.name)

    def policy(self, name, rules, more=""):
        path = self.dir / name
        path.mkdir()
        (path / "10.yaml").write_text(HEADER + more + "rules:\n" + "".join(RULE % rule for rule in rules))
        return path

    def flows(self, capture):
        lines = tool("replay", "--geo", "none", "--flows", capture).stdout.splitlines()
        return [json.loads(line) for line in lines]

    def test_learn_proposes_what_was_seen_and_check_refuses_it_until_it_is_filled_in(self):
        policy = self.policy("policy.d", [("a", "10 kB")])
        learned = policy / "20-learned.yaml"
        said = tool("learn", "--geo", "none", "--output", learned, UPLOAD).stderr
        self.assertIn("entries proposed", said)
        text = learned.read_text()
        sent = {flow["remote"] for flow in self.flows(UPLOAD) if flow["bytes_out"]}
        self.assertTrue(sent)
        for remote in sent:
            self.assertTrue(remote in text or remote.rsplit(".", 1)[0] in text, remote)
        refused = tool("check", "--policy", policy, code=1).stdout
        self.assertIn("`owner` is still to be filled in", refused)
        self.assertIn("`expires` is still to be filled in", refused)
        self.assertIn("a person answers for what is allowed", refused)
        learned.write_text(text.replace("expires: FILL-IN", "expires: 2090-01-01").replace(": FILL-IN", ": somebody"))
        tool("check", "--policy", policy)
        # What is allowed now is not found, and not proposed again.
        self.assertIn(" 0 findings", tool("replay", "--geo", "none", "--policy", policy, UPLOAD).stdout)
        self.assertIn("# Nothing was observed.", tool("learn", "--geo", "none", "--policy", policy, UPLOAD).stdout)
        # A file that is there is not overwritten.
        tool("learn", "--geo", "none", "--output", learned, UPLOAD, code=3)

    def test_replay_tells_what_a_change_gains_and_loses(self):
        old = self.policy("old", [("kept", "10 kB"), ("narrower", "2 kB"), ("gone", "10 kB")])
        new = self.policy("new", [("kept", "10 kB"), ("narrower", "100 MB"), ("added", "10 kB")])
        difference = json.loads(tool("replay", "--geo", "none", "--json", "--old", old, "--new", new, UPLOAD).stdout)
        rules = {rule["id"]: rule for rule in difference["rules"]}
        self.assertEqual(set(rules), {"kept", "narrower", "gone", "added"})
        self.assertGreater(rules["kept"]["before"], 0, "the capture uploads more than that")
        self.assertEqual((rules["kept"]["gained"], rules["kept"]["lost"]), (0, 0))
        self.assertEqual(rules["narrower"]["after"], 0)
        self.assertEqual(rules["narrower"]["lost"], rules["narrower"]["before"])
        self.assertTrue(rules["gone"]["gone"] and rules["added"]["new"])
        self.assertEqual(rules["added"]["gained"], rules["kept"]["before"])
        example = rules["gone"]["lost_examples"][0]
        self.assertGreaterEqual(example["value"], 10_000)
        self.assertIn("remote", example["group"])
        text = tool("replay", "--geo", "none", "--fail-on-findings", "--old", old, "--new", new, UPLOAD, code=1).stdout
        self.assertIn("gone (gone): ", text)
        self.assertIn("  - 20", text)
        same = tool("replay", "--geo", "none", "--fail-on-findings", "--old", old, "--new", old, UPLOAD).stdout
        self.assertIn("0 findings gained, 0 lost", same)
        tool("replay", "--old", old, UPLOAD, code=2)
        tool("replay", "--geo", "none", "--old", old, "--new", new, "-", code=2)

    def test_junit_reports_are_read_by_a_reader_of_others(self):
        policy = self.policy("old", [("bulk", "1 MiB")])
        (self.dir / "good.test.yaml").write_text(CASES % (policy, "fine", "1 B"))
        (self.dir / "bad.test.yaml").write_text(CASES % (policy, r"a<b & \uFFFE \u00fc", "2 MiB"))
        (self.dir / "broken.test.yaml").write_text("tests: egresswatch-tests/v1\ncases: 7\n")
        report = self.dir / "report.xml"

        def read():
            suites = list(junitparser.JUnitXml.fromfile(str(report)))
            cases = [case for suite in suites for case in suite]
            whole = junitparser.JUnitXml.fromfile(str(report))
            self.assertEqual(whole.tests, len(cases), "its totals are those of its cases")
            return whole, cases
        tool("test", "--junit", report, self.dir, code=2)
        whole, cases = read()
        self.assertEqual((whole.tests, whole.failures, whole.errors), (3, 1, 1))
        results = {Path(case.classname).name: case.result for case in cases}
        self.assertEqual(results["good.test.yaml"], [])
        self.assertIn("bulk", results["bad.test.yaml"][0].message)
        self.assertEqual(type(results["broken.test.yaml"][0]), junitparser.Error)
        self.assertIn("a<b & \ufffd \u00fc", [case.name for case in cases])
        # What cannot be found is an error of this run, not the report of the run before.
        tool("test", "--junit", report, self.dir / "nowhere", code=2)
        whole, cases = read()
        self.assertEqual((whole.failures, whole.errors), (0, 1))

    def test_explain_says_class_entries_rules_and_windows(self):
        policy = self.policy("policy.d", [("volume", "100 MB"), ("other", "200 MB")], """\
allow:
  - id: elsewhere
    to: {cidr: [198.51.100.0/24]}
    owner: o
    reason: r
    expires: 2090-01-01
""")
        top = max(self.flows(UPLOAD), key=lambda flow: flow["bytes_out"])
        near = policy / "20.yaml"
        near.write_text(f"""\
policy: egresswatch/v1
allow:
  - id: near
    to: {{cidr: ["{top['remote']}"], port: 9999/tcp}}
    owner: o
    reason: r
    expires: 2090-01-01
""")
        ends = [f"{top['local']}:{top['local_port']}", f"{top['remote']}:{top['remote_port']}", "tcp"]
        words = ["explain", "--policy", policy, "--geo", "none", "--flow", *ends, "--initiator", top["initiator"]]
        said = json.loads(tool(*words, "--json", "--replay", UPLOAD).stdout)
        self.assertEqual(said["remote"]["class"], "unknown")
        self.assertEqual(said["decision"]["allowed"], False)
        entries = {entry["id"]: entry for entry in said["allow"]}
        self.assertTrue(entries["near"]["close"])
        self.assertIn("9999/tcp", entries["near"]["why_not"])
        self.assertFalse(entries["elsewhere"]["close"])
        rule = said["rules"][0]
        self.assertTrue(rule["counts"], rule)
        self.assertGreaterEqual(rule["value"], top["bytes_out"])
        self.assertEqual(rule["threshold"], 100_000_000)
        text = tool(*words, "--replay", UPLOAD).stdout
        self.assertIn("near came close: port", text)
        self.assertIn("% full", text)
        empty = json.loads(tool(*words, "--json").stdout)
        self.assertEqual(empty["rules"][0]["value"], 0)
        tool("explain", code=2)
        tool("explain", "--flow", "nowhere", "1.2.3.4", "tcp", "--policy", policy, code=2)
        tool("explain", "--flow", *ends, "--socket", self.dir / "none", code=3)


# A rule of the packs, its threshold scaled to what a short capture holds, and a capture that shows what it is about.
SCALED = [
    ("pack.bulk-transfer", "bulk-transfer", "50 MiB", "20 kB", "http-many-hosts.pcap", []),
    ("pack.low-and-slow", "low-and-slow", "500 MiB", "20 kB", "http-many-hosts.pcap", []),
    ("pack.foreign-pull", "foreign-pull", "20 MiB", "1 kB", "ssh-session.pcap", ["--local-networks", "223.132.53.222/32"]),
    ("pack.unknown-country", "unknown-country", "1 MiB", "1 kB", "http-many-hosts.pcap", ["--geo", "none"]),
    ("pack.tunnel", "tunnel", "256 KiB", "50 B", "teredo-mixed.pcap", []),
    ("pack.icmp-volume", "tunnel", "1 MiB", "50 kB", "exfil-icmp-tunnel.pcap", []),
    ("pack.beaconing", "beaconing", "16, every: 20s", "5, every: 10s", "c2-merlin-quic.pcapng", []),
]
ORDINARY = ["mix-many-protocols.pcap", "http-many-hosts.pcap", "tls12-mixed-ports-sni.pcap", "ssh-session.pcap",
            "ipv6-tls-dns.pcap", "quic-v1-chrome.pcap", "stun-webrtc-dtls.pcap"]


class Packs(unittest.TestCase):
    """Every address is in the US: outside the region, as far as the packs are concerned."""

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.dir = Path(folder.name)
        (self.dir / "all.txt").write_text("0.0.0.0/0 US\n::/0 US\n")
        tool("geo", "build", "--cidr", self.dir / "all.txt", "--output", self.dir / "all.ewgeo")

    def findings(self, policy, capture, words):
        geo = [] if "--geo" in words else ["--geo", self.dir / "all.ewgeo"]
        lines = tool("replay", "--json", "--policy", policy, *geo, *words, CAPTURES / capture).stdout.splitlines()
        return [json.loads(line)["rule"]["id"] for line in lines]

    def test_ordinary_traffic_is_silent(self):
        for capture in ORDINARY:
            # Recorded over years, with more than 90 days of silence twice: a country is new again.
            expected = ["pack.new-country"] * 2 if capture == "tls12-mixed-ports-sni.pcap" else []
            self.assertEqual(self.findings(ROOT / "rules/packs", capture, []), expected, capture)

    def test_a_dns_tunnel_is_found_as_the_pack_stands(self):
        self.assertEqual(self.findings(ROOT / "rules/packs", "exfil-dns-iodine.pcap", []), ["pack.dns-tunnelling"])

    def test_a_rule_of_a_site_is_for_its_hosts(self):
        policy = self.dir / "site"
        policy.mkdir()
        (policy / "00.yaml").write_text((ROOT / "rules/packs/00-example-site.yaml").read_text() + """
rules:
  - id: of-the-example
    title: Anything
    level: low
    when: {region: outside, site: example}
    window: {sum: bytes_out, over: 10m, by: [], at_least: 1 kB}
    suppress: {for: 1d, by: []}
""")
        for words, expected in (([], []), (["--site", "example"], ["of-the-example"])):
            self.assertEqual(self.findings(policy, "http-many-hosts.pcap", words), expected)
        tool("replay", "--asn", self.dir / "none.mmdb", UPLOAD, code=2)

    def abroad(self, capture):
        """Both ends of the ICMP tunnel were in one laboratory: the far one gets an address of the internet."""
        if capture != "exfil-icmp-tunnel.pcap":
            return capture
        moved = self.dir / capture
        moved.write_bytes((CAPTURES / capture).read_bytes().replace(bytes([192, 168, 154, 132]), bytes([8, 8, 8, 132])))
        return moved

    def test_scaled_to_a_capture_each_reports_what_it_is_about(self):
        for rule, pack, threshold, scaled, capture, words in SCALED:
            policy = self.dir / rule
            policy.mkdir()
            for name in ("00-example-site", pack):
                text = (ROOT / "rules/packs" / f"{name}.yaml").read_text()
                self.assertTrue(name != pack or f"at_least: {threshold}" in text, pack)
                (policy / f"{name}.yaml").write_text(text.replace(f"at_least: {threshold}", f"at_least: {scaled}"))
            self.assertIn(rule, self.findings(policy, self.abroad(capture), words), capture)


if __name__ == "__main__":
    unittest.main(verbosity=1)
