# SPDX-License-Identifier: GPL-2.0-or-later
"""The PSP firmware library. SEV_FIRMWARE names one to use instead."""

import os
from pathlib import Path

from . import rust


def ensure() -> Path:
    if override := os.environ.get("SEV_FIRMWARE"):
        return Path(override)
    return rust.firmware()
