# SPDX-License-Identifier: GPL-2.0-or-later
"""What `run` excuses of the stock module."""

import importlib.machinery
import importlib.util
import unittest
from pathlib import Path

PROGRAM = Path(__file__).resolve().parents[1] / "run"
LOADER = importlib.machinery.SourceFileLoader("selftests_run", str(PROGRAM))
SPEC = importlib.util.spec_from_loader(LOADER.name, LOADER)
assert SPEC
run = importlib.util.module_from_spec(SPEC)
LOADER.exec_module(run)

LEAK = "vm: leak: misc_cgroup_sev: 0 before, 2 after\n"
SLEEPS = "vm: kernel: [ 2877.9] BUG: sleeping function called from invalid context at mm/x.c:1\n"
SUITE = ["sev_nth_alloc"]


class Known(unittest.TestCase):
    def test_what_is_known_of_the_stock_module(self):
        for text in (LEAK, "vm: end of the kernel log:\n" + LEAK, LEAK + SLEEPS, SLEEPS * 4 + LEAK):
            self.assertTrue(run.only_known("stock", SUITE, text), text)

    def test_a_failure_without_a_word_is_none(self):
        self.assertFalse(run.only_known("stock", SUITE, ""))
        self.assertFalse(run.only_known("stock", SUITE, "vm: end of the kernel log:\n"))
        self.assertFalse(run.only_known("rust", SUITE, ""))

    def test_every_leak_has_to_be_there_once(self):
        self.assertFalse(run.only_known("stock", SUITE, SLEEPS))
        self.assertFalse(run.only_known("stock", SUITE, LEAK + LEAK))

    def test_anything_else_is_not_known(self):
        for text in (LEAK + "vm: leak: psp_contexts: 0 before, 1 after\n", LEAK + "vm: timed out\n"):
            self.assertFalse(run.only_known("stock", SUITE, text), text)

    def test_nothing_is_excused_of_ours(self):
        self.assertFalse(run.only_known("rust", SUITE, LEAK))
        self.assertFalse(run.only_known("rust", SUITE, LEAK + SLEEPS))


if __name__ == "__main__":
    unittest.main()
