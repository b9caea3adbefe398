# SPDX-License-Identifier: GPL-2.0-or-later
"""The patched QEMU. SEV_QEMU names a binary to use instead of building one."""

import os
import subprocess
import sys
from pathlib import Path

from . import cache
from .progress import StepError

SCRIPT = cache.SRC / "tools/qemu/build"


def ensure() -> Path:
    """Path of the binary; the series' own script builds it if needed, showing progress."""
    if override := os.environ.get("SEV_QEMU"):
        return Path(override)
    with subprocess.Popen([SCRIPT], stdout=subprocess.PIPE, text=True) as build:
        last = ""
        assert build.stdout
        for line in build.stdout:
            if last:
                print(last, file=sys.stderr, flush=True)
            last = line.rstrip("\n")
    binary = Path(last)
    if build.returncode != 0 or not binary.is_file():
        raise StepError(f"tools/qemu/build failed: {last}")
    return binary
