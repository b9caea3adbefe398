# SPDX-License-Identifier: GPL-2.0-or-later
import subprocess
import tempfile
import unittest
from pathlib import Path
from unittest import mock

from env.progress import StepError
from vm import initramfs


class Initramfs(unittest.TestCase):
    def setUp(self):
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.root = Path(directory.name)
        (self.root / "base").write_bytes(b"base!")
        patch = mock.patch.object(initramfs, "base", lambda kernel: self.root / "base")
        patch.start()
        self.addCleanup(patch.stop)

    def unpacked(self, **contents):
        """Writes an initramfs and unpacks what follows the base."""
        contents = {"command": ["true"], "module": "stock"} | contents
        initramfs.write(Path("kernel"), initramfs.Contents(**contents), self.root / "out")
        data = (self.root / "out").read_bytes()
        self.assertEqual(data[:8], b"base!\0\0\0")
        tree = self.root / "tree"
        tree.mkdir()
        cpio = ["cpio", "-i", "-d", "--quiet", "--no-absolute-filenames"]
        subprocess.run(cpio, input=data[8:], cwd=tree, check=True)
        return tree

    def test_the_command_keeps_its_words(self):
        tree = self.unpacked(command=["printf", "%s,", "a b", "$c", "'d"])
        shell = subprocess.run(["sh", tree / "run/command"], capture_output=True, text=True)
        self.assertEqual(shell.stdout, "a b,$c,'d,")

    def test_configuration(self):
        tree = self.unpacked(params=["sev=1", "nested=0"], get=["/tmp/a b", "c"])
        script = '. "$1"; echo "$module|$params|$get"'
        shell = subprocess.run(
            ["sh", "-c", script, "sh", tree / "run/config"], capture_output=True, text=True
        )
        self.assertEqual(shell.stdout, "stock|sev=1 nested=0|'tmp/a b' c\n")

    def test_files_and_directories(self):
        program = self.root / "program"
        program.write_text("#!/bin/sh\n")
        program.chmod(0o755)
        (self.root / "set").mkdir()
        (self.root / "set/one").write_text("1")
        module = self.root / "built.ko"
        module.write_text("ko")
        tree = self.unpacked(put=[program, self.root / "set"], rust_module=module)
        self.assertTrue((tree / "program").stat().st_mode & 0o100)
        self.assertEqual((tree / "set/one").read_text(), "1")
        self.assertEqual((tree / "lib/modules/kvm-amd-rust.ko").read_text(), "ko")

    def test_two_files_of_one_name(self):
        (self.root / "a").mkdir()
        for name in ("x", "a/x"):
            (self.root / name).touch()
        with self.assertRaisesRegex(StepError, "there is a /x already"):
            self.unpacked(put=[self.root / "x", self.root / "a/x"])

    def test_a_missing_file(self):
        with self.assertRaisesRegex(StepError, "no such file"):
            self.unpacked(put=[self.root / "missing"])

    def test_modules_come_with_what_they_need(self):
        (self.root / "modules.dep").write_text(
            "kernel/kvm-amd.ko.xz: kernel/kvm.ko.xz kernel/ccp.ko.xz\n"
            "kernel/kvm.ko.xz:\n"
            "kernel/other.ko.xz: kernel/thing.ko.xz\n"
            "kernel/ccp.ko.xz:\n"
        )
        needed = {"kernel/kvm-amd.ko.xz", "kernel/kvm.ko.xz", "kernel/ccp.ko.xz"}
        self.assertEqual(initramfs.needed_modules(self.root), needed)


if __name__ == "__main__":
    unittest.main()
