#!/usr/bin/python3
# tests/corpus/names_oracle.py - what tshark finds of names in each capture, for tests/corpus/names_test.cpp.
# SPDX-License-Identifier: Apache-2.0
"""usage: names_oracle.py CAPTURE_DIR > oracle/names.tsv

One row a value: capture, kind, value; each row once. Of TCP and QUIC the first of its kind in each stream: a flow
has one name. Kinds: sni, quic_sni, http_host (without its port), http_method, http_agent, ssh (banner), dns_query,
dns_address, dns_alias. Names in lower case. Bytes beyond ASCII, of which tshark shows some and replaces others: one
question mark for all that stand together. Made with tshark 4.0.
"""
import pathlib
import re
import subprocess
import sys

FIELDS = ["tcp.stream", "udp.stream", "frame.protocols", "tls.handshake.extensions_server_name", "http.host",
          "http.request.method", "http.user_agent", "ssh.protocol", "dns.qry.name", "dns.a", "dns.aaaa", "dns.cname"]
FIRST_OF_STREAM = [("tls.handshake.extensions_server_name", "sni"), ("http.host", "http_host"),
                   ("http.request.method", "http_method"), ("http.user_agent", "http_agent")]
ALL = [("ssh.protocol", "ssh"), ("dns.qry.name", "dns_query"), ("dns.a", "dns_address"),
       ("dns.aaaa", "dns_address"), ("dns.cname", "dns_alias")]


def rows_of(capture: pathlib.Path) -> set:
    command = ["tshark", "-n", "-r", str(capture), "-T", "fields", "-E", "occurrence=a", "-E", "aggregator=|"]
    for field in FIELDS:
        command += ["-e", field]
    done = subprocess.run(command, capture_output=True, check=False)
    rows, seen = set(), set()
    for line in done.stdout.decode("utf-8", "replace").split("\n"):
        cells = dict(zip(FIELDS, line.split("\t")))
        if len(cells) != len(FIELDS):
            continue
        quic = "quic" in cells["frame.protocols"].split(":")
        stream = ("udp", cells["udp.stream"]) if quic else ("tcp", cells["tcp.stream"])
        for field, kind in FIRST_OF_STREAM:
            values = [value for value in cells[field].split("|") if value]
            if quic and kind == "sni":
                kind = "quic_sni"
            if not values or (stream, kind) in seen or (kind != "quic_sni" and not cells["tcp.stream"]):
                continue
            seen.add((stream, kind))
            value = values[0]
            if kind == "http_host":
                value = value.rsplit(":", 1)[0] if value.rsplit(":", 1)[-1].isdigit() else value
                value = value.strip("[]")
            rows.add((kind, value if kind in ("http_method", "http_agent") else value.lower()))
        for field, kind in ALL:
            for value in cells[field].split("|"):
                if value:
                    value = re.sub("[^\x00-\x7f]+", "?", value)
                    rows.add((kind, value if kind == "ssh" else value.lower()))
    return rows


def main() -> int:
    if len(sys.argv) != 2:
        print(__doc__, file=sys.stderr)
        return 2
    folder = pathlib.Path(sys.argv[1])
    print("capture\tkind\tvalue")
    for capture in sorted(folder.rglob("*")):
        if capture.is_file() and capture.suffix in (".pcap", ".pcapng", ".cap"):
            for kind, value in sorted(rows_of(capture)):
                print(f"{capture.relative_to(folder)}\t{kind}\t{value}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
