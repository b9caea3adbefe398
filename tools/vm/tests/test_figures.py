# SPDX-License-Identifier: GPL-2.0-or-later
import unittest

from vm import figures

BEFORE = ["figure pinned_pages 0", "figure kvm_amd_refcnt 0", "figure pool_leased 0"]


class Leaks(unittest.TestCase):
    def test_back_at_the_baseline(self):
        before = figures.of_lines(BEFORE)
        self.assertEqual(figures.leaks(before, figures.of_lines(BEFORE)), [])

    def test_more_than_before(self):
        before = figures.of_lines(BEFORE)
        after = figures.of_lines(["figure pinned_pages 512", *BEFORE[1:]])
        self.assertEqual(figures.leaks(before, after), ["pinned_pages: 0 before, 512 after"])

    def test_less_than_before_is_as_wrong(self):
        self.assertEqual(figures.leaks({"refcnt": 1}, {"refcnt": 0}), ["refcnt: 1 before, 0 after"])

    def test_a_figure_that_appears_must_be_zero(self):
        self.assertEqual(figures.leaks({}, {"misc_sev": 0}), [])
        self.assertEqual(figures.leaks({}, {"misc_sev": 3}), ["misc_sev: 0 before, 3 after"])

    def test_an_unloaded_module_holds_nothing(self):
        self.assertEqual(figures.leaks({"kvm_amd_refcnt": 0}, {}), [])

    def test_dirty_asids_are_no_leak(self):
        self.assertEqual(figures.of_lines(["figure pool_dirty 7", "figure misc_sev 1"]), {"misc_sev": 1})

    def test_firmware(self):
        reply = '{"commands":{"INIT":1},"contexts":2,"contexts_max":100,"asids_bound":1,"dirty_asids":9}'
        self.assertEqual(figures.of_firmware(reply), {"psp_contexts": 2, "psp_asids_bound": 1})


if __name__ == "__main__":
    unittest.main()
