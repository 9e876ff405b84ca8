#!/usr/bin/python3
"""tests/support/traffic.py - sends and receives an exact number of bytes, confirmed by the receiver.

SPDX-License-Identifier: Apache-2.0

  serve  TCP sink, TCP source and UDP sink in one process; prints {"ready": true} when it listens.
  send   TCP or UDP to a sink; prints progress lines while it runs, and what the receiver says it got.
  pull   connects to a source and reads.
  listen prints every datagram that arrives at a UDP port of loopback, with the time.
  many   many short TCP connections to consecutive addresses of a prefix.

Every command prints JSON lines. Times are CLOCK_MONOTONIC, which all namespaces of a machine share.
Exit status 0 only where the receiver confirmed every byte.
"""
import argparse
import ipaddress
import json
import os
import signal
import socket
import struct
import sys
import threading
import time

CHUNK = 1 << 20
UDP_SEGMENT = 103        # include/uapi/linux/udp.h
UDP_PAYLOAD = 1400
UDP_GSO_SEGMENTS = 16    # datagrams in one UDP_SEGMENT send
UDP_IDLE_S = 10          # how long a sender waits for the receiver's count


def say(**fields):
    sys.stdout.write(json.dumps(fields) + "\n")
    sys.stdout.flush()


def family_of(address):
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def listener(kind, port):
    sock = socket.socket(socket.AF_INET6, kind)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    sock.bind(("::", port))
    return sock


# --- serving ---------------------------------------------------------------------------------------------

def sink_connection(conn):
    got, buffer = 0, bytearray(CHUNK)
    with conn:
        while True:
            size = conn.recv_into(buffer)
            if size == 0:
                break
            got += size
        conn.sendall(b"%d\n" % got)


def source_connection(conn):
    with conn:
        line = b""
        while not line.endswith(b"\n"):
            piece = conn.recv(64)
            if not piece:
                return
            line += piece
        left, chunk = int(line), bytes(CHUNK)
        while left:
            left -= conn.send(memoryview(chunk)[:min(left, CHUNK)])
        conn.shutdown(socket.SHUT_WR)
        conn.recv(1)  # the reader closes when it has everything


def accept_loop(sock, handler):
    def run(conn):
        try:
            handler(conn)
        except (OSError, ValueError) as error:
            say(connection_error=str(error))
    while True:
        conn, _ = sock.accept()
        threading.Thread(target=run, args=(conn,), daemon=True).start()


def udp_sink(sock):
    """Counts per sender; a datagram of one byte 'F' asks for the count. The answer has to come from the
    address that was written to, or no client behind a connected socket would take it."""
    counts = {}
    sock.setsockopt(socket.IPPROTO_IPV6, 49, 1)  # IPV6_RECVPKTINFO
    while True:
        data, ancillary, _, peer = sock.recvmsg(65536, 256)
        if data == b"F":
            answer = json.dumps(dict(zip(("bytes", "datagrams"), counts.get(peer, (0, 0))))).encode()
            info = [(level, kind, value) for level, kind, value in ancillary
                    if level == socket.IPPROTO_IPV6 and kind == 50]  # IPV6_PKTINFO
            sock.sendmsg([answer], [(level, kind, value[:16] + bytes(4)) for level, kind, value in info], 0, peer)
        else:
            size, number = counts.get(peer, (0, 0))
            counts[peer] = (size + len(data), number + 1)


def serve(args):
    for port in args.sink:
        sock = listener(socket.SOCK_STREAM, port)
        sock.listen(1024)
        threading.Thread(target=accept_loop, args=(sock, sink_connection), daemon=True).start()
    for port in args.source:
        sock = listener(socket.SOCK_STREAM, port)
        sock.listen(1024)
        threading.Thread(target=accept_loop, args=(sock, source_connection), daemon=True).start()
    for port in args.udp:
        sock = listener(socket.SOCK_DGRAM, port)
        sock.setsockopt(socket.SOL_SOCKET, 33, 64 << 20)  # SO_RCVBUFFORCE
        threading.Thread(target=udp_sink, args=(sock,), daemon=True).start()
    say(ready=True, pid=os.getpid())
    signal.pause()
    return 0


# --- sending ---------------------------------------------------------------------------------------------

class Pace:
    """Keeps to a rate in bytes per second, and tells how far it got every 64 KiB or so."""

    def __init__(self, rate, mark):
        self.rate, self.mark, self.start, self.sent, self.told = rate, mark, time.monotonic(), 0, 0

    def add(self, size):
        before = self.sent
        self.sent += size
        if before < self.mark <= self.sent:
            say(mark=self.mark, at=time.monotonic())
        if self.sent - self.told >= 1 << 16:
            self.told = self.sent
            say(sent=self.sent, at=time.monotonic())
        if self.rate:
            ahead = self.sent / self.rate - (time.monotonic() - self.start)
            if ahead > 0.001:
                time.sleep(ahead)


def connected(args, kind, address):
    sock = socket.socket(family_of(address), kind)
    if args.source_address:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((args.source_address, args.source_port))
    if kind == socket.SOCK_STREAM:
        sock.settimeout(20)
    sock.connect((address, args.port))
    sock.settimeout(60)
    return sock


def finish(sent, got, start, **more):
    seconds = time.monotonic() - start
    say(done=True, bytes=sent, confirmed=got, seconds=round(seconds, 4),
        mbit_s=round(sent * 8 / seconds / 1e6, 1), **more)
    return 0 if sent == got else 1


def send_tcp(args):
    start = time.monotonic()
    with connected(args, socket.SOCK_STREAM, args.address) as sock:
        pace = Pace(args.rate, args.mark)
        step = min(CHUNK, 1 << 15 if args.rate else CHUNK)
        chunk = bytes(step)
        left = args.bytes
        while left:
            size = min(left, step)
            sock.sendall(memoryview(chunk)[:size])
            pace.add(size)
            left -= size
        sock.shutdown(socket.SHUT_WR)
        return finish(args.bytes, read_number(sock), start)


def read_number(sock):
    line = b""
    while not line.endswith(b"\n"):
        piece = sock.recv(64)
        if not piece:
            break
        line += piece
    return int(line or b"-1")


def send_udp(args):
    start = time.monotonic()
    with connected(args, socket.SOCK_DGRAM, args.address) as sock:
        sock.setsockopt(socket.SOL_SOCKET, 32, 8 << 20)  # SO_SNDBUFFORCE
        pace = Pace(args.rate, args.mark)
        left, step = args.bytes, args.payload * (UDP_GSO_SEGMENTS if args.udp_gso else 1)
        chunk = bytes(step)
        segment = [(socket.IPPROTO_UDP, UDP_SEGMENT, struct.pack("H", args.payload))] if args.udp_gso else []
        while left:
            size = min(left, step)
            sock.sendmsg([memoryview(chunk)[:size]], segment if size > args.payload else [])
            pace.add(size)
            left -= size
        sock.settimeout(0.2)
        deadline = time.monotonic() + UDP_IDLE_S
        got = {"bytes": -1}
        while time.monotonic() < deadline and got["bytes"] < args.bytes:
            sock.send(b"F")
            try:
                got = json.loads(sock.recv(256))
            except TimeoutError:
                continue
            if got["bytes"] < args.bytes:
                time.sleep(0.05)
        return finish(args.bytes, got["bytes"], start, datagrams=got.get("datagrams"))


def pull(args):
    start = time.monotonic()
    with connected(args, socket.SOCK_STREAM, args.address) as sock:
        sock.sendall(b"%d\n" % args.bytes)
        pace, got, buffer = Pace(args.rate, args.mark), 0, bytearray(1 << 16 if args.rate else CHUNK)
        while got < args.bytes:
            size = sock.recv_into(buffer)
            if size == 0:
                break
            got += size
            pace.add(size)
        return finish(args.bytes, got, start)


def many(args):
    start, sent, confirmed = time.monotonic(), 0, 0
    hosts = ipaddress.ip_network(args.address)
    for number in range(args.count):
        with connected(args, socket.SOCK_STREAM, str(hosts[1 + number % (min(hosts.num_addresses, 4096) - 2)])) as sock:
            sock.sendall(bytes(args.bytes))
            sock.shutdown(socket.SHUT_WR)
            confirmed += read_number(sock)
        sent += args.bytes
        say(sent=sent, flows=number + 1, at=time.monotonic())
        if args.rate:
            ahead = sent / args.rate - (time.monotonic() - start)
            if ahead > 0.001:
                time.sleep(ahead)
    return finish(sent, confirmed, start, flows=args.count)


def listen(args):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", args.port))
        say(ready=True)
        while True:
            text = sock.recv(65536)
            say(at=time.monotonic(), text=text.decode(errors="replace"))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    server = commands.add_parser("serve")
    for name in ("sink", "source", "udp"):
        server.add_argument(f"--{name}", type=int, action="append", default=[], metavar="PORT")
    commands.add_parser("listen").add_argument("port", type=int)
    for name in ("send", "pull", "many"):
        client = commands.add_parser(name)
        client.add_argument("address")
        client.add_argument("port", type=int)
        client.add_argument("bytes", type=int)
        client.add_argument("--count", type=int, default=1)
        client.add_argument("--rate", type=float, default=0, help="bytes per second; 0: as fast as it goes")
        client.add_argument("--mark", type=int, default=0, help="tell when this many bytes were sent")
        client.add_argument("--payload", type=int, default=UDP_PAYLOAD, help="bytes of one UDP datagram")
        client.add_argument("--udp", action="store_true")
        client.add_argument("--udp-gso", action="store_true", help="UDP_SEGMENT: the kernel cuts the datagrams")
        client.add_argument("--source-address", default="")
        client.add_argument("--source-port", type=int, default=0)
    args = parser.parse_args()
    run = {"serve": serve, "listen": listen, "pull": pull, "many": many}.get(args.command)
    if run is None:
        run = send_udp if args.udp else send_tcp
    try:
        return run(args)
    except OSError as error:
        say(error=f"{args.command}: {error}")
        return 1


if __name__ == "__main__":
    sys.exit(main())
