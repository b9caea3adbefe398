# SPDX-License-Identifier: GPL-2.0-or-later
"""cargo's target directories: one for each checkout, which begins with what others compiled.

Every checkout is /src inside the root, and cargo goes by path and time stamp for the sources
of the workspace, so two checkouts must not share a directory, nor anything that was compiled
of these. What was compiled of a dependency goes by its version, and is the same everywhere.
"""

import contextlib
import fcntl
import shutil
import tomllib
from pathlib import Path

from . import cache

# In a directory with this, cargo has its profiles.
FINGERPRINTS = ".fingerprint"


def ensure(kind: str) -> Path:
    """The target directory of this checkout for a kind of build."""
    checkout = cache.SRC.stat()
    directory = cache.CACHE / "target"
    target = directory / f"{checkout.st_dev:x}-{checkout.st_ino:x}" / kind
    with cache.locked(f"target-{target.parent.name}-{kind}"):
        if not target.exists():
            donors = sorted(directory.glob(f"*/{kind}"), key=lambda path: path.stat().st_mtime)
            new = target.with_name(f"{kind}.new")
            shutil.rmtree(new, ignore_errors=True)
            if any(copy_dependencies(donor, new) for donor in reversed(donors)):
                new.rename(target)
    return target


def copy_dependencies(donor: Path, new: Path) -> bool:
    """Copies what the donor has compiled of dependencies, unless cargo is at work there."""
    profiles = [fingerprints.parent for fingerprints in donor.rglob(FINGERPRINTS)]
    with contextlib.ExitStack() as locks:
        try:
            for profile in profiles:
                lock = locks.enter_context((profile / ".cargo-lock").open())
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            return False
        for profile in profiles:
            copy_profile(profile, new / profile.relative_to(donor))
    return bool(profiles)


def members() -> set[str]:
    """The packages of the workspace."""
    workspace = cache.SRC / "tools"
    directories = tomllib.loads((workspace / "Cargo.toml").read_text())["workspace"]["members"]
    manifests = [workspace / directory / "Cargo.toml" for directory in directories]
    return {tomllib.loads(path.read_text())["package"]["name"] for path in manifests}


def copy_profile(profile: Path, new: Path) -> None:
    ours = members()
    for directory in (FINGERPRINTS, "build", "deps"):
        (new / directory).mkdir(parents=True)
    for unit in (profile / FINGERPRINTS).iterdir():
        name, _, _ = unit.name.rpartition("-")
        if name in ours:
            continue
        for directory in (FINGERPRINTS, "build"):
            if (profile / directory / unit.name).exists():
                shutil.copytree(profile / directory / unit.name, new / directory / unit.name)
    wanted = {unit.name.rpartition("-")[2] for unit in (new / FINGERPRINTS).iterdir()}
    for product in (profile / "deps").iterdir():
        if product.name.partition(".")[0].rpartition("-")[2] in wanted:
            shutil.copy2(product, new / "deps")
