#!/usr/bin/env python3
"""tests/bench/flows_bench.py - egresswatch beside its peers over the same captures, on one core, in turns.

Run by tools/bench flows. Makes each capture in a temporary folder, runs every tool over it several times in turns, reads
what each counted, compares that with what is in the capture, and removes the folder. Disk: 3 GB at the most.

    --json            rows on standard output instead of the tables
    --quick           small captures, one round: does the harness still work? Fails where egresswatch loses anything
    --capture NAME    only this capture (repeat for more); --repetitions N
    --save FILE       keep the rows; --from FILE: rows of an earlier run, in place of a run (repeat to join several)

SPDX-License-Identifier: Apache-2.0
"""
import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import flow_tools

BUILD = Path(os.environ.get("EGRESSWATCH_BUILD_DIR", flow_tools.ROOT / "build"))
LIMIT_SECONDS = 300  # of one run; a tool that takes longer has no figure
SLOW_SECONDS = 15  # a tool that took longer in the first round is not run again
SNAP = 96
SWEEP = (10_000, 100_000, 1_000_000, 5_000_000)
# Million packets a second of a row. That of mixed traffic is for region, rules and names; that of one-packet flows was
# set beside a loop that makes flows and looks up their regions, and has neither rules nor names.
BUDGETS = (("mixed", "egresswatch", 10.0), ("one-packet", flow_tools.BARE, 5.0))
PEER_FACTOR = 5  # egresswatch is to be this many times faster than the fastest peer
PEERS = ("softflowd", "nfpcapd", "pmacctd", "argus")


class Capture:
    def __init__(self, name, what, packets, flows, even, only_us=False):
        self.name, self.what, self.packets, self.flows, self.even = name, what, packets, flows, even
        self.only_us = only_us  # a point of the curve: no peers

    def make(self, path):
        command = [str(BUILD / "bin/make_traffic"), str(path), "--packets", str(self.packets), "--flows", str(self.flows),
                   "--snap", str(SNAP)] + (["--even"] if self.even else [])
        return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def captures(quick):
    if quick:
        return [Capture("mixed", "mixed traffic", 100_000, 2_000, False),
                Capture("one-packet", "one-packet flows", 50_000, 50_000, True, only_us=True),
                Capture("elephants", "elephants", 100_000, 10, True, only_us=True)]
    return [Capture("mixed", "mixed traffic", 10_000_000, 200_000, False),
            Capture("one-packet", "one-packet flows", 5_000_000, 5_000_000, True),
            Capture("elephants", "elephants", 10_000_000, 10, True)] + [
                Capture(f"sweep-{flows}", f"{flows} flows", 10_000_000, flows, True, only_us=True) for flows in SWEEP]


def run_once(tool, core, capture, truth, folder):
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    command = [str(BUILD / "bin/run_measured"), str(core), str(LIMIT_SECONDS), *tool.command(capture, folder, truth)]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", cwd=folder, check=False)
    err, _, last = done.stderr.rstrip("\n").rpartition("\n")
    cost = json.loads(last)
    cost["cpu"] = cost["user"] + cost["system"]
    if cost["timed_out"]:
        return cost, None
    if cost["exit"] not in (0, 1):  # 1: findings
        raise RuntimeError(f"{tool.name}: exit {cost['exit']}\n{done.stdout[-2000:]}{err[-2000:]}")
    return cost, tool.seen(folder, done.stdout, err)


def row_of(tool, capture, truth, runs, starts, seen):
    """Rates are over the CPU time less that of a run over a capture without packets."""
    row = {"capture": capture.name, "tool": tool.name, "packets": truth["packets"], "flows": truth["flows"],
           "repetitions": len(runs), "finished": seen is not None}
    if seen is None:
        return row
    start = min(run["cpu"] for run in starts)
    wall_start = min(run["wall"] for run in starts)
    rates = sorted(truth["packets"] / max(1e-6, run["cpu"] - start) / 1e6 for run in runs)
    row.update(
        mpps_best=rates[-1], mpps_median=statistics.median(rates), ns_per_packet=1e3 / rates[-1],
        mpps_whole=max(truth["packets"] / run["cpu"] for run in runs) / 1e6,
        mpps_wall=max(truth["packets"] / max(1e-6, run["wall"] - wall_start) for run in runs) / 1e6,
        start_seconds=start, memory_mib=max(run["anonymous_kb"] for run in runs) / 1024,
        rss_mib=max(run["max_rss_kb"] for run in runs) / 1024,
        packets_lost=truth["packets"] - seen.packets, says_lost=seen.says_lost)
    if seen.bytes_of:
        row.update(bytes_lost=truth[f"{seen.bytes_of}_bytes"] - seen.bytes, bytes_of=seen.bytes_of)
    row["flows_found"] = seen.flows
    if seen.flows_of:
        row["flows_there"] = truth[seen.flows_of]
        row["flows_of"] = seen.flows_of
    return row


def measure(capture, tools, core, repetitions, folder):
    path, empty, work = folder / f"{capture.name}.pcap", folder / "empty.pcap", folder / "work"
    truth = capture.make(path)
    with path.open("rb") as whole:
        empty.write_bytes(whole.read(24))
        while whole.read(1 << 20):  # into the page cache, for all alike
            pass
    if capture.only_us:
        tools = [tool for tool in tools if isinstance(tool, flow_tools.Egresswatch) and tool.track == "all"]
    runs = {tool.name: [] for tool in tools}
    starts = {tool.name: [] for tool in tools}
    seen = {}
    for turn in range(repetitions):
        for tool in tools:
            if turn > 0 and runs[tool.name][0]["cpu"] > SLOW_SECONDS:
                continue
            print(f"{capture.name}: round {turn + 1} of {repetitions}, {tool.name}", file=sys.stderr)
            starts[tool.name].append(run_once(tool, core, empty, truth, work)[0])
            cost, seen[tool.name] = run_once(tool, core, path, truth, work)
            runs[tool.name].append(cost)
    shutil.rmtree(work)
    path.unlink()
    return [row_of(tool, capture, truth, runs[tool.name], starts[tool.name], seen[tool.name]) for tool in tools]


def settle_starts(rows):
    """Our start-up is the same whatever the capture: the least of all is taken off, or a slow one would flatter us."""
    for name in {row["tool"] for row in rows if row["tool"].startswith("egresswatch") and row["finished"]}:
        ours = [row for row in rows if row["tool"] == name and row["finished"]]
        start = min(row["start_seconds"] for row in ours)
        for row in ours:
            for rate in ("mpps_best", "mpps_median", "mpps_wall"):
                row[rate] = row["packets"] / (row["packets"] / row[rate] + (row["start_seconds"] - start) * 1e6)
            row["ns_per_packet"] = 1e3 / row["mpps_best"]
            row["start_seconds"] = start


# ---------------------------------------------------------------------------------------------------- tables

def lost(row):
    if not row["packets_lost"] and not row.get("bytes_lost"):
        return "0"
    words = [f"{row['packets_lost']} packets" if row["packets_lost"] else ""]
    if row.get("bytes_lost"):
        words.append(f"{row['bytes_lost']} bytes" if row["bytes_lost"] > 0 else f"{-row['bytes_lost']} bytes too many")
    return ", ".join(word for word in words if word) + (f" ({row['says_lost']})" if row["says_lost"] else "")


def flows(row):
    if not row.get("flows_there"):
        return str(row["flows_found"]) if row["flows_found"] else "-"
    kind = "" if row["flows_of"] == "flows" else " directions"
    return f"{row['flows_found']} of {row['flows_there']}{kind}"


def capture_table(capture, rows):
    truth = rows[0]
    print(f"**{capture.what}**: {truth['packets']} packets, {truth['flows']} flows\n")
    print("| tool | Mpps, best / median | with start | wall | start, s | memory, MiB | flows found | lost |")
    print("|---|---|---|---|---|---|---|---|")
    for row in rows:
        if not row["finished"]:
            print(f"| {row['tool']} | not done after {LIMIT_SECONDS} s | | | | | | |")
            continue
        print(f"| {row['tool']} | {row['mpps_best']:.2f} / {row['mpps_median']:.2f} | {row['mpps_whole']:.2f} "
              f"| {row['mpps_wall']:.2f} | {row['start_seconds']:.2f} | {row['memory_mib']:.0f} | {flows(row)} | {lost(row)} |")
    print()


def verdicts(rows):
    """What was asked for, and what came out."""
    words = []
    ours = {row["capture"]: row for row in rows if row["tool"] == "egresswatch" and row["finished"]}
    for name, tool, budget in BUDGETS:
        for row in rows:
            if row["capture"] == name and row["tool"] == tool and row["finished"]:
                best = row["mpps_best"]
                words.append(f"- {name}, {tool}: budget {budget:.0f} Mpps, measured {best:.2f}: "
                             f"{'kept' if best >= budget else '**missed**'}")
                if tool != "egresswatch" and name in ours:
                    words.append(f"- {name}, with rules and names: {ours[name]['mpps_best']:.2f} Mpps; the budget does not ask for them")
    for name, row in ours.items():
        peers = [other for other in rows if other["capture"] == name and other["tool"] in PEERS and other["finished"]]
        if not peers:
            continue
        fastest = max(peers, key=lambda peer: peer["mpps_best"])
        factor = row["mpps_best"] / fastest["mpps_best"]
        words.append(f"- {name}: {factor:.1f} times the fastest peer ({fastest['tool']}); asked for: {PEER_FACTOR} times: "
                     f"{'kept' if factor >= PEER_FACTOR else '**missed**'}")
    return words


def print_tables(rows, every, tools):
    some = next(row for row in rows if row["finished"])
    print(f"Kernel {platform.release()}, one core, {some['repetitions']} rounds in turns (a tool that takes more than "
          f"{SLOW_SECONDS} s: one); captures snapped at {SNAP} bytes, in the page cache. Mpps: million packets a second of CPU "
          "time (user and system), less that of a run over an empty capture (*start*).\n")
    for capture in every:
        mine = [row for row in rows if row["capture"] == capture.name]
        if mine and not capture.name.startswith("sweep"):
            capture_table(capture, mine)
    curve = [row for row in rows if row["tool"] == "egresswatch" and row["capture"].startswith("sweep")]
    if curve:
        print("**Cost over the number of flows**, 10 M packets shared evenly, egresswatch\n")
        print("| flows | ns per packet, best | median | memory, MiB | flows found | lost |\n|---|---|---|---|---|---|")
        for row in curve:
            print(f"| {row['flows']} | {row['ns_per_packet']:.0f} | {1e3 / row['mpps_median']:.0f} | {row['memory_mib']:.0f} "
                  f"| {row['flows_found']} | {lost(row)} |")
        print()
    for line in verdicts(rows):
        print(line)
    print("\nHow each was run, and what is to be known of it:\n")
    for tool in tools:
        print(f"- {tool.name}: `{tool.how}`: {tool.limits}")


def complaints(rows):
    """What would make the figures worthless."""
    for row in rows:
        if not row["finished"]:
            yield f"{row['capture']}: {row['tool']} did not finish"
        elif row["tool"] == "egresswatch" and (row["packets_lost"] or row["bytes_lost"] or
                                               row["flows_found"] != row["flows_there"]):
            yield f"{row['capture']}: egresswatch lost something: {flows(row)} flows, {lost(row)}"
        elif row["packets_lost"] >= row["packets"] or row["packets_lost"] < 0:
            yield f"{row['capture']}: {row['tool']} counted {row['packets'] - row['packets_lost']} of {row['packets']} packets"


def arguments(every):
    parser = argparse.ArgumentParser(description="egresswatch beside its peers over the same captures")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--capture", action="append", choices=[capture.name for capture in every])
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--core", type=int, default=os.cpu_count() - 1)
    parser.add_argument("--save", type=Path)
    parser.add_argument("--from", dest="earlier", type=Path, action="append", default=[])
    return parser.parse_args()


def main():
    options = arguments(captures(False))
    every = captures(options.quick)
    tools = flow_tools.all_tools(BUILD / "bin", BUILD / "share/geo.ewgeo")
    rows = [row for path in options.earlier for row in json.loads(path.read_text())]
    if not options.earlier:
        with tempfile.TemporaryDirectory(prefix="egresswatch-bench-") as folder:
            for capture in every:
                if options.capture is None or capture.name in options.capture:
                    rows += measure(capture, tools, options.core, 1 if options.quick else options.repetitions, Path(folder))
    settle_starts(rows)
    if options.save:
        options.save.write_text(json.dumps(rows))
    if options.json:
        print(json.dumps(rows, indent=2))
    else:
        print_tables(rows, every, tools)
    wrong = list(complaints(rows))
    for line in wrong:
        print(f"flows_bench: {line}", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
