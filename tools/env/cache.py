# SPDX-License-Identifier: GPL-2.0-or-later
"""The cache directory: content keys, locks, and entries that are whole or absent.

An entry is a directory that is built in place (build trees hold absolute paths) and
is complete once its `complete` file exists; what an interrupted run left is removed
by the next one. Everything here runs inside the build root.
"""

import contextlib
import fcntl
import hashlib
import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

CACHE = Path(os.environ.get("SEV_CACHE", "/cache"))
LOGS = CACHE / "log"
DAY = 24 * 60 * 60
SRC = Path(__file__).resolve().parents[2]


def key_of(*parts: str | bytes | Path) -> str:
    """A short hash of texts and of the contents of files and directories."""
    digest = hashlib.sha256()
    for part in parts:
        if isinstance(part, Path):
            files = sorted(p for p in part.rglob("*") if p.is_file()) if part.is_dir() else [part]
            chunks = [c for f in files for c in (str(f).encode(), f.read_bytes())]
        else:
            chunks = [part if isinstance(part, bytes) else part.encode()]
        for chunk in chunks:
            digest.update(len(chunk).to_bytes(8, "little") + chunk)
    return digest.hexdigest()[:12]


@contextlib.contextmanager
def locked(name: str) -> Iterator[None]:
    """Serialises set-up steps of the same name between processes."""
    lock = CACHE / "lock" / name
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("w") as f:
        fcntl.flock(f, fcntl.LOCK_EX)
        yield


def is_complete(entry: Path) -> bool:
    return (entry / "complete").exists()


def ensure(entry: Path, build: Callable[[Path], None]) -> Path:
    """Returns `entry`, built by `build` unless it is there already."""
    if is_complete(entry):
        return entry
    with locked("-".join(entry.relative_to(CACHE).parts)):
        if not is_complete(entry):
            shutil.rmtree(entry, ignore_errors=True)
            entry.mkdir(parents=True)
            build(entry)
            (entry / "complete").touch()
    return entry


def point(link: Path, entry: Path) -> None:
    """Makes the symlink `link` name its sibling `entry`, atomically."""
    new = link.with_name(link.name + ".new")
    new.unlink(missing_ok=True)
    new.symlink_to(entry.name)
    new.replace(link)


def drop_siblings(entry: Path, pattern: str) -> None:
    """Removes superseded entries next to `entry`."""
    for other in entry.parent.glob(pattern):
        if other != entry and not other.is_symlink():
            shutil.rmtree(other)


def keep_newest(directory: Path, pattern: str, count: int) -> None:
    """Removes old entries, but neither the `count` newest nor any of the last day.

    Other checkouts, and runs that have not ended, may be using those.
    """
    entries = sorted(directory.glob(pattern), key=lambda path: path.stat().st_mtime)
    for old in entries[:-count]:
        if not old.is_symlink() and time.time() - old.stat().st_mtime > DAY:
            shutil.rmtree(old, ignore_errors=True)
