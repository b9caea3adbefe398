# SPDX-License-Identifier: GPL-2.0-or-later
"""The kernels with SEV in Rust in their source: are built and boot a VM, hence not discovered."""

import re
import subprocess
import unittest
from pathlib import Path

from env import cache, intree, intree_kernel, kernel, rust

RUN = Path(__file__).resolve().parents[1] / "run"
HEADER = cache.SRC / "uapi/asm" / intree.HEADER.name


class InTree(unittest.TestCase):
    def test_what_kvm_amd_was_linked_of(self):
        for name in intree_kernel.BASES:
            with self.subTest(name):
                objects = (kernel.ensure(name) / "kvm-amd.mod").read_text().split()
                names = [str(Path(name).relative_to(intree.KVM)) for name in objects]
                self.assertIn("svm/svm.o", names)
                self.assertIn("svm/sev/main.o", names)
                self.assertNotIn("svm/sev.o", names)

    def test_they_boot_with_their_own_module(self):
        version = re.search(r"#define KVM_SEV_IMPL_VERSION\s+(\d+)", HEADER.read_text())
        for name, series in intree_kernel.BASES.items():
            with self.subTest(name):
                run = subprocess.run(
                    [RUN, "--kernel", name, "--module", "stock"]
                    + ["--put", rust.programs() / "sev-demo"]
                    + ["--", "sh", "-c", "cat /proc/version && /sev-demo"],
                    capture_output=True,
                    text=True,
                )
                self.assertEqual(run.returncode, 0, run.stdout + run.stderr)
                release = rf"{re.escape(series)}\.\S+\+intree"
                self.assertRegex(run.stdout, rf"(?m)^Linux version {release} ")
                self.assertIn(f"SEV in Rust, interface version {version[1]}\n", run.stdout)
                self.assertRegex(run.stdout, r"(?m)^\d+ passed, 0 failed$")


if __name__ == "__main__":
    unittest.main()
