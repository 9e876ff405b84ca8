"""tests/bench/flow_tools.py - egresswatch and its peers: how each is run, and what it says it saw.

What each counted is read with its own reader: nfdump, racount, softflowd's summary, pmacctd's print plugin. The
options give each tool room for all flows and keep timeouts from splitting them; nothing else is changed.

SPDX-License-Identifier: Apache-2.0
"""
import csv
import json
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BARE = "egresswatch, no rules, no names"  # the row that does what peers do
LOCAL_NETWORKS = "10.32.0.0/16,fd00:32::/32"  # TrafficMix::local_networks()
LONG = 3600  # seconds: nfpcapd takes no longer timeout; every capture is shorter


@dataclass
class Seen:
    """What a tool says it counted. bytes_of: "frame" (whole frames), "ip" (from the IP header on) or "" (it does not say);
    flows_of: "flows" (both directions are one), "directed_flows", or "" (it keeps none)."""
    packets: int
    bytes: int = 0
    bytes_of: str = ""
    flows: int = 0
    flows_of: str = ""
    says_lost: str = ""


def number(pattern, text):
    found = re.search(pattern, text)
    if not found:
        raise ValueError(f"no {pattern!r} in what it printed:\n{text[-2000:]}")
    return int(found[1])


class Tool:
    name = ""
    package = ""
    how = ""     # the command in the document; FILE, N (room for flows)
    limits = ""  # what is to be known of its figures

    def command(self, capture, folder, truth):
        raise NotImplementedError

    def seen(self, folder, out, err):
        raise NotImplementedError


class Egresswatch(Tool):
    limits = ("counts what it cannot keep; every packet is in one class, and the sum is checked here")

    def __init__(self, binaries, geo, name, track, judges=True):
        self.binaries, self.geo, self.name, self.track = binaries, geo, name, track
        self.judging = ["--policy", str(ROOT / "docs/examples/policy.d")] if judges else ["--no-names"]
        told = "--policy docs/examples/policy.d" if judges else "--no-names"
        self.how = f"egresswatch replay {told} --local-networks ... --track {track} FILE"

    def command(self, capture, folder, truth):
        return [str(self.binaries / "egresswatch"), "replay", *self.judging,
                "--geo", str(self.geo), "--local-networks", LOCAL_NETWORKS, "--track", self.track, str(capture)]

    def seen(self, folder, out, err):
        head = re.search(r"^(\d+) packets, (\d+) bytes; (\d+) flows", out, re.MULTILINE)
        if not head:
            raise ValueError(f"no sums in what it printed:\n{out[-2000:]}{err[-2000:]}")
        lost = ", ".join(re.findall(r"^(flows_full_packets: \d+)", out, re.MULTILINE))
        return Seen(int(head[1]), int(head[2]), "frame", int(head[3]), "flows" if self.track == "all" else "", lost)


class Walk(Tool):
    limits = "the physical limit of reading: no flow, no region, no rule"

    def __init__(self, binaries, name, options):
        self.binaries, self.name, self.options = binaries, name, options
        self.how = " ".join(["walk_file", *options, "FILE"])

    def command(self, capture, folder, truth):
        return [str(self.binaries / "walk_file"), *self.options, str(capture)]

    def seen(self, folder, out, err):
        sums = json.loads(out)
        return Seen(sums["packets"], sums["frame_bytes"], "frame")


class Tcpdump(Tool):
    name = "tcpdump"
    package = "tcpdump"
    how = "tcpdump -r FILE -w /dev/null"
    limits = "reads and writes packets, looks at no header"

    def command(self, capture, folder, truth):
        return ["tcpdump", "-r", str(capture), "-w", "/dev/null", "--count"]

    def seen(self, folder, out, err):
        return Seen(number(r"(\d+) packets?", out + err))


class Softflowd(Tool):
    name = "softflowd"
    package = "softflowd"
    how = "softflowd -d -r FILE -m N -v 9 -6 -t maxlife=0 -p none -c none"
    limits = ("no collector is given: its own summary is read and it exports nothing, which spares it work; "
              "an echo request and its reply are two flows to it; its byte count includes the padding of short "
              "frames; with a control socket it waits for a client before it reads a file, hence `-c none`")

    def command(self, capture, folder, truth):
        return ["softflowd", "-d", "-r", str(capture), "-m", str(2 * truth["flows"] + 1000), "-v", "9", "-6",
                "-t", "maxlife=0", "-p", "none", "-c", "none"]

    def seen(self, folder, out, err):
        text = out + err
        octets = sum(int(row) for row in re.findall(r"^ +\S+ \(\d+\): +(\d+) ", text, re.MULTILINE))
        packets = number(r"Packets processed: (\d+)", text) - number(r"Ignored packets: (\d+)", text)
        return Seen(packets, octets, "ip", number(r"Flows expired: (\d+)", text), "flows",
                    re.search(r"\((\d+ forced)\)", text)[1])


class Nfpcapd(Tool):
    name = "nfpcapd"
    package = "nfdump"
    how = f"nfpcapd -r FILE -w DIR -B N -e {LONG},{LONG} -t 86400"
    limits = ("a flow for each direction; a TCP flow ends with FIN or RST, and what comes after is another one: more flows "
              "than there are")

    def command(self, capture, folder, truth):
        return ["nfpcapd", "-r", str(capture), "-w", str(folder), "-B", str(2 * truth["directed_flows"] + 4096),
                "-e", f"{LONG},{LONG}", "-t", "86400"]

    def seen(self, folder, out, err):
        sums = {"Flows": 0, "Packets": 0, "Bytes": 0}
        for path in sorted(folder.glob("nfcapd.*")):
            told = subprocess.run(["nfdump", "-r", str(path), "-I"], capture_output=True, text=True, check=False).stdout
            for key in sums:
                sums[key] += number(rf"^(?:.*\n)*{key}: (\d+)", told)
        return Seen(sums["Packets"], sums["Bytes"], "ip", sums["Flows"], "directed_flows")


class Pmacctd(Tool):
    name = "pmacctd"
    package = "pmacct"
    how = "pmacctd -f FILE.conf: print plugin, five-tuple and direction, N cache entries, 64 MiB pipe"
    limits = ("a flow for each direction; two processes on the one core; a cache entry takes 4 KiB, so that the cache is "
              "kept to 1 GiB and is written out when it is full: more rows than flows; what does not get "
              "through the pipe is lost")
    entries_max = 262147  # 1 GiB

    def command(self, capture, folder, truth):
        entries = min(self.entries_max, 2 * truth["directed_flows"] + 16411)
        config = folder / "pmacctd.conf"
        config.write_text(f"""daemonize: false
pcap_savefile: {capture}
plugins: print
aggregate: src_host,dst_host,src_port,dst_port,proto
print_output: csv
print_output_file: {folder}/flows.csv
print_output_file_append: true
print_refresh_time: 86400
print_cache_entries: {entries}
plugin_pipe_size: 67108864
plugin_buffer_size: 65536
""")
        return ["pmacctd", "-f", str(config)]

    def seen(self, folder, out, err):
        packets = octets = rows = 0
        path = folder / "flows.csv"
        if path.exists():
            with path.open(newline="") as file:
                for row in csv.reader(file):
                    if len(row) == 7 and row[5].isdigit():
                        packets += int(row[5])
                        octets += int(row[6])
                        rows += 1
        missing = len(re.findall(r"missing data", out + err))
        return Seen(packets, octets, "ip", rows, "directed_flows", f"{missing} warnings of missing data" if missing else "")


class Argus(Tool):
    name = "argus"
    package = "argus-server, argus-client"
    how = "argus -X -r FILE -w OUT -S 86400"
    limits = "some flows become two records: more records than flows"

    def command(self, capture, folder, truth):
        return ["argus", "-X", "-r", str(capture), "-w", str(folder / "argus.out"), "-S", "86400"]

    def seen(self, folder, out, err):
        told = subprocess.run(["racount", "-r", str(folder / "argus.out"), "-", "not", "man"], capture_output=True,
                              text=True, check=False).stdout
        fields = re.search(r"^ *sum +(.*)$", told, re.MULTILINE)[1].split()
        return Seen(int(fields[1]), int(fields[4]), "frame", int(fields[0]), "flows")


def all_tools(binaries, geo):
    return [Egresswatch(binaries, geo, "egresswatch", "all"),
            Egresswatch(binaries, geo, "egresswatch, outside only", "outside"),
            Egresswatch(binaries, geo, BARE, "all", judges=False),
            Walk(binaries, "walk over records", []), Walk(binaries, "walk + headers", ["--headers"]),
            Tcpdump(), Softflowd(), Nfpcapd(), Pmacctd(), Argus()]
