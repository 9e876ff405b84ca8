# tests/reliability/daemon.py - the real egresswatchd, watching packets that leave over a veth pair, to be killed at will.
# SPDX-License-Identifier: Apache-2.0
#
# Runs in a network namespace of the test's own (reliability.py makes it): the device goes with the test. Engine pcap,
# because it starts in a tenth of the time that the kernel takes to verify BPF programs: more deaths a minute. Every UDP
# packet of `Traffic` goes to another address in China and is a finding of its own.
import json
import os
import random
import socket
import subprocess
import threading
import time

POLICY = """\
policy: egresswatch/v1
name: reliability
revision: 1
owner: secops@example.org
sites:
  dublin: {title: "Dublin", country: IE, latitude: 53.35, longitude: -6.26}
regions:
  europe: {groups: [EEA], countries: [GB, CH], as_of: 2026-02-01}
home: europe
unknown_country: outside
rules:
  - id: anything-outside
    title: Anything that leaves the region
    level: medium
    when: {region: outside, allowed: false}
    window: {sum: bytes_out, over: 10m, by: [remote], at_least: 1 B}
    suppress: {for: 1h, by: [remote]}
"""


def run(*command):
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def make_world():
    """A way out of this namespace that leads nowhere."""
    run("ip", "link", "add", "ew0", "type", "veth", "peer", "name", "ew1")
    run("ip", "address", "add", "198.51.100.5/24", "dev", "ew0")
    for device in ("ew0", "ew1"):
        run("ip", "link", "set", device, "up")
    link = subprocess.run(("ip", "-j", "link", "show", "ew1"), check=True, capture_output=True, text=True).stdout
    mac = json.loads(link)[0]["address"]
    run("ip", "neighbour", "add", "198.51.100.1", "lladdr", mac, "dev", "ew0")
    run("ip", "route", "add", "default", "via", "198.51.100.1")


class Traffic:
    """Packets at a steady rate, each to an address that no other had."""

    def __init__(self, per_second):
        self.per_second, self.sent, self.stopping = per_second, 0, False
        numbers = list(range(1 << 16))
        random.Random(7).shuffle(numbers)
        self.addresses = [f"114.114.{n >> 8}.{n & 255}" for n in numbers if 0 < n & 255 < 255]
        self.thread = threading.Thread(target=self._send, daemon=True)
        self.thread.start()

    def _send(self):
        with socket.socket(type=socket.SOCK_DGRAM) as udp:
            due = time.monotonic()
            while not self.stopping and self.sent < len(self.addresses):
                udp.sendto(b"x" * 64, (self.addresses[self.sent], 4000))
                self.sent += 1
                due += 1 / self.per_second
                time.sleep(max(0.0, due - time.monotonic()))

    def stop(self):
        self.stopping = True
        self.thread.join()


class Daemon:
    """egresswatchd with one output for each port of `ports`. Same shape as the feeder of reliability.py."""

    def __init__(self, bin_folder, folder, output_lines):
        self.bin, self.folder = bin_folder, folder
        self.socket = os.path.join(folder, "control.sock")
        self.config = os.path.join(folder, "egresswatch.yaml")
        self.process = None
        self.lives = 0
        os.makedirs(os.path.join(folder, "policy.d"))
        with open(os.path.join(folder, "policy.d", "10-all.yaml"), "w", encoding="ascii") as file:
            file.write(POLICY)
        geo = os.path.join(bin_folder, os.pardir, "share", "geo.ewgeo")
        with open(self.config, "w", encoding="ascii") as file:
            file.write(f"site: dublin\nengine: pcap\ninterfaces: [ew0]\npolicy_dir: {folder}/policy.d\ngeo_file: {geo}\n"
                       f"state_dir: {folder}/state\ncontrol_socket: {self.socket}\n"
                       "liveness: {heartbeat: 0s, canary: 0s}\n" + "\n".join(output_lines) + "\n")
        make_world()

    def start(self):
        self.lives += 1
        with open(os.path.join(self.folder, "stderr"), "ab") as errors:
            self.process = subprocess.Popen((os.path.join(self.bin, "egresswatchd"), "--config", self.config),
                                            stdout=errors, stderr=errors)

    def status(self):
        if self.process.poll() is not None:
            raise AssertionError(f"egresswatchd ended with {self.process.returncode}: see {self.folder}/stderr")
        answer = subprocess.run((os.path.join(self.bin, "egresswatch"), "status", "--json", "--socket", self.socket),
                                capture_output=True, text=True, check=False)
        return json.loads(answer.stdout) if answer.returncode == 0 else None

    def watches(self):
        status = self.status()
        return status is not None and any(item["name"] == "ew0" and item["hooked"] for item in status["interfaces"])

    def all_delivered(self):
        status = self.status()
        return status is not None and all(item["cursor_seq"] == status["journal"]["last_seq"] for item in status["outputs"])

    def kill(self):
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    def stop(self):
        self.process.terminate()
        self.process.wait(30)
        if self.process.returncode != 0:
            raise AssertionError(f"egresswatchd ended with {self.process.returncode}: see {self.folder}/stderr")

    def close(self):
        self.kill()
        run("ip", "link", "delete", "ew0")

    def findings(self):
        numbers = []
        journal = os.path.join(self.folder, "state", "journal")
        for name in sorted(os.listdir(journal)):
            if name.startswith("seg-"):
                with open(os.path.join(journal, name), "rb") as file:
                    numbers += [int(line[7:line.index(b",")]) for line in file if b',"kind":"finding"' in line]
        return numbers
