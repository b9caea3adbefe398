# SPDX-License-Identifier: GPL-2.0-or-later
"""The cargo workspace in tools/, each product built once for its content."""

import os
import shutil
from collections.abc import Iterable
from pathlib import Path

from . import cache, progress, target
from .progress import StepError

WORKSPACE = cache.SRC / "tools"
TARGET = "x86_64-unknown-linux-gnu"
KEEP = 4  # entries of each product: other checkouts use this cache as well
# Where the sources of products are: files and directories of the checkout.
MANIFESTS = ("tools/Cargo.toml", "tools/Cargo.lock")
FIRMWARE = (*MANIFESTS, "tools/psp")
# Not all of selftests/: what runs the programs changes without them.
SELFTESTS = ("selftests/Cargo.toml", "selftests/clients", "selftests/src")
PROGRAMS = (*MANIFESTS, "tools", *SELFTESTS, "uapi")
# Directories of tools/ that hold nothing of the programs.
OTHERS = ("qemu", "env", "vm", "unit")


def files(names: Iterable[str]) -> list[Path]:
    others = [WORKSPACE / other for other in OTHERS]
    roots = [cache.SRC / name for name in names]
    paths = [p for root in roots for p in (root.rglob("*") if root.is_dir() else [root])]
    return sorted(
        path
        for path in set(paths)
        if path.is_file()
        and not any(path.is_relative_to(other) for other in others)
        # What tools leave behind: caches in hidden directories and of Python.
        and not any(part.startswith((".", "__")) for part in path.relative_to(cache.SRC).parts)
    )


def environment(kind: str) -> dict[str, str]:
    """cargo's, with a target directory for this checkout alone."""
    variables = {"CARGO_TARGET_DIR": str(target.ensure(kind))}
    if kind == "static":
        # The host VM has no libraries.
        variables |= {"RUSTFLAGS": "-C target-feature=+crt-static", "OPENSSL_STATIC": "1"}
    return os.environ | variables


def products(release: Path, suffix: str) -> list[Path]:
    """What cargo has put into its output directory; executables have no suffix."""
    if not release.exists():
        return []
    return [
        path
        for path in release.iterdir()
        if path.is_file() and path.suffix == suffix and path.stat().st_mode & 0o100
    ]


def build(
    name: str, kind: str, sources: Iterable[str], options: Iterable[str], suffix: str
) -> Path:
    """A directory with the executables or libraries, by their suffix, of a cargo build."""
    if not (WORKSPACE / "Cargo.lock").exists():
        raise StepError("tools/Cargo.lock is missing")
    options = ("--release", "--locked", "--target", TARGET, *options)
    key = cache.key_of(name, *options, Path(__file__).read_bytes(), *files(sources))
    entry = cache.CACHE / "rust" / f"{name}-{key}"

    def make(new: Path) -> None:
        env = environment(kind)
        command: list[str | Path] = [
            "cargo",
            "build",
            "--manifest-path",
            WORKSPACE / "Cargo.toml",
            *options,
        ]
        release = Path(env["CARGO_TARGET_DIR"]) / TARGET / "release"
        # Nothing of an earlier state of the sources is to be taken for a product.
        for old in products(release, suffix):
            old.unlink()
        progress.run(name, "building", command, cache.LOGS / f"cargo-{name}.log", env=env)
        for path in products(release, suffix):
            shutil.copy(path, new)

    cache.ensure(entry, make)
    cache.keep_newest(entry.parent, f"{name}-*", KEEP)
    return entry


def firmware() -> Path:
    """The PSP firmware, a shared library for QEMU."""
    options = ("--package", "sevfw", "--lib")
    return build("firmware", "shared", FIRMWARE, options, ".so") / "libsevfw.so"


def programs() -> Path:
    """A directory with all programs of the workspace, for the host VM."""
    # With --target, build scripts and macros are not linked statically.
    return build("programs", "static", PROGRAMS, ("--workspace", "--bins"), "")
