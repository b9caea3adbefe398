# SPDX-License-Identifier: GPL-2.0-or-later
import fcntl
import os
import tempfile
import unittest
from pathlib import Path
from unittest import mock

from env import cache, target


class Seed(unittest.TestCase):
    def setUp(self):
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        root = Path(directory.name)
        for manifest, text in (
            ("tools/Cargo.toml", '[workspace]\nmembers = ["psp"]\n'),
            ("tools/psp/Cargo.toml", '[package]\nname = "sevfw"\n'),
        ):
            (root / "src" / manifest).parent.mkdir(parents=True, exist_ok=True)
            (root / "src" / manifest).write_text(text)
        for name, path in (("SRC", root / "src"), ("CACHE", root / "cache")):
            patch = mock.patch.object(cache, name, path)
            patch.start()
            self.addCleanup(patch.stop)
        self.profile = root / "cache/target/other/test/release"
        for file in (
            ".cargo-lock",
            ".fingerprint/syn-12ab/lib-syn",
            ".fingerprint/serde-34cd/run-build-script",
            ".fingerprint/sevfw-56ef/lib-sevfw",
            "build/serde-34cd/output",
            "deps/libsyn-12ab.rlib",
            "deps/syn-12ab.d",
            "deps/libsevfw-56ef.rlib",
            "deps/launch-78ff",
            "sevfw-ca",
        ):
            (self.profile / file).parent.mkdir(parents=True, exist_ok=True)
            (self.profile / file).touch()

    def found(self, kind="test"):
        new = target.ensure(kind)
        return sorted(str(p.relative_to(new)) for p in new.rglob("*") if p.is_file())

    def test_dependencies_and_nothing_else(self):
        expected = [
            "release/.fingerprint/serde-34cd/run-build-script",
            "release/.fingerprint/syn-12ab/lib-syn",
            "release/build/serde-34cd/output",
            "release/deps/libsyn-12ab.rlib",
            "release/deps/syn-12ab.d",
        ]
        self.assertEqual(self.found(), expected)

    def test_time_stamps_stay(self):
        stamp = (self.profile / "deps/syn-12ab.d").stat().st_mtime_ns
        self.assertEqual((target.ensure("test") / "release/deps/syn-12ab.d").stat().st_mtime_ns, stamp)

    def test_nothing_while_cargo_is_at_it(self):
        with (self.profile / ".cargo-lock").open() as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            self.assertEqual(self.found(), [])

    def test_an_older_one_while_cargo_is_at_it(self):
        older = cache.CACHE / "target/older/test"
        for part in (".fingerprint", "deps"):
            (older / "release" / part).mkdir(parents=True)
        (older / "release/.cargo-lock").touch()
        os.utime(older, (0, 0))
        with (self.profile / ".cargo-lock").open() as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            self.assertTrue((target.ensure("test") / "release/.fingerprint").exists())

    def test_kinds_have_nothing_in_common(self):
        self.assertEqual(self.found("static"), [])


if __name__ == "__main__":
    unittest.main()
