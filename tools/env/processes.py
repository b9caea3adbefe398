# SPDX-License-Identifier: GPL-2.0-or-later
"""Process groups."""

import contextlib
import os
import signal
import time
from pathlib import Path


def kill_group(leader: int) -> None:
    """Kills what is left of the group that `leader` has started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(leader, signal.SIGKILL)


def dies(pid: int, seconds: float = 10) -> bool:
    """Whether a process that was sent a signal ends in time."""
    limit = time.monotonic() + seconds
    while alive(pid):
        if time.monotonic() > limit:
            return False
        time.sleep(0.01)
    return True


def alive(pid: int) -> bool:
    """A zombie, which its parent has yet to see, counts as dead."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (ProcessLookupError, FileNotFoundError):
        return False
