#!/usr/bin/python3
"""tests/support/packets.py - random frames of every kind out of a packet socket, and an independent count of what
arrives at the other end.

SPDX-License-Identifier: Apache-2.0

  send DEV COUNT SEED LOCAL4 LOCAL6 MAC   frames from LOCAL4/LOCAL6 to places all over; prints what was sent
  send ... inbound                        the other way round: from places all over to LOCAL4/LOCAL6
  send ... outbound bypass                around the queueing discipline, and so around every tc hook
  observe DEV                             counts received frames until SIGTERM; prints them

The same seed gives the same frames. Kinds that a test machine has no devices for (tunnels, MPLS, PPPoE) are built
by hand. Roughly a third of the frames is broken on purpose: a monitor meets those too.
"""
import ipaddress
import json
import random
import signal
import socket
import struct
import sys
from collections import Counter

SOL_PACKET, PACKET_AUXDATA, PACKET_STATISTICS = 263, 8, 6
TP_STATUS_VLAN_VALID = 1 << 4
PACKET_OUTGOING = 4
REMOTES4 = ["87.32.112.77", "5.9.10.77", "193.213.112.77", "8.8.8.77", "114.114.7.7", "165.21.83.77", "137.35.7.77",
            "10.1.2.3", "224.0.0.251", "203.0.113.9"]
REMOTES6 = ["2a02:8087::77", "2a01:4f8::77", "2001:4600::77", "2001:4860:4860::77", "240e::77", "2406:3000::77",
            "2001:409::77", "ff02::fb", "fd00::1", "2002:0808:0808::1", "64:ff9b::808:808"]


class Builder:
    def __init__(self, seed, local4, local6, mac, inbound):
        self.inbound = inbound
        self.random = random.Random(seed)
        self.local4, self.local6 = local4, local6
        self.mac = bytes.fromhex(mac.replace(":", ""))
        self.kinds = [self.ip4, self.ip4, self.ip6, self.ip6, self.ip4_options, self.fragment4, self.fragment6,
                      self.extensions6, self.ipip, self.six_in_four, self.four_in_six, self.gre, self.gre_key, self.erspan2,
                      self.vxlan, self.geneve, self.gtpu, self.teredo, self.vlan, self.qinq, self.mpls, self.pppoe,
                      self.arp, self.lldp, self.garbage_type, self.garbage_ip, self.short_ip, self.bad_version,
                      self.bad_header_length, self.bad_total_length, self.cut]

    def payload(self, most=600):
        return self.random.randbytes(self.random.randrange(most))

    def port(self):
        return self.random.choice((53, 80, 443, self.random.randrange(1, 65536)))

    def l4(self, most=600):
        kind = self.random.randrange(5)
        if kind == 0:
            return 6, struct.pack("!HHIIBBHHH", self.port(), self.port(), 1, 2, 5 << 4,
                                  self.random.randrange(256), 512, 0, 0) + self.payload(most)
        if kind in (1, 2):
            data = self.payload(most)
            return 17, struct.pack("!HHHH", self.random.choice((9999, 20000)), 10000 + self.port() % 40000,
                                   8 + len(data), 0) + data
        if kind == 3:
            return 1, bytes((8, 0, 0, 0, 0, 1, 0, 1)) + self.payload(most)
        return self.random.choice((2, 50, 51, 88, 132, 253)), self.payload(most)

    def header4(self, proto, body, dst=None, options=b"", fragment=0, total=None, version=4, ihl=None):
        ihl = 5 + len(options) // 4 if ihl is None else ihl
        total = 20 + len(options) + len(body) if total is None else total
        src, dst = (ipaddress.ip_address(text).packed for text in (self.local4, dst or self.random.choice(REMOTES4)))
        src, dst = (dst, src) if self.inbound else (src, dst)
        raw = struct.pack("!BBHHHBBH4s4s", version << 4 | ihl, 0, total & 0xffff, self.random.randrange(65536), fragment,
                          64, proto, 0, src, dst) + options
        words = struct.unpack(f"!{len(raw) // 2}H", raw)
        total = sum(words)
        while total >> 16:
            total = (total & 0xffff) + (total >> 16)
        return raw[:10] + struct.pack("!H", ~total & 0xffff) + raw[12:] + body

    def header6(self, proto, body, dst=None):
        src, dst = (ipaddress.ip_address(text).packed for text in (self.local6, dst or self.random.choice(REMOTES6)))
        src, dst = (dst, src) if self.inbound else (src, dst)
        return struct.pack("!IHBB", 6 << 28, len(body), proto, 64) + src + dst + body

    def ether(self, ether_type, body):
        return self.mac + b"\x02\x00\x00\x00\x00\x01" + struct.pack("!H", ether_type) + body

    def any_ip(self, most=500):
        proto, body = self.l4(most)
        if self.random.random() < 0.5:
            return 0x0800, self.header4(proto, body)
        return 0x86dd, self.header6(58 if proto == 1 else proto, body)

    def inner_frame(self):
        return self.ether(*self.any_ip(400))

    def udp4(self, port, body):
        return self.ether(0x0800, self.header4(17, struct.pack("!HHHH", 40000, port, 8 + len(body), 0) + body))

    # --- whole frames ------------------------------------------------------------------------------------

    def ip4(self): return self.ether(0x0800, self.header4(*self.l4(1300)))
    def ip6(self): return self.ether(0x86dd, self.header6(*self.l4(1300)))
    def ip4_options(self): return self.ether(0x0800, self.header4(*self.l4(), options=b"\x94\x04\0\0" + b"\x01" * 4))
    def fragment4(self): return self.ether(0x0800, self.header4(*self.l4(), fragment=self.random.choice((0x2000, 0x2004, 100))))

    def fragment6(self):
        proto, body = self.l4()
        offset = self.random.choice((1, 0x100 | 1, 0x200))
        return self.ether(0x86dd, self.header6(44, struct.pack("!BBHI", proto, 0, offset, 7) + body))

    def extensions6(self):
        proto, body = self.l4()
        chain = struct.pack("!BB6x", 60, 0) + struct.pack("!BB14x", 43, 1) + struct.pack("!BBBB4x", proto, 0, 253, 0)
        return self.ether(0x86dd, self.header6(0, chain + body))

    def ipip(self): return self.ether(0x0800, self.header4(4, self.header4(*self.l4())))
    def six_in_four(self): return self.ether(0x0800, self.header4(41, self.header6(*self.l4())))
    def four_in_six(self): return self.ether(0x86dd, self.header6(4, self.header4(*self.l4())))

    def gre(self):
        ether_type, packet = self.any_ip()
        return self.ether(0x0800, self.header4(47, struct.pack("!HH", 0, ether_type) + packet))

    def gre_key(self):
        ether_type, packet = self.any_ip()
        return self.ether(0x86dd, self.header6(47, struct.pack("!HHI", 0x2000, ether_type, 5) + packet))

    def erspan2(self):
        return self.ether(0x0800, self.header4(47, struct.pack("!HHI", 0x1000, 0x88be, 1) + bytes((0x10, 1, 0, 0, 0, 0, 0, 0))
                                               + self.inner_frame()))

    def vxlan(self): return self.udp4(4789, b"\x08\0\0\0\0\0\x07\0" + self.inner_frame())
    def geneve(self): return self.udp4(6081, b"\x01\0\x65\x58\0\0\x07\0" + b"\0\0\0\0" + self.inner_frame())

    def gtpu(self):
        packet = self.any_ip()[1]
        return self.udp4(2152, struct.pack("!BBHI", 0x30, 0xff, len(packet), 9) + packet)

    def teredo(self): return self.udp4(3544, self.header6(*self.l4(), dst="2001:4860:4860::99"))

    def vlan(self):
        ether_type, packet = self.any_ip()
        return self.ether(0x8100, struct.pack("!HH", 5, ether_type) + packet)

    def qinq(self):
        ether_type, packet = self.any_ip()
        return self.ether(0x88a8, struct.pack("!HHHH", 5, 0x8100, 6, ether_type) + packet)

    def mpls(self): return self.ether(0x8847, struct.pack("!II", 16 << 12 | 64, 17 << 12 | 1 << 8 | 64) + self.any_ip()[1])

    def pppoe(self):
        ether_type, packet = self.any_ip()
        return self.ether(0x8864, struct.pack("!BBHHH", 0x11, 0, 1, len(packet) + 2, 0x21 if ether_type == 0x0800 else 0x57)
                          + packet)

    def arp(self): return self.ether(0x0806, struct.pack("!HHBBH", 1, 0x0800, 6, 4, 2) + bytes(20))
    def lldp(self): return self.ether(0x88cc, b"\x02\x07\x04" + bytes(40))
    def garbage_type(self): return self.ether(self.random.randrange(0x600, 0x800), self.payload())
    def garbage_ip(self): return self.ether(self.random.choice((0x0800, 0x86dd)), self.payload(100))
    def short_ip(self): return self.ether(self.random.choice((0x0800, 0x86dd)), b"\x45" * self.random.randrange(19))
    def bad_version(self): return self.ether(0x0800, self.header4(*self.l4(), version=self.random.choice((0, 5, 6, 15))))
    def bad_header_length(self): return self.ether(0x0800, self.header4(*self.l4(), ihl=self.random.choice((0, 4, 15))))
    def bad_total_length(self): return self.ether(0x0800, self.header4(*self.l4(), total=self.random.choice((0, 19, 60000))))

    def cut(self):
        frame = self.random.choice((self.vxlan, self.gre, self.extensions6, self.ip6, self.mpls, self.qinq))()
        return frame[:self.random.randrange(21, len(frame))]  # the kernel drops a frame with half a VLAN tag

    def frame(self):
        kind = self.random.choice(self.kinds)
        return kind.__name__, kind()[:1514]


def send(dev, count, seed, local4, local6, mac, direction="outbound", way="hooked"):
    builder = Builder(int(seed), local4, local6, mac, direction == "inbound")
    kinds, size = Counter(), 0
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as sock:
        sock.bind((dev, 0))
        sock.setsockopt(socket.SOL_SOCKET, 32, 16 << 20)  # SO_SNDBUFFORCE
        if way == "bypass":
            sock.setsockopt(SOL_PACKET, 20, 1)  # PACKET_QDISC_BYPASS
        for _ in range(int(count)):
            name, frame = builder.frame()
            sock.send(frame)
            kinds[name] += 1
            size += len(frame)
    print(json.dumps({"frames": sum(kinds.values()), "bytes": size, "kinds": kinds}))


def observe(dev):
    def stop(*_):
        raise KeyboardInterrupt
    signal.signal(signal.SIGTERM, stop)
    frames = size = 0
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3)) as sock:
        sock.setsockopt(socket.SOL_SOCKET, 33, 256 << 20)  # SO_RCVBUFFORCE
        sock.setsockopt(SOL_PACKET, PACKET_AUXDATA, 1)
        sock.bind((dev, 3))
        print(json.dumps({"ready": True}), flush=True)
        buffer = bytearray(64)
        try:
            while True:
                _, ancillary, _, place = sock.recvmsg_into([buffer], 256, socket.MSG_TRUNC)
                if place[2] == PACKET_OUTGOING:
                    continue
                # struct tpacket_auxdata: status, len, snaplen, mac, net, vlan_tci, vlan_tpid. The kernel takes the
                # outermost VLAN tag out of the frame: it was on the wire.
                aux = struct.unpack("IIIHHHH", ancillary[0][2][:20])
                frames += 1
                size += aux[1] + (4 if aux[0] & TP_STATUS_VLAN_VALID else 0)
        except KeyboardInterrupt:
            pass
        sock.settimeout(0.2)
        try:
            while True:
                _, ancillary, _, place = sock.recvmsg_into([buffer], 256, socket.MSG_TRUNC)
                aux = struct.unpack("IIIHHHH", ancillary[0][2][:20])
                if place[2] != PACKET_OUTGOING:
                    frames += 1
                    size += aux[1] + (4 if aux[0] & TP_STATUS_VLAN_VALID else 0)
        except TimeoutError:
            pass
        _, drops = struct.unpack("II", sock.getsockopt(SOL_PACKET, PACKET_STATISTICS, 8))
    print(json.dumps({"frames": frames, "bytes": size, "drops": drops}), flush=True)


if __name__ == "__main__":
    {"send": send, "observe": observe}[sys.argv[1]](*sys.argv[2:])
