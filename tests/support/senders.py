#!/usr/bin/python3
"""tests/support/senders.py - processes that send in every way in which a process can come to a socket.

SPDX-License-Identifier: Apache-2.0

Prints JSON lines: {"ready": true} where it waits for a line on its standard input, {"sender": pid} of the process that
sent. What is sent to a sink of traffic.py is confirmed by it, or by nobody.
"""
import argparse
import array
import json
import os
import socket
import struct
import sys

PAYLOAD = b"x" * 1000


def say(**fields):
    sys.stdout.write(json.dumps(fields) + "\n")
    sys.stdout.flush()


def wait_for_line():
    say(ready=True)
    os.read(0, 1)


def connected(address, port, kind=socket.SOCK_STREAM):
    sock = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, kind)
    sock.connect((address, port))
    return sock


def in_child(work):
    """Runs it in a forked child and waits for that."""
    child = os.fork()
    if child == 0:
        work()
        os._exit(0)
    os.waitpid(child, 0)
    say(sender=child)


def finish(sock):
    sock.sendall(PAYLOAD)
    sock.shutdown(socket.SHUT_WR)
    sock.recv(100)


def plain(args):
    if args.wait:
        wait_for_line()
    say(sender=os.getpid())
    finish(connected(args.address, args.port))


def forked(args):
    sock = connected(args.address, args.port)
    in_child(lambda: finish(sock))


def forked_sendto(args):
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    in_child(lambda: sock.sendto(PAYLOAD, (args.address, args.port)))


def sendto(args):
    say(sender=os.getpid())
    socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(PAYLOAD, (args.address, args.port))


def passed(args):
    """Connects, and hands the socket to a process that is no child of the connection."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)

    def receiver():
        ours.close()
        _, ancillary, _, _ = theirs.recvmsg(1, socket.CMSG_SPACE(4))
        fds = array.array("i", ancillary[0][2])
        finish(socket.socket(fileno=fds[0]))

    child = os.fork()
    if child == 0:
        receiver()
        os._exit(0)
    theirs.close()
    sock = connected(args.address, args.port)
    ours.sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [sock.fileno()]))])
    sock.close()
    os.waitpid(child, 0)
    say(sender=child)


def accepting(args):
    """Listens; a child that it forked before accepts and sends."""
    listener = socket.create_server((args.address, args.port))
    say(ready=True)

    def worker():
        conn, _ = listener.accept()
        conn.sendall(PAYLOAD)
        conn.shutdown(socket.SHUT_WR)
        conn.recv(100)
    in_child(worker)


def older(args):
    """A connection that is there before the daemon is."""
    sock = connected(args.address, args.port)
    wait_for_line()
    say(sender=os.getpid())
    finish(sock)


def stuffed(args):
    """Fills the send buffer and sleeps: what leaves later, the kernel sends while we do nothing."""
    sock = connected(args.address, args.port)
    sock.setblocking(False)
    try:
        while True:
            sock.send(b"x" * 65536)
    except BlockingIOError:
        pass
    say(sender=os.getpid())
    wait_for_line()


def sluggish(args):
    """The sink of `stuffed`: reads only when it is told to."""
    listener = socket.create_server((args.address, args.port))
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    conn, _ = listener.accept()
    wait_for_line()
    while conn.recv(1 << 20):
        pass


def deleted(args):
    """Unlinks the file that it runs, and sends."""
    os.unlink(os.readlink("/proc/self/exe"))
    plain(args)
    wait_for_line()


def ping(args):
    say(sender=os.getpid())
    sock = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
    echo = struct.pack("!BBHHH", 8, 0, 0, os.getpid() & 0xffff, 1) + PAYLOAD
    sock.sendto(echo[:2] + struct.pack("!H", checksum(echo)) + echo[4:], (args.address, 0))


def checksum(data):
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xffff) + (total >> 16)
    return ~total & 0xffff


def frame(args):
    """A packet socket: an Ethernet frame with a UDP datagram, built by hand."""
    say(sender=os.getpid())
    sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
    sock.bind((args.device, 0))
    udp = struct.pack("!HHHH", 5000, args.port, 8 + len(PAYLOAD), 0) + PAYLOAD
    head = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(udp), 1, 0, 64, 17, 0, socket.inet_aton(args.source),
                       socket.inet_aton(args.address))
    head = head[:10] + struct.pack("!H", checksum(head)) + head[12:]
    mac = bytes.fromhex(args.to_mac.replace(":", ""))
    sock.send(mac + sock.getsockname()[4] + b"\x08\x00" + head + udp)


def pull(args):
    """Connects from an address and reads."""
    sock = socket.create_connection((args.address, args.port), source_address=(args.source, 0))
    while sock.recv(65536):
        pass


WAYS = {function.__name__.replace("_", "-"): function for function in
        (plain, forked, forked_sendto, sendto, passed, accepting, older, stuffed, sluggish, deleted, ping, frame, pull)}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("way", choices=WAYS)
    parser.add_argument("address")
    parser.add_argument("port", type=int)
    parser.add_argument("--wait", action="store_true", help="plain: for a line on the standard input, first")
    parser.add_argument("--source", default="")
    parser.add_argument("--device", default="eth0")
    parser.add_argument("--to-mac", default="")
    args = parser.parse_args()
    WAYS[args.way](args)


if __name__ == "__main__":
    main()
