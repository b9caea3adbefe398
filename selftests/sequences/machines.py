# SPDX-License-Identifier: GPL-2.0-or-later
"""Runs sequences in host VMs, one for each module, and judges what they answered."""

import subprocess
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

from . import script
from .script import Outcome, Output, Sequence
from .verdict import Difference, Kind, Verdict, judge

RUNNER = Path(__file__).resolve().parents[2] / "tools/vm/run"
MODULES = ("stock", "rust")
# Memory at the same physical addresses each time, and a mark in the kernel log for each sequence.
KERNEL_ARGUMENTS = "hugepages=192 nokaslr printk.devkmsg=on"
# Keys and nonces are the same each time.
FIRMWARE = "seed=5e9e"
PROGRESS = 20.0  # seconds
# To start a VM, and for each sequence.
PATIENCE = (120.0, 3.0)
# The modules' VMs are started this often at most because one ended before its last sequence.
ROUNDS = 3
# Boots until the memory that the sequences want is free, and what the program says if it is not.
BOOTS = 4
NO_PLACE = "no huge page at frame"

Report = Callable[[str], None]


@dataclass
class Machines:
    """How to run a batch on a module."""

    program: Path
    platform: str
    kernel: str
    out: Path
    report: Report
    problems: list[str] = field(default_factory=list)

    def on(self, platform: str) -> "Machines":
        """The same with other hosts; problems are noted in one list."""
        return replace(self, platform=platform)

    def run(
        self, module: str, sequences: list[Sequence], label: str, *, each: bool = False
    ) -> Output:
        """As `boot`; once more if the kernel needed a page that the sequences want."""
        for _ in range(BOOTS - 1):
            try:
                return self.boot(module, sequences, label, each=each)
            except RuntimeError as error:
                if NO_PLACE not in str(error):
                    raise
                self.report(f"{module}{label}: {NO_PLACE}; another boot")
        return self.boot(module, sequences, label, each=each)

    def boot(
        self, module: str, sequences: list[Sequence], label: str, *, each: bool = False
    ) -> Output:
        """With `each`, every answer has the firmware's commands, which takes longer."""
        log = self.out / f"{module}.log"
        with tempfile.TemporaryDirectory() as work:
            path = Path(work) / "script"
            path.write_text("".join(sequence.text() for sequence in sequences))
            timeout = PATIENCE[0] + PATIENCE[1] * len(sequences)
            command = [RUNNER, "--module", module, "--platform", self.platform]
            command += ["--kernel", self.kernel, "--timeout", str(timeout)]
            command += ["--firmware-config", FIRMWARE, "--append", KERNEL_ARGUMENTS]
            command += ["--log", self.out / f"{module}.kernel.log"]
            command += ["--put", self.program, "--put", path]
            command += ["--", f"/{self.program.name}", "/script", *(["each"] if each else [])]
            with log.open("wb") as output, (self.out / f"{module}.err").open("wb") as errors:
                process = subprocess.Popen(command, stdout=output, stderr=errors)
                ended = threading.Event()
                watcher = threading.Thread(
                    target=self._watch, args=(log, len(sequences), f"{module}{label}", ended)
                )
                watcher.start()
                status = process.wait()
                ended.set()
                watcher.join()
        result = script.outcomes(log.read_text(errors="replace"), sequences)
        if not result.outcomes or result.stopped:
            errors = (self.out / f"{module}.err").read_text(errors="replace")
            tail = "\n".join(errors.splitlines()[-20:])
            raise RuntimeError(f"{module}: nothing was run: {result.stopped}\n{tail}")
        if result.complete and status != 0:
            errors = (self.out / f"{module}.err").read_text(errors="replace")
            lines = [line for line in errors.splitlines() if line.startswith("vm: ")]
            self.problems += [f"{module}: {line}" for line in lines if "kernel log" not in line]
        return result

    def _watch(self, log: Path, total: int, label: str, ended: threading.Event) -> None:
        start = time.monotonic()
        while not ended.wait(PROGRESS):
            done = log.read_bytes().count(b"\nend ")
            self.report(f"{label}: {done} of {total} sequences, {time.monotonic() - start:.0f} s")

    def both(
        self, sequences: list[Sequence], label: str = "", *, each: bool = False
    ) -> tuple[Output, Output]:
        with ThreadPoolExecutor(len(MODULES)) as pool:
            runs = [pool.submit(self.run, m, sequences, label, each=each) for m in MODULES]
            stock, ours = (run.result() for run in runs)
        if stock.physical != ours.physical:
            raise RuntimeError(
                f"memory is not where it was: {stock.physical} with the stock module, "
                f"{ours.physical} with ours"
            )
        return stock, ours


Both = Callable[[list[Sequence], str], tuple[Output, Output]]


def judge_all(
    both: Both, sequences: list[Sequence], listed: list[Difference], label: str = ""
) -> dict[str, Verdict]:
    """A verdict for each sequence, by name.

    Sequences behind one that ended a VM are run again.
    """
    verdicts: dict[str, Verdict] = {}
    left = list(sequences)
    for round_ in range(ROUNDS):
        again = [f", again {round_}" if round_ else ""]
        stock, ours = both(left, label + again[0])
        missed = []
        for sequence in left:
            pair = [output.outcomes.get(sequence.name) for output in (stock, ours)]
            if None in pair:
                # Its turn never came.
                missed.append(sequence)
                verdicts.pop(sequence.name, None)
                continue
            one, other = (outcome or Outcome() for outcome in pair)
            verdicts[sequence.name] = judge(one, other, listed)
        if not missed:
            break
        left = missed
    for sequence in sequences:
        verdicts.setdefault(sequence.name, Verdict(Kind.WRONG, 0, "run", "never", "never"))
    return verdicts
