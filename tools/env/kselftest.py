# SPDX-License-Identifier: GPL-2.0-or-later
"""The kernel's own KVM selftests, linked statically, all of a tree at once."""

import shutil
import subprocess
from pathlib import Path

from . import cache, kernel, kernel_tree, progress
from .progress import StepError

KEEP = 2  # releases of each series


def ensure(series: str, name: str) -> Path:
    """Path of the test `name`, for instance x86/sev_smoke_test."""
    tests = ensure_all(series)
    test = tests / name
    if not test.is_file():
        groups = sorted(str(p.relative_to(tests)) for p in tests.rglob("*") if p.is_file())
        raise StepError(f"no selftest {name} in this kernel; there are: {' '.join(groups)}")
    return test


def ensure_all(series: str) -> Path:
    """The directory of the tests of a series; of a kernel that was built whole, those of its source."""
    series = kernel.series_of(series)
    tree = kernel.ensure(series)
    entry = cache.CACHE / "kselftest" / f"{tree.name}-{cache.key_of(Path(__file__))}"
    cache.ensure(entry, lambda new: build(series, tree, new))
    cache.keep_newest(entry.parent, f"{series}.*", KEEP)
    return entry / "tests"


def build(series: str, tree: Path, new: Path) -> None:
    topic = f"selftests {series}"
    log = cache.LOGS / f"kselftest-{series}.log"
    source, output = tree / "src", tree / "build"
    headers = kernel_tree.make_command(source, output, "headers")
    progress.run(topic, "installing kernel headers", headers, log)
    objects = new / "objects"
    objects.mkdir()
    tests = source / "tools/testing/selftests/kvm"
    make: list[str | Path] = ["make", "-C", tests, "ARCH=x86", f"OUTPUT={objects}"]
    command: list[str | Path] = [
        *(*make, kernel_tree.jobs()),
        f"KHDR_INCLUDES=-isystem {output}/usr/include",
        "LDFLAGS=-static -pthread",
        "LIBVFIO_C=",
        *buildable(tests, make),
    ]
    progress.run(topic, "building", command, log)
    for path in objects.rglob("*"):
        if path.is_file() and path.stat().st_mode & 0o100 and path.suffix == "":
            target = new / "tests" / path.relative_to(objects)
            target.parent.mkdir(parents=True, exist_ok=True)
            subprocess.run(["strip", "-o", target, path], check=True)
    shutil.rmtree(objects)


def buildable(tests: Path, make: list[str | Path]) -> list[str]:
    """All tests but those of assigned devices: their library needs drivers that trees here lack."""
    rule = "names: ; @echo $(TEST_GEN_PROGS) $(TEST_GEN_PROGS_EXTENDED)"
    query = [*make, "-s", f"--eval={rule}", "names"]
    names = subprocess.run(query, check=True, stdout=subprocess.PIPE, text=True).stdout
    return [name for name in names.split() if not uses_vfio(tests, Path(name))]


def uses_vfio(tests: Path, program: Path) -> bool:
    sources = (tests / f"{program.name}.c", tests / f"x86/{program.name}.c")
    return any("<libvfio.h>" in path.read_text() for path in sources if path.is_file())
