# SPDX-License-Identifier: GPL-2.0-or-later
"""Progress lines of long steps: what, how far, how long; on the standard error."""

import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

# A running command reports every so many seconds.
INTERVAL = 10
LOG_TAIL_LINES = 20


class StepError(Exception):
    """A step failed; the message says what to do next."""


def say(topic: str, text: str) -> None:
    print(f"[{topic}] {text}", file=sys.stderr, flush=True)


def last_line(log: Path) -> str:
    """The newest non-empty line of a log, short enough for a progress line."""
    with log.open("rb") as f:
        f.seek(0, 2)
        f.seek(max(0, f.tell() - 4096))
        lines = f.read().decode(errors="replace").replace("\r", "\n").split("\n")
    lines = [line.strip() for line in lines if line.strip()]
    return lines[-1][:80] if lines else ""


def tail(log: Path, lines: int = LOG_TAIL_LINES) -> str:
    text = log.read_text(errors="replace").replace("\r", "\n")
    return "\n".join(text.splitlines()[-lines:])


def run(
    topic: str,
    what: str,
    command: Sequence[str | Path],
    log: Path,
    *,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
) -> None:
    """Runs `command` with its output appended to `log`, reporting while it lasts.

    Raises StepError, after showing the end of the log, if the command fails.
    """
    start = time.monotonic()
    log.parent.mkdir(parents=True, exist_ok=True)
    say(topic, f"{what} ...")
    with log.open("ab") as out:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, cwd=cwd, env=env
        )
        try:
            while True:
                try:
                    status = process.wait(timeout=INTERVAL)
                    break
                except subprocess.TimeoutExpired:
                    seconds = time.monotonic() - start
                    say(topic, f"{what}: {seconds:.0f} s, {last_line(log)}")
        except BaseException:
            process.terminate()
            process.wait()
            raise
    if status != 0:
        print(tail(log), file=sys.stderr, flush=True)
        raise StepError(f"{what} failed (status {status}); whole log: {log}")
    say(topic, f"{what}: done in {time.monotonic() - start:.0f} s")
