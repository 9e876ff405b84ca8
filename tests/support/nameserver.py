#!/usr/bin/python3
"""tests/support/nameserver.py ADDRESS NAME=ADDRESS NAME=NAME... - a name server over UDP, for A records and aliases.

SPDX-License-Identifier: Apache-2.0

Names that are not given do not exist; AAAA is answered with no record. Prints "ready" when it listens.
"""
import socket
import struct
import sys

A, CNAME = 1, 5
NO_ERROR, NO_SUCH_NAME = 0, 3
TTL_S = 60


def wire(name):
    return b"".join(bytes([len(label)]) + label.encode() for label in name.split(".")) + b"\0"


def question_of(message):
    labels, at = [], 12
    while message[at]:
        labels.append(message[at + 1:at + 1 + message[at]].decode())
        at += 1 + message[at]
    kind, _ = struct.unpack_from("!HH", message, at + 1)
    return ".".join(labels).lower(), kind, message[12:at + 5]


def record(owner, kind, data):
    return wire(owner) + struct.pack("!HHIH", kind, 1, TTL_S, len(data)) + data


def answer(message, zone):
    name, kind, question = question_of(message)
    code, records = (NO_ERROR if name in zone else NO_SUCH_NAME), []
    while name in zone:
        target = zone[name]
        if target[0].isdigit():
            if kind == A:
                records.append(record(name, A, socket.inet_aton(target)))
            break
        records.append(record(name, CNAME, wire(target)))
        name = target
    return message[:2] + struct.pack("!HHHHH", 0x8180 | code, 1, len(records), 0, 0) + question + b"".join(records)


def main():
    zone = dict(word.split("=") for word in sys.argv[2:])
    server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    server.bind((sys.argv[1], 53))
    print("ready", flush=True)
    while True:
        message, peer = server.recvfrom(512)
        server.sendto(answer(message, zone), peer)


if __name__ == "__main__":
    main()
