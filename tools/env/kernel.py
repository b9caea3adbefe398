# SPDX-License-Identifier: GPL-2.0-or-later
"""Kernel trees, one for each patch level and version of the scripts that make it.

/cache/kernel/SERIES (7.2, 7.3, debug, intree, intree-7.3) names the tree that was made last:
    src/      source (KSRC), without bulk that neither modules nor selftests need
    build/    build tree (KOUT), modules_prepare done: the modules built against it load
              on the stock image
    image/    vmlinuz and lib/modules/RELEASE, from the stock packages (of debug and
              intree: built)
    version   RELEASE, e.g. 7.2.12+deb13-amd64
Of intree kernels there is no src and build, as nothing is built against it.
"""

import argparse
import re
import sys
from pathlib import Path

from . import cache, debian, debug_tree, intree_kernel, kernel_tree, progress
from .progress import StepError

KERNELS = cache.CACHE / "kernel"
SERIES = ("7.2", "7.3")
# Of what decides how a tree looks.
SCRIPT_KEY = cache.key_of(Path(kernel_tree.__file__).read_bytes())
KEEP = 1  # trees of each series: other checkouts use this cache as well


def release_number(entry: Path) -> tuple[int, ...]:
    """7.2.12, of 7.2.12+deb13-amd64-KEY."""
    return tuple(int(number) for number in re.split(r"[^\d.]", entry.name)[0].split("."))


def series_of(kernel: str) -> str:
    """The series that a kernel is of, also one that is built here."""
    bases = {debug_tree.NAME: debug_tree.BASE, **intree_kernel.BASES}
    return bases.get(kernel) or debian.series_of(kernel)


def find(kernel: str) -> Path | None:
    """The tree of a release, or the newest of a series, if this version of the scripts made it."""
    entries = filter(cache.is_complete, KERNELS.glob(f"{kernel}*-{SCRIPT_KEY}"))
    return max(entries, key=release_number, default=None)


def ensure(kernel: str, update: bool = False) -> Path:
    """Returns the tree of `kernel`, a series, a release, or one built here, made now if there is none.

    `update` asks the mirror for a newer patch level of a series first.
    """
    if kernel == debug_tree.NAME:
        return debug_tree.ensure(ensure(debug_tree.BASE, update))
    if base := intree_kernel.BASES.get(kernel):
        return intree_kernel.ensure(kernel, ensure(base, update))
    series = debian.series_of(kernel)
    if series not in SERIES:
        raise StepError(
            f"kernel {kernel} is not supported; choose a Debian kernel, or one of "
            f"{', '.join((*SERIES, debug_tree.NAME, *intree_kernel.BASES))}"
        )
    entry = find(kernel)
    if entry and not update:
        return cache.use(entry)
    topic = f"kernel {kernel}"
    log = cache.LOGS / f"kernel-{kernel}.log"
    packages = debian.find(topic, kernel, log)
    entry = KERNELS / f"{packages.release}-{SCRIPT_KEY}"
    cache.ensure(entry, lambda new: kernel_tree.make(topic, packages, new, log))
    cache.point(KERNELS / series, entry)
    cache.keep_newest(KERNELS, f"{series}.*", KEEP)
    progress.say(topic, f"{packages.release} is ready")
    return entry


def make_command(tree: Path, *arguments: str) -> list[str | Path]:
    """`make` in a tree, with the compilers that are its own."""
    maker = debug_tree if debug_tree.is_debug(tree) else kernel_tree
    return maker.make_command(tree / "src", tree / "build", *arguments)


def main() -> int:
    parser = argparse.ArgumentParser(prog="tools/env/kernel", description="Prepare a kernel tree.")
    parser.add_argument(
        "kernel", help="a series (7.2), a release (7.2.12+deb13-amd64), debug, intree or intree-7.3"
    )
    parser.add_argument("--update", action="store_true", help="look for a newer patch level")
    arguments = parser.parse_args()
    try:
        print(ensure(arguments.kernel, arguments.update))
    except StepError as error:
        print(f"kernel: {error}", file=sys.stderr)
        return 1
    return 0
