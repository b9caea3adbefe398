# SPDX-License-Identifier: GPL-2.0-or-later
"""Unit tests of the comparison of costs."""

import importlib.util
import unittest
from importlib.machinery import SourceFileLoader
from pathlib import Path

SCRIPT = Path(__file__).resolve().parents[1] / "bench/run"
loader = SourceFileLoader("bench", str(SCRIPT))
spec = importlib.util.spec_from_loader("bench", loader)
bench = importlib.util.module_from_spec(spec)
loader.exec_module(bench)

OUTPUT = """vm: something
bench KVM_RUN, halt instructions=1000 allocations=0 kept=0 commands=- wbinvd=0 rmpupdate=0
bench LAUNCH_START instructions=2000 allocations=3 kept=512 commands=ACTIVATE:1,LAUNCH_START:1 wbinvd=2 rmpupdate=1
"""


class Bench(unittest.TestCase):
    def rows(self, run, start, limits=None):
        stock = bench.parse(OUTPUT)
        ours = bench.parse(OUTPUT.replace("=1000", f"={run}").replace("=2000", f"={start}"))
        return bench.pair(stock, ours, limits or {})

    def test_rows_are_found(self):
        costs = bench.parse(OUTPUT)
        self.assertEqual(list(costs), ["KVM_RUN, halt", "LAUNCH_START"])
        self.assertEqual(costs["LAUNCH_START"], bench.Cost(2000, 3, 512, "ACTIVATE:1,LAUNCH_START:1", 2, 1))

    def test_limits_differ_by_path(self):
        self.assertEqual([row.passes for row in self.rows(1004, 2100)], [True, True])
        self.assertEqual([row.passes for row in self.rows(1006, 2111)], [False, False])

    def test_a_row_can_have_its_own_limit(self):
        rows = self.rows(1000, 3000, {"LAUNCH_START": 1.5})
        self.assertEqual([row.passes for row in rows], [True, True])

    def test_missing_and_unknown_rows_are_errors(self):
        stock = bench.parse(OUTPUT)
        with self.assertRaises(ValueError):
            bench.pair(stock, {}, {})
        with self.assertRaises(ValueError):
            bench.pair(stock, stock, {"LAUNCH_STOP": 2.0})

    def test_limits_have_a_reason(self):
        self.assertEqual(bench.read_limits("# x\nA | 1.5 | because\n"), {"A": 1.5})
        with self.assertRaises(ValueError):
            bench.read_limits("A | 1.5 | ")

    def test_the_repository_has_valid_limits(self):
        bench.read_limits((SCRIPT.parent / "limits").read_text())

    def test_the_chart_has_all_rows(self):
        chart = bench.chart(self.rows(1000, 2200))
        self.assertIn(">KVM_RUN, halt<", chart)
        self.assertIn(">1.10<", chart)
        self.assertEqual(chart.count(">512<"), 2)


if __name__ == "__main__":
    unittest.main()
