# SPDX-License-Identifier: GPL-2.0-or-later
import os
import tempfile
import time
import unittest
from pathlib import Path
from unittest import mock

from env import cache


class Cache(unittest.TestCase):
    def setUp(self):
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.root = Path(directory.name)
        patch = mock.patch.object(cache, "CACHE", self.root)
        patch.start()
        self.addCleanup(patch.stop)

    def test_an_entry_is_built_once(self):
        build = mock.Mock()
        for _ in range(2):
            cache.ensure(self.root / "a/b", build)
        build.assert_called_once()

    def test_what_an_interrupted_build_left_is_removed(self):
        def interrupted(new):
            (new / "half").touch()
            raise KeyboardInterrupt

        entry = self.root / "entry"
        with self.assertRaises(KeyboardInterrupt):
            cache.ensure(entry, interrupted)
        self.assertFalse(cache.is_complete(entry))
        cache.ensure(entry, lambda new: (new / "whole").touch())
        self.assertEqual({p.name for p in entry.iterdir()}, {"whole", "complete"})

    def test_old_entries_are_removed(self):
        now = time.time()
        ages = {"x-1": 5, "x-2": 4, "x-3": 0.5, "x-4": 3, "y-1": 9}  # days
        for name, age in ages.items():
            (self.root / name).mkdir()
            os.utime(self.root / name, (now, now - age * cache.DAY))
        cache.keep_newest(self.root, "x-*", 2)
        self.assertEqual({p.name for p in self.root.iterdir()}, {"x-3", "x-4", "y-1"})

    def test_used_entries_are_not_old(self):
        for name in ("x-1", "x-2"):
            cache.ensure(self.root / name, lambda new: None)
            os.utime(self.root / name, (0, 0))
        cache.ensure(self.root / "x-1", mock.Mock())
        cache.keep_newest(self.root, "x-*", 0)
        self.assertEqual([p.name for p in self.root.glob("x-*")], ["x-1"])

    def test_a_link_follows_the_newest_entry(self):
        for name in ("one", "two"):
            (self.root / name).mkdir()
            cache.point(self.root / "current", self.root / name)
        self.assertEqual(os.readlink(self.root / "current"), "two")


class Key(unittest.TestCase):
    def test_parts_do_not_run_into_each_other(self):
        self.assertNotEqual(cache.key_of("ab", "c"), cache.key_of("a", "bc"))

    def test_names_and_contents_of_files_count(self):
        with tempfile.TemporaryDirectory() as name:
            file = Path(name) / "a"
            file.write_text("1")
            first = cache.key_of(Path(name))
            file.write_text("2")
            second = cache.key_of(Path(name))
            file.rename(file.with_name("b"))
            third = cache.key_of(Path(name))
        self.assertEqual(len({first, second, third}), 3)


if __name__ == "__main__":
    unittest.main()
