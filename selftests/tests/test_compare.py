# SPDX-License-Identifier: GPL-2.0-or-later
"""python3 -m unittest selftests/tests/test_compare.py"""

import unittest
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path

path = Path(__file__).parents[1] / "compare"
loader = SourceFileLoader("compare", str(path))
tool = module_from_spec(spec_from_loader("compare", loader))
loader.exec_module(tool)


def output(*lines: str) -> dict[str, str]:
    return tool.cases("KTAP version 1\n" + "\n".join(f"# case {line}" for line in lines))


class Compare(unittest.TestCase):
    def check(self, stock, ours, allowed="", kernel="7.2", deliberate=0, wrong=0, same=0):
        result = tool.compare(stock, ours, tool.differences(allowed, kernel))
        self.assertEqual((len(result[0]), len(result[1]), result[2]), (deliberate, wrong, same), result)

    def test_same(self):
        self.check(output("s.t.a ret=0", "s.t.b value=3"), output("s.t.a ret=0", "s.t.b value=3"), same=2)

    def test_different(self):
        self.check(output("s.t.a ret=0"), output("s.t.a ret=-1"), wrong=1)

    def test_missing_on_either_side(self):
        a, b = "s.t.a ret=0", "s.t.b ret=0"
        self.check(output(a, b), output(a), same=1, wrong=1)
        self.check(output(a), output(a, b), same=1, wrong=1)

    def test_deliberate(self):
        stock, ours = output("s.t.a ret=0"), output("s.t.a ret=-1")
        self.check(stock, ours, "s.t.a | ret=0 | ret=-1 | better", deliberate=1)
        self.check(stock, ours, "s.t.a | ret=0 | ret=-2 | better", wrong=1)

    def test_no_difference_any_more(self):
        entry = "s.t.a | ret=0 | ret=-1 | better | before 7.10"
        stock, ours = output("s.t.a ret=0"), output("s.t.a ret=-1")
        self.check(stock, ours, entry, kernel="7.9", deliberate=1)
        self.check(stock, ours, entry, kernel="7.10", wrong=1)
        self.check(ours, ours, entry, kernel="7.10", same=1)
        self.check(ours, ours, entry, kernel="7.9", same=1, wrong=1)

    def test_deliberately_missing(self):
        a, b = "s.t.a ret=0", "s.t.b ret=0"
        self.check(output(a), output(a, b), "s.t.b | * | ret=0 | more", deliberate=1, same=1)

    def test_stale_entries(self):
        same = output("s.t.a ret=0")
        self.check(same, same, "s.t.a | ret=0 | ret=-1 | once", same=1, wrong=1)
        self.check(same, same, "s.t.gone | ret=0 | ret=-1 | once", same=1, wrong=1)
        self.check(same, same, "other.t.a | ret=0 | ret=-1 | not run", same=1)

    def test_order(self):
        a, b = "s.t.a ret=0", "s.t.b ret=0"
        self.check(output(a, b), output(b, a), same=2, wrong=1)

    def test_repeated_name(self):
        self.check(output("s.t.a 1", "s.t.a 2"), output("s.t.a 1", "s.t.a 3"), same=1, wrong=1)

    def test_nothing(self):
        self.check({}, {}, wrong=1)

    def test_bad_list(self):
        for text in ("s.t.a | ret=0 | ret=-1", "s.t.a | | b | c", "a|b|c|d\na|b|c|d", "a|b|c|d|later"):
            with self.assertRaises(ValueError):
                tool.differences(text, "7.2")


if __name__ == "__main__":
    unittest.main()
