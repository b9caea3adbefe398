# SPDX-License-Identifier: GPL-2.0-or-later
"""The VM's file system: a cached base and a small archive for each run.

The kernel unpacks archives that follow each other into one tree, so the base
(busybox, init, stock modules) is made once for each kernel release.
"""

import lzma
import os
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from env import cache
from env.progress import StepError

GUEST = Path(__file__).with_name("guest")
BUSYBOX = Path("/usr/bin/busybox")

# With what they depend on; a kernel that has one built in does not need it.
MODULES = ("kvm-amd", "ccp", "virtio_blk", "virtio-rng", "9p", "9pnet_virtio", "msr", "cpuid")
DIRECTORIES = "bin sbin dev etc proc root run sys tmp"


@dataclass
class Contents:
    """What a run adds to the base."""

    command: Sequence[str]
    module: str
    rust_module: Path | None = None
    params: Sequence[str] = ()
    put: Iterable[Path] = field(default_factory=list)
    get: Sequence[str] = ()


def archive(tree: Path) -> bytes:
    """`tree` in the format that the kernel unpacks, owned by root."""
    names = sorted(str(path.relative_to(tree)) for path in tree.rglob("*"))
    return subprocess.run(
        ["cpio", "--create", "--format=newc", "--owner=+0:+0", "--null", "--quiet"],
        input="\0".join(names).encode(),
        stdout=subprocess.PIPE,
        cwd=tree,
        check=True,
    ).stdout


def base(kernel: Path) -> Path:
    """The cached base archive for a kernel tree."""
    release = (kernel / "version").read_text().strip()
    here = Path(__file__)
    programs = (GUEST / "init", GUEST / "psp", BUSYBOX)
    # Of a debug kernel there are several configurations of the same release.
    parts = (kernel.resolve().name, here.read_bytes(), *(path.read_bytes() for path in programs))
    key = cache.key_of(*parts)
    entry = cache.CACHE / "initramfs" / f"{release}-{key}"
    cache.ensure(entry, lambda new: make_base(kernel, release, new / "base.cpio"))
    cache.keep_newest(entry.parent, f"{release}-*", 1)
    return entry / "base.cpio"


def make_base(kernel: Path, release: str, output: Path) -> None:
    with tempfile.TemporaryDirectory() as name:
        tree = Path(name)
        for directory in DIRECTORIES.split():
            (tree / directory).mkdir()
        shutil.copy(GUEST / "init", tree / "init")
        shutil.copy(BUSYBOX, tree / "bin/busybox")
        shutil.copy(GUEST / "psp", tree / "sbin/psp")
        applets = subprocess.run([BUSYBOX, "--list"], check=True, capture_output=True, text=True)
        for applet in applets.stdout.split():
            if applet != "busybox":
                (tree / "bin" / applet).symlink_to("busybox")
        (tree / "etc/passwd").write_text("root::0:0:root:/root:/bin/sh\n")
        (tree / "etc/group").write_text("root:x:0:\n")
        copy_modules(kernel / "image", release, tree)
        output.write_bytes(archive(tree))


def copy_modules(image: Path, release: str, tree: Path) -> None:
    """Stock modules, decompressed; kvm-amd also under a name that scripts can rely on."""
    source = image / "lib/modules" / release
    target = tree / "lib/modules" / release
    for path in needed_modules(source):
        plain = target / path.removesuffix(".xz")
        plain.parent.mkdir(parents=True, exist_ok=True)
        data = (source / path).read_bytes()
        plain.write_bytes(lzma.decompress(data) if path.endswith(".xz") else data)
        if plain.name == "kvm-amd.ko":
            shutil.copy(plain, tree / "lib/modules/kvm-amd-stock.ko")
    for name in ("modules.builtin", "modules.builtin.modinfo", "modules.order"):
        shutil.copy(source / name, target / name)
    subprocess.run(["depmod", "-b", tree, release], check=True)


def needed_modules(source: Path) -> set[str]:
    dependencies = {}
    for line in (source / "modules.dep").read_text().splitlines():
        module, _, needed = line.partition(":")
        dependencies[module] = needed.split()
    paths: set[str] = set()
    for module, needs in dependencies.items():
        if Path(module).name.split(".")[0] in MODULES:
            paths.update((module, *needs))
    return paths


def write(kernel: Path, contents: Contents, output: Path) -> None:
    """Writes the whole initramfs of one run."""
    with tempfile.TemporaryDirectory() as name:
        tree = Path(name)
        (tree / "run").mkdir()
        (tree / "run/command").write_text(f"exec {shlex.join(contents.command)}\n")
        (tree / "run/config").write_text(
            f"module={contents.module}\n"
            f"params={shlex.quote(shlex.join(contents.params))}\n"
            f"get={shlex.quote(shlex.join(path.lstrip('/') for path in contents.get))}\n"
        )
        if contents.rust_module:
            (tree / "lib/modules").mkdir(parents=True)
            shutil.copy(contents.rust_module, tree / "lib/modules/kvm-amd-rust.ko")
        for path in contents.put:
            place(path, tree)
        data = archive(tree)
    with output.open("wb") as f, base(kernel).open("rb") as b:
        shutil.copyfileobj(b, f)
        # An archive starts at a multiple of four bytes.
        f.write(bytes(-f.tell() % 4))
        f.write(data)


def place(path: Path, tree: Path) -> None:
    """Puts a file or a directory in the VM's /, under its own name."""
    target = tree / path.resolve().name
    if os.path.lexists(target):
        raise StepError(f"--put {path}: there is a /{target.name} already")
    if path.is_dir():
        shutil.copytree(path, target, symlinks=True)
    elif path.is_file():
        shutil.copy(path, target)
    else:
        raise StepError(f"--put {path}: no such file")
