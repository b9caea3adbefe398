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
bench KVM_RUN, halt ipis=0 locked=0/0 locks=0
bench LAUNCH_START ipis=1 locked=1/2 locks=2
waits GUEST_STATUS needs=1 behind DF_FLUSH=1
waits close of a VM needs=0 behind DF_FLUSH=0
"""


class Bench(unittest.TestCase):
    def rows(self, run, start, limits=None):
        stock = bench.parse(OUTPUT)
        ours = bench.parse(OUTPUT.replace("=1000", f"={run}").replace("=2000", f"={start}"))
        return bench.pair(stock, ours, limits or {})

    def compare(self, *changes):
        return bench.pair(bench.parse(OUTPUT), bench.parse(OUTPUT.replace(*changes)), {})

    def test_rows_are_found(self):
        measured = bench.parse(OUTPUT)
        costs = measured.costs
        self.assertEqual(list(costs), ["KVM_RUN, halt", "LAUNCH_START"])
        self.assertEqual(costs["LAUNCH_START"], bench.Cost(2000, 3, 512, "ACTIVATE:1,LAUNCH_START:1", 2, 1))
        self.assertEqual(measured.disturbances["LAUNCH_START"], bench.Disturbance(1, 1, 2, 2))
        self.assertEqual(
            measured.waits,
            {("GUEST_STATUS", "DF_FLUSH", True): True, ("close of a VM", "DF_FLUSH", False): False},
        )

    def test_limits_differ_by_path(self):
        self.assertEqual([row.passes for row in self.rows(1004, 2100)], [True, True])
        self.assertEqual([row.passes for row in self.rows(1006, 2111)], [False, False])

    def test_a_row_can_have_its_own_limit(self):
        rows = self.rows(1000, 3000, {"LAUNCH_START": 1.5})
        self.assertEqual([row.passes for row in rows], [True, True])

    def test_missing_and_unknown_rows_are_errors(self):
        stock = bench.parse(OUTPUT)
        with self.assertRaises(ValueError):
            bench.pair(stock, bench.parse(""), {})
        with self.assertRaises(ValueError):
            bench.pair(stock, stock, {"LAUNCH_STOP": 2.0})

    def test_rows_must_have_all_figures(self):
        stock = bench.parse(OUTPUT)
        partial = bench.parse(OUTPUT.replace("bench LAUNCH_START ipis", "bench LAUNCH ipis"))
        with self.assertRaises(ValueError):
            bench.pair(stock, partial, {})
        with self.assertRaises(ValueError):
            bench.pair_waits(stock, bench.parse(OUTPUT.replace("waits close", "waits opening")))

    def test_more_interrupts_and_locks_are_refused(self):
        def passes(figures):
            return self.compare("ipis=1 locked=1/2 locks=2", figures)[1].passes

        self.assertTrue(passes("ipis=1 locked=1/2 locks=2"))
        self.assertTrue(passes("ipis=0 locked=2/4 locks=1"))
        self.assertFalse(passes("ipis=2 locked=1/2 locks=2"))
        self.assertFalse(passes("ipis=1 locked=2/2 locks=2"))
        self.assertFalse(passes("ipis=1 locked=1/2 locks=3"))

    def test_nobody_waits_but_for_the_firmware(self):
        def passes(*changes):
            ours = OUTPUT
            for change in changes:
                ours = ours.replace(*change)
            waits = bench.pair_waits(bench.parse(OUTPUT), bench.parse(ours))
            return [wait.passes for wait in waits]

        close, status = "VM needs=0 behind DF_FLUSH=", "needs=1 behind DF_FLUSH="
        self.assertEqual(passes(), [True, True])
        self.assertEqual(passes((f"{close}0", f"{close}1")), [True, False])
        self.assertEqual(passes((f"{status}1", f"{status}0")), [False, True])

    def test_shares_are_in_words(self):
        shares = [bench.Disturbance(0, *counts, 0).share for counts in ((0, 0), (0, 2), (1, 2), (2, 2))]
        self.assertEqual(shares, ["-", "none", "1 of 2", "all"])

    def test_limits_have_a_reason(self):
        self.assertEqual(bench.read_limits("# x\nA | 1.5 | because\n"), {"A": 1.5})
        with self.assertRaises(ValueError):
            bench.read_limits("A | 1.5 | ")

    def test_the_repository_has_valid_limits(self):
        bench.read_limits((SCRIPT.parent / "limits").read_text())

    def test_the_chart_has_all_rows(self):
        measured = bench.parse(OUTPUT)
        chart = bench.chart(self.rows(1000, 2200), bench.pair_waits(measured, measured))
        self.assertIn(">KVM_RUN, halt<", chart)
        self.assertIn(">1.10<", chart)
        self.assertEqual(chart.count(">512<"), 2)
        self.assertEqual(chart.count(">1 of 2<"), 2)
        self.assertIn(">close of a VM<", chart)
        self.assertEqual(chart.count(">waits<"), 2)

    def test_the_tables_have_all_rows(self):
        measured = bench.parse(OUTPUT)
        table = bench.table(self.rows(1000, 2200))
        self.assertIn("above 1.05", table)
        self.assertIn("1 of 2", table)
        waits = bench.waits_table(bench.pair_waits(measured, measured))
        self.assertRegex(waits, "GUEST_STATUS +waits waits")
        self.assertRegex(waits, "close of a VM +- +-")


if __name__ == "__main__":
    unittest.main()
