# SPDX-License-Identifier: GPL-2.0-or-later
"""The debug kernel: the source of a Debian kernel, configured by debug.config, built whole.

KASAN and Rust go together with clang only, so everything that is compiled for this kernel
is compiled with LLVM.
"""

from pathlib import Path

from . import cache, progress, whole_kernel

NAME = "debug"
BASE = "7.2"  # the series whose source it is
RECIPE = whole_kernel.Recipe(
    topic="kernel debug",
    fragment=Path(__file__).with_name("debug.config"),
    make_arguments=("ARCH=x86", "LLVM=-19"),
    estimate="10 minutes on 2 CPUs",
)
KEEP = 1  # other checkouts use this cache as well


def is_debug(tree: Path) -> bool:
    return tree.resolve().name.startswith(f"{NAME}-")


def make_command(src: Path, build: Path, *arguments: str) -> list[str | Path]:
    return RECIPE.make_command(src, build, *arguments)


def ensure(base: Path) -> Path:
    """The debug tree made of the tree `base`."""
    release = (base / "version").read_text().split("+")[0]
    entry = cache.CACHE / "kernel" / f"{NAME}-{release}-{RECIPE.key(base)}"
    if not cache.is_complete(entry):
        cache.ensure(entry, lambda new: make(base, new, cache.LOGS / f"kernel-{NAME}.log"))
        cache.point(entry.with_name(NAME), entry)
        cache.keep_newest(entry.parent, f"{NAME}-*", KEEP)
        progress.say(RECIPE.topic, "is ready")
    return cache.use(entry)


def make(base: Path, new: Path, log: Path) -> None:
    src, build = new / "src", new / "build"
    whole_kernel.copy_source(base, src)
    build.mkdir()
    RECIPE.configure(src, build, log)
    RECIPE.build(src, build, log)
    RECIPE.install(src, build, new, log)
