# SPDX-License-Identifier: GPL-2.0-or-later
"""What can be said of the module without running it.

Style as the kernel checks it, clippy without a warning, and object code from which no
panic can be reached: a panic in the module takes the host down.
"""

import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

from . import cache, kernel, kernel_tree, module
from .progress import StepError

SERIES = "7.2"
# What the compiler calls when an index, an addition or an unwrap() goes wrong.
PANICS = ("panicking", "unwind_failed", "expect_failed", "slice_index_fail", "_fail_rt")


def output_of(*command: str | Path) -> str:
    """Standard output and error of a command, whatever its status."""
    run = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    return run.stdout


def rustfmt(tree: Path) -> str:
    config = tree / "src/.rustfmt.toml"
    options = ("--check", "--edition", "2021", "--config-path", config)
    return output_of("rustfmt", *options, module.SOURCES / "main.rs")


def checkpatch(tree: Path) -> str:
    script = tree / "src/scripts/checkpatch.pl"
    files = sorted((*module.SOURCES.rglob("*.[ch]"), *(cache.SRC / "uapi").glob("*.h")))
    # Other checks want a kernel tree around the file, or a Kconfig entry.
    return output_of("perl", script, "--no-tree", "--terse", "--no-summary", "-f", *files)


def clippy(tree: Path) -> str:
    with tempfile.TemporaryDirectory() as objects:
        options = (f"M={module.SOURCES}", f"MO={objects}", "CLIPPY=1", "modules")
        text = output_of(*kernel_tree.make_command(tree / "src", tree / "build", *options))
    lines = text.splitlines()
    wrong = [
        n for n, line in enumerate(lines) if line.startswith(("warning", "error", "make: ***"))
    ]
    return "\n".join(line for n in wrong for line in lines[n : n + 8])


def panics(_tree: Path) -> str:
    undefined = output_of("nm", "--undefined-only", module.ensure(SERIES)).splitlines()
    if not undefined:
        return "nm found no undefined symbols at all"
    return "\n".join(line for line in undefined if any(name in line for name in PANICS))


CHECKS: tuple[Callable[[Path], str], ...] = (rustfmt, checkpatch, clippy, panics)


def main() -> int:
    try:
        tree = kernel.ensure(SERIES)
    except StepError as error:
        print(f"lint: {error}")
        return 1
    failed = 0
    for check in CHECKS:
        complaints = check(tree).strip()
        print(f"{check.__name__}: {complaints or 'ok'}")
        failed += bool(complaints)
    print(f"{len(CHECKS) - failed} passed, {failed} failed")
    return 1 if failed else 0
