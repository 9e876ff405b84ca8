#!/usr/bin/python3
"""tests/netns/lifecycle_test.py - start, reload, broken policy, kill -9, adoption, stop, detach.

SPDX-License-Identifier: Apache-2.0
"""
import contextlib
import itertools
import json
import os
import re
import signal
import threading
import time
from datetime import datetime

from case import SiteCase, main
from scenes import CN_UDP, MIB, grown
from world import HOST4, SINK, UDP_SINK, WORLD, run, wait_for


class Lifecycle(SiteCase):
    def our_map(self):
        """The id of a map that only this site's programs use."""
        pinned = self.site.pin_dir / "maps" / "class_totals"
        return json.loads(run("bpftool", "-j", "map", "show", "pinned", pinned).stdout)["id"]

    def programs(self, map_id):
        """The programs in the kernel that count into that map: what keeps them there is a hook or a process."""
        return [program["id"] for program in json.loads(run("bpftool", "-j", "prog", "show").stdout)
                if map_id in program.get("map_ids", [])]

    def gone(self, map_id):
        wait_for("the kernel to free the programs", 10, lambda: not self.programs(map_id))
        filters = "".join(self.site.run_in("host", "tc", "filter", "show", "dev", "eth0", way).stdout
                          for way in ("ingress", "egress"))
        self.assertEqual(filters, "", "filters")
        self.assertFalse(self.site.pin_dir.exists(), "pins are gone")

    def reload(self):
        self.site.daemon.send_signal(signal.SIGHUP)

    def policy_file(self):
        return self.site.policy_dir / "10-dublin.yaml"

    def test_a_reload_under_traffic_classifies_every_packet(self):
        site, first = self.site, self.site.counters()
        transfer = site.traffic("host", "send", WORLD["CN"][0], SINK, 400 * MIB, rate=80e6)
        revision = site.status()["policy"]["revision"]
        reloads, installs = 0, []
        text = self.policy_file().read_text()
        while transfer.running and reloads < 8:
            reloads += 1
            # China comes home and leaves again: the region table is another one each time.
            countries = "[GB, CH, CN]" if reloads % 2 else "[GB, CH]"
            self.policy_file().write_text(text.replace("[GB, CH]", countries)
                                          .replace("revision: 1", f"revision: {revision + reloads}"))
            self.reload()
            wait_for("the reload", 10, lambda: site.status()["policy"]["revision"] == revision + reloads)
            installs.append(site.status()["policy"]["last_reload"]["install_ms"])
            time.sleep(0.1)
        transfer.wait(60)
        last = site.counters()
        self.assertGreaterEqual(reloads, 4, "reloads while traffic ran")
        self.balance(last)
        self.agrees_with_link(first, last)
        home, outside = (grown(first.classes, last.classes, kind, "CN") for kind in ("home", "outside"))
        self.assertGreater(home, MIB, "bytes to CN while CN was home")
        self.assertGreater(outside, MIB, "bytes to CN while CN was outside")
        self.assertGreater(home + outside, 400 * MIB, "the whole transfer is in the two classes")
        # And no packet anywhere else: what is left over is of the link itself.
        others = {(row["class"], row["country"]) for row in last.classes
                  if (row["class"], row["country"]) not in (("home", "CN"), ("outside", "CN")) and row["class"] != "local"
                  and grown(first.classes, last.classes, row["class"], row["country"])}
        self.assertEqual(others, set(), "classes beside the two that got packets")
        print(f"  {reloads} reloads: {min(installs):.1f} to {max(installs):.1f} ms to swap the kernel's table", flush=True)
        self.assertLess(sorted(installs)[len(installs) // 2], 50, f"ms to swap the kernel's table: {installs}")
        self.assertEqual(site.status()["losses"]["no_region_table_packets"], 0)

    def test_a_broken_policy_keeps_the_old_one_and_is_visible(self):
        site = self.site
        before = site.status()["policy"]
        self.policy_file().write_text(self.policy_file().read_text().replace("by: [remote]", "by: [remotee]"))
        self.reload()
        rejected = wait_for("the record of the rejection", 10,
                            lambda: [r for r in site.journal("policy") if r["event"] == "rejected"])
        self.assertTrue(any("10-dublin.yaml:" in problem for problem in rejected[0]["problems"]), rejected[0])
        now = site.status()["policy"]
        self.assertEqual(now["content_hash"], before["content_hash"], "the old policy stays in force")
        self.assertIn("10-dublin.yaml", str(now), "the status names the file that was refused")
        # And it is still enforced.
        mark = len(site.alerts.findings)
        site.traffic("host", "send", WORLD["CN"][0], SINK, 60 * MIB).wait()
        self.assertTrue(site.wait_alerts(mark, lambda a: a.rule == "bulk-to-outside"))

    def test_after_kill_9_the_kernel_counts_on_and_the_next_daemon_adopts(self):
        site = self.site
        site.traffic("host", "send", WORLD["CN"][0], SINK, 10 * MIB).wait()
        first = site.counters()
        site.stop(site.daemon, signal.SIGKILL)
        site.traffic("host", "send", WORLD["CN"][0], SINK, 30 * MIB).wait()
        site.start_daemon()
        last = site.counters()
        self.balance(last)
        self.agrees_with_link(first, last)
        self.assertGreater(grown(first.classes, last.classes, "outside", "CN"), 30 * MIB,
                           "bytes sent while no daemon ran")

    def windows(self, remote):
        """What the rules hold for a flow to `remote` now, by rule."""
        answer = self.site.tool("explain", "--json", "--socket", self.site.socket, "--flow", HOST4, f"{remote}:{SINK}", "tcp")
        return {rule["id"]: rule.get("value", 0) for rule in json.loads(answer.stdout)["rules"]}

    def saved_after(self, moment):
        when = self.site.status()["windows"]["saved"]
        return when and datetime.fromisoformat(when).timestamp() > moment

    def test_what_a_rule_has_added_up_survives_kill_9(self):
        site = self.site
        config = site.dir / "egresswatch.yaml"
        config.write_text(config.read_text() + "windows_save_interval: 1s\n")
        site.stop(site.daemon)
        site.start_daemon()
        # 64 MiB within an hour fire trickle-to-prefix: 40 before the kill and 30 after it, to two addresses. The sender
        # moves from CPU to CPU: each has a part of the flow.
        network = WORLD["SG"][0].rsplit(".", 1)[0]
        first = site.counters()
        transfer = site.traffic("host", "send", f"{network}.10", SINK, 40 * MIB, rate=20e6)
        cpus, done = itertools.cycle(os.sched_getaffinity(0)), threading.Event()

        def wander():
            while not done.wait(0.1) and transfer.running:
                with contextlib.suppress(ProcessLookupError):
                    os.sched_setaffinity(transfer.process.pid, {next(cpus)})
        wanderer = threading.Thread(target=wander)
        wanderer.start()
        try:
            transfer.wait()
        finally:
            done.set()
            wanderer.join()

        def counted():
            return grown(first.classes, site.counters().classes, "outside", "SG")
        def held():
            return self.windows(f"{network}.10")["trickle-to-prefix"]
        self.assertGreater(counted(), 40 * MIB)
        wait_for("the last drain", 10, lambda: held() >= counted())
        begun = time.time()
        wait_for("the windows to be saved", 15, lambda: self.saved_after(begun))
        site.stop(site.daemon, signal.SIGKILL)
        site.start_daemon()
        self.assertEqual(held(), counted(), "the rules have seen each byte that the kernel counted, once")
        mark = len(site.alerts.findings)
        site.traffic("host", "send", f"{network}.20", SINK, 30 * MIB).wait()
        alert = site.wait_alerts(mark, lambda a: a.rule == "trickle-to-prefix")
        self.assertTrue(alert, "40 MiB before the kill and 30 after it are more than 64")
        found = [r for r in site.journal("finding") if r["rule"]["id"] == "trickle-to-prefix"][-1]
        self.assertGreaterEqual(found["value"], 64 * MIB)
        self.assertLessEqual(found["value"], counted(), "nothing is counted twice")
        years = set(re.findall(r"taken over, saved at (\d+)-", site.daemon_log()))
        self.assertLessEqual(years, {time.strftime("%Y", time.gmtime(begun)), time.strftime("%Y", time.gmtime())})
        self.assertTrue(years, "the log tells when")

    def test_a_clean_stop_leaves_nothing_in_the_kernel(self):
        map_id = self.our_map()
        self.assertTrue(self.programs(map_id), "hooked while it runs")
        self.assertEqual(self.site.stop(self.site.daemon), 0, "exit status")
        self.gone(map_id)
        self.assertTrue(self.site.journal("stop"), "the journal says that it stopped")

    def test_detach_removes_what_a_killed_daemon_left(self):
        map_id = self.our_map()
        self.site.stop(self.site.daemon, signal.SIGKILL)
        self.assertTrue(self.programs(map_id), "still counting")
        self.site.tool("detach", "--pin-dir", self.site.pin_dir)
        self.gone(map_id)
        self.site.tool("detach", "--pin-dir", self.site.pin_dir)  # nothing there: nothing to complain of


class NewInterfaces(SiteCase):
    def test_a_new_interface_that_matches_is_hooked_within_a_second(self):
        site = self.site
        config = site.dir / "egresswatch.yaml"
        config.write_text(config.read_text().replace("interfaces: [eth0]", 'interfaces: [eth0, "late*"]'))
        site.stop(site.daemon)
        site.start_daemon()
        site.run_in("host", "ip", "link", "add", "late0", "type", "veth", "peer", "name", "far0")
        begun = time.monotonic()
        site.run_in("host", "ip", "link", "set", "late0", "up")
        wait_for("the hook on late0", 3, lambda: site.hook("late0"))
        self.assertLess(time.monotonic() - begun, 1.0, "seconds until the new interface was hooked")
        site.run_in("host", "ip", "link", "del", "late0")
        wait_for("late0 to go", 3, lambda: not site.hook("late0"))
        self.assertIsNone(site.daemon.poll(), "the daemon lives on")


class Timeouts(SiteCase):
    settings = "idle_timeout: 4s\nclosed_timeout: 1s\n"

    def ended(self, remote, port, **options):
        """Seconds from the end of the sending to the record of the flow's end."""
        self.site.traffic("host", "send", remote, port, 1 * MIB, **options).wait()
        since = time.monotonic()
        wait_for("the flow's end", 20, lambda: any(r["ended"] and r["flow"]["remote"] == remote
                                                   for r in self.site.journal("flow")))
        return time.monotonic() - since

    def test_the_timeouts_of_the_configuration_end_flows(self):
        """Without them they would be a minute and 5 s."""
        closed = self.ended(WORLD["CN"][0], SINK)
        idle = self.ended(CN_UDP, UDP_SINK, udp=True)
        self.assertLess(closed, 4, "a connection that both ends closed")
        self.assertGreater(idle, 3, "datagrams that ceased")
        self.assertLess(idle, 12)


if __name__ == "__main__":
    main()
