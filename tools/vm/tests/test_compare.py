# SPDX-License-Identifier: GPL-2.0-or-later
import unittest

from vm import compare


class Judge(unittest.TestCase):
    def test_what_passes_on_stock_must_pass_on_ours(self):
        good, bad = compare.judge({"a": 0, "b": 254, "c": 137}, {"a": 0, "b": 0, "c": 0})
        self.assertEqual(good, ["a: pass"])
        self.assertEqual(
            bad, ["b: pass on stock, status 254 on ours", "c: pass on stock, killed on ours"]
        )

    def test_a_skip_is_no_pass(self):
        good, bad = compare.judge({"a": 4, "b": 4, "c": 0}, {"a": 4, "b": 0, "c": 4})
        self.assertEqual(good, ["a: skip"])
        self.assertEqual(bad, ["b: pass on stock, skip on ours", "c: skip on stock, pass on ours"])

    def test_what_fails_on_stock_says_nothing(self):
        self.assertEqual(compare.judge({"a": 254, "b": 0}, {"a": 254, "b": 137}), ([], []))


class Parse(unittest.TestCase):
    def test_only_result_lines(self):
        output = "Random seed\nresult x86/a 0 1.25\nresult b 137 60.01\n"
        self.assertEqual(compare.parse(output), {"x86/a": 0, "b": 137})


if __name__ == "__main__":
    unittest.main()
