# SPDX-License-Identifier: GPL-2.0-or-later
"""What the threads of the VM's CPUs did, to tell why one of them hung.

A machine that is itself virtual can stop one of its CPUs for half a minute, and the thread on
it with it: then the CPU of the VM answers nobody, and nothing in the VM is wrong.
"""

import asyncio
import os
import re
from collections import deque
from dataclasses import dataclass
from pathlib import Path

PERIOD = 1.0  # seconds
KEPT = 120  # samples
# Shorter ones are the scheduler's.
REMARKABLE = 5.0  # seconds

NAME = re.compile(r"CPU (\d+)/TCG")
TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Sample:
    at: float  # seconds
    state: str  # proc(5): R runs or wants to, S sleeps, ...
    ran: float  # seconds


def read(task: Path, at: float) -> Sample:
    """A sample of a thread in /proc."""
    fields = (task / "stat").read_text().rpartition(")")[2].split()
    return Sample(at, fields[0], (int(fields[11]) + int(fields[12])) / TICKS)


def longest_standstill(samples: list[Sample]) -> float:
    """For how long, at most, a thread wanted to run and did not."""
    longest, since = 0.0, None
    for before, sample in zip(samples, samples[1:], strict=False):
        if sample.state == "S" or before.state == "S" or sample.ran > before.ran:
            since = None
            continue
        since = before.at if since is None else since
        longest = max(longest, sample.at - since)
    return longest


def summary(cpu: int, samples: list[Sample]) -> str:
    first, last = samples[0], samples[-1]
    text = f"CPU {cpu} ran {last.ran - first.ran:.1f} s of the last {last.at - first.at:.0f} s"
    if (still := longest_standstill(samples)) >= REMARKABLE:
        text += f"; this machine did not let it run for {still:.0f} s"
    return text


class Vcpus:
    """Watches the threads of a QEMU that names them."""

    def __init__(self, pid: int) -> None:
        self._tasks = Path(f"/proc/{pid}/task")
        self._samples: dict[int, deque[Sample]] = {}

    async def watch(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                self._sample(loop.time())
            except (FileNotFoundError, ProcessLookupError):
                pass  # The threads come and go with QEMU.
            await asyncio.sleep(PERIOD)

    def _sample(self, at: float) -> None:
        for task in self._tasks.iterdir():
            if name := NAME.match((task / "comm").read_text()):
                samples = self._samples.setdefault(int(name[1]), deque(maxlen=KEPT))
                samples.append(read(task, at))

    def report(self) -> list[str]:
        """A line for each CPU."""
        return [summary(cpu, list(samples)) for cpu, samples in sorted(self._samples.items())]
