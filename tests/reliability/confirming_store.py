#!/usr/bin/python3
# tests/reliability/confirming_store.py - rsyslog's omprog: appends each line, and says OK only when it is on the disk.
# SPDX-License-Identifier: Apache-2.0
import os
import sys

print("OK", flush=True)  # ready
target = os.open(sys.argv[1], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o640)
for line in sys.stdin.buffer:
    before = os.fstat(target).st_size
    try:
        done = os.write(target, line) == len(line)
    except OSError:
        done = False
    if not done:
        os.ftruncate(target, before)
    print("OK" if done else "no room", flush=True)
