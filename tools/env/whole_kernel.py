# SPDX-License-Identifier: GPL-2.0-or-later
"""Kernels that are built whole, from the source of a Debian kernel.

The configuration is what host.config and a fragment of the kernel's own add to allnoconfig.
"""

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from . import cache, kernel_tree, progress
from .progress import StepError

HOST = Path(__file__).with_name("host.config")
# Options that a later series has under another name: both are asked for, and one has to be taken.
RENAMED = {"CONFIG_PROC_SYSCTL=y": "CONFIG_SYSCTL=y"}  # 7.3


@dataclass(frozen=True)
class Recipe:
    topic: str  # of progress lines
    fragment: Path
    make_arguments: tuple[str, ...]
    estimate: str  # for those who wait

    def key(self, base: Path) -> str:
        """Of everything that decides how the kernel made of the tree `base` looks."""
        contents = (Path(__file__), HOST, self.fragment)
        parts = (base.name, repr(self.make_arguments), *(path.read_bytes() for path in contents))
        return cache.key_of(*parts)

    def make_command(self, src: Path, build: Path, *arguments: str) -> list[str | Path]:
        own = (kernel_tree.jobs(), *self.make_arguments)
        return ["make", "-C", src, f"O={build}", *own, *arguments]

    def options(self) -> str:
        return HOST.read_text() + self.fragment.read_text()

    def configure(self, src: Path, build: Path, log: Path) -> None:
        """Fails if an option was not taken, since then something is not checked."""
        wanted = build / "wanted.config"
        wanted.write_text(self.options())
        environment = os.environ | {"KCONFIG_ALLCONFIG": str(wanted)}
        command = self.make_command(src, build, "allnoconfig")
        progress.run(self.topic, "configuring", command, log, env=environment)
        self.check(build)

    def check(self, build: Path) -> None:
        if lost := not_taken(self.options(), (build / ".config").read_text()):
            raise StepError(f"{self.fragment.name}: this kernel does not take {' '.join(lost)}")

    def build(self, src: Path, build: Path, log: Path) -> None:
        for what, target in (
            (f"building the kernel ({self.estimate})", "bzImage"),
            ("building its modules", "modules"),
        ):
            progress.run(self.topic, what, self.make_command(src, build, target), log)

    def install(self, src: Path, build: Path, new: Path, log: Path) -> None:
        """Into the cache entry `new`: image/ and version, as kernel.py describes them."""
        image = new / "image"
        command = self.make_command(src, build, f"INSTALL_MOD_PATH={image}", "modules_install")
        progress.run(self.topic, "installing its modules", command, log)
        shutil.copy(build / "arch/x86/boot/bzImage", image / "vmlinuz")
        release = output_of(self.make_command(src, build, "-s", "kernelrelease")).split()[-1]
        (new / "version").write_text(release + "\n")


def copy_source(base: Path, src: Path) -> None:
    """Nobody writes into the files of a source tree, so two trees can have the same ones."""
    shutil.copytree(base / "src", src, symlinks=True, copy_function=os.link)


def output_of(command: list[str | Path]) -> str:
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def not_taken(fragment: str, config: str) -> list[str]:
    """The lines of a fragment that a configuration lacks."""
    wanted = [line for line in fragment.splitlines() if line.startswith("CONFIG")]
    taken = set(config.splitlines())
    return [line for line in wanted if not taken & {line, RENAMED.get(line, line)}]
