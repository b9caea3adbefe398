# SPDX-License-Identifier: GPL-2.0-or-later
import tempfile
import unittest
from pathlib import Path

from env import kernel


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
