# SPDX-License-Identifier: GPL-2.0-or-later
"""The debug kernel: the source of a Debian kernel, configured by debug.config, built whole.

KASAN and Rust go together with clang only, so everything that is compiled for this kernel
is compiled with LLVM.
"""

import os
import shutil
import subprocess
from pathlib import Path

from . import cache, kernel_tree, progress
from .progress import StepError

NAME = "debug"
BASE = "7.2"  # the series whose source it is
FRAGMENT = Path(__file__).with_name("debug.config")
MAKE_ARGUMENTS = ("ARCH=x86", "LLVM=-19")
KEEP = 1  # other checkouts use this cache as well


def is_debug(tree: Path) -> bool:
    return tree.resolve().name.startswith(f"{NAME}-")


def make_command(src: Path, build: Path, *arguments: str) -> list[str | Path]:
    return ["make", "-C", src, f"O={build}", kernel_tree.jobs(), *MAKE_ARGUMENTS, *arguments]


def ensure(base: Path) -> Path:
    """The debug tree made of the tree `base`."""
    release = (base / "version").read_text().split("+")[0]
    key = cache.key_of(base.name, Path(__file__).read_bytes(), FRAGMENT.read_bytes())
    entry = cache.CACHE / "kernel" / f"{NAME}-{release}-{key}"
    if not cache.is_complete(entry):
        cache.ensure(entry, lambda new: make(base, new, cache.LOGS / f"kernel-{NAME}.log"))
        cache.point(entry.with_name(NAME), entry)
        cache.keep_newest(entry.parent, f"{NAME}-*", KEEP)
        progress.say("kernel debug", "is ready")
    return cache.use(entry)


def make(base: Path, new: Path, log: Path) -> None:
    topic = "kernel debug"
    src, build, image = new / "src", new / "build", new / "image"
    # Nobody writes into a source tree, so the two can be the same files.
    shutil.copytree(base / "src", src, symlinks=True, copy_function=os.link)
    build.mkdir()
    configure(topic, src, build, log)
    for what, target in (
        ("building the kernel (10 minutes on 2 CPUs)", "bzImage"),
        ("building its modules", "modules"),
    ):
        progress.run(topic, what, make_command(src, build, target), log)
    install = make_command(src, build, f"INSTALL_MOD_PATH={image}", "modules_install")
    progress.run(topic, "installing its modules", install, log)
    shutil.copy(build / "arch/x86/boot/bzImage", image / "vmlinuz")
    release = output_of(make_command(src, build, "-s", "kernelrelease")).split()[-1]
    (new / "version").write_text(release + "\n")


def output_of(command: list[str | Path]) -> str:
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def configure(topic: str, src: Path, build: Path, log: Path) -> None:
    """Fails if an option of the fragment was not taken, since then something is not checked."""
    environment = os.environ | {"KCONFIG_ALLCONFIG": str(FRAGMENT)}
    command = make_command(src, build, "allnoconfig")
    progress.run(topic, "configuring", command, log, env=environment)
    if lost := not_taken(FRAGMENT.read_text(), (build / ".config").read_text()):
        raise StepError(f"{FRAGMENT.name}: this kernel does not take {' '.join(lost)}")


def not_taken(fragment: str, config: str) -> list[str]:
    """The lines of a fragment that a configuration lacks."""
    wanted = [line for line in fragment.splitlines() if line.startswith("CONFIG")]
    taken = set(config.splitlines())
    return [line for line in wanted if line not in taken]
