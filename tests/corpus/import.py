#!/usr/bin/python3
# tests/corpus/import.py - takes the freely licensed captures of a collection, with oracle, into this folder.
# SPDX-License-Identifier: Apache-2.0
"""usage: import.py COLLECTION

COLLECTION holds INDEX.tsv (file, kind, what_it_shows, origin, source_repo, source_path, source_commit, licence,
packets, bytes, sha256, ...), the captures, and oracle/FILE.packets.tsv as make_oracle.py writes them. Copies what
has a licence of LICENCES, or is in ALSO, and the hash that its row says; writes INDEX.tsv here with the rows of what was copied.
Of the oracle only the table of packets is kept: the flows of the corpus test are sums over its rows.
"""
import csv
import hashlib
import pathlib
import shutil
import sys

LICENCES = {"BSD-3-Clause", "MIT", "Apache-2.0", "Unlicense"}
# LGPL-3.0, unchanged: nothing freer shows a tunnel in DNS or ICMP as it was used, and the packs are about these.
ALSO = {"exfil-dns-iodine.pcap", "exfil-icmp-tunnel.pcap"}


def main() -> int:
    if len(sys.argv) != 2:
        print(__doc__, file=sys.stderr)
        return 2
    source = pathlib.Path(sys.argv[1])
    here = pathlib.Path(__file__).resolve().parent
    with open(source / "INDEX.tsv", newline="", encoding="utf-8") as index:
        rows = list(csv.DictReader(index, delimiter="\t", quoting=csv.QUOTE_NONE))
    kept = []
    for row in rows:
        if row["licence"] not in LICENCES and row["file"] not in ALSO:
            continue
        name = row["file"]
        data = (source / name).read_bytes()
        if hashlib.sha256(data).hexdigest() != row["sha256"]:
            print(f"{name}: hash differs from its row in INDEX.tsv, left out", file=sys.stderr)
            return 1
        for folder, end in (("captures", ""), ("oracle", ".packets.tsv")):
            target = here / folder / (name + end)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source / ("" if folder == "captures" else "oracle") / (name + end), target)
        kept.append(row)
    with open(here / "INDEX.tsv", "w", newline="", encoding="utf-8") as index:
        writer = csv.DictWriter(index, rows[0].keys(), delimiter="\t", quoting=csv.QUOTE_NONE, lineterminator="\n")
        writer.writeheader()
        writer.writerows(kept)
    print(f"{len(kept)} of {len(rows)} captures")
    return 0


if __name__ == "__main__":
    sys.exit(main())
