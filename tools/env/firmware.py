# SPDX-License-Identifier: GPL-2.0-or-later
"""The PSP firmware library. SEV_FIRMWARE names one to use instead; `builtin`: QEMU's stub."""

import os
from pathlib import Path

from . import rust


def ensure() -> Path | None:
    if override := os.environ.get("SEV_FIRMWARE"):
        return None if override == "builtin" else Path(override)
    return rust.firmware()
