# SPDX-License-Identifier: GPL-2.0-or-later
import tempfile
import unittest
from pathlib import Path

from env import debug_tree, kernel


class Fragment(unittest.TestCase):
    def test_lines_that_a_configuration_lacks(self):
        fragment = "# comment\nCONFIG_A=y\nCONFIG_B=y\n\nCONFIG_C=m\nCONFIG_D=4\n"
        config = "CONFIG_A=y\n# CONFIG_B is not set\nCONFIG_C=y\nCONFIG_D=4\nCONFIG_E=y\n"
        self.assertEqual(debug_tree.not_taken(fragment, config), ["CONFIG_B=y", "CONFIG_C=m"])
        self.assertEqual(debug_tree.not_taken(fragment, fragment), [])

    def test_nothing_is_asked_for_twice(self):
        text = debug_tree.FRAGMENT.read_text()
        names = [line.split("=")[0] for line in text.splitlines() if line.startswith("CONFIG")]
        self.assertEqual(sorted(names), sorted(set(names)))


class Compilers(unittest.TestCase):
    def test_they_are_those_of_the_tree(self):
        for name, wanted in (("debug-7.2.12-key", "LLVM=-19"), ("7.2.12-key", "gcc")):
            with self.subTest(name), tempfile.TemporaryDirectory() as directory:
                tree = Path(directory) / name
                tree.mkdir()
                link = Path(directory) / "link"
                link.symlink_to(tree.name)
                for path in (tree, link):
                    command = kernel.make_command(path, "modules")
                    self.assertTrue([word for word in command if wanted in str(word)], command)
                    self.assertEqual(command[-1], "modules")


if __name__ == "__main__":
    unittest.main()
