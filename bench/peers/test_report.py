"""What a report says, as table, goals and picture: `python3 -m unittest discover -s bench/peers`."""

import os
import sys
import unittest
import xml.etree.ElementTree as xml

sys.path.insert(0, os.path.dirname(os.path.realpath(__file__)))

import figures
from plot import OTHERS, plot
from table import table

HEAD = {
    "machine": {"cpu": "A <fast> CPU", "cores": 2, "memory_gb": 25, "kernel": "6.18"}, "load_before": 0.1, "repetitions": 2, "seconds": 1
}  # fmt: skip


def drain(*seconds):
    return [{"seconds": one, "first_to_last": one, "sender_cpu": 0.1, "receiver_cpu": 0.2, "bytes": 720_000_000} for one in seconds]


class Report(unittest.TestCase):
    report = {
        "drain": HEAD
        | {"results": {"2.4 MB": {
            "ppu-uringd uring": drain(0.1, 0.2, 0.9), "ppu-uringd syscall": drain(0.2), "ppu-uringd uring, verify off": drain(0.1),
            "rsync": drain(1.0), "rsync x 2": drain(0.6), "lsyncd": drain(2.0), "sendfile, dropped": drain(0.3),
        }}},
        "live": HEAD
        | {"rates": {"2.4 MB": 100}, "seconds": 1, "results": {"2.4 MB": {
            "ppu-uringd uring": [{"micros": [1000.0] * 99 + [50_000.0], "sender_cpu_per_gb": 0.1, "receiver_cpu_per_gb": 0.2}],
            "local read+write+rename": [{"micros": [800.0] * 100, "sender_cpu_per_gb": 0.0, "receiver_cpu_per_gb": 0.2}],
        }}},
        "beside": HEAD
        | {"hz": 500, "size": 100_000, "seconds": 1, "files": 10, "results": {
            "nothing": [{"micros": [100.0] * 100}], "a purge": [{"micros": [150.0] * 100, "left": 10}],
        }},
        "scale": HEAD
        | {
            "few": [{"files": 1000, "seconds": 0.1, "sender_cpu": 0.02, "receiver_cpu": 0.08}] * 4, "pending": 1_000_000, "size": 1000,
            "many": {"files": 1_000_000, "seconds": 105.0, "sender_cpu": 20.0, "receiver_cpu": 100.0}, "peak_bytes": [100_000_000, 400_000_000],
        },
    }  # fmt: skip

    def test_goals_are_held_against_medians(self):
        goals = {what: (value, met) for what, _, value, met in figures.goals(self.report)}
        self.assertEqual(goals["drain 2.4 MB, first to last, × one rsync"], ("5.00", True))
        self.assertEqual(goals["drain 2.4 MB, first to last, × rsync x 2"], ("3.00", True))
        self.assertEqual(goals["drain 2.4 MB, io_uring × system calls"], ("1.00", True))
        self.assertEqual(goals["live 100/s × 2.4 MB, two storages writing, p50 × local loop"], ("1.25", True))
        self.assertEqual(goals["live 100/s × 2.4 MB, two storages writing, p99"], ("50.00 ms", False))
        self.assertEqual(goals["landing's p99 beside a purge, × beside nothing"], ("1.50", False))
        self.assertEqual(goals["CPU of a file, 1,000,000 × 1,000"], ("1.20", False))
        self.assertEqual(goals["time of a file, 1,000,000 × 1,000"], ("1.05", True))
        self.assertEqual(goals["PPU's memory with 1,000,000 pending"], ("400 MB", False))

    def test_hidra_has_a_goal_only_where_it_was_measured(self):
        live = self.report["live"]
        self.assertFalse(any("HiDRA" in goal[0] for goal in figures.goals(self.report)))
        hidra = {"HiDRA": [{"micros": [4000.0] * 98 + [600_000.0] * 2, "sender_cpu_per_gb": 1.0, "receiver_cpu_per_gb": 1.0}]}
        report = {"live": live | {"results": {"2.4 MB": live["results"]["2.4 MB"] | hidra}}}
        goals = {what: (goal, value, met) for what, goal, value, met in figures.goals(report)}
        self.assertEqual(goals["live 100/s × 2.4 MB, two storages writing, p99, HiDRA's × ours"], ("≥ 10", "12.00", True))
        self.assertIn("| HiDRA ", table(report))
        self.assertIn(f'fill="{OTHERS}"/>', plot(report).split(">HiDRA<")[1])

    def test_a_report_may_have_any_parts(self):
        for part in [[], *([one] for one in self.report), list(self.report)]:
            report = {name: self.report[name] for name in part}
            text = table(report)
            for name in part:
                self.assertIn(f"## {name}", text)

    def test_the_picture_is_well_formed(self):
        root = xml.fromstring(plot(self.report))
        words = [text.text for text in root.iter("{http://www.w3.org/2000/svg}text")]
        self.assertIn("drain of 300 × 2.4 MB, GB/s", words)
        self.assertTrue(any("A <fast> CPU" in text for text in words))
        height = float(root.get("height"))
        self.assertTrue(all(float(text.get("y")) <= height for text in root.iter("{http://www.w3.org/2000/svg}text")))
