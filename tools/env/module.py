# SPDX-License-Identifier: GPL-2.0-or-later
"""Our kvm-amd.ko for a kernel tree. SEV_MODULE names a module to use instead."""

import argparse
import os
import shutil
import sys
from pathlib import Path

from . import cache, intree_kernel, kernel, progress
from .progress import StepError

SOURCES = cache.SRC / "src"
KEEP = 4  # modules of each release: other checkouts use this cache as well


def ensure(name: str) -> Path:
    """The module for the kernel `name`, a series, a release, `debug` or `intree`, whose own it is."""
    if override := os.environ.get("SEV_MODULE"):
        return Path(override)
    tree = kernel.ensure(name)
    if name == intree_kernel.NAME:
        return intree_kernel.module_of(tree)
    release = (tree / "version").read_text().strip()
    key = cache.key_of(tree.name, Path(__file__).read_bytes(), SOURCES, cache.SRC / "uapi")
    entry = cache.CACHE / "module" / f"{release}-{key}"

    def build(new: Path) -> None:
        objects = new / "objects"
        options = (f"M={SOURCES}", f"MO={objects}", "modules")
        command = kernel.make_command(tree, *options)
        log = cache.LOGS / f"module-{key}.log"
        progress.run(f"module {release}", "building", command, log)
        shutil.copy(objects / "kvm-amd.ko", new / "kvm-amd.ko")
        shutil.rmtree(objects)
        log.unlink()

    cache.ensure(entry, build)
    cache.keep_newest(entry.parent, f"{release}-*", KEEP)
    return entry / "kvm-amd.ko"


def main() -> int:
    parser = argparse.ArgumentParser(prog="tools/env/module", description="Build kvm-amd.ko.")
    parser.add_argument("kernel", help="a series (7.2), a release (7.2.12+deb13-amd64), or debug")
    parser.add_argument("--copy", type=Path, metavar="FILE", help="copy the module there")
    arguments = parser.parse_args()
    try:
        built = ensure(arguments.kernel)
    except StepError as error:
        print(f"module: {error}", file=sys.stderr)
        return 1
    if arguments.copy:
        arguments.copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(built, arguments.copy)
    print(arguments.copy or built)
    return 0
