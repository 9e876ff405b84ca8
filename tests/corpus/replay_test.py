#!/usr/bin/python3
# tests/corpus/replay_test.py - the program itself over every capture: same lines each time, exact fields, exact sums.
# SPDX-License-Identifier: Apache-2.0
"""usage: replay_test.py EGRESSWATCH"""
import concurrent.futures
import csv
import io
import json
import os
import pathlib
import subprocess
import sys
import tempfile

FIELDS = ["local", "remote", "local_port", "remote_port", "l4_proto", "packets_out", "bytes_out", "packets_in",
          "bytes_in", "class", "country", "initiator", "tunnel", "outer_local", "outer_remote", "first_seen",
          "last_seen", "tcp_flags_out", "tcp_flags_in", "handshake_rtt_us", "name", "name_source", "app"]
OPTIONAL = ["name_contradiction", "name_unread", "dns_names", "dns_names_unlisted", "tls", "http", "ssh"]
DAMAGED = {"badfile-record-longer-than-max.pcap", "badfile-version-1.pcap", "badfile-pcapng-shb-option-too-long.pcapng",
           "fmt-not-pcap-solaris.snoop"}
HERE = pathlib.Path(__file__).resolve().parent / "captures"
ORACLE = HERE.parent / "oracle"
SUMS = ["packets_out", "bytes_out", "packets_in", "bytes_in", "flows"]
# Every flow is a finding, under a title that a table must quote.
POLICY = """\
policy: egresswatch/v1
name: formats
revision: 1
owner: tests@example.org
regions: {r: {countries: [IE]}}
home: r
rules:
  - id: everything
    title: "All, \\"every\\" byte"
    level: low
    when: {country: unknown}
    window: {sum: bytes_out, over: 1m, by: [remote], at_least: 1 B}
"""
# Of a flow; what DNS said is compared by names_test.
FLOW_KINDS = ("sni", "quic_sni", "http_host", "http_method", "http_agent", "ssh")


def cells_of(name, columns):
    lines = (HERE.parent / name).read_text().splitlines()[1:]
    return {tuple(line.split("\t")[:columns]) for line in lines}


# What tshark finds in a capture, and the differences that are explained (names_test.cpp).
NAMES = {row if row[1] != "http_agent" else (row[0], row[1], row[2][:200])
          for row in cells_of("oracle/names.tsv", 3) if row[1] in FLOW_KINDS}
EXPLAINED = cells_of("name_differences.tsv", 4)


def names_in(rows):
    """-> the names, banners and agents of flow lines, as the oracle has them"""
    found = set()
    for row in rows:
        sni = row["name"] if row["name_source"] == "sni" else row.get("tls", {}).get("server_name")
        found.add(("quic_sni" if row["app"] == "quic" else "sni", sni))
        http = row.get("http", {})
        found.add(("http_host", row["name"] if row["name_source"] == "http" else http.get("host")))
        found |= {("http_method", http.get("method")), ("http_agent", http.get("user_agent"))}
        found |= {("ssh", row.get("ssh", {}).get(side)) for side in ("client", "server")}
    return {(kind, value) for kind, value in found if value}


def names_wrong(capture, rows):
    name = str(capture.relative_to(HERE))
    ours = {(name, *entry) for entry in names_in(rows)}
    theirs = {row for row in NAMES if row[0] == name}

    def explained(row, whose):
        return (*row, whose) in EXPLAINED or (row[0], row[1], "*", whose) in EXPLAINED

    return ([f"tshark finds {row[1]} {row[2]}" for row in sorted(theirs - ours) if not explained(row, "tshark")] +
            [f"tshark does not find {row[1]} {row[2]}" for row in sorted(ours - theirs) if not explained(row, "ours")])


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
    wrong += names_wrong(capture, rows)
    if any(list(row)[:len(FIELDS)] != FIELDS or set(row) - set(FIELDS + OPTIONAL) for row in rows):
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


def table(text):
    return list(csv.DictReader(io.StringIO(text)))


def check_flow_table(program, capture):
    """The table of flows says what the lines say. -> what is wrong, and the flows"""
    rows = [json.loads(line) for line in replay(program, capture, "--flows")[1].splitlines()]
    text = replay(program, capture, "--flows", "--format", "csv")[1]
    as_text = [{field: "" if row[field] is None else str(row[field]) for field in FIELDS} for row in rows]
    wrong = [] if table(text) == as_text else ["flows: the table says something else than the lines"]
    if text.splitlines()[:1] != [",".join(FIELDS)]:
        wrong.append("flows: the table has another head")
    return wrong, rows


def tshark_counted(capture):
    """(packets, bytes) that tshark calls IP; None where a difference to it is known for this capture."""
    differences = (ORACLE.parent / "differences.tsv").read_text().splitlines()
    if any(line.split("\t")[0] == capture.name for line in differences):
        return None
    head, *rows = (line.split("\t") for line in (ORACLE / f"{capture.name}.packets.tsv").read_text().splitlines())
    counted = [dict(zip(head, row)) for row in rows]
    counted = [row for row in counted if row["status"] == "ip"]
    return len(counted), sum(int(row["i_ip_bytes_capped"]) for row in counted)


def check_summary(program, capture):
    """Text, JSON and CSV agree with each other, with the flows and with tshark. -> what is wrong"""
    wrong, flows = check_flow_table(program, capture)
    summary = json.loads(replay(program, capture, "--summary", "--format", "json")[1])
    countries = {row["country"]: [row[name] for name in SUMS] for row in summary["countries"]}
    of_csv = {row["country"]: [int(row[name]) for name in SUMS]
              for row in table(replay(program, capture, "--summary", "--format", "csv")[1])}
    lines = replay(program, capture, "--summary")[1].split("\ncountry ")[1].split("\n\n")[0].splitlines()[1:]
    of_text = {words[0]: [int(word) for word in words[1:6]] for words in map(str.split, lines)}
    if of_csv != countries or list(of_csv) != list(countries):
        wrong.append("summary: CSV and JSON differ")
    if of_text != countries or list(of_text) != list(countries):
        wrong.append("summary: text and JSON differ")
    of_flows = {}
    for flow in flows:
        row = of_flows.setdefault("local" if flow["country"] is None else flow["country"], [0] * len(SUMS))
        for i, name in enumerate(SUMS):
            row[i] += flow[name] if name != "flows" else 1
    if of_flows != countries or summary["flows"] != len(flows):
        wrong.append(f"summary: the flows add up to something else: {of_flows}, {countries}")
    tshark = tshark_counted(capture)
    ours = tuple(sum(row[i] + row[i + 2] for row in countries.values()) for i in (0, 1))
    if tshark and tshark != ours:
        wrong.append(f"summary: {ours} packets and bytes, by tshark {tshark}")
    return wrong


def check_findings(program, capture):
    """The table of findings says what the JSON lines say."""
    with tempfile.TemporaryDirectory() as folder:
        policy = pathlib.Path(folder) / "p.yaml"
        policy.write_text(POLICY)
        lines = replay(program, capture, "--policy", policy, "--format", "json")[1].splitlines()
        text = replay(program, capture, "--policy", policy, "--format", "csv")[1]
    records = [json.loads(line) for line in lines]
    found = [record for record in records if "rule" in record]
    wanted = [(record["rule"]["id"], record["rule"]["title"], record["flow"]["remote"], str(record["value"]),
               str(record["threshold"]), record["measure"]) for record in found]
    got = [(row["rule"], row["title"], row["remote"], row["value"], row["threshold"], row["measure"]) for row in table(text)]
    if not found:
        return ["findings: there are none"]
    return [] if got == wanted else [f"findings: {got}, {wanted}"]


def check_all(capture):
    problems = check(sys.argv[1], capture)
    if capture.parent == HERE and capture.name not in DAMAGED:
        problems += check_summary(sys.argv[1], capture)
    if capture.name == "dns-over-tcp.pcap":
        problems += check_findings(sys.argv[1], capture)
    return problems


def main() -> int:
    captures = sorted(path for path in HERE.rglob("*") if path.is_file())
    failed = 0
    with concurrent.futures.ThreadPoolExecutor(max_workers=os.cpu_count()) as workers:  # they wait for programs
        for capture, problems in zip(captures, workers.map(check_all, captures)):
            for problem in problems:
                print(f"{capture.relative_to(HERE)}: {problem}")
                failed += 1
    print(f"{len(captures)} captures, {failed} problems")
    return 1 if failed or not captures else 0


if __name__ == "__main__":
    sys.exit(main())
