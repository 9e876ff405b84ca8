"""tests/support/world.py - three network namespaces (a host at the Dublin site, a router, the world), and the
processes that live in them: traffic servers, an rsyslogd, egresswatchd. Used by tests/netns and tools/demo.

SPDX-License-Identifier: Apache-2.0

    host  eth0 87.32.0.2/30  ----  lan  router  wan  ----  eth0  world  (any address of WORLD_PREFIXES)
               2a02:8080::2/64

Names carry a prefix that is unique per run, so that runs do not meet. close() ends what was started, by pid,
and removes namespaces, pins and files, whatever state a failure left; leftovers() tells what is still there.
`ip netns exec` would hide the bpffs and the cgroups behind a fresh /sys, and `ip -n` fails in a chroot: nsenter --net it is.
"""
import atexit
import ctypes
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SUPPORT = ROOT / "tests" / "support"
BUILD = Path(os.environ.get("EGRESSWATCH_BUILD_DIR", ROOT / "build"))
BIN = BUILD / "bin"
PYTHON = "/usr/bin/python3"

HOST4, HOST6 = "87.32.0.2", "2a02:8080::2"

# Addresses that the shipped geo data places in these countries; the demo asks `egresswatch geo lookup` first.
# In the world namespace each whole prefix answers.
WORLD = {
    "IE": ("87.32.112.10", "2a02:8087::10"),
    "DE": ("5.9.10.20", "2a01:4f8::20"),
    "NO": ("193.213.112.4", "2001:4600::4"),
    "US": ("8.8.8.8", "2001:4860:4860::8888"),
    "CN": ("114.114.114.114", "240e::114"),
    "SG": ("165.21.83.88", "2406:3000::88"),
    None: ("137.35.7.9", "2001:409::9"),
}
WORLD_PREFIXES = ["87.32.112.0/24", "5.9.0.0/16", "193.213.112.0/24", "8.8.8.0/24", "114.114.0.0/16",
                  "165.21.83.0/24", "137.35.7.0/24", "4.71.12.0/24", "198.241.160.0/24",
                  "2a02:8087::/64", "2a01:4f8::/64", "2001:4600::/64", "2001:4860:4860::/64", "240e::/64",
                  "240e:0:7::/64", "2406:3000::/64", "2001:409::/64"]
SINK, SECOND_SINK, SOURCE, UDP_SINK = 443, 8443, 80, 4433
SYSLOG_UDP, SYSLOG_TCP = 15514, 15515


class WorldError(Exception):
    pass


def run(*argv, check=True, **options):
    """Runs a command to its end; its output is part of the exception where it fails."""
    done = subprocess.run([str(word) for word in argv], text=True, stdin=subprocess.DEVNULL,
                          capture_output=True, check=False, **options)
    if check and done.returncode != 0:
        raise WorldError(f"{' '.join(map(str, argv))}: exit {done.returncode}\n{done.stdout}{done.stderr}".rstrip())
    return done


def wait_for(what, seconds, condition, interval=0.02):
    """Waits for condition() to be true and returns its value; WorldError after the deadline."""
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise WorldError(f"waited {seconds} s for {what}, in vain")
        time.sleep(interval)


def die_with_parent():
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG: even where Python itself is killed


class Traffic:
    """A running traffic.py client. `sent` moves while it runs."""

    def __init__(self, process):
        self.process, self.sent, self.result, self.marked_at, self.error = process, 0, None, None, ""
        self.progress = []  # (time, bytes sent)
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self):
        for line in self.process.stdout:
            try:
                news = json.loads(line)
            except ValueError:
                self.error += line
                continue
            if "sent" in news:
                self.sent = news["sent"]
                self.progress.append((news["at"], news["sent"]))
            self.marked_at = news["at"] if "mark" in news else self.marked_at
            self.error += news.get("error", "")
            if news.get("done"):
                self.result, self.sent = news, news["bytes"]

    def sent_at(self, moment):
        """Bytes that had been sent at that time."""
        return max((sent for at, sent in self.progress if at <= moment), default=0)

    @property
    def running(self):
        return self.result is None and self.process.poll() is None

    def wait(self, seconds=60):
        """The result; `confirmed` is what the receiver counted."""
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise WorldError(f"traffic did not end within {seconds} s: {' '.join(self.process.args[-4:])}") from None
        self._thread.join(5)
        if self.process.returncode != 0:
            raise WorldError(f"traffic failed: {' '.join(map(str, self.process.args[-8:]))}: {self.error} {self.result}")
        return self.result


class World:
    def __init__(self, name="ewtest", offload=True, keep=False):
        self.prefix = f"{name}{os.getpid()}"
        self.dir = Path(tempfile.mkdtemp(prefix=f"{self.prefix}-"))
        os.chmod(self.dir, 0o755)
        self.offload, self.keep, self.closed = offload, keep, False
        self.processes = []  # Popen, newest last
        self.daemon = None
        self.pin_dir = Path("/sys/fs/bpf") / self.prefix
        atexit.register(self.close)
        for number in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, lambda number, _: sys.exit(128 + number))

    def __enter__(self):
        try:
            self.set_up()
        except BaseException:
            self.keep = False
            self.close()
            raise
        return self

    def __exit__(self, kind, *_):
        self.keep = self.keep and kind is None
        self.close()

    # --- namespaces ------------------------------------------------------------------------------------

    def ns(self, which):
        return f"{self.prefix}-{which}"

    def inside(self, which, *argv):
        return ["nsenter", f"--net=/run/netns/{self.ns(which)}", "--", *map(str, argv)]

    def run_in(self, which, *argv, **options):
        return run(*self.inside(which, *argv), **options)

    def set_up(self):
        if os.geteuid() != 0:
            raise WorldError("network namespaces need root")
        if not os.path.ismount("/sys/fs/bpf"):
            run("mount", "-t", "bpf", "bpf", "/sys/fs/bpf")  # and it stays: systemd mounts it at boot, too
        for which in ("host", "router", "world"):
            run("ip", "netns", "add", self.ns(which))
            # No router solicitations, no duplicate detection: what is on the wire is what a test sends.
            self.run_in(which, "sysctl", "-qw", "net.ipv6.conf.default.accept_dad=0",
                        "net.ipv6.conf.default.router_solicitations=0", "net.ipv6.conf.default.accept_ra=0")
            self.run_in(which, "ip", "link", "set", "lo", "up")
        self.link("host", "eth0", "router", "lan", HOST4, "87.32.0.1", HOST6, "2a02:8080::1")
        self.link("router", "wan", "world", "eth0", "192.0.2.1", "192.0.2.2", "2001:db8:1::1", "2001:db8:1::2")
        self.run_in("router", "sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1",
                    "net.ipv4.conf.all.rp_filter=0", "net.ipv4.icmp_ratelimit=0")
        for which, family, via in (("host", "-4", "87.32.0.1"), ("host", "-6", "2a02:8080::1"),
                                   ("router", "-4", "192.0.2.2"), ("router", "-6", "2001:db8:1::2"),
                                   ("world", "-4", "192.0.2.1"), ("world", "-6", "2001:db8:1::1")):
            self.run_in(which, "ip", family, "route", "add", "default", "via", via)
        # The world answers on every address of its prefixes, and may send from any.
        self.run_in("world", "sysctl", "-qw", "net.ipv4.ip_nonlocal_bind=1", "net.ipv6.ip_nonlocal_bind=1",
                    "net.ipv4.conf.all.rp_filter=0", "net.ipv4.icmp_ratelimit=0")
        for prefix in WORLD_PREFIXES:
            family = "-6" if ":" in prefix else "-4"
            self.run_in("world", "ip", family, "route", "add", "local", prefix, "dev", "lo")
        self.set_offload(self.offload)

    def link(self, left, left_dev, right, right_dev, left4, right4, left6, right6):
        self.run_in(left, "ip", "link", "add", left_dev, "type", "veth", "peer", "name", right_dev,
            "netns", self.ns(right))
        for which, dev, ip4, ip6 in ((left, left_dev, left4, left6), (right, right_dev, right4, right6)):
            self.run_in(which, "ip", "addr", "add", f"{ip4}/30", "dev", dev)
            self.run_in(which, "ip", "addr", "add", f"{ip6}/64", "dev", dev, "nodad")
            self.run_in(which, "ip", "link", "set", dev, "up")
            # Nor a question, five seconds after the first packets, whether a neighbour is still there.
            self.run_in(which, "sysctl", "-qw", f"net.ipv4.neigh.{dev}.delay_first_probe_time=3600",
                        f"net.ipv6.neigh.{dev}.delay_first_probe_time=3600")

    def set_offload(self, on):
        """Segmentation offload of the host's link, both ends. Off: the veth cuts super-packets into frames
        before they leave, so that its counters count frames as a wire would carry them."""
        state = "on" if on else "off"
        for which, dev in (("host", "eth0"), ("router", "lan")):
            self.run_in(which, "ethtool", "-K", dev, "tso", state, "gso", state, "gro", state, "tx-udp-segmentation", state)

    def link_counters(self, which="host", dev="eth0"):
        """The interface's own counters: {'tx': {bytes, packets, dropped, ...}, 'rx': {...}}."""
        return json.loads(self.run_in(which, "ip", "-s", "-j", "link", "show", "dev", dev).stdout)[0]["stats64"]

    # --- processes -------------------------------------------------------------------------------------

    def start(self, which, *argv, log=None):
        """Starts a process; its output goes to a file of that name in self.dir, or to process.stdout."""
        output = open(self.dir / log, "a", encoding="utf-8") if log else subprocess.PIPE
        process = subprocess.Popen(self.inside(which, *argv), text=True, stdin=subprocess.DEVNULL, stdout=output,
                                   stderr=subprocess.STDOUT, start_new_session=self.keep,
                                   preexec_fn=None if self.keep else die_with_parent)
        if log:
            output.close()
        self.processes.append(process)
        return process

    def start_servers(self):
        for which in ("host", "world"):
            log = f"traffic-{which}.log"
            self.start(which, PYTHON, SUPPORT / "traffic.py", "serve", "--sink", SINK, "--sink", SECOND_SINK,
                       "--source", SOURCE, "--udp", UDP_SINK, log=log)
            wait_for(f"traffic servers in {which}", 10, lambda log=log: "ready" in (self.dir / log).read_text())
        # The first packets of a link wait for neighbour discovery: not in the middle of a scene.
        for address in WORLD["IE"]:
            self.traffic("host", "send", address, SINK, 1).wait()

    def traffic(self, which, command, address, port, size, **options):
        """Starts traffic.py; options become --options."""
        words = [command, address, port, size]
        for key, value in options.items():
            words += [f"--{key.replace('_', '-')}"] + ([] if value is True else [value])
        return Traffic(self.start(which, PYTHON, SUPPORT / "traffic.py", *words))

    def start_rsyslogd(self):
        """A syslog server on the host's loopback; what it parsed goes to alerts.json, one object a line."""
        (self.dir / "rsyslog").mkdir()
        config = (SUPPORT / "rsyslog.conf.in").read_text()
        for key, value in (("DIR", self.dir), ("UDP_PORT", SYSLOG_UDP), ("TCP_PORT", SYSLOG_TCP)):
            config = config.replace(f"@{key}@", str(value))
        (self.dir / "rsyslog.conf").write_text(config)
        self.start("host", "rsyslogd", "-n", "-f", self.dir / "rsyslog.conf", "-i", self.dir / "rsyslog.pid",
                   log="rsyslogd.log")

        def listening():
            sockets = self.run_in("host", "ss", "-lntuH").stdout
            return f":{SYSLOG_UDP} " in sockets and f":{SYSLOG_TCP} " in sockets
        wait_for("rsyslogd", 15, listening)

    def stop(self, process, number=signal.SIGTERM, seconds=15):
        """Ends one process by its pid and returns its exit status."""
        if process.poll() is None:
            process.send_signal(number)
            try:
                process.wait(seconds)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        return process.returncode

    # --- the end ---------------------------------------------------------------------------------------

    def close(self):
        """Never raises: what cannot be removed shows up in leftovers()."""
        if self.closed or self.keep:
            return
        self.closed = True
        for process in reversed(self.processes):
            self.stop(process)
        if self.pin_dir.exists():
            tool = BIN / "egresswatch"
            if tool.exists():
                run(*self.inside("host", tool, "detach", "--pin-dir", self.pin_dir), check=False)
            shutil.rmtree(self.pin_dir, ignore_errors=True)
        for which in ("host", "router", "world"):
            run("ip", "netns", "del", self.ns(which), check=False)
        shutil.rmtree(self.dir, ignore_errors=True)


def leftovers(prefix):
    """What still carries the name of a run: namespaces, pins, files, processes."""
    found = [f"namespace {line.split()[0]}" for line in run("ip", "netns", "list").stdout.splitlines()
             if line.startswith(prefix)]
    for place in ("/sys/fs/bpf", tempfile.gettempdir(), "/run"):
        found += [f"file {path}" for path in Path(place).glob(f"{prefix}*")]
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if prefix in words and int(path.parent.name) != os.getpid():
            found.append(f"process {path.parent.name}: {words}")
    return found
