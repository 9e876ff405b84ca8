#!/usr/bin/python3
"""tests/support/devices.py - packets on paths that an ordinary socket does not take.

SPDX-License-Identifier: Apache-2.0

  tun NAME                   makes the tun device NAME (bare IP, no link header) and is its far end: counts what the
                             kernel sends into it until SIGTERM, prints the count; each line on standard input is a
                             packet in hexadecimal that comes in
  paged DEV MAC SRC DST N    N frames of 6,000 bytes of which only the first 14 lie in the skb's linear part: IPv4 and
                             UDP, every other one inside VXLAN. Needs an MTU of 9,000
  datagrams DST N BYTES      N UDP datagrams from an ordinary socket
"""
import fcntl
import json
import os
import select
import signal
import socket
import struct
import sys

TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x400454ca, 1, 0x1000
SOL_PACKET, PACKET_VNET_HDR = 263, 15


def ipv4(src, dst, proto, body):
    return struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(body), 1, 0x4000, 64, proto, 0, socket.inet_aton(src),
                       socket.inet_aton(dst)) + body


def udp(sport, dport, body):
    return struct.pack("!HHHH", sport, dport, 8 + len(body), 0) + body


def tun(name):
    device = os.open("/dev/net/tun", os.O_RDWR)
    fcntl.ioctl(device, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TUN | IFF_NO_PI))
    count = {"packets": 0, "bytes": 0}
    stop, wake = os.pipe()
    signal.signal(signal.SIGTERM, lambda *_: os.write(wake, b"x"))
    print("ready", flush=True)
    sources = [device, stop, sys.stdin.fileno()]
    while True:
        ready, _, _ = select.select(sources, [], [])
        if device in ready:
            packet = os.read(device, 65536)
            # The kernel's own multicast chatter is not what the test sent.
            if not (packet[0] >> 4 == 6 and packet[24] == 0xff):
                count = {"packets": count["packets"] + 1, "bytes": count["bytes"] + len(packet)}
        elif stop in ready:
            print(json.dumps(count), flush=True)
            return
        else:
            line = sys.stdin.readline()
            if line.strip():
                os.write(device, bytes.fromhex(line.strip()))
            else:
                sources.remove(sys.stdin.fileno())


def paged(dev, mac, src, dst, number):
    out = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    out.setsockopt(SOL_PACKET, PACKET_VNET_HDR, 1)
    out.bind((dev, 0))
    ethernet = bytes.fromhex(mac.replace(":", "")) + b"\x02\0\0\0\0\x01" + b"\x08\0"
    inner = ethernet + ipv4("10.9.9.1", dst, 17, udp(4000, 4001, bytes(5_900)))
    for i in range(int(number)):
        if i % 2:
            body = ipv4(src, "5.9.10.20", 17, udp(50_000, 4789, b"\x08\0\0\0\0\0\x07\0" + inner))
        else:
            body = ipv4(src, dst, 17, udp(5000, 5001, bytes(5_950)))
        # struct virtio_net_hdr: hdr_len 14 is what the kernel copies into the linear part (packet_alloc_skb()).
        out.send(struct.pack("=BBHHHH", 0, 0, len(ethernet), 0, 0, 0) + ethernet + body)


def datagrams(dst, number, size):
    out = socket.socket(socket.AF_INET6 if ":" in dst else socket.AF_INET, socket.SOCK_DGRAM)
    for _ in range(int(number)):
        out.sendto(bytes(int(size)), (dst, 9))


if __name__ == "__main__":
    {"tun": tun, "paged": paged, "datagrams": datagrams}[sys.argv[1]](*sys.argv[2:])
