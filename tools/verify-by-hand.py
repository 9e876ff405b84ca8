#!/usr/bin/python3
"""tools/verify-by-hand.py - checks a journal without egresswatch: Python's SHA-256 and the openssl program.

SPDX-License-Identifier: Apache-2.0

usage: verify-by-hand.py JOURNAL GENESIS_KEY [ANCHOR_FILE]

Explained step by step in docs/verify-by-hand.md. It checks the signatures of keys and checkpoints, that every
record is the one that was signed, and that no number is missing. Exit status 0: all of it holds; 1: it does not.
"""
import base64
import glob
import hashlib
import json
import os
import subprocess
import sys
import tempfile

DASH = "\u2014 "  # in front of a signature
DER_ED25519 = bytes.fromhex("302a300506032b6570032100")  # SubjectPublicKeyInfo of an Ed25519 key, without the key
HEADER = 4096  # bytes of text at the start of a .hashes file
bad = 0


def complain(what):
    global bad
    bad += 1
    print(f"BAD: {what}")


def sha256(data):
    return hashlib.sha256(data).digest()


class Tree:
    """RFC 6962: the roots of the complete subtrees, largest first."""

    def __init__(self, size=0, nodes=()):
        self.size, self.nodes = size, list(nodes)

    def add(self, leaf):
        size = self.size
        while size & 1:
            leaf, size = sha256(b"\1" + self.nodes.pop() + leaf), size >> 1
        self.nodes.append(leaf)
        self.size += 1

    def root(self):
        if not self.nodes:
            return sha256(b"")
        root = self.nodes[-1]
        for node in reversed(self.nodes[:-1]):
            root = sha256(b"\1" + node + root)
        return root


def key_id(name, key):
    return sha256(name.encode() + b"\n\1" + key)[:4]


def openssl_verifies(key, text, signature):
    with tempfile.TemporaryDirectory() as folder:
        for name, content in (("key", DER_ED25519 + key), ("text", text), ("signature", signature)):
            with open(os.path.join(folder, name), "wb") as file:
                file.write(content)
        done = subprocess.run(["openssl", "pkeyutl", "-verify", "-pubin", "-keyform", "DER", "-inkey", "key", "-rawin",
                               "-in", "text", "-sigfile", "signature"], cwd=folder, capture_output=True, check=False)
        return done.returncode == 0


def signed_by(note, name, key):
    """Whether one of the note's signatures is of this key, and right."""
    text, _, signatures = note.rpartition("\n\n")
    for line in signatures.splitlines():
        if not line.startswith(DASH):
            continue
        signer, _, data = line[len(DASH):].partition(" ")
        data = base64.b64decode(data, validate=True)
        if signer == name and data[:4] == key_id(name, key):
            return openssl_verifies(key, (text + "\n").encode(), data[4:])
    return False


def head_of(note):
    """origin, size, root and the further lines of a checkpoint."""
    lines = note.rpartition("\n\n")[0].split("\n")
    return lines[0], int(lines[1]), base64.b64decode(lines[2], validate=True), lines[3:]


def split_notes(text):
    notes, current, signed = [], "", False
    for line in text.splitlines(keepends=True):
        if signed and not line.startswith(DASH):
            notes.append(current)
            current, signed = "", False
        current += line
        signed = signed or line.startswith(DASH)
    return notes + ([current] if signed else [])


def read_chain(path, genesis):
    """{origin: [(size, root, key), ...]}: from which size on which key signs; the first key is the genesis key."""
    name, _, data = genesis.split("+", 2)
    key = base64.b64decode(data)[1:]
    logs, first = {}, True
    with open(path, encoding="utf-8") as file:
        notes = split_notes(file.read())
    for note in notes:
        origin, size, root, more = head_of(note)
        new_key = base64.b64decode(more[0].split()[2])
        if first and (origin, new_key) != (name, key):
            complain("the chain of keys does not begin with the genesis key")
        if not signed_by(note, origin, key):
            complain(f"a key of {origin} is not signed by the key before it")
            return logs
        logs.setdefault(origin, []).append((size, root, new_key))
        key, first = new_key, False
    return logs


def check_checkpoint(logs, origin, size, note):
    """The checkpoint is signed by the key that was in force at this size."""
    keys = logs.get(origin, [])
    for number, (since, _, key) in enumerate(keys):
        until = keys[number + 1][0] if number + 1 < len(keys) else size
        if since <= size <= until and signed_by(note, origin, key):
            return
    complain(f"the checkpoint of {size} records of {origin} is not signed by the key of its time")


def main(journal, genesis, anchors=None):
    if os.path.exists(genesis):
        with open(genesis, encoding="utf-8") as file:
            genesis = next(word for word in file.read().split() if "+" in word)
    logs = read_chain(os.path.join(journal, "keys"), genesis)
    # What is signed: origin -> {size: root}. The links of the chain seal the tree, too; so do anchors.
    wanted = {origin: {size: [root] for size, root, _ in keys} for origin, keys in logs.items()}
    if anchors:
        with open(anchors, encoding="utf-8") as file:
            for note in split_notes(file.read()):
                origin, size, root, _ = head_of(note)
                check_checkpoint(logs, origin, size, note)
                wanted.setdefault(origin, {}).setdefault(size, []).append(root)
    tree, origin, expected, records, checked, roots = Tree(), None, None, 0, 0, {}
    explained, told, holes, erased = [], {}, [], []
    pieces = sorted({os.path.basename(name)[:24] for name in glob.glob(os.path.join(journal, "seg-*.*"))})
    for piece in pieces:
        path, first = os.path.join(journal, piece), int(piece[4:])
        with open(path + ".hashes", "rb") as file:
            header, kept = file.read(HEADER).decode(), file.read()
        kept = [kept[at:at + 32] for at in range(0, len(kept), 32)]
        words = header.split()
        this_origin, index = words[3], int(words[5])
        if this_origin != origin:
            if origin and max(wanted[origin]) > tree.size:
                complain(f"{origin} was signed up to {max(wanted[origin])}, {tree.size} records are there")
            tree, origin, roots = Tree(index, [bytes.fromhex(word) for word in words[7:]]), this_origin, {}
        elif index != tree.size:
            complain(f"{piece}: goes on at {index}, the part before ended at {tree.size}")
        if expected is not None and first != expected:
            holes.append((expected, first - 1))
        lines = []
        if os.path.exists(path + ".jsonl"):
            with open(path + ".jsonl", "rb") as file:
                lines = [line[:-1] for line in file if line.endswith(b"\n")]
        numbered = {}
        for line in lines:
            number = json.loads(line)["seq"]
            if number in numbered:
                complain(f"record {number} is there twice")
            numbered[number] = line
        if list(numbered) != sorted(numbered):
            complain(f"{piece}: the records are not in their order")
        last = max([first + len(kept) - 1] + list(numbered))
        if not lines:
            erased.append((first, last))
        for number in range(first, last + 1):
            line = numbered.get(number)
            if line is None:  # erased by retention: only the hash is left
                if lines:
                    holes.append((number, number))
                leaf = kept[number - first]
            else:
                leaf = sha256(b"\0" + line)
                records += 1
                if number - first < len(kept) and leaf != kept[number - first]:
                    complain(f"record {number} was changed")
            tree.add(leaf)
            roots[tree.size] = tree.root() if tree.size in wanted.get(origin, {}) else None
            for root in wanted.get(origin, {}).get(tree.size, []):
                checked += 1
                if root != roots[tree.size]:
                    complain(f"the first {tree.size} records of {origin} are not those that were signed")
            record = json.loads(line) if line else {}
            if record.get("kind") == "checkpoint":
                this_origin, size, root, _ = head_of(record["note"])
                check_checkpoint(logs, this_origin, size, record["note"])
                again = Tree(index, [bytes.fromhex(word) for word in words[7:]])
                if size >= index:  # the tree of this size, from the start of this segment
                    for before in range(first, first + size - index):
                        again.add(sha256(b"\0" + numbered[before]) if before in numbered else kept[before - first])
                    checked += 1
                    if again.root() != root:
                        complain(f"the checkpoint of {size} records does not fit them")
            elif record.get("kind") == "gap" and record["reason"] == "retention":
                span = (record["first_seq"], record["last_seq"])
                told[span] = told.get(span, 0) + record["records"]
            elif record.get("kind") == "recovery" and record["lost_first_seq"]:
                explained.append((record["lost_first_seq"], record["lost_last_seq"]))
        expected = last + 1
    if origin and max(wanted.get(origin, {0: 0})) > tree.size:
        complain(f"{origin} was signed up to {max(wanted[origin])}, {tree.size} records are there")
    # Each erased segment left a gap record, which is erased itself some day: the newest one must be told of.
    for low, high in holes + erased[-1:]:
        if not any(first <= low and high <= last for first, last in explained + list(told)):
            complain(f"records {low} to {high} are missing, and nothing says why")
    for (first, last), count in told.items():
        gone = sum(first <= number <= last for number, _ in holes)
        if gone > count:
            complain(f"{gone} of the records {first} to {last} are missing, and gap records tell of {count}")
    print(f"{records} records, {checked} signed roots compared, root of {tree.size}: {base64.b64encode(tree.root()).decode()}")
    print("BAD" if bad else "GOOD")
    return 1 if bad else 0


if __name__ == "__main__":
    if len(sys.argv) not in (3, 4):
        sys.exit(__doc__)
    sys.exit(main(*sys.argv[1:]))
