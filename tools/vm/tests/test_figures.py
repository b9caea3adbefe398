# SPDX-License-Identifier: GPL-2.0-or-later
import unittest

from vm import figures

# As the files read on a host with two contexts.
FILES = [
    ("vmstat", "nr_free_pages 400000"),
    ("vmstat", "nr_foll_pin_acquired 1536"),
    ("vmstat", "nr_foll_pin_released 512"),
    ("refcnt", "2"),
    ("misc.current", "sev 2"),
    ("misc.current", "sev_es 0"),
    ("pool", "kind first last free leased dirty leaked"),
    ("pool", "sev 100 509 400 2 7 1"),
    ("pool", "es 1 99 99 0 0 0"),
    ("pool", "flushes 3"),
    ("contexts", " asid handle   pinned     pid command"),
    ("contexts", "  100      1      512      77 test one"),
    ("contexts", "  101      2      512      77 test two"),
]
FIGURES = {
    "pinned_pages": 1024,
    "kvm_amd_refcnt": 2,
    "misc_cgroup_sev": 2,
    "misc_cgroup_sev_es": 0,
    "pool_sev_leased": 2,
    "pool_sev_leaked": 1,
    "pool_es_leased": 0,
    "pool_es_leaked": 0,
    "contexts": 2,
}


class Files(unittest.TestCase):
    def test_every_file(self):
        self.assertEqual(figures.of_files(FILES), FIGURES)

    def test_files_that_only_our_module_has(self):
        stock = [pair for pair in FILES if pair[0] not in ("pool", "contexts")]
        self.assertEqual(
            set(FIGURES) - set(figures.of_files(stock)),
            {name for name in FIGURES if name.startswith(("pool", "contexts"))},
        )

    def test_a_pool_without_the_columns_is_no_silent_pass(self):
        with self.assertRaises(KeyError):
            figures.of_files([("pool", "kind used"), ("pool", "sev 2")])

    def test_firmware(self):
        reply = '{"commands":{"INIT":1},"contexts":2,"asids_bound":1,"dirty_asids":9}'
        self.assertEqual(figures.of_firmware(reply), {"psp_contexts": 2, "psp_asids_bound": 1})


class Leaks(unittest.TestCase):
    def test_back_at_the_baseline(self):
        self.assertEqual(figures.leaks(FIGURES, dict(FIGURES)), [])

    def test_more_than_before(self):
        after = FIGURES | {"pinned_pages": 1536}
        self.assertEqual(figures.leaks(FIGURES, after), ["pinned_pages: 1024 before, 1536 after"])

    def test_less_than_before_is_as_wrong(self):
        self.assertEqual(figures.leaks({"refcnt": 1}, {"refcnt": 0}), ["refcnt: 1 before, 0 after"])

    def test_a_figure_that_appears_must_be_zero(self):
        self.assertEqual(figures.leaks({}, {"misc_sev": 0}), [])
        self.assertEqual(figures.leaks({}, {"misc_sev": 3}), ["misc_sev: 0 before, 3 after"])

    def test_an_unloaded_module_holds_nothing(self):
        self.assertEqual(figures.leaks({"kvm_amd_refcnt": 0}, {}), [])


if __name__ == "__main__":
    unittest.main()
