# SPDX-License-Identifier: GPL-2.0-or-later
"""`make run`, `make check` and the like: set everything up, then run what `checks` lists."""

import argparse
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from . import cache, clients, firmware, kernel, kselftest, module, progress, qemu, rust
from .processes import kill_group
from .progress import StepError

TABLE = Path(__file__).with_name("checks")
GROUPS = ("run", "check", "check-long", "check-debug", "bench")
FAILURE_LINES = 150  # a report of the kernel is long
# Two at a time: a VM leaves a CPU idle now and then.
JOBS = 2

CARGO_SUMMARY = re.compile(r"^test result: \w+\. (\d+) passed; (\d+) failed;", re.MULTILINE)
UNITTEST_SUMMARY = re.compile(r"^Ran (\d+) tests?.*\n\n(?:OK|FAILED)(.*)$", re.MULTILINE)
SUMMARY = re.compile(r"^(\d+) passed, (\d+) failed$", re.MULTILINE)

# Leaders of the process groups of commands, which a Ctrl-C at the terminal does not reach.
running: set[int] = set()

Stage = tuple[str, Callable[[], object]]


@dataclass(frozen=True)
class Check:
    group: str
    name: str
    limit: float  # seconds
    command: str  # for the shell


def read_table(text: str) -> list[Check]:
    checks = []
    for line in text.splitlines():
        if line.strip() and not line.startswith("#"):
            group, name, limit, command = line.split(maxsplit=3)
            if group not in GROUPS:
                raise StepError(f"{TABLE.name}: {name}: group {group} is none of {GROUPS}")
            checks.append(Check(group, name, float(limit), command))
    return checks


def lanes(group: str) -> list[list[Stage]]:
    """What has to be there: stages of a lane follow each other, lanes overlap.

    Making a kernel tree is mostly one compiler process (the kernel crate), which leaves
    a CPU for QEMU.
    """
    kernel_lane: list[Stage] = [("kernel tree 7.2", lambda: kernel.ensure("7.2"))]
    if group == "check-debug":
        kernel_lane += [
            ("debug kernel", lambda: kernel.ensure("debug")),
            ("module for debug", lambda: module.ensure("debug")),
            ("in-tree selftests", lambda: kselftest.ensure_all("debug")),
        ]
    elif group == "check-long":
        kernel_lane += [
            ("in-tree kernel of 7.2", lambda: kernel.ensure("intree")),
            ("in-tree kernel of 7.3", lambda: kernel.ensure("intree-7.3")),
            ("in-tree selftests", lambda: kselftest.ensure_all("intree")),
        ]
    else:
        kernel_lane += [("module for 7.2", lambda: module.ensure("7.2"))]
    if group == "check":
        kernel_lane += [
            ("in-tree selftests", lambda: kselftest.ensure_all("7.2")),
            ("kernel tree 7.3", lambda: kernel.ensure("7.3")),
            ("module for 7.3", lambda: module.ensure("7.3")),
            ("in-tree selftests of 7.3", lambda: kselftest.ensure_all("7.3")),
        ]
    host_lane: list[Stage] = [
        ("QEMU", qemu.ensure),
        ("PSP firmware", firmware.ensure),
        ("programs for the VM", rust.programs),
    ]
    if group == "check":
        host_lane += [("third-party clients", clients.ensure)]
    return [kernel_lane, host_lane]


def set_up(group: str) -> None:
    stopped = threading.Event()

    def run_lane(lane: list[Stage]) -> None:
        for name, ensure in lane:
            if stopped.is_set():
                return
            start = time.monotonic()
            try:
                ensure()
            except BaseException as error:
                stopped.set()
                progress.say("set-up", f"{name}: {error}; waiting for what else is under way")
                raise
            progress.say("set-up", f"{name}: ready ({time.monotonic() - start:.1f} s)")

    with ThreadPoolExecutor() as pool:
        for lane in [pool.submit(run_lane, lane) for lane in lanes(group)]:
            lane.result()


def execute(command: str, limit: float, output: int | None) -> int | None:
    """The status of a shell command; None: it exceeded its limit and was killed."""
    environment = os.environ | {"PROGRAMS": str(rust.programs())}
    process = subprocess.Popen(
        ["bash", "-o", "pipefail", "-c", command],
        cwd=cache.SRC,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT if output is not None else None,
        start_new_session=True,
    )
    running.add(process.pid)
    try:
        return process.wait(timeout=limit)
    except subprocess.TimeoutExpired:
        return None
    finally:
        running.discard(process.pid)
        kill_group(process.pid)
        process.wait()


def count(output: str, status: int | None) -> tuple[int, int]:
    """(passed, failed) as a check's output has it, else of the check as a whole.

    Cargo says it for each test program; unittest in words of its own; of others the last
    line that says it counts.
    """
    unittest = UNITTEST_SUMMARY.search(output)
    if unittest:
        numbers = re.findall(r"(?:failures|errors)=(\d+)", unittest[2])
        failed = sum(map(int, numbers))
        return int(unittest[1]) - failed, max(failed, 1 if status != 0 else 0)
    cargo = [(int(p), int(f)) for p, f in CARGO_SUMMARY.findall(output)]
    others = [(int(p), int(f)) for p, f in SUMMARY.findall(output)]
    pairs = cargo or others[-1:]
    passed, failed = (sum(numbers) for numbers in zip(*pairs, strict=True)) if pairs else (0, 0)
    if status != 0:
        return passed, max(failed, 1)
    return max(passed, 1), failed


def verdict(status: int | None, limit: float) -> str:
    if status is None:
        return f"timed out after {limit:g} s"
    return "ok" if status == 0 else f"failed with status {status}"


def run_check(check: Check, logs: Path, *, show: bool) -> tuple[int, int]:
    """Runs a check and returns how much of it passed and failed.

    Shows its whole output, or else a line if it passes, and the end of its output if not.
    """
    log = logs / f"{check.name}.log"
    start = time.monotonic()
    with log.open("wb") as output:
        command = f"{{ {check.command}; }} 2>&1 | tee {log}" if show else check.command
        status = execute(command, check.limit, None if show else output.fileno())
    seconds = time.monotonic() - start
    passed, failed = count(log.read_text(errors="replace"), status)
    report = f"{check.name:<20} {passed:>4} passed {failed:>3} failed {seconds:>6.1f} s"
    if status != 0:
        report += f"  {verdict(status, check.limit)}"
    if status != 0 and not show:
        report += f"\n{progress.tail(log, FAILURE_LINES)}\n{check.name}: {check.command}\n"
    print(report, flush=True)
    return passed, failed


def run_all(checks: list[Check], jobs: int) -> tuple[int, int]:
    """In the order of the table, `jobs` at a time; one at a time shows all output."""
    logs = cache.LOGS / f"check-{cache.SRC.stat().st_ino:x}"
    logs.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(jobs) as pool:
        try:
            runs = [pool.submit(run_check, check, logs, show=jobs == 1) for check in checks]
            results = [run.result() for run in runs]
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            for leader in tuple(running):
                kill_group(leader)
            raise
    passed, failed = (sum(numbers) for numbers in zip(*results, strict=True))
    return passed, failed


def main() -> int:
    parser = argparse.ArgumentParser(prog="tools/env/drive", description=__doc__)
    parser.add_argument("group", choices=GROUPS)
    parser.add_argument("name", nargs="*", help="only these checks")
    arguments = parser.parse_args()
    start = time.monotonic()
    try:
        checks = [
            check for check in read_table(TABLE.read_text()) if check.group == arguments.group
        ]
        if arguments.name:
            checks = [check for check in checks if check.name in arguments.name]
        if not checks:
            raise StepError(f"no such check: {' '.join(arguments.name)}")
        set_up(arguments.group)
        passed, failed = run_all(checks, 1 if arguments.group == "run" else JOBS)
    except StepError as error:
        print(f"{arguments.group}: {error}", file=sys.stderr)
        print("0 passed, 1 failed")
        return 1
    except KeyboardInterrupt:
        return 130
    progress.say(arguments.group, f"everything took {time.monotonic() - start:.0f} s")
    print(f"{passed} passed, {failed} failed", flush=True)
    return 1 if failed else 0
