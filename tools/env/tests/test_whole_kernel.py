# SPDX-License-Identifier: GPL-2.0-or-later
import dataclasses
import tempfile
import unittest
from pathlib import Path

from env import debug_tree, intree_kernel, whole_kernel
from env.progress import StepError

RECIPES = (debug_tree.RECIPE, intree_kernel.RECIPE)


class Options(unittest.TestCase):
    def test_lines_that_a_configuration_lacks(self):
        fragment = "# comment\nCONFIG_A=y\nCONFIG_B=y\n\nCONFIG_C=m\nCONFIG_D=4\n"
        config = "CONFIG_A=y\n# CONFIG_B is not set\nCONFIG_C=y\nCONFIG_D=4\nCONFIG_E=y\n"
        self.assertEqual(whole_kernel.not_taken(fragment, config), ["CONFIG_B=y", "CONFIG_C=m"])
        self.assertEqual(whole_kernel.not_taken(fragment, fragment), [])

    def test_an_option_with_another_name_later(self):
        fragment = "CONFIG_PROC_SYSCTL=y\nCONFIG_SYSCTL=y\n"
        self.assertEqual(whole_kernel.not_taken(fragment, "CONFIG_SYSCTL=y\n"), [])
        self.assertEqual(len(whole_kernel.not_taken(fragment, "")), 2)

    def test_an_option_that_was_not_taken(self):
        recipe = intree_kernel.RECIPE
        with tempfile.TemporaryDirectory() as name:
            config = Path(name) / ".config"
            config.write_text(recipe.options())
            recipe.check(Path(name))
            off = recipe.options().replace("CONFIG_KVM_AMD_SEV_RUST=y", "")
            config.write_text(off + "# CONFIG_KVM_AMD_SEV_RUST is not set\n")
            with self.assertRaisesRegex(StepError, "not take CONFIG_KVM_AMD_SEV_RUST=y$"):
                recipe.check(Path(name))

    def test_nothing_is_asked_for_twice(self):
        for recipe in RECIPES:
            lines = [text for text in recipe.options().splitlines() if text.startswith("CONFIG")]
            names = [line.split("=")[0] for line in lines]
            self.assertEqual(sorted(names), sorted(set(names)))


class Key(unittest.TestCase):
    def test_what_it_depends_on(self):
        recipe = debug_tree.RECIPE
        with tempfile.NamedTemporaryFile("w", suffix=".config") as fragment:
            others = (
                (dataclasses.replace(recipe, fragment=Path(fragment.name)), "7.2.1-a"),
                (dataclasses.replace(recipe, make_arguments=("ARCH=x86",)), "7.2.1-a"),
                (recipe, "7.2.1-b"),
            )
            keys = [each.key(Path(base)) for each, base in ((recipe, "7.2.1-a"), *others)]
        self.assertEqual(len(set(keys)), len(keys))
        self.assertEqual(recipe.key(Path("7.2.1-a")), keys[0])


class Copy(unittest.TestCase):
    def test_links_stay_links_and_files_are_shared(self):
        with tempfile.TemporaryDirectory() as name:
            base, copy = Path(name) / "base", Path(name) / "copy"
            (base / "src/include").mkdir(parents=True)
            (base / "src/include/file").write_text("text")
            (base / "src/link").symlink_to("include/file")
            whole_kernel.copy_source(base, copy)
            self.assertTrue((copy / "include/file").samefile(base / "src/include/file"))
            self.assertEqual((copy / "link").readlink(), Path("include/file"))


if __name__ == "__main__":
    unittest.main()
