# SPDX-License-Identifier: GPL-2.0-or-later
import tempfile
import unittest
from pathlib import Path

from env import intree
from env.progress import StepError


class Drop(unittest.TestCase):
    def setUp(self) -> None:
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.source = Path(directory.name)
        (self.source / intree.KVM / "svm").mkdir(parents=True)
        (self.source / intree.KVM / "svm/sev.c").touch()
        (self.source / intree.HEADER).parent.mkdir(parents=True)
        self.write("Makefile", f"kvm-amd-y += svm/svm.o\n{intree.OBJECT}obj-m += kvm-amd.o\n")
        self.write("Kconfig", f"config KVM_AMD_SEV\n\n{intree.OPTION}\tbool\n")

    def write(self, name: str, text: str) -> None:
        (self.source / intree.KVM / name).write_text(text)

    def read(self, name: str) -> str:
        return (self.source / intree.KVM / name).read_text()

    def test_files(self) -> None:
        intree.drop(self.source)
        for name in ("main.rs", "sev.mk", "ffi/bindgen.mk", "Kconfig"):
            self.assertTrue((self.source / intree.HERE / name).is_file(), name)
        self.assertTrue((self.source / intree.HEADER).is_file())
        self.assertFalse((self.source / intree.HERE / "Kbuild").exists())

    def test_edits_keep_the_rest(self) -> None:
        before = self.read("Makefile")
        intree.drop(self.source)
        after = self.read("Makefile")
        self.assertEqual(after.replace(intree.IN_MAKEFILE, intree.OBJECT), before)
        self.assertIn(f'source "{intree.HERE}/Kconfig"\n\nconfig KVM_IOAPIC\n', self.read("Kconfig"))

    def test_again(self) -> None:
        intree.drop(self.source)
        before = (self.read("Makefile"), self.read("Kconfig"))
        (self.source / intree.HERE / "gone.rs").touch()
        intree.drop(self.source)
        self.assertEqual((self.read("Makefile"), self.read("Kconfig")), before)
        self.assertFalse((self.source / intree.HERE / "gone.rs").exists())

    def test_all_or_nothing(self) -> None:
        self.write("Kconfig", "config KVM_AMD_SEV\n")
        before = self.read("Makefile")
        with self.assertRaisesRegex(StepError, "KVM_IOAPIC"):
            intree.drop(self.source)
        self.assertEqual(self.read("Makefile"), before)
        self.assertFalse((self.source / intree.HERE).exists())

    def test_no_kernel(self) -> None:
        with self.assertRaisesRegex(StepError, "sev.c"):
            intree.drop(self.source / "elsewhere")


if __name__ == "__main__":
    unittest.main()
