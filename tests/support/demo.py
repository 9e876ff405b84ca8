#!/usr/bin/python3
"""tests/support/demo.py - plays the scenes for people; tools/demo is its front.

SPDX-License-Identifier: Apache-2.0
"""
import argparse
import json
import os
import re
import signal
import shutil
import sys
import time
from pathlib import Path

from scenes import SCENES, Site, check_addresses, country_totals
from sender_scenes import SENDER_SCENES, SETTINGS, prepare
from world import ROOT, WORLD, WorldError, leftovers, run

COLOR = sys.stdout.isatty()
NAME = "ewdemo"
STATE_DIR = Path("/run")


def paint(code, text):
    return f"\033[{code}m{text}\033[0m" if COLOR else text


def heading(text):
    print(f"\n{paint('1', text)}")


def show_alert(alert):
    print(f"     {paint('33', 'alert')} {time.strftime('%H:%M:%S')}  {alert.line()}", flush=True)


def show_world(site, answers):
    heading("The world of this demo")
    print(f"  host (Dublin)  eth0 --- router --- world     namespaces {site.ns('host')}, {site.ns('router')}, {site.ns('world')}")
    for country, pair in WORLD.items():
        for address in pair:
            answer = answers[address]
            print(f"    {address:24} {country or 'no record':10} {answer['class']:8} {answer['prefix'] or '-'}")


def play(site, scenes):
    results = []
    for scene in scenes:
        title = (scene.__doc__ or scene.__name__[6:].replace("_", " "))
        print(paint("2", f"\n  ... {title}"), flush=True)
        try:
            result = scene(site)
        except WorldError as error:
            print(f"  {paint('1;31', 'FAIL')}  {title}: {error}")
            results.append(None)
            continue
        word = paint("1;32", "PASS") if result.passed else paint("1;31", "FAIL")
        print(f"  {word}  scene {result.number}: {result.title}")
        print(f"        expected: {result.expected}")
        print(f"        seen:     {result.seen}", flush=True)
        results.append(result)
    return results


def show_totals(site, first):
    """The hook's totals per country beside the interface's own counters, both since `first`."""
    heading("Totals per country, from the kernel, since the scenes began (frame bytes)")
    last = site.counters()
    before, after = country_totals(first.classes), country_totals(last.classes)
    print(f"    {'class':9} {'country':9} {'packets out':>13} {'bytes out':>16} {'packets in':>13} {'bytes in':>16}")
    sums = [0, 0, 0, 0]
    rows = []
    for key, row in after.items():
        old = before.get(key)
        figures = [row[way][what] - (old[way][what] if old else 0) for way in ("out", "in")
                   for what in ("packets", "frame_bytes")]
        if any(figures):
            rows.append((key, figures))
            sums = [a + b for a, b in zip(sums, figures)]
    for (klass, country), figures in sorted(rows, key=lambda row: -row[1][1]):
        print(f"    {klass:9} {country or '-':9} {figures[0]:13,} {figures[1]:16,} {figures[2]:13,} {figures[3]:16,}")
    other = []
    for way in ("out", "in"):
        for what in ("packets", "bytes"):
            other.append(sum(last.hook[way][name][what] - first.hook[way][name][what]
                             for name in ("not_ip", "malformed", "truncated")))
    print(f"    {'not IP, malformed':19} {other[0]:13,} {other[1]:16,} {other[2]:13,} {other[3]:16,}")
    totals = [a + b for a, b in zip(sums, other)]
    print(f"    {'sum':19} {totals[0]:13,} {totals[1]:16,} {totals[2]:13,} {totals[3]:16,}")

    def hook(name):
        return [last.hook[way][name][what] - first.hook[way][name][what] for way in ("out", "in")
                for what in ("packets", "bytes")]
    seen, given = hook("seen"), hook("as_given")
    link = [last.interface[way][what] - first.interface[way][what] for way in ("tx", "rx") for what in ("packets", "bytes")]
    for label, row in (("seen by the hook", seen), ("as handed over", given), ("ip -s link, eth0", link)):
        print(f"    {label:19} {row[0]:13,} {row[1]:16,} {row[2]:13,} {row[3]:16,}")
    basis, compared = ("as handed over", given) if site.offload else ("seen by the hook", seen)
    agree = totals == seen and compared == link
    print("\n    A veth counts a segmentation super-packet once, as it was handed over; the hook counts the segments that a\n"
          "    wire would carry. Compared, with a tolerance of 0: sum = seen by the hook, and " + basis + " = ip -s link.")
    print(f"  {paint('1;32', 'PASS') if agree else paint('1;31', 'FAIL')}  the totals agree with the interface's own counters")
    return agree


def show_alerts(site):
    heading("The alerts as rsyslogd parsed them (TCP; the same arrived by UDP)")
    tcp = [a for a in site.alerts.findings if a.via == "imptcp"]
    udp = [a for a in site.alerts.findings if a.via == "imudp"]
    for alert in tcp:
        envelope = alert.envelope
        print(f"    <{envelope['pri']}>{envelope['proto']} {envelope['timestamp']} {envelope['host']} {envelope['app']} {envelope['msgid']}")
        for name, parameters in envelope["sd"].items():
            print(f"      [{name}] " + " ".join(f"{key}={value}" for key, value in parameters.items()))
    same = sorted(a.get("event.id") for a in tcp) == sorted(a.get("event.id") for a in udp)
    whole = not site.alerts.broken
    if not whole:
        print(f"    rsyslogd wrote lines that are no JSON: {site.alerts.broken[:2]}")
    print(f"  {paint('1;32', 'PASS') if same and whole and tcp else paint('1;31', 'FAIL')}  {len(tcp)} alerts by TCP, "
          f"{len(udp)} by UDP, each parsed whole")
    return same and whole and bool(tcp)


def remember(site):
    state = {"prefix": site.prefix, "dir": str(site.dir), "pin_dir": str(site.pin_dir),
             "pids": [process.pid for process in site.processes if process.poll() is None]}
    (STATE_DIR / f"{site.prefix}.json").write_text(json.dumps(state))
    enter = f"nsenter --net=/run/netns/{site.ns('host')}"
    heading("Everything still runs. Look around:")
    for line in (f"{ROOT}/build/bin/egresswatch status --socket {site.socket}",
                 f"tail -f {site.dir}/alerts.json                 # alerts as rsyslogd parsed them",
                 f"tail -f {site.dir}/state/journal/seg-*.jsonl    # the journal",
                 f"$EDITOR {site.policy_dir}/10-dublin.yaml; kill -HUP {site.daemon.pid}",
                 f"{enter} tests/support/traffic.py send 8.8.8.8 443 60000000    # more traffic",
                 f"{enter} ip -s link show eth0",
                 f"tools/demo --clean {site.prefix}                 # end it"):
        print(f"    {line}")


def clean(name):
    """Ends what --keep left. Only pids that were written down, and only where their command line is still ours."""
    for file in sorted(STATE_DIR.glob(f"{name or NAME + '*'}.json")):
        state = json.loads(file.read_text())
        prefix = state["prefix"]
        for pid in reversed(state["pids"]):
            try:
                words = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace")
                if prefix in words or "traffic.py" in words:
                    os.kill(pid, signal.SIGTERM)
            except OSError:
                continue
        time.sleep(3)
        for path in (state["pin_dir"], state["dir"]):
            shutil.rmtree(path, ignore_errors=True)
        for which in ("host", "router", "world"):
            run("ip", "netns", "del", f"{prefix}-{which}", check=False)
        file.unlink()
        left = leftovers(prefix)
        print(f"{prefix}: " + ("cleaned up" if not left else "still there: " + "; ".join(left)))
        if left:
            return 1
    return 0


def main():
    parser = argparse.ArgumentParser(prog="tools/demo", description="Scenes of egress monitoring on real packets.")
    parser.add_argument("--keep", action="store_true", help="leave everything running")
    parser.add_argument("--clean", nargs="?", const="", metavar="NAME", help="end what an earlier --keep left")
    parser.add_argument("--offload", choices=("on", "off"), default="on", help="segmentation offload of the host's link")
    parser.add_argument("--only", default="", metavar="REGEX", help="scenes whose function name matches")
    args = parser.parse_args()
    if args.clean is not None:
        return clean(args.clean)

    started = time.monotonic()
    moved, answers = check_addresses()
    if moved:
        print("The geo data of this machine places the demo's addresses elsewhere (tests/support/world.py, WORLD):")
        print("\n".join(f"  {line}" for line in moved))
        return 1
    site = Site(NAME, offload=args.offload == "on", keep=args.keep, on_alert=show_alert,
                settings=SETTINGS)
    try:
        with site:
            show_world(site, answers)
            first = site.counters()
            heading("The scenes")
            results = play(site, [scene for scene in SCENES if re.search(args.only, scene.__name__)])
            senders = [scene for scene in SENDER_SCENES if re.search(args.only, scene.__name__)]
            if senders:
                heading("Who sends, and to what: one executable may send to one name, and nothing else may")
                prepare(site)
                results += play(site, senders)
            agree = show_totals(site, first)
            parsed = show_alerts(site)
            passed = sum(1 for result in results if result and result.passed)
            heading(f"{passed} of {len(results)} scenes passed in {time.monotonic() - started:.0f} s; "
                    f"totals {'agree' if agree else 'DISAGREE'}; alerts {'parsed' if parsed else 'NOT all parsed'}")
            if args.keep:
                remember(site)
            status = 0 if passed == len(results) and agree and parsed else 1
            if status:
                print(f"\nThe daemon's log:\n{site.daemon_log()}")
    except WorldError as error:
        print(f"demo: {error}\n{site.daemon_log()}", file=sys.stderr)
        return 1
    if not args.keep:
        left = leftovers(site.prefix)
        if left:
            print("left behind: " + "; ".join(left))
            status = 1
    return status


if __name__ == "__main__":
    sys.exit(main())
