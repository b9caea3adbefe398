# SPDX-License-Identifier: GPL-2.0-or-later
"""Modules for a kernel tree: our kvm-amd.ko, and those of tests.

SEV_MODULE names one to use instead of ours.
"""

import argparse
import os
import shutil
import sys
from pathlib import Path

from . import cache, intree_kernel, kernel, progress
from .progress import StepError

SOURCES = cache.SRC / "src"
OURS = "kvm-amd"
KEEP = 4  # modules of each name and release: other checkouts use this cache as well


def ensure(name: str) -> Path:
    """Ours for the kernel `name`, a series, a release, `debug` or an in-tree one, whose own it is."""
    if override := os.environ.get("SEV_MODULE"):
        return Path(override)
    tree = kernel.ensure(name)
    if name in intree_kernel.BASES:
        return intree_kernel.module_of(tree)
    return built(tree, OURS, SOURCES, cache.SRC / "uapi")


def ensure_test(name: str, sources: Path) -> Path:
    """A test's for the kernel `name`: that of a directory, whose name it has."""
    return built(kernel.ensure(name), sources.name, sources)


def built(tree: Path, name: str, sources: Path, *others: Path) -> Path:
    """NAME.ko of a directory with a Kbuild, and of other files that it includes."""
    release = (tree / "version").read_text().strip()
    key = cache.key_of(tree.name, Path(__file__).read_bytes(), sources, *others)
    entry = cache.CACHE / "module" / f"{name}-{release}-{key}"

    def build(new: Path) -> None:
        objects = new / "objects"
        options = (f"M={sources}", f"MO={objects}", "modules")
        command = kernel.make_command(tree, *options)
        log = cache.LOGS / f"module-{key}.log"
        progress.run(f"{name} {release}", "building", command, log)
        shutil.copy(objects / f"{name}.ko", new)
        shutil.rmtree(objects)
        log.unlink()

    cache.ensure(entry, build)
    cache.keep_newest(entry.parent, f"{name}-{release}-*", KEEP)
    return entry / f"{name}.ko"


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
