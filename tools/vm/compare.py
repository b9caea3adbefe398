# SPDX-License-Identifier: GPL-2.0-or-later
"""What passes of the kernel's own KVM selftests with the stock module must pass with ours.

The stock module's results are measured, not written down: they depend on kernel, QEMU
and firmware, and are cached for these.
"""

import argparse
import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from env import cache, firmware, kernel, kselftest, qemu
from env.progress import StepError, say

HERE = Path(__file__).parent
SCRIPT = HERE / "guest/selftests"
PASS, SKIP, KILLED = 0, 4, 137
LIMIT = 120  # seconds for one test, many times what it needs on an idle machine
VM_LIMIT = 1200

# Left out, by the beginning of their names; everything else in the tree runs.
EXCLUDED = {
    "x86/sev_": "run one by one, on hosts of their own: all of them have to pass",
    "access_tracking_perf_test": "measures speed, and wants idle page tracking",
    "dirty_log_perf_test": "measures speed",
    "memslot_perf_test": "measures speed, for minutes",
    "mmu_stress_test": "wants more memory than the host VM has",
    "demand_paging_test": "stresses KVM's common part, for a minute",
    "kvm_page_table_test": "stresses KVM's common part, for a minute",
    "memslot_modification_stress_test": "stresses KVM's common part, for a minute",
    "hardware_disable_test": "takes minutes on the emulated host",
    "rseq_test": "takes minutes on the emulated host",
    "set_memory_region_test": "takes minutes on the emulated host",
    "x86/hyperv_clock": "compares clocks, which a busy machine disturbs",
    "x86/hyperv_ipi": "waits for another vCPU by counting instructions",
}

Results = dict[str, int]


def selected(tests: Path) -> list[str]:
    names = (str(path.relative_to(tests)) for path in tests.rglob("*") if path.is_file())
    return sorted(name for name in names if not name.startswith(tuple(EXCLUDED)))


def parse(output: str) -> Results:
    """From the lines that guest/selftests prints."""
    results = {}
    for line in output.splitlines():
        if line.startswith("result "):
            _, name, status, _ = line.split()
            results[name] = int(status)
    return results


def measure(series: str, module: str, tests: Path, log: Path, names: list[str]) -> Results:
    """Runs tests in one VM."""
    command: list[str | Path] = [HERE / "run", "--module", module, "--kernel", series]
    command += ["--timeout", str(VM_LIMIT), "--put", tests, "--put", SCRIPT]
    command += ["--", "/selftests", str(LIMIT), *names]
    with log.open("w") as errors:
        run = subprocess.run(command, stdout=subprocess.PIPE, stderr=errors, text=True)
    log.with_suffix(".results").write_text(run.stdout)
    if run.returncode != 0:
        print(log.read_text()[-8000:], file=sys.stderr)
        raise StepError(f"the selftests' VM failed (status {run.returncode}, {module} module)")
    results = parse(run.stdout)
    if missing := set(names) - set(results):
        raise StepError(f"no result of {', '.join(sorted(missing))} ({module} module)")
    return results


def stock(series: str, tests: Path) -> Results:
    """The stock module's results, from the cache if nothing they depend on has changed."""
    tree = kernel.ensure(series)
    parts: list[str | bytes] = [
        tree.name,
        qemu.ensure().read_bytes(),
        SCRIPT.read_bytes(),
        repr((LIMIT, selected(tests))),
    ]
    key = cache.key_of(*parts, firmware.ensure().read_bytes())
    entry = cache.CACHE / "selftest-results" / f"{series}-{key}"

    def build(new: Path) -> None:
        say(f"selftests {series}", "measuring the stock module, some minutes ...")
        results = measure(series, "stock", tests, new / "log", selected(tests))
        (new / "results.json").write_text(json.dumps(results, indent=1))

    cache.ensure(entry, build)
    cache.keep_newest(entry.parent, f"{series}-*", 4)
    return json.loads((entry / "results.json").read_text())


def name_of(status: int) -> str:
    return {PASS: "pass", SKIP: "skip", KILLED: "killed"}.get(status, f"status {status}")


def judge(ours: Results, theirs: Results) -> tuple[list[str], list[str]]:
    """Good and bad lines, one for each test that the stock module passes or skips."""
    good, bad = [], []
    for name, status in sorted(theirs.items()):
        if status not in (PASS, SKIP):
            continue
        if ours.get(name) == status:
            good.append(f"{name}: {name_of(status)}")
        else:
            bad.append(f"{name}: {name_of(status)} on stock, {name_of(ours[name])} on ours")
    return good, bad


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="tools/vm/compare", description=__doc__)
    parser.add_argument("--kernel", default="7.2", metavar="SERIES")
    series = parser.parse_args(argv).kernel
    try:
        tests = kselftest.ensure_all(series)
        log = cache.LOGS / f"selftests-{series}-{cache.SRC.stat().st_ino:x}.log"
        with ThreadPoolExecutor() as pool:
            theirs = pool.submit(stock, series, tests)
            ours = pool.submit(measure, series, "rust", tests, log, selected(tests))
        good, bad = judge(ours.result(), theirs.result())
        if bad:
            # Some tests give another vCPU only so much time. What is wrong with the module is
            # also wrong when the test has the machine to itself.
            names = [line.partition(":")[0] for line in bad]
            say(f"selftests {series}", f"once more, alone: {' '.join(names)}")
            alone = measure(series, "rust", tests, log.with_suffix(".again.log"), names)
            good, bad = judge(ours.result() | alone, theirs.result())
    except StepError as error:
        print(f"compare: {error}", file=sys.stderr)
        return 1
    passed = sum(1 for line in good if line.endswith(": pass"))
    for line in bad:
        print(f"not ok {line}")
    failing = sorted(n for n, status in theirs.result().items() if status not in (PASS, SKIP))
    print(f"not compared, fail on the stock module: {' '.join(failing) or 'none'}")
    print(f"skipped by both modules: {len(good) - passed}")
    print(f"{passed} passed, {len(bad)} failed")
    return 1 if bad or not passed else 0
