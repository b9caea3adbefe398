# SPDX-License-Identifier: GPL-2.0-or-later
"""Packages of the cargo workspace in tools/, each built once for its content."""

import os
import shutil
from pathlib import Path

from . import cache, progress
from .progress import StepError

WORKSPACE = cache.SRC / "tools"
TARGET = "x86_64-unknown-linux-gnu"
KEEP = 4  # entries of each package: other checkouts use this cache as well


def sources() -> list[Path]:
    """Everything that can change what cargo builds."""
    ignored = {"qemu", "env", "vm"}
    return sorted(
        path
        for path in WORKSPACE.rglob("*")
        if path.is_file() and path.relative_to(WORKSPACE).parts[0] not in ignored
    )


def environment(static: bool = False) -> dict[str, str]:
    """cargo's, with a target directory for this checkout alone.

    Every checkout is /src inside the root, and cargo goes by path and time stamp, so
    two of them must not share one.
    """
    checkout = cache.SRC.stat()
    target = cache.CACHE / "target" / f"{checkout.st_dev:x}-{checkout.st_ino:x}"
    flags = ["-C", "target-feature=+crt-static"] if static else []
    return os.environ | {"CARGO_TARGET_DIR": str(target), "RUSTFLAGS": " ".join(flags)}


def ensure(package: str, product: str, static: bool) -> Path:
    """Path of `product` (a binary or a library) of `package`, in release mode."""
    if not (WORKSPACE / "Cargo.lock").exists():
        raise StepError("tools/Cargo.lock is missing")
    key = cache.key_of(package, product, str(static), *sources())
    entry = cache.CACHE / "rust" / f"{package}-{key}"

    def build(new: Path) -> None:
        env = environment(static)
        # With --target, build scripts and macros are not linked statically.
        options = ["--release", "--locked", "--target", TARGET, "--package", package]
        command = ["cargo", "build", "--manifest-path", WORKSPACE / "Cargo.toml", *options]
        log = cache.LOGS / f"cargo-{package}.log"
        progress.run(package, "building", command, log, env=env)
        shutil.copy(Path(env["CARGO_TARGET_DIR"]) / TARGET / "release" / product, new / product)

    cache.ensure(entry, build)
    cache.keep_newest(entry.parent, f"{package}-*", KEEP)
    return entry / product
