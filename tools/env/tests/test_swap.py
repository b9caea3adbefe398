# SPDX-License-Identifier: GPL-2.0-or-later
"""tools/env/swap with files in place of /sys and /proc, and commands that only say so."""

import os
import subprocess
import tempfile
import unittest
from pathlib import Path

SWAP = Path(__file__).resolve().parents[1] / "swap"
RELEASE = "7.2.12+deb13-amd64"
COMMANDS = {
    "id": "echo 0",
    "uname": f"echo {RELEASE}",
    "modprobe": '[ "$1" = -c ] && echo "options kvm_amd nested=0" || echo "modprobe $*"',
    "rmmod": 'echo "rmmod $*"',
    "insmod": 'echo "insmod ${1##*/} $2"',
    "nm": "echo '                 U _RNvKernelCall'",
}


class Swap(unittest.TestCase):
    def setUp(self):
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.root = Path(directory.name)
        for name in ("bin", "proc", "sys/module/kvm_amd"):
            (self.root / name).mkdir(parents=True)
        for name, body in COMMANDS.items():
            self.command(name, body)
        self.write("sys/module/kvm_amd/refcnt", "0\n")
        self.write("proc/cpuinfo", "flags : fpu svm npt\n")
        self.write("proc/kallsyms", "0 t rust_helper_x\n0 T _RNvKernelCall\n")
        self.write("kvm-amd.ko", f"\0name=kvm_amd\0vermagic={RELEASE} SMP preempt\0license=GPL\0")

    def write(self, name, text):
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def command(self, name, body):
        self.write(f"bin/{name}", f"#!/bin/sh\n{body}\n")
        (self.root / "bin" / name).chmod(0o755)

    def swap(self, *arguments):
        environment = {
            "PATH": f"{self.root}/bin:{os.environ['PATH']}",
            "SYS": f"{self.root}/sys",
            "PROC": f"{self.root}/proc",
        }
        return subprocess.run([SWAP, *arguments], env=environment, capture_output=True, text=True)

    def load(self):
        return self.swap("load", self.root / "kvm-amd.ko")

    def refuses(self, text):
        result = self.load()
        self.assertEqual(result.returncode, 1)
        self.assertIn(text, result.stderr)
        self.assertNotIn("rmmod", result.stdout)
        self.assertNotIn("insmod", result.stdout)

    def test_load(self):
        result = self.load()
        self.assertEqual(result.returncode, 0, result.stderr)
        steps = ["modprobe ccp", "modprobe kvm", "rmmod kvm_amd", "insmod kvm-amd.ko nested=0"]
        self.assertEqual(result.stdout.splitlines()[:4], steps)

    def test_unload(self):
        result = self.swap("unload")
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertEqual(
            result.stdout.splitlines()[:2], ["rmmod kvm_amd", "modprobe kvm_amd nested=0"]
        )

    def test_a_failed_load_brings_the_stock_module_back(self):
        self.command("insmod", "exit 1")
        result = self.load()
        self.assertEqual(result.returncode, 1)
        self.assertEqual(result.stdout.splitlines()[-1], "modprobe kvm_amd nested=0")
        self.assertIn("kvm_amd is back", result.stderr)

    def test_vms_are_running(self):
        self.write("sys/module/kvm_amd/refcnt", "3\n")
        self.write("proc/4711/cmdline", "qemu-system-x86_64\0-m\0002G\0")
        (self.root / "proc/4711/fd").mkdir()
        (self.root / "proc/4711/fd/9").symlink_to("anon_inode:kvm-vm")
        self.refuses("process 4711: qemu-system-x86_64 -m 2G")
        self.refuses("VMs are running")
        self.assertIn("VMs are running", self.swap("unload").stderr)

    def test_a_module_for_another_kernel(self):
        self.command("uname", "echo 6.12.0-1-amd64")
        self.refuses(f"was built for {RELEASE}, the running kernel is 6.12.0-1-amd64")

    def test_a_kernel_without_rust(self):
        self.write("proc/kallsyms", "0 T printk\n")
        self.refuses("without CONFIG_RUST")

    def test_another_compiler(self):
        self.write("proc/kallsyms", "0 t rust_helper_x\n0 T _RNvOtherHash\n")
        self.refuses("built with another rustc")

    def test_no_svm(self):
        self.write("proc/cpuinfo", "flags : fpu vmx\n")
        self.refuses("no SVM")

    def test_not_root(self):
        self.command("id", "echo 1000")
        self.refuses("only root")

    def test_nothing_built(self):
        (self.root / "kvm-amd.ko").unlink()
        self.refuses("run make first")


if __name__ == "__main__":
    unittest.main()
