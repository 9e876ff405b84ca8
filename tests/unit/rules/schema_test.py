#!/usr/bin/python3
"""tests/unit/rules/schema_test.py - the JSON Schemas, by a validator of others: what they are, that every shipped
file and every valid policy passes, and that mistakes of form do not.

SPDX-License-Identifier: Apache-2.0

Usage: schema_test.py EGRESSWATCH [test names]
"""
import json
import re
import subprocess
import sys
import unittest
from pathlib import Path

import jsonschema
import yaml

ROOT = Path(__file__).resolve().parents[3]
GOLDEN = ROOT / "tests/unit/rules/golden"
TOOL = sys.argv.pop(1)

# What is wrong in the form of one file, as opposed to between keys, entries or files.
OF_FORM = {"unknown-key", "wrong-form", "unknown-word", "bad-id", "bad-duration", "bad-tag",
           "bad-version", "unknown-country", "empty-list", "not-a-number", "not-a-boolean", "bad-domain", "bad-path",
           "bad-asn", "long-text", "empty-text"}


class Core(yaml.SafeLoader):
    """YAML 1.2's core schema, as editors read it: NO is text, a date is text, only true and false are booleans."""


Core.yaml_implicit_resolvers = {}
for tag, pattern, first in (("bool", r"true|false|True|False|TRUE|FALSE", "tTfF"),
                            ("int", r"[-+]?[0-9]+", "-+0123456789"),
                            ("float", r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?", "-+0123456789."),
                            ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""])):
    Core.add_implicit_resolver(f"tag:yaml.org,2002:{tag}", re.compile(f"^(?:{pattern})$"), list(first))


def schema(kind):
    return json.loads(subprocess.run([TOOL, "schema", kind], check=True, capture_output=True).stdout)


def diagnostics(path):
    done = subprocess.run([TOOL, "check", "--json", "--policy", path], capture_output=True, check=False)
    return json.loads(done.stdout)["diagnostics"]


class Schemas(unittest.TestCase):
    def setUp(self):
        self.policy = jsonschema.Draft202012Validator(schema("policy"))
        self.tests = jsonschema.Draft202012Validator(schema("test"))

    def problems(self, validator, path):
        with open(path, encoding="utf-8") as text:
            return [f"{path.name}: {list(e.absolute_path)}: {e.message}" for e in
                    validator.iter_errors(yaml.load(text, Loader=Core))]

    def test_they_are_schemas_of_2020_12(self):
        for validator in (self.policy, self.tests):
            jsonschema.Draft202012Validator.check_schema(validator.schema)
            self.assertEqual(validator.schema["$schema"], "https://json-schema.org/draft/2020-12/schema")

    def test_every_key_is_described(self):
        for validator in (self.policy, self.tests):
            for mapping in [validator.schema, *validator.schema["$defs"].values()]:
                for name, key in mapping["properties"].items():
                    self.assertTrue(key["description"], name)

    def test_every_shipped_file_passes(self):
        seen = 0
        for folder in ("docs/examples", "rules/packs", "tests/support/policy.d"):
            for path in sorted((ROOT / folder).rglob("*.yaml")):
                if path.name == "egresswatch.yaml":
                    continue
                validator = self.tests if path.name.endswith(".test.yaml") else self.policy
                self.assertEqual(self.problems(validator, path), [], path)
                seen += 1
        self.assertGreaterEqual(seen, 5)

    def test_shipped_files_tell_editors_which_schema_is_theirs(self):
        for folder in ("docs/examples/policy.d", "rules/packs"):
            for path in sorted((ROOT / folder).rglob("*.yaml")):
                kind = "test" if path.name.endswith(".test.yaml") else "policy"
                line = f"# yaml-language-server: $schema=/usr/share/egresswatch/schema/{kind}.schema.json"
                self.assertEqual(path.read_text().splitlines()[0], line, path)

    def test_golden_policies(self):
        valid = wrong = 0
        for path in sorted(GOLDEN.glob("*.yaml")):
            found = diagnostics(path)
            codes = {d["code"].removeprefix("rules/") for d in found if d["severity"] == "error"}
            if any(code.startswith("yaml-") for code in codes):
                continue  # no schema ever sees it
            try:
                problems = self.problems(self.policy, path)
            except (yaml.YAMLError, UnicodeDecodeError):
                continue
            if not codes:
                self.assertEqual(problems, [], path.name)
                valid += 1
            # A key that the whole set lacks is not one file's mistake.
            if codes & OF_FORM or any(d["code"] == "rules/missing-key" and d["line"] and "groups" not in d["message"]
                                      and d["severity"] == "error" for d in found):
                self.assertNotEqual(problems, [], f"{path.name}: {codes}")
                wrong += 1
        self.assertGreaterEqual(valid, 8)
        self.assertGreaterEqual(wrong, 25)


if __name__ == "__main__":
    unittest.main(verbosity=1)
