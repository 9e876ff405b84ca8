#!/usr/bin/python3
"""tests/support/journal_schema.py - validates every line of a journal against docs/schema/record.schema.json.

SPDX-License-Identifier: Apache-2.0

usage: journal_schema.py JOURNAL...    prints how many records of each kind were valid; 1 where one is not.
"""
import json
import sys
from collections import Counter
from pathlib import Path

import jsonschema

SCHEMA = Path(__file__).resolve().parents[2] / "docs/schema/record.schema.json"


def check(journal):
    """(records of each kind, complaints) of the journal in that folder."""
    validator = jsonschema.Draft202012Validator(json.loads(SCHEMA.read_text()))
    kinds, complaints = Counter(), []
    for segment in sorted(Path(journal).glob("seg-*.jsonl")):
        for number, line in enumerate(segment.read_text().splitlines(), 1):
            record = json.loads(line)
            if len(line) > 65535:
                complaints.append(f"{segment.name}:{number}: {len(line)} bytes")
            for error in validator.iter_errors(record):
                complaints.append(f"{segment.name}:{number}: {record.get('kind')}: {error.json_path}: {error.message}")
            kinds[record["kind"]] += 1
    return kinds, complaints


if __name__ == "__main__":
    bad = False
    for folder in sys.argv[1:]:
        found, wrong = check(folder)
        print("\n".join(wrong[:20]))
        print(json.dumps(found))
        bad = bad or bool(wrong) or not found
    sys.exit(bad)
