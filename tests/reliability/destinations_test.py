# tests/reliability/destinations_test.py - what is no syslog: files, standard output, HTTP(S). Real files, pipes, TLS and HTTP.
# SPDX-License-Identifier: Apache-2.0
import argparse
import http.server
import json
import os
import ssl
import subprocess
import sys
import tempfile
import threading
import time
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from receivers import Certificates, eventually  # noqa: E402

FEEDER = ""
TOTAL = 200


class Server(http.server.ThreadingHTTPServer):
    """Answers as `plan` says, one entry a request, then 200; keeps what it accepted."""

    def __init__(self, plan, certificates=None):
        super().__init__(("127.0.0.1", 0), Handler)
        self.plan, self.accepted, self.requests = list(plan), [], []
        self.daemon_threads = True
        if certificates is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificates.path("server.pem"), certificates.path("server.key"))
            self.socket = context.wrap_socket(self.socket, server_side=True)
        threading.Thread(target=self.serve_forever, daemon=True).start()
        Destinations.servers.append(self)

    def handle_error(self, request, client_address):
        pass  # a client that does not trust us hangs up


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):  # noqa: N802
        body = self.rfile.read(int(self.headers["Content-Length"]))
        array = self.headers["Content-Type"] == "application/json"
        records = json.loads(body) if array else [json.loads(line) for line in body.splitlines()]
        self.server.requests.append((time.monotonic(), dict(self.headers), len(records)))
        status, headers = 200, {}
        if self.server.plan:
            step = self.server.plan.pop(0)
            status, headers = step(records, self.server) if callable(step) else step
        if 200 <= status < 300:
            self.server.accepted += records
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


class Destinations(unittest.TestCase):
    servers = []

    def tearDown(self):
        for server in self.servers:
            server.shutdown()
            server.server_close()
        self.servers.clear()

    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)
        self.path = lambda name: os.path.join(self.folder.name, name)

    def feed(self, output, total=TOTAL, rate=2_000, stdout=None):
        with open(self.path("outputs.yaml"), "w", encoding="ascii") as file:
            file.write("outputs:\n  - {name: it, kinds: [finding], " + output + "}\n")
        process = subprocess.Popen((FEEDER, self.folder.name, self.path("outputs.yaml"), "--total", str(total), "--rate", str(rate)),
                                   stdout=stdout)
        self.addCleanup(lambda: process.poll() is None and process.kill())
        return process

    def status(self):
        with open(self.path("status"), encoding="utf-8") as file:
            return json.load(file)["outputs"]["it"]

    def expect_all(self, records, total=TOTAL):
        numbers = [record["event"]["sequence"] for record in records]
        self.assertEqual(sorted(set(numbers)), list(range(2, total + 2)))
        return len(numbers) - len(set(numbers))

    def test_http_tries_again_until_every_record_is_accepted(self):
        busy = (503, {"Retry-After": "1"})
        server = Server([busy, (429, {}), (500, {}), (302, {"Location": "/"}), (401, {})])
        with open(self.path("headers"), "w", encoding="ascii") as file:
            file.write("Authorization: Bearer sesame\nX-Tenant: dublin\n")
        process = self.feed(f'type: http, url: "http://127.0.0.1:{server.server_port}/in", header_file: {self.path("headers")}')
        self.assertEqual(process.wait(30), 0)
        self.assertEqual(self.expect_all(server.accepted), 0)
        times = [at for at, _, _ in server.requests]
        self.assertGreaterEqual(times[1] - times[0], 1.0)  # Retry-After
        for _, headers, count in server.requests:
            self.assertEqual((headers["Authorization"], headers["X-Tenant"]), ("Bearer sesame", "dublin"))
            self.assertLessEqual(count, 100)
        self.assertGreater(max(count for _, _, count in server.requests), 10)  # in bulk
        self.assertIn("HTTP status", self.status()["last_error"])

    def test_http_gives_up_one_record_that_is_refused_alone_and_no_other(self):
        def picky(records, server):
            if any(record["event"]["sequence"] == 77 for record in records):
                server.plan.insert(0, picky)
                return 422, {}
            if len(records) > 20:
                server.plan.insert(0, picky)
                return 413, {}
            server.plan.insert(0, picky)
            return 204, {}
        server = Server([picky])
        process = self.feed(f'type: http, url: "http://127.0.0.1:{server.server_port}/in", bulk: array')
        self.assertEqual(process.wait(30), 0)
        numbers = sorted(record["event"]["sequence"] for record in server.accepted)
        self.assertEqual(numbers, [n for n in range(2, TOTAL + 2) if n != 77])
        self.assertEqual(self.status()["undeliverable"], 1)

    def test_https_trusts_chain_and_name_or_a_pin(self):
        certificates = Certificates(self.path("certificates"))
        strangers = Certificates(self.path("strangers"))
        def pin(of):
            line = subprocess.run(("openssl", "x509", "-noout", "-fingerprint", "-sha256", "-in", of.path("server.pem")),
                                  capture_output=True, text=True, check=True).stdout
            return f'fingerprints: ["sha-256:{line.split("=")[1].strip()}"]'
        for number, (tls, good) in enumerate(((f'ca_file: {certificates.path("ca.pem")}', True), (pin(certificates), True),
                                              (f'ca_file: {strangers.path("ca.pem")}', False), (pin(strangers), False), ("", False))):
            with self.subTest(tls=tls):
                server = Server([], certificates)
                self.path = lambda name, n=number: os.path.join(self.folder.name, f"{n}-{name}")
                place = self.path("feeder")
                os.makedirs(place)
                with open(os.path.join(place, "outputs.yaml"), "w", encoding="ascii") as file:
                    file.write(f'outputs:\n  - {{name: it, kinds: [finding], type: http, url: "https://127.0.0.1:{server.server_port}/",'
                               f' tls: {{{tls}}}}}\n')
                process = subprocess.Popen((FEEDER, place, os.path.join(place, "outputs.yaml"), "--total", "20"))
                self.addCleanup(lambda p=process: p.poll() is None and p.kill())
                def status(at=place):
                    try:
                        with open(os.path.join(at, "status"), encoding="utf-8") as file:
                            return json.load(file)["outputs"]["it"]
                    except FileNotFoundError:
                        return {"errors": 0}
                if good:
                    self.assertEqual(process.wait(30), 0)
                    self.expect_all(server.accepted, 20)
                else:
                    eventually(lambda: status()["errors"] >= 2, 30, "refusals")
                    self.assertEqual(server.accepted, [])
                    process.terminate()
                    process.wait(10)

    def test_journald_has_every_finding_with_its_fields_though_it_was_restarted(self):
        """A real systemd-journald, in a /run of this test's own."""
        subprocess.run(("mount", "-t", "tmpfs", "tmpfs", "/run"), check=True)
        self.addCleanup(lambda: subprocess.run(("umount", "-l", "/run"), check=True))
        for folder in ("/run/log/journal", "/run/systemd/journal"):
            os.makedirs(folder)

        def start():
            server = subprocess.Popen(("/lib/systemd/systemd-journald",), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            self.addCleanup(lambda: server.poll() is None and (server.kill(), server.wait()))
            return server

        def entries():
            out = subprocess.run(("journalctl", "-D", "/run/log/journal", "-o", "json", "SYSLOG_IDENTIFIER=egresswatch"),
                                 capture_output=True, text=True, check=False).stdout
            return [json.loads(line) for line in out.splitlines()]
        server = start()
        eventually(lambda: os.path.exists("/run/systemd/journal/socket"), 30, "journald listens")
        process = self.feed("type: journald", total=600, rate=200)
        eventually(lambda: len(entries()) > 100, 30, "entries")
        server.kill()
        server.wait()
        start()
        self.assertEqual(process.wait(60), 0)
        eventually(lambda: {int(e["EGRESSWATCH_SEQ"]) for e in entries()} >= set(range(2, 602)), 30, "all findings")
        for entry in entries():
            document = json.loads(entry["MESSAGE"])
            self.assertEqual(document["event"]["sequence"], int(entry["EGRESSWATCH_SEQ"]))
            self.assertEqual((entry["PRIORITY"], entry["SYSLOG_FACILITY"], entry["EGRESSWATCH_KIND"], entry["EGRESSWATCH_LEVEL"],
                              entry["EGRESSWATCH_RULE"], entry["EGRESSWATCH_COUNTRY"]),
                             ("4", "20", "finding", "medium", "bulk-to-outside", "CN"))
        self.assertGreaterEqual(self.status()["retries"], 1)

    def test_a_file_that_is_rotated_loses_nothing(self):
        target = self.path("alerts.jsonl")
        with open(target, "w", encoding="ascii") as file:
            file.write("torn by somebody el")
        process = self.feed(f"type: file, path: {target}", total=2_000)
        for turn in range(5):
            eventually(lambda: os.path.exists(target) and os.path.getsize(target) > 20_000, 30, "lines")
            os.rename(target, f"{target}.{turn}")
        self.assertEqual(process.wait(30), 0)
        lines = []
        for name in [f"{target}.{turn}" for turn in range(5)] + [target]:
            if os.path.exists(name):
                with open(name, encoding="ascii") as file:
                    lines += file.read().splitlines()
        self.assertEqual(lines.pop(0), "torn by somebody el")
        self.assertEqual(self.expect_all([json.loads(line) for line in lines], 2_000), 0)

    def test_a_file_on_a_full_disk_goes_on_when_there_is_room(self):
        os.makedirs(self.path("small"))
        subprocess.run(("mount", "-t", "tmpfs", "-o", "size=100k", "tmpfs", self.path("small")), check=True)
        self.addCleanup(lambda: subprocess.run(("umount", self.path("small")), check=True))
        target = os.path.join(self.path("small"), "alerts.jsonl")
        process = self.feed(f"type: file, path: {target}")
        eventually(lambda: os.path.exists(self.path("status")) and self.status()["errors"] >= 2, 30, "errors")
        self.assertIn("No space left", self.status()["last_error"])
        subprocess.run(("mount", "-o", "remount,size=10m", self.path("small")), check=True)
        self.assertEqual(process.wait(30), 0)
        with open(target, encoding="ascii") as file:
            self.assertEqual(self.expect_all([json.loads(line) for line in file]), 0)

    def test_standard_output_waits_for_a_slow_reader(self):
        process = self.feed("type: stdout", total=500, stdout=subprocess.PIPE)
        eventually(lambda: os.path.exists(self.path("status")) and self.status()["lag_records"] > 100, 30, "the pipe is full")
        with process.stdout:
            lines = process.stdout.read().splitlines()
        self.assertEqual(process.wait(30), 0)
        self.assertEqual(self.expect_all([json.loads(line) for line in lines], 500), 0)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--feeder", required=True)
    options, rest = parser.parse_known_args()
    FEEDER = os.path.abspath(options.feeder)
    if os.environ.get("EGRESSWATCH_OWN_MOUNTS") is None:  # what is mounted here, nobody else sees
        os.environ["EGRESSWATCH_OWN_MOUNTS"] = "yes"
        os.execvp("unshare", ("unshare", "--mount", sys.executable, *sys.argv))
    unittest.main(argv=[sys.argv[0], *rest], verbosity=2)
