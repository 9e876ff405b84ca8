#!/usr/bin/python3
"""tests/netns/metrics_test.py - the metrics endpoint against the status it is made of, read by parsers of others; what
suppression keeps back is counted; a rotated file output is opened anew on SIGHUP.

SPDX-License-Identifier: Apache-2.0
"""
import contextlib
import json
import os
import signal
import subprocess
import time

from prometheus_client.parser import text_string_to_metric_families

from case import SiteCase, main
from scenes import MIB, Site
from world import BUILD, SINK, WORLD, wait_for

PORT = 9847
IDENTITIES = ("name", "id", "class", "country")
KEYED = ("losses", "engine_details")


def numbers(status):
    """{metric name without prefix and _total: {labels: value}} of every number and boolean in the status, found without
    the product's code."""
    found = {}

    def walk(path, value, labels):
        if isinstance(value, dict):
            for name, child in value.items():
                if name in ("in", "out"):
                    walk(path, child, {**labels, "direction": name})
                elif path in KEYED:
                    walk(path, child, {**labels, "reason" if path == "losses" else "detail": name})
                else:
                    walk(f"{path}_{name}" if path else name, child, labels)
        elif isinstance(value, list):
            for element in value:
                if isinstance(element, dict):
                    walk(path, element, {**labels, **{n: element[n] or "" for n in IDENTITIES if n in element}})
        elif isinstance(value, (bool, int, float)):
            name = "".join(c if c.isalnum() else "_" for c in path)
            for suffix, per_second in (("_ms", 1000), ("_s", 1)):
                if name.endswith(suffix):
                    name, value = name.removesuffix(suffix) + "_seconds", value / per_second
            found.setdefault(name, {})[tuple(sorted(labels.items()))] = float(value)
    walk("", status, {})
    return found


def promtool():
    """Prometheus' own checker, unpacked: its package would start a server."""
    folder = BUILD / "promtool"
    program = folder / "tree/usr/bin/promtool"
    if not program.exists():
        (folder / "packages").mkdir(parents=True, exist_ok=True)
        subprocess.run(("apt-get", "download", "-q", "prometheus"), cwd=folder / "packages", check=True,
                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        package = next((folder / "packages").glob("prometheus_*.deb"))
        subprocess.run(("dpkg", "-x", package, folder / "tree"), check=True)
    return program


class MeasuredSite(Site):
    """With metrics, an output into a file, and a rule that fires often."""

    def write_config(self):
        self.lines = self.dir / "alerts.jsonl"
        self.settings = (f"  - {{name: lines, type: file, path: {self.lines}, kinds: [finding]}}\n"
                         f'metrics: {{listen: "127.0.0.1:{PORT}"}}\n')
        policy = self.policy_dir / "10-dublin.yaml"
        text = policy.read_text()
        for old, new in (("at_least: 50 MiB", "at_least: 1 MiB"), ("suppress: {for: 1h", "suppress: {for: 2s")):
            assert old in text
            text = text.replace(old, new, 1)
        policy.write_text(text)
        super().write_config()


class Metrics(SiteCase):
    def make_site(self):
        return MeasuredSite("ewtest")

    def scrape(self):
        return self.site.run_in("host", "curl", "-sS", "--fail", f"http://127.0.0.1:{PORT}/metrics").stdout

    def samples(self, text):
        """{name without prefix and _total: {labels: value}}"""
        out = {}
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                name = sample.name.removeprefix("egresswatch_").removesuffix("_total")
                out.setdefault(name, {})[tuple(sorted(sample.labels.items()))] = sample.value
        return out

    def test_every_number_of_the_status_is_a_metric(self):
        site = self.site
        site.traffic("host", "send", WORLD["CN"][0], SINK, 4 * MIB).wait()
        site.wait_alerts(0, lambda a: a.rule == "bulk-to-outside")
        before, text, after = site.status(), self.scrape(), site.status()
        samples = self.samples(text)
        low, high = numbers(before), numbers(after)
        self.assertGreater(len(low), 100, "numbers in the status")
        for name, by_labels in low.items():
            for labels, value in by_labels.items():
                with self.subTest(name=name, labels=labels):
                    self.assertIn(name, samples)
                    self.assertIn(labels, samples[name])
                    last = high[name].get(labels, value)
                    if value <= last:  # what falls between the two is a gauge that moved
                        self.assertLessEqual(value, samples[name][labels])
                        self.assertLessEqual(samples[name][labels], last)
        self.assertEqual(samples["answers"], {(): 1})
        self.assertEqual(samples["outputs_state"][(("name", "siem-tcp"), ("state", "up"))], 1)
        self.assertIn("# TYPE egresswatch_evaluation_findings_total counter", text)
        self.assertIn("# TYPE egresswatch_outputs_lag_records gauge", text)
        self.assertGreater(samples["classes_ip_bytes"][
            (("class", "outside"), ("country", "CN"), ("direction", "out"))], 4 * MIB)
        checked = subprocess.run((promtool(), "check", "metrics"), input=text, text=True, capture_output=True, check=False)
        self.assertEqual(checked.returncode, 0, checked.stdout + checked.stderr)

    def test_many_scrapes_by_every_worker(self):
        """A worker of the endpoint has 100 KiB for its stack and all that the program declares thread_local."""
        headers = subprocess.run(("readelf", "-lW", BUILD / "bin/egresswatchd"), capture_output=True, text=True, check=True).stdout
        held = [int(line.split()[5], 16) for line in headers.splitlines() if line.split()[:1] == ["TLS"]]
        self.assertEqual([size for size in held if size > 4096], [], "bytes of thread-local storage")
        for _ in range(50):
            self.assertEqual(self.samples(self.scrape())["answers"], {(): 1})
        self.assertIsNone(self.site.daemon.poll(), "the daemon has ended")

    def test_what_suppression_keeps_back_is_in_the_next_finding_of_the_group(self):
        site = self.site
        remote = WORLD["CN"][0]

        def findings():
            return [r for r in site.journal("finding") if r["flow"]["remote"] == remote and r["rule"]["id"] == "bulk-to-outside"]
        deadline = time.monotonic() + 30
        while not any(r.get("suppressed") for r in findings()) and time.monotonic() < deadline:
            site.traffic("host", "send", remote, SINK, 2 * MIB).wait()
        records = findings()
        self.assertFalse(records[0].get("suppressed"), "before the first there was none")
        told = sum(r.get("suppressed", 0) for r in records)
        self.assertGreater(told, 0, records)
        alerts = site.wait_alerts(0, lambda a: a.rule == "bulk-to-outside" and a.remote == remote, number=len(records))
        self.assertEqual([a.get("egresswatch.suppressed", 0) for a in alerts], [r.get("suppressed", 0) for r in records])
        status = site.status()["evaluation"]
        rule = next(r for r in status["rules"] if r["id"] == "bulk-to-outside")
        self.assertGreaterEqual(rule["suppressed"], told)
        # Two findings of a group are never closer than the policy says.
        times = [a.get("@timestamp") for a in alerts]
        self.assertEqual(times, sorted(times))
        self.assertGreaterEqual(self.samples(self.scrape())["evaluation_rules_suppressed"][(("id", "bulk-to-outside"),)],
                                rule["suppressed"])

    def test_a_rotated_file_is_opened_anew_on_sighup(self):
        site = self.site
        wait_for("the file", 10, site.lines.exists)
        moved = site.lines.with_suffix(".1")
        os.rename(site.lines, moved)
        site.daemon.send_signal(signal.SIGHUP)
        wait_for("the new file, with nothing to write", 10, site.lines.exists)

        def open_files():
            folder, files = f"/proc/{site.daemon.pid}/fd", set()
            for fd in os.listdir(folder):
                with contextlib.suppress(FileNotFoundError):  # closed since it was listed
                    files.add(os.readlink(f"{folder}/{fd}"))
            return files
        wait_for("the old file to be let go", 10, lambda: str(moved) not in open_files())
        self.assertIn(str(site.lines), open_files())
        site.traffic("host", "send", WORLD["CN"][0], SINK, 4 * MIB).wait()
        wait_for("a line", 10, lambda: "bulk-to-outside" in site.lines.read_text())
        json.loads(site.lines.read_text().splitlines()[0])


if __name__ == "__main__":
    main()
