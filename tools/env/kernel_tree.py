# SPDX-License-Identifier: GPL-2.0-or-later
"""Makes a kernel tree out of Debian's packages.

linux-headers alone does not do for Rust (it has no rust/*.rmeta), so the build tree is
made from linux-source with Debian's configuration, symbol versions and BTF.
"""

import os
import shutil
import subprocess
from pathlib import Path

from . import debian, progress
from .progress import StepError

# Directories whose code (not their Kconfig and Makefiles) and modules nobody here needs.
BULK = (
    "drivers/gpu",
    "drivers/net/ethernet",
    "drivers/net/wireless",
    "drivers/media",
    "drivers/staging",
    "drivers/infiniband",
    "drivers/scsi",
    "drivers/accel",
    "drivers/iio",
    "drivers/usb",
    "drivers/mfd",
    "drivers/hwmon",
    "drivers/input",
    "drivers/mtd",
    "drivers/video",
    "sound",
)
FOREIGN_ARCHES = (
    *("alpha", "arc", "arm", "arm64", "csky", "hexagon", "loongarch", "m68k", "microblaze"),
    *("mips", "nios2", "openrisc", "parisc", "powerpc", "riscv", "s390", "sh", "sparc", "xtensa"),
)
CODE = ("*.c", "*.h", "*.S", "*.rs", "*.dts", "*.dtsi", "*.txt", "*.rst", "*.fuc*", "*.uc", "*.bin")

# The prefix matters: CC_VERSION_TEXT contains it, and has to be Debian's.
MAKE_ARGUMENTS = ("ARCH=x86", "CROSS_COMPILE=x86_64-linux-gnu-", "CC=x86_64-linux-gnu-gcc-14")


def jobs() -> str:
    return f"-j{len(os.sched_getaffinity(0))}"


def make_command(src: Path, build: Path, *arguments: str) -> list[str | Path]:
    return ["make", "-C", src, f"O={build}", jobs(), *MAKE_ARGUMENTS, *arguments]


def make(topic: str, packages: debian.KernelPackages, new: Path, log: Path) -> None:
    debs = new / "debs"
    for package in packages.all:
        debian.fetch(topic, package, packages.version, debs, log)
    lay_out_image(topic, packages, debs, new / "image", log)
    unpack_source(topic, packages, debs, new / "src", log)
    prepare_build(topic, packages, debs, new, log)
    (new / "version").write_text(packages.release + "\n")
    shutil.rmtree(debs)


def only(directory: Path, pattern: str) -> Path:
    """The one file below `directory` that matches."""
    found = [path for path in directory.rglob(pattern) if path.is_file()]
    if len(found) != 1:
        raise StepError(f"expected one {pattern} in the kernel packages, found {len(found)}")
    return found[0]


def lay_out_image(
    topic: str, packages: debian.KernelPackages, debs: Path, image: Path, log: Path
) -> None:
    """vmlinuz and the modules, without those of bulk directories."""
    modules = image / "lib/modules" / packages.release
    modules.parent.mkdir(parents=True)
    vmlinuz = only(debs, "vmlinuz*")
    vmlinuz.rename(image / "vmlinuz")
    only(debs / "usr/lib/modules", "modules.builtin").parent.rename(modules)
    for directory in BULK:
        shutil.rmtree(modules / "kernel" / directory, ignore_errors=True)
    progress.run(topic, "depmod", ["depmod", "-b", image, packages.release], log)


def unpack_source(
    topic: str, packages: debian.KernelPackages, debs: Path, src: Path, log: Path
) -> None:
    src.mkdir()
    archive = only(debs / "usr/src", "linux-source-*.tar.*")
    code = [f"*/{directory}/{pattern}" for directory in BULK for pattern in CODE]
    arches = [f"*/arch/{arch}/{name}" for arch in FOREIGN_ARCHES for name in ("boot", "*.[chS]")]
    excludes = [f"--exclude={pattern}" for pattern in (*code, *arches, "*/Documentation/*.rst")]
    command: list[str | Path] = [
        "tar",
        "-C",
        src,
        "--strip-components=1",
        "--wildcards-match-slash",
    ]
    progress.run(topic, "unpacking the source", [*command, *excludes, "-xf", archive], log)
    archive.unlink()


def prepare_build(
    topic: str, packages: debian.KernelPackages, debs: Path, new: Path, log: Path
) -> None:
    src, build = new / "src", new / "build"
    headers = debs / "usr/src" / packages.headers
    build.mkdir()
    shutil.copy(headers / ".config", build / ".config")
    (build / "localversion-deb").write_text(packages.localversion + "\n")
    progress.run(topic, "configuring", make_command(src, build, "olddefconfig"), log)
    for name in ("Module.symvers", "vmlinux"):
        shutil.copy(headers / name, build / name)
    release = subprocess.run(
        make_command(src, build, "-s", "kernelrelease"), check=True, capture_output=True, text=True
    ).stdout.split()[-1]
    if release != packages.release:
        raise StepError(f"the tree calls itself {release}, the packages {packages.release}")
    progress.run(
        topic, "checking the Rust toolchain", make_command(src, build, "rustavailable"), log
    )
    progress.run(topic, "preparing for modules", make_command(src, build, "modules_prepare"), log)
