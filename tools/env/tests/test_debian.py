# SPDX-License-Identifier: GPL-2.0-or-later
import unittest

from env import debian
from env.progress import StepError


def packages(release, version, binary="linux-binary", without=()):
    series = debian.series_of(release)
    names = {
        f"linux-source-{series}",
        f"linux-headers-{release}",
        f"linux-modules-{release}",
        f"linux-base-{release}",
        f"{binary}-{release}",
    }
    return {(name, version) for name in names - set(without)}


ARCHIVE = (
    packages("7.2.9+deb13-amd64", "7.2.9-1~bpo13+1")
    | packages("7.2.12+deb13-amd64", "7.2.12-1~bpo13+1")
    | packages("7.2.12+deb13-rt-amd64", "7.2.12-1~bpo13+1")
    | packages("7.3.4+deb13-amd64", "7.3.4-1~bpo13+1", binary="linux-binary-unsigned")
)


class Choose(unittest.TestCase):
    def test_patch_levels_are_numbers(self):
        chosen = debian.choose("7.2", ARCHIVE)
        self.assertEqual(chosen.release, "7.2.12+deb13-amd64")
        self.assertEqual(chosen.version, "7.2.12-1~bpo13+1")
        self.assertEqual(chosen.localversion, "+deb13-amd64")

    def test_a_release(self):
        self.assertEqual(debian.choose("7.2.9+deb13-amd64", ARCHIVE).version, "7.2.9-1~bpo13+1")

    def test_an_image_that_is_not_signed(self):
        chosen = debian.choose("7.3", ARCHIVE)
        self.assertEqual(chosen.binary, "linux-binary-unsigned-7.3.4+deb13-amd64")

    def test_a_patch_level_that_is_not_complete_yet(self):
        release = "7.2.13+deb13-amd64"
        partial = packages(release, "7.2.13-1~bpo13+1", without=[f"linux-modules-{release}"])
        self.assertEqual(debian.choose("7.2", ARCHIVE | partial).release, "7.2.12+deb13-amd64")

    def test_packages_of_one_version(self):
        mixed = {("linux-source-7.2", "7.2.12-1~bpo13+1")} | packages(
            "7.2.13+deb13-amd64", "7.2.13-1~bpo13+1", without=["linux-source-7.2"]
        )
        with self.assertRaises(StepError):
            debian.choose("7.2", mixed)

    def test_nothing_there(self):
        for kernel in ("7.1", "7.20", "7.2.13+deb13-amd64"):
            with self.subTest(kernel), self.assertRaisesRegex(StepError, "no complete set"):
                debian.choose(kernel, ARCHIVE)


if __name__ == "__main__":
    unittest.main()
