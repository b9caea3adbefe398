# SPDX-License-Identifier: GPL-2.0-or-later
"""Third-party programs that `make check` runs, built before there is anything else to do."""

import sys
from pathlib import Path

from . import cache, progress

DIRECTORY = cache.SRC / "selftests/clients"
INSTALLED = ("sevctl", "snphost", "snpguest")
MEASURE = "sev-snp-measure==0.0.13"
LOG = cache.LOGS / "clients.log"


def install_measure(place: Path) -> None:
    install = f"{sys.executable} -m venv $0 && $0/bin/pip install --quiet {MEASURE}"
    progress.run("clients", MEASURE, ["sh", "-c", install, place], LOG)


def measure() -> Path:
    """The program sev-snp-measure of PyPI."""
    place = cache.CACHE / "clients" / MEASURE.replace("==", "-")
    cache.ensure(place, install_measure)
    return place / "bin/sev-snp-measure"


def ensure() -> None:
    progress.run("clients", ", ".join(INSTALLED), [DIRECTORY / "install", *INSTALLED], LOG)
    progress.run("clients", "tests of the crate sev", [DIRECTORY / "sev-tests", "--build"], LOG)
    measure()
