# SPDX-License-Identifier: GPL-2.0-or-later
import os
import subprocess
import tempfile
import unittest
from pathlib import Path

TOOLCHAIN = Path(__file__).resolve().parents[1] / "toolchain"
CC = "x86_64-linux-gnu-gcc-14 (Debian 14.2.0-19) 14.2.0"
RUSTC = "rustc 1.85.1 (4eb161250 2025-03-15)"
CONFIG = {
    "CONFIG_RUST": "y",
    "CONFIG_RUSTC_VERSION_TEXT": f'"{RUSTC}"',
    "CONFIG_CC_VERSION_TEXT": f'"{CC}"',
}


class Toolchain(unittest.TestCase):
    def run_with(self, rustc=RUSTC, cc=CC, crates=True, **changes):
        with tempfile.TemporaryDirectory() as name:
            root = Path(name)
            for command, text in (("rustc", rustc), ("x86_64-linux-gnu-gcc-14", cc)):
                if text:
                    (root / command).write_text(f"#!/bin/sh\necho '{text}'\n")
                    (root / command).chmod(0o755)
            config = "".join(
                f"{key}={value}\n" for key, value in (CONFIG | changes).items() if value
            )
            (root / "tree/rust").mkdir(parents=True)
            (root / "tree/.config").write_text(config)
            if crates:
                (root / "tree/rust/libkernel.rmeta").touch()
            for tool in ("sed", "tr", "head"):
                (root / tool).symlink_to(f"/usr/bin/{tool}")
            return subprocess.run(
                ["/bin/sh", TOOLCHAIN, root / "tree"],
                env={"PATH": os.fspath(root)},
                capture_output=True,
                text=True,
            )

    def refuses(self, reason, **changes):
        result = self.run_with(**changes)
        self.assertEqual((result.returncode, result.stdout), (1, ""))
        self.assertIn(reason, result.stderr)

    def test_variables(self):
        result = self.run_with()
        self.assertEqual(
            result.stdout, "CC=x86_64-linux-gnu-gcc-14 CROSS_COMPILE=x86_64-linux-gnu-\n"
        )

    def test_clang(self):
        result = self.run_with(CONFIG_CC_IS_CLANG="y", CONFIG_CLANG_VERSION="190107")
        self.assertEqual(result.stdout, "LLVM=-19\n")

    def test_refusals(self):
        self.refuses("without CONFIG_RUST", CONFIG_RUST=None)
        self.refuses("has no Rust crates", crates=False)
        self.refuses("this machine has 'rustc 1.90.0", rustc="rustc 1.90.0 (1159e78c4 2025-09-14)")
        self.refuses("rustc is not installed", rustc=None)
        self.refuses("this machine has 'gcc 15'", cc="gcc 15")
        self.refuses("is not installed", cc=None)


if __name__ == "__main__":
    unittest.main()
