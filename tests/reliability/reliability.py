# tests/reliability/reliability.py - every finding, through every fault, over every transport, to real receivers.
# SPDX-License-Identifier: Apache-2.0
#
#   --quick       every kind of fault once, few findings: what the tests run
#   --table       the full run; prints the table of docs/RELIABILITY.md (tools/reliability puts it there)
#   --only FAULT  one of them; --jobs N  so many at a time
# What must hold: over RELP nothing is missing, whatever the fault. TCP and TLS: what is missing is counted and stated;
# nothing may be where the receiver ended cleanly or the daemon was killed. UDP is what it is. Nowhere a torn message.
import argparse
import concurrent.futures
import json
import os
import random
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from daemon import Daemon, Traffic  # noqa: E402
from receivers import Certificates, Rsyslog, SyslogNg, eventually, make_syslog_ng_root, open_to_root  # noqa: E402

SURE = ("relp", "relp-tls")


def output_lines(ports, certificates):
    lines = ["outputs:"]
    for transport, port in ports.items():
        tls = f', tls: {{ca_file: {certificates.path("ca.pem")}}}' if "tls" in transport else ""
        lines.append(f'  - {{name: {transport}, type: syslog, transport: {transport.split("-")[0]},'
                     f' address: 127.0.0.1, port: {port}, kinds: [finding], max_bytes: 4000{tls}}}')
    return lines


class Feeder:
    """The delivering half of the daemon, with one output for each port of `ports`."""

    def __init__(self, program, folder, lines):
        self.program, self.folder = program, folder
        os.makedirs(folder, exist_ok=True)
        self.config = os.path.join(folder, "outputs.yaml")
        with open(self.config, "w", encoding="ascii") as file:
            file.write("\n".join(lines) + "\n")
        self.process = None

    def start(self, total, rate, *more):
        with open(os.path.join(self.folder, "stderr"), "ab") as errors:
            self.process = subprocess.Popen(
                (self.program, self.folder, self.config, "--total", str(total), "--rate", str(rate), *more), stderr=errors)

    def status(self):
        try:
            with open(os.path.join(self.folder, "status"), encoding="utf-8") as file:
                return json.load(file)
        except FileNotFoundError:
            return {"last_seq": 0, "outputs": {}}

    def seen(self, transport, key="cursor_seq"):
        return self.status()["outputs"].get(transport, {}).get(key, 0)

    def wait(self, seconds):
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired as late:
            raise AssertionError(f"not delivered within {seconds} s: {json.dumps(self.status())}") from late
        if self.process.returncode != 0:
            raise AssertionError(f"the feeder ended with {self.process.returncode}: see {self.folder}/stderr")

    def kill(self):
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    def findings(self):
        """Numbers of all findings that the journal holds."""
        numbers = []
        journal = os.path.join(self.folder, "journal")
        for name in sorted(os.listdir(journal)):
            if name.startswith("seg-"):
                with open(os.path.join(journal, name), "rb") as file:
                    numbers += [int(line[7:line.index(b",")]) for line in file if b',"kind":"finding"' in line]
        return numbers


class Breaker:
    """A TCP relay in front of a receiver that resets connections in mid-message."""

    def __init__(self, target):
        self.target = target
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.resets_left = 0
        self.resets = 0
        self.random = random.Random(self.port)
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self._relay, args=(client,), daemon=True).start()

    def _relay(self, client):
        try:
            server = socket.create_connection(("127.0.0.1", self.target))
        except OSError:
            client.close()
            return
        broken = threading.Event()

        def back():
            try:
                while data := server.recv(65536):
                    client.sendall(data)
                if not broken.is_set():
                    client.shutdown(socket.SHUT_WR)
            except OSError:
                pass
        threading.Thread(target=back, daemon=True).start()
        left = self.random.randrange(20_000, 200_000) if self.resets_left > 0 else None
        try:
            while data := client.recv(65536 if left is None else min(65536, left)):
                server.sendall(data)
                if left is not None:
                    left -= len(data)
                    if left <= 0:
                        self.resets_left -= 1
                        self.resets += 1
                        # The other thread's recv() would keep the closed socket alive, and the receiver's connection
                        # open: syslog-ng takes ten of them.
                        broken.set()
                        server.shutdown(socket.SHUT_RD)
                        for end in (client, server):  # a reset, not an orderly end
                            end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                        client.close()
                        server.close()
                        return
            server.shutdown(socket.SHUT_WR)
        except OSError:
            pass

    def close(self):
        self.listener.close()


class Run:
    """One fault against one receiver."""

    def __init__(self, options, folder, receiver):
        self.options, self.receiver = options, receiver
        self.quick = options.quick
        self.total = 600 if self.quick else 20_000
        self.rate = 300 if self.quick else 1_000
        self.folder = folder
        self.feeder = self.feeder_to(receiver.ports)
        self.limit = 60 if self.quick else 300

    def feeder_to(self, ports):
        return Feeder(self.options.feeder, os.path.join(self.folder, "feeder"),
                      output_lines(ports, self.receiver.certificates))

    def feed_through(self, fault):
        """The findings flow; `fault` happens in their midst; all is delivered in the end."""
        self.feeder.start(self.total, self.rate)
        stream = [t for t in self.receiver.ports if t != "udp"]
        eventually(lambda: all(self.feeder.seen(t, "sent") > self.total // 20 for t in stream), 60, "findings flow")
        fault()
        self.feeder.wait(self.limit)

    def pause(self):
        time.sleep(0.3 if self.quick else 2.0)  # how long a fault lasts

    def rounds(self):
        return 1 if self.quick else 5


def ended(with_signal):
    def fault(run):
        def action():
            for _ in range(run.rounds()):
                run.receiver.end(with_signal)
                run.pause()
                run.receiver.start()
                run.pause()
        run.feed_through(action)
    return fault


def slow(run):
    """Runs one part in ten of the time; then a stop of several seconds."""
    def action():
        for _ in range(10 if run.quick else 100):
            run.receiver.process.send_signal(signal.SIGSTOP)
            time.sleep(0.045)
            run.receiver.process.send_signal(signal.SIGCONT)
            time.sleep(0.005)
        run.receiver.process.send_signal(signal.SIGSTOP)
        time.sleep(1 if run.quick else 10)
        run.receiver.process.send_signal(signal.SIGCONT)
    run.feed_through(action)


def full_disk(run):
    """The receiver's folder is a small file system, which fills up and later grows."""
    size = run.total * 2_500 // 3 * len(run.receiver.ports) // 1024
    subprocess.run(("mount", "-t", "tmpfs", "-o", f"size={size}k", "tmpfs", run.receiver.out), check=True)
    run.receiver.end()
    run.receiver.start()
    def full():
        room = os.statvfs(run.receiver.out)
        return room.f_bavail * room.f_bsize < 16 * 1024
    def action():
        eventually(full, 60, "the disk is full")
        run.pause()
        subprocess.run(("mount", "-o", "remount,size=8g", run.receiver.out), check=True)
    run.feed_through(action)


def bad_certificate(run):
    """First expired, then of another name, at last right."""
    def action():
        for arguments in ({"days": -1}, {"address": "127.0.0.9"}):
            run.receiver.end()
            run.receiver.certificates.issue("server", **arguments)
            run.receiver.start()
            over_tls = [t for t in run.receiver.ports if "tls" in t]
            before = {t: run.feeder.seen(t, "errors") for t in over_tls}
            eventually(lambda: all(run.feeder.seen(t, "errors") > before[t] + 1 for t in over_tls), 30, "refusals")
            run.pause()
        run.receiver.end()
        run.receiver.certificates.issue("server")
        run.receiver.start()
    run.feed_through(action)


def reset(run):
    """Connections break in the middle of a message."""
    breakers = {t: Breaker(port) for t, port in run.receiver.ports.items() if t != "udp"}
    ports = {t: breakers[t].port if t in breakers else port for t, port in run.receiver.ports.items()}
    run.feeder = run.feeder_to(ports)
    for breaker in breakers.values():
        breaker.resets_left = 3 if run.quick else 50
    run.feed_through(lambda: eventually(lambda: all(b.resets_left <= 0 for b in breakers.values()), run.limit, "all resets"))
    for breaker in breakers.values():
        breaker.close()


def outage(run):
    """A day without receiver: the backlog is written first, at times spread over 24 hours."""
    run.total = 2_000 if run.quick else run.options.outage_findings
    run.receiver.end()
    run.receiver.keep_only(("tcp", "relp"))  # a million of findings each
    run.feeder = run.feeder_to(run.receiver.ports)
    run.feeder.start(run.total, run.rate, "--backlog-hours", "24")
    written = os.path.join(run.feeder.folder, "backlog-written")
    eventually(lambda: os.path.exists(written), 1_200, "the backlog is written")
    stream = [t for t in run.receiver.ports if t != "udp"]
    eventually(lambda: all(run.feeder.seen(t, "errors") > 0 for t in stream), 60, "nobody listens")
    run.receiver.start()
    run.feeder.wait(60 if run.quick else 3_000)


def daemon_killed(run):
    """kill -9 of the real egresswatchd at random moments of its life, packets leaving all the while."""
    daemon = Daemon(os.path.dirname(run.options.feeder), os.path.join(run.folder, "daemon"),
                    output_lines(run.receiver.ports, run.receiver.certificates))
    run.feeder = daemon
    traffic = Traffic(per_second=200)
    try:
        live_and_die(run, daemon, traffic)
    finally:
        traffic.stop()
        daemon.close()


def live_and_die(run, daemon, traffic):
    chance = random.Random(6)
    begun = time.monotonic()
    daemon.start()
    eventually(daemon.watches, 60, "egresswatchd watches")
    ready = time.monotonic() - begun
    for _ in range(10 if run.quick else 200):
        time.sleep(chance.uniform(0.0, 0.6))
        daemon.kill()
        daemon.start()
        time.sleep(chance.uniform(0.0, 1.2) * ready)
    eventually(daemon.watches, 60, "egresswatchd watches")
    eventually(lambda: traffic.sent > 20, 30, "packets")
    traffic.stop()
    eventually(daemon.all_delivered, run.limit, "everything is delivered")
    daemon.stop()
    run.total = len(daemon.findings())
    if run.total < daemon.lives:
        raise AssertionError(f"only {run.total} findings in {daemon.lives} lives")
    print(f"  {daemon.lives} lives, ready after {ready:.2f} s, {traffic.sent} packets", file=sys.stderr)


FAULTS = {
    "receiver stopped": (ended(signal.SIGTERM), ("rsyslog", "syslog-ng")),
    "receiver killed": (ended(signal.SIGKILL), ("rsyslog", "syslog-ng")),
    "receiver slow": (slow, ("rsyslog", "syslog-ng")),
    "receiver's disk full": (full_disk, ("rsyslog",)),
    "disk full, confirming store": (full_disk, ("rsyslog",)),
    "certificate bad": (bad_certificate, ("rsyslog",)),
    "connections reset": (reset, ("rsyslog", "syslog-ng")),
    "day of outage": (outage, ("rsyslog",)),
    "daemon killed": (daemon_killed, ("rsyslog",)),
}

LOSSY_STORE = "receiver's disk full"
BOTH_IN_QUICK = ("receiver killed", "connections reset")
# Where TCP and TLS must lose nothing either.
LOSSLESS = ("receiver stopped", "receiver slow", "connections reset", "daemon killed", "day of outage")


def judge(fault, receiver, findings, transport):
    """Row of the table, and what is wrong with it."""
    def count():
        times, bogus = receiver.arrived(transport)
        missing = [seq for seq in findings if seq not in times]
        return times, missing, bogus
    deadline = time.monotonic() + 10  # the last ones may be on their way to the file
    times, missing, bogus = count()
    while missing and transport != "udp" and fault != LOSSY_STORE and time.monotonic() < deadline:
        time.sleep(0.1)
        times, missing, bogus = count()
    doubles = sum(n - 1 for n in times.values())
    row = {"receiver": receiver.name, "fault": fault, "transport": transport, "findings": len(findings),
           "missing": len(missing), "twice": doubles, "torn": bogus}
    problems = []
    # rsyslog's omfile throws away what imrelp has acknowledged: its loss, measured and stated.
    if transport in SURE and missing and fault != LOSSY_STORE:
        problems.append(f"{len(missing)} missing over {transport}, first {missing[0]}")
    if transport in ("tcp", "tls") and fault in LOSSLESS and receiver.name == "rsyslog" and missing:
        problems.append(f"{len(missing)} missing over {transport}, first {missing[0]}")
    return row, problems


def run_fault(options, fault, server, folder, root):
    place = os.path.join(folder, f"{server}-{fault}".replace(" ", "-").replace("'", "").replace(",", ""))
    certificates = Certificates(os.path.join(place, "certificates")) if os.makedirs(place) is None else None
    arguments = (os.path.join(place, "receiver"), certificates)
    receiver = Rsyslog(*arguments) if server == "rsyslog" else SyslogNg(root, *arguments)
    run = None
    rows, problems = [], []
    begun = time.monotonic()
    try:
        receiver.confirming_store = fault == "disk full, confirming store"
        receiver.start()
        run = Run(options, place, receiver)
        FAULTS[fault][0](run)
        findings = run.feeder.findings()
        if len(findings) != run.total:
            problems.append(f"the journal holds {len(findings)} findings instead of {run.total}")
        for transport in receiver.ports:
            row, wrong = judge(fault, receiver, findings, transport)
            rows.append(row)
            problems += [f"{server}, {fault}: {text}" for text in wrong]
    except AssertionError as error:
        problems.append(f"{server}, {fault}: {error}")
    finally:
        if run is not None:
            run.feeder.kill()
        receiver.end(signal.SIGKILL if problems else signal.SIGTERM)
        if os.path.ismount(receiver.out):
            subprocess.run(("umount", receiver.out), check=False)
    for row in rows:
        print(f'{row["receiver"]:10} {row["fault"]:22} {row["transport"]:9} {row["findings"]:8} sent,'
              f' {row["missing"]:6} missing, {row["twice"]:6} twice, {row["torn"]:3} torn', file=sys.stderr)
    print(f"  {time.monotonic() - begun:.1f} s", file=sys.stderr, flush=True)
    return rows, problems


def table(rows):
    lines = ["| receiver | fault | transport | findings | missing | twice | torn |", "|---|---|---|---:|---:|---:|---:|"]
    for row in rows:
        lines.append("| " + " | ".join(str(row[key]) for key in
                                       ("receiver", "fault", "transport", "findings", "missing", "twice", "torn")) + " |")
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--feeder", required=True)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--table", action="store_true")
    parser.add_argument("--only", choices=FAULTS, action="append", help="one fault; may be given again")
    parser.add_argument("--jobs", type=int, default=4, help="faults at a time, each with receivers of its own")
    parser.add_argument("--outage-findings", type=int, default=1_000_000)
    parser.add_argument("--keep", action="store_true", help="leave the folder with logs")
    options = parser.parse_args()
    options.feeder = os.path.abspath(options.feeder)
    if os.geteuid() != 0:
        sys.exit("reliability: root is needed: for the daemon's hooks, and a full disk is a mounted one")
    root = make_syslog_ng_root(os.path.join(os.path.dirname(os.path.dirname(options.feeder)), "syslog-ng"))
    if os.environ.get("EGRESSWATCH_OWN_WORLD") is None:  # what is mounted and sent here, nobody else sees
        os.environ["EGRESSWATCH_OWN_WORLD"] = "yes"
        os.execvp("unshare", ("unshare", "--mount", "--net", sys.executable, *sys.argv))
    subprocess.run(("ip", "link", "set", "lo", "up"), check=True)
    folder = tempfile.mkdtemp(prefix="egresswatch-reliability-")
    open_to_root(root, folder)
    jobs = [(fault, server) for fault, (_, servers) in FAULTS.items() if options.only is None or fault in options.only
            for server in (servers[:1] if options.quick and fault not in BOTH_IN_QUICK else servers)]
    rows, problems = [], []
    # They wait more than they work.
    with concurrent.futures.ThreadPoolExecutor(max_workers=options.jobs) as pool:
        for more, wrong in pool.map(lambda job: run_fault(options, *job, folder, root), jobs):
            rows += more
            problems += wrong
    if not options.keep:
        shutil.rmtree(folder, ignore_errors=True)
    if options.table:
        print(table(rows))
    for problem in problems:
        print(f"FAILED: {problem}", file=sys.stderr)
    sys.exit(1 if problems else 0)


if __name__ == "__main__":
    main()
