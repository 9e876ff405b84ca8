"""tests/support/scenes.py - a monitored Dublin host in its world, and the seven scenes that the demo shows and the
namespace tests assert.

SPDX-License-Identifier: Apache-2.0
"""
import json
import re
import os
import threading
import time
from collections import namedtuple
from dataclasses import dataclass, field

from world import (BIN, BUILD, HOST4, HOST6, SINK, SOURCE, SUPPORT, SYSLOG_TCP, SYSLOG_UDP, UDP_SINK, WORLD, Path,
                   World, WorldError, run, wait_for)

MIB = 1 << 20
BULK = 60 * MIB
BULK_RATE = 20e6            # bytes per second: the 10 MiB behind the threshold take half a second, time for the alert
PAYMENT = "198.241.160.9"   # in the policy's payment_networks, a US prefix
TRICKLE_PREFIX = "4.71.12.0/24"
TRICKLE_FLOWS, TRICKLE_BYTES = 1600, 48 << 10
ALERT_S = 5                 # an alert that has not come by then does not come
QUIET_S = 1.0               # how long a scene without alerts is watched after its traffic

# Remote ends that no other scene uses: suppression and windows are per address or prefix.
CN_TCP, CN_TCP6, CN_UDP, CN_UDP6 = "114.114.114.114", "240e::114", "114.114.7.7", "240e:0:7::7"


@dataclass
class Alert:
    """A finding as rsyslogd parsed it."""
    arrived: float     # CLOCK_MONOTONIC at which its line was read from rsyslogd's file
    via: str           # imudp or imptcp
    envelope: dict     # what rsyslogd parsed: pri, msgid, sd, msg, ...
    document: dict     # the ECS body

    def get(self, path, default=None):
        value = self.document
        for name in path.split("."):
            if not isinstance(value, dict) or name not in value:
                return default
            value = value[name]
        return value

    @property
    def rule(self):
        return self.get("rule.id")

    @property
    def level(self):
        return self.get("egresswatch.level")

    @property
    def country(self):
        return self.get("egresswatch.country")

    @property
    def initiator(self):
        return self.get("egresswatch.initiator")

    @property
    def allowed(self):
        return self.get("egresswatch.verdict") == "allowed"

    @property
    def value(self):
        return self.get("egresswatch.value")

    @property
    def group(self):
        return self.get("egresswatch.group", {})

    @property
    def remote(self):
        return self.get("source.ip" if self.initiator == "remote" else "destination.ip")

    @property
    def transport(self):
        return self.get("network.transport")

    def line(self):
        where = ", ".join(f"{name} {value}" for name, value in self.group.items())
        verdict = f"allowed by {self.get('egresswatch.allow_id')}" if self.allowed else "not allowed"
        name = self.get("destination.domain") or self.get("source.domain")
        return (f"{str(self.level).upper()} {self.rule}: {(self.value or 0) / 1e6:.3g} MB to {where} ({self.country})"
                f"{f', {name}' if name else ''}, {verdict}, initiator {self.initiator}, "
                f"{self.get('network.protocol') or self.transport}, {self.sender}")

    @property
    def sender(self):
        if not self.get("process"):
            return f"sender {self.get('egresswatch.sender', 'not looked for')}"
        return (f"by {self.get('process.executable')} (pid {self.get('process.pid')}, user {self.get('user.name')}, "
                f"sha256 {str(self.get('process.hash.sha256'))[:12]}...)")


class AlertLog:
    """Follows rsyslogd's file; every message of both inputs, in order of arrival."""

    def __init__(self, path, on_alert=None):
        self.path, self.on_alert = path, on_alert
        self.findings, self.others, self.broken = [], [], []
        self.stopping = False
        self.thread = threading.Thread(target=self._follow, daemon=True)
        self.thread.start()

    def _follow(self):
        while not self.path.exists() and not self.stopping:
            time.sleep(0.01)
        if self.stopping:
            return
        with open(self.path, encoding="utf-8") as lines:
            rest = ""
            while not self.stopping:
                rest += lines.read()
                *whole, rest = rest.split("\n")
                for line in whole:
                    self._take(line, time.monotonic())
                if not whole:
                    time.sleep(0.002)

    def _take(self, line, now):
        try:
            envelope = json.loads(line)
            envelope["sd"] = json.loads(envelope["sd"]) if isinstance(envelope["sd"], str) and envelope["sd"] else {}
            document = json.loads(envelope["msg"].lstrip("\ufeff"))
        except ValueError as error:
            self.broken.append((line, str(error)))
            return
        alert = Alert(now, envelope["input"], envelope, document)
        if alert.get("event.dataset") != "egresswatch.finding":
            self.others.append(alert)
            return
        self.findings.append(alert)
        if self.on_alert and alert.via == "imptcp":  # each alert comes twice; show it once
            self.on_alert(alert)

    def since(self, mark, via="imptcp"):
        return [alert for alert in self.findings[mark:] if alert.via == via]


Counters = namedtuple("Counters", "interface hook classes")


class Site(World):
    """World with egresswatchd and rsyslogd on the host."""

    def __init__(self, name="ewtest", offload=True, keep=False, policy=SUPPORT / "policy.d", on_alert=None, settings="",
                 engine="ebpf"):
        super().__init__(name, offload, keep)
        self.policy_source, self.on_alert, self.settings = Path(policy), on_alert, settings
        self.engine, self.interfaces = engine, "[eth0]"
        ports = re.findall(r"--vdev=(\w+)", settings)
        self.seen_as = ports[0] if ports else "eth0"  # the name in status and records
        self.policy_dir = self.dir / "policy.d"
        self.socket = self.dir / "control.sock"
        self.alerts = None

    def set_up(self):
        super().set_up()
        self.start_servers()
        self.start_rsyslogd()
        self.alerts = AlertLog(self.dir / "alerts.json", self.on_alert)
        self.policy_dir.mkdir()
        for file in self.policy_source.glob("*.yaml"):
            (self.policy_dir / file.name).write_text(file.read_text())
        self.write_config()
        self.start_daemon()

    def close(self):
        if self.alerts and not self.keep:
            self.alerts.stopping = True
        super().close()

    def write_config(self):
        (self.dir / "egresswatch.yaml").write_text(f"""\
site: dublin
engine: {self.engine}
interfaces: {self.interfaces}
policy_dir: {self.policy_dir}
geo_file: {BUILD}/share/geo.ewgeo
state_dir: {self.dir}/state
pin_dir: {self.pin_dir}
control_socket: {self.socket}
liveness: {{heartbeat: 0s, canary: 0s}}
outputs:
  - {{name: siem-tcp, type: syslog, transport: tcp, address: 127.0.0.1, port: {SYSLOG_TCP}, framing: octet, body: ecs}}
  - {{name: siem-udp, type: syslog, transport: udp, address: 127.0.0.1, port: {SYSLOG_UDP}, body: ecs, max_bytes: 4000}}
{self.settings}""")

    def start_daemon(self):
        self.daemon = self.start("host", BIN / "egresswatchd", "--config", self.dir / "egresswatch.yaml",
                                 log="egresswatchd.log")

        def ready():
            if self.daemon.poll() is not None:
                raise WorldError(f"egresswatchd ended with {self.daemon.returncode}:\n{self.daemon_log()}")
            return self.socket.exists() and self.tool("status", "--json", check=False).returncode == 0
        wait_for("egresswatchd", 20, ready)
        if "eth0" in self.interfaces:
            wait_for("the hook on eth0", 5, lambda: self.hook(self.seen_as) is not None)

    def daemon_log(self):
        path = self.dir / "egresswatchd.log"
        return path.read_text()[-4000:] if path.exists() else ""

    def tool(self, command, *words, **options):
        extra = ["--socket", self.socket] if command == "status" else []
        return self.run_in("host", BIN / "egresswatch", command, *extra, *words, **options)

    def status(self):
        return json.loads(self.tool("status", "--json").stdout)

    def hook(self, name="eth0"):
        for interface in self.status()["interfaces"]:
            if interface["name"] == name and interface["hooked"]:
                return interface
        return None

    def journal(self, kind=None):
        records = []
        for segment in sorted((self.dir / "state").rglob("seg-*.jsonl")):
            for line in segment.read_text().splitlines():
                try:
                    records.append(json.loads(line))
                except ValueError:
                    continue  # the line being written
        return [record for record in records if kind is None or record["kind"] == kind]

    def counters(self):
        """The interface's counters and the hook's, read while nothing moves."""
        deadline = time.monotonic() + 10
        while True:
            before = self.link_counters()
            status = self.status()
            after = self.link_counters()
            if before == after:
                hook = next(item for item in status["interfaces"] if item["name"] == self.seen_as)
                return Counters(after, hook, status["classes"])
            if time.monotonic() > deadline:
                raise WorldError("the link does not come to rest")
            time.sleep(0.05)

    def wait_alerts(self, mark, matches, number=1, seconds=ALERT_S):
        """Waits for `number` alerts over TCP since `mark` that match; what came, as many as they are."""
        try:
            wait_for("an alert", seconds, lambda: len([a for a in self.alerts.since(mark) if matches(a)]) >= number)
        except WorldError:
            pass
        return [alert for alert in self.alerts.since(mark) if matches(alert)]


@dataclass
class Result:
    number: str
    title: str
    expected: str
    seen: str
    passed: bool
    alerts: list = field(default_factory=list)


def country_totals(classes):
    """{(class, country): {"out": {packets, ip_bytes, frame_bytes}, "in": {...}}}"""
    return {(row["class"], row["country"]): row for row in classes}


def grown(before, after, klass, country, direction="out", what="ip_bytes"):
    first = country_totals(before).get((klass, country), {direction: {what: 0}})
    last = country_totals(after).get((klass, country), {direction: {what: 0}})
    return last[direction][what] - first[direction][what]


# --- the scenes ------------------------------------------------------------------------------------------

def scene_home(site):
    mark, before = len(site.alerts.findings), site.counters()
    plan = [("IE", 0, 1024 * MIB), ("DE", 0, 64 * MIB), ("NO", 0, 64 * MIB), ("IE", 1, 256 * MIB), ("NO", 1, 64 * MIB)]
    speed, sent = [], {}
    for country, family, size in plan:
        result = site.traffic("host", "send", WORLD[country][family], SINK, size).wait()
        speed.append(result["mbit_s"])
        sent[country] = sent.get(country, 0) + size
    time.sleep(QUIET_S)
    after, alerts = site.counters(), site.alerts.since(mark)
    counted = {country: grown(before.classes, after.classes, "home", country) for country in sent}
    # Headers and acknowledgements come on top of the payload: 3 to 6 % with 1448-byte segments.
    right = all(sent[c] < counted[c] < sent[c] * 1.08 for c in sent)
    return Result("1", f"home traffic at full speed ({max(speed) / 1000:.1f} Gbit/s)",
                  "no alert; " + ", ".join(f"{c} {size / 1e6:.0f} MB + headers" for c, size in sent.items()),
                  f"{len(alerts)} alerts; " + ", ".join(f"{c} {size / 1e6:.1f} MB" for c, size in counted.items()),
                  not alerts and right, alerts)


def scene_allowed(site):
    mark, before = len(site.alerts.findings), site.counters()
    site.traffic("host", "send", PAYMENT, SINK, BULK, rate=2 * BULK_RATE).wait()
    time.sleep(QUIET_S)
    after, alerts = site.counters(), site.alerts.since(mark)
    counted = grown(before.classes, after.classes, "outside", "US")

    def recorded():
        return [r for r in site.journal("flow") if r["flow"]["remote"] == PAYMENT and r["flow"]["bytes_out"] >= BULK]
    try:
        flow = wait_for("the flow's record", 20, recorded)[0]
    except WorldError:
        flow = {}
    decision = flow.get("decision") or {}
    verdict, entry = decision.get("verdict"), decision.get("allow_id")
    return Result("2", "allowed transfer to a US payment provider",
                  "no alert; outside US counted; flow recorded as allowed by card-scheme",
                  f"{len(alerts)} alerts; outside US {counted / 1e6:.1f} MB; recorded as {verdict} by {entry}",
                  not alerts and BULK < counted < BULK * 1.08 and verdict == "allowed" and entry == "card-scheme", alerts)


def bulk(site, number, what, address, port, which="host", command="send", rule="bulk-to-outside", initiator="local",
         country="CN", **options):
    """A transfer of 60 MiB whose alert has to come while it runs."""
    mark = len(site.alerts.findings)
    options.setdefault("rate", BULK_RATE)
    transfer = site.traffic(which, command, address, port, BULK, **options)
    remote = options.get("source_address", address)
    alerts = site.wait_alerts(mark, lambda a: a.rule == rule and a.remote == remote)
    running = transfer.running
    result = transfer.wait()
    time.sleep(QUIET_S / 2)
    everything = site.alerts.since(mark)
    if not alerts:
        return Result(number, what, f"an alert by {rule} while it runs", f"none within {ALERT_S} s; other alerts: "
                      + str([a.rule for a in everything]), False, everything)
    first = alerts[0]
    sent_then = transfer.sent_at(first.arrived)
    passed = (len(alerts) == 1 and first.country == country and first.allowed is False and first.initiator == initiator
              and first.value >= 20 * MIB and running and sent_then < BULK and result["confirmed"] == BULK
              and all(a.remote == remote and a.initiator == initiator for a in everything))
    return Result(number, what,
                  f"one alert by {rule} while it runs: {country}, not allowed, initiator {initiator}",
                  f"{len(alerts)} alert{'s' * (len(alerts) != 1)} by {rule} after {sent_then / MIB:.1f} of {BULK / MIB:.0f} MiB: "
                  f"{first.value / MIB:.1f} MiB, {first.country}, allowed={first.allowed}, initiator {first.initiator}",
                  passed, everything)


def scene_bulk_tcp(site):
    return bulk(site, "3", "bulk upload of 60 MiB to CN over TCP", CN_TCP, SINK)


def scene_bulk_tcp6(site):
    return bulk(site, "4a", "the same over IPv6", CN_TCP6, SINK)


def scene_bulk_udp(site):
    return bulk(site, "4b", "the same over UDP", CN_UDP, UDP_SINK, udp=True)


def scene_bulk_udp6(site):
    return bulk(site, "4c", "the same over UDP and IPv6, segmented by the kernel", CN_UDP6, UDP_SINK, udp=True, udp_gso=True)


def scene_pull(site):
    return bulk(site, "5", "a client in SG connects inbound and pulls 60 MiB", HOST4, SOURCE, which="world", command="pull",
                rule="foreign-pull", initiator="remote", country="SG", source_address=WORLD["SG"][0])


def scene_pull6(site):
    return bulk(site, "5b", "the same over IPv6", HOST6, SOURCE, which="world", command="pull",
                rule="foreign-pull", initiator="remote", country="SG", source_address=WORLD["SG"][1])


def scene_trickle(site):
    mark = len(site.alerts.findings)
    site.traffic("host", "many", TRICKLE_PREFIX, SINK, TRICKLE_BYTES, count=TRICKLE_FLOWS).wait(120)
    alerts = site.wait_alerts(mark, lambda a: a.rule == "trickle-to-prefix", seconds=12)
    time.sleep(QUIET_S)
    everything = site.alerts.since(mark)
    first = alerts[0] if alerts else None
    group = first.group.get("remote_prefix") if first else None
    return Result("6", f"a trickle: {TRICKLE_FLOWS} flows of {TRICKLE_BYTES >> 10} KiB to one US prefix",
                  f"one alert for {TRICKLE_PREFIX}, and no other",
                  f"{len(everything)} alert{'s' * (len(everything) != 1)}" +
                  (f": {first.rule} for {group}, {first.value / MIB:.1f} MiB, {first.country}" if first else ""),
                  len(everything) == 1 and group == TRICKLE_PREFIX and first.country == "US" and first.allowed is False,
                  everything)


def scene_unknown(site):
    mark, before = len(site.alerts.findings), site.counters()
    for address in WORLD[None]:
        site.traffic("host", "send", address, SINK, 2 * MIB).wait()
    alerts = site.wait_alerts(mark, lambda a: a.rule == "unknown-destination", number=2, seconds=12)
    # Headers come to it, and what a busy machine's TCP sends again: 4.7 MB once.
    counted = grown(before.classes, site.counters().classes, "unknown", "unknown")
    seen = {(a.remote, a.country, a.allowed) for a in alerts}
    return Result("7", "traffic to an address of unknown country, IPv4 and IPv6",
                  "an alert each: country unknown, not allowed; counted as unknown",
                  f"{len(alerts)} alerts: " + ", ".join(f"{a} country={c} allowed={v}" for a, c, v in sorted(seen))
                  + f"; unknown {counted / 1e6:.1f} MB",
                  seen == {(address, "unknown", False) for address in WORLD[None]} and len(alerts) == 2
                  and 4 * MIB < counted < 5 * MIB, alerts)


SCENES = [scene_home, scene_allowed, scene_bulk_tcp, scene_bulk_tcp6, scene_bulk_udp, scene_bulk_udp6, scene_pull,
          scene_pull6, scene_trickle, scene_unknown]


def check_addresses():
    """The geo data decides where an address lies: says so where it no longer agrees with this file."""
    wanted = {address: country for country, pair in WORLD.items() for address in pair}
    wanted.update({PAYMENT: "US", TRICKLE_PREFIX.split("/")[0]: "US", CN_UDP: "CN", CN_UDP6: "CN", HOST4: "IE", HOST6: "IE"})
    environment = dict(os.environ, EGRESSWATCH_GEO=str(BUILD / "share" / "geo.ewgeo"))
    answers = run(BIN / "egresswatch", "geo", "lookup", "--json", *wanted, env=environment).stdout.splitlines()
    found = {answer["address"]: answer for answer in map(json.loads, answers)}
    return [f"{address} lies in {found[address]['country']}, not in {country}" for address, country in wanted.items()
            if found[address]["country"] not in ((country,) if country else (None, "unknown", ""))], found
