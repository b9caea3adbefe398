# SPDX-License-Identifier: GPL-2.0-or-later
"""Our kvm-amd.ko for a kernel tree. SEV_MODULE names a module to use instead."""

import os
import shutil
from pathlib import Path

from . import cache, kernel, kernel_tree, progress
from .progress import StepError

KEEP = 4


def ensure(series: str) -> Path:
    if override := os.environ.get("SEV_MODULE"):
        return Path(override)
    sources = cache.SRC / "src"
    if not (sources / "Kbuild").exists():
        raise StepError("src/Kbuild is missing")
    tree = kernel.ensure(series)
    key = cache.key_of(tree.name, sources, cache.SRC / "uapi")
    entry = cache.CACHE / "module" / f"{series}-{key}"

    def build(new: Path) -> None:
        objects = new / "objects"
        command = kernel_tree.make_command(tree / "src", tree / "build", f"M={sources}", f"MO={objects}")
        log = cache.LOGS / f"module-{series}.log"
        progress.run(f"module {series}", "building", [*command, "modules"], log)
        shutil.copy(objects / "kvm-amd.ko", new / "kvm-amd.ko")
        shutil.rmtree(objects)

    cache.ensure(entry, build)
    cache.keep_newest(entry.parent, f"{series}-*", KEEP)
    return entry / "kvm-amd.ko"
