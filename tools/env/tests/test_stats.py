# SPDX-License-Identifier: GPL-2.0-or-later
"""Counting code."""

import unittest

from env.stats import Count, count, table

FILE = """\
// SPDX
//! About it.

/// unsafe { not this }
unsafe fn f() {
    // SAFETY: as said
    unsafe { g() };
    let x = unsafe { h() };
}

unsafe impl Send for X {}

#[cfg(any(test, CONFIG_KUNIT))]
mod tests {
    fn t() { unsafe { g() } }
}
"""


class Stats(unittest.TestCase):
    def test_what_is_in_a_file(self):
        expected = Count(files=1, lines=12, documentation=4, tests=4, blocks=2, contracts=2)
        self.assertEqual(count(FILE), expected)

    def test_all_is_the_sum(self):
        lines = table({"a": count(FILE), "b": count(FILE)})
        self.assertEqual(lines[-1].split(), ["all", "2", "24", "8", "8", "4", "4"])


if __name__ == "__main__":
    unittest.main()
