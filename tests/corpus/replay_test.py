#!/usr/bin/python3
# tests/corpus/replay_test.py - the program itself over every capture: same lines each time, exact fields, exact sums.
# SPDX-License-Identifier: Apache-2.0
"""usage: replay_test.py EGRESSWATCH"""
import json
import pathlib
import subprocess
import sys

FIELDS = ["local", "remote", "local_port", "remote_port", "l4_proto", "packets_out", "bytes_out", "packets_in",
          "bytes_in", "class", "country", "initiator", "tunnel", "outer_local", "outer_remote", "first_seen",
          "last_seen", "tcp_flags_out", "tcp_flags_in", "handshake_rtt_us"]
DAMAGED = {"badfile-record-longer-than-max.pcap", "badfile-version-1.pcap", "badfile-pcapng-shb-option-too-long.pcapng",
           "fmt-not-pcap-solaris.snoop"}
HERE = pathlib.Path(__file__).resolve().parent / "captures"


def replay(program, capture, *options, pipe=False):
    run = subprocess.run([program, "replay", "--geo", "none", "--track", "all", *options, "-" if pipe else capture],
                         input=capture.read_bytes() if pipe else None, capture_output=True, timeout=60, check=False)
    return run.returncode, run.stdout.decode()


def check(program, capture):
    """-> what is wrong, a list of words"""
    wrong = []
    code, flows = replay(program, capture, "--flows")
    if code != (2 if capture.name in DAMAGED else 0):
        wrong.append(f"exit code {code}")
    if replay(program, capture, "--flows", "--jobs", "2", pipe=True) != (code, flows):
        wrong.append("a pipe, on two cores, gives other flows than the file")
    rows = [json.loads(line) for line in flows.splitlines()]
    if any(list(row) != FIELDS for row in rows):
        wrong.append("other fields than the manual's")
    if [row["first_seen"] for row in rows] != sorted(row["first_seen"] for row in rows):
        wrong.append("flows are not in order of their first packet")
    if any((row["tunnel"] is None) != (row["outer_local"] is None) for row in rows):
        wrong.append("outer addresses without tunnel, or the reverse")
    code_totals, text = replay(program, capture, "--totals")
    if code_totals != code or not text:
        return wrong if code == 2 else wrong + ["no totals"]
    totals = json.loads(text)
    for field in ("packets_out", "bytes_out", "packets_in", "bytes_in"):
        if sum(row[field] for row in rows) != sum(entry[field] for entry in totals["classes"].values()):
            wrong.append(f"{field}: flows and totals differ")
    counted = sum(entry["packets_out"] + entry["packets_in"] for entry in totals["classes"].values())
    if totals["packets"] != counted + totals["not_ip"] + totals["malformed"] + totals["truncated"]:
        wrong.append("a packet is in no outcome, or in two")
    frames = sum(entry["frame_bytes_out"] + entry["frame_bytes_in"] for entry in totals["classes"].values())
    if totals["bytes"] != frames + totals["not_ip_bytes"] + totals["malformed_bytes"] + totals["truncated_bytes"]:
        wrong.append("a byte is in no outcome, or in two")
    return wrong


def main() -> int:
    captures = sorted(path for path in HERE.rglob("*") if path.is_file())
    failed = 0
    for capture in captures:
        for problem in check(sys.argv[1], capture):
            print(f"{capture.relative_to(HERE)}: {problem}")
            failed += 1
    print(f"{len(captures)} captures, {failed} problems")
    return 1 if failed or not captures else 0


if __name__ == "__main__":
    sys.exit(main())
