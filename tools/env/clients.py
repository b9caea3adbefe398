# SPDX-License-Identifier: GPL-2.0-or-later
"""Third-party programs that `make check` runs, built before there is anything else to do."""

from . import cache, progress

DIRECTORY = cache.SRC / "selftests/clients"
INSTALLED = ("sevctl", "snphost", "snpguest")


def ensure() -> None:
    log = cache.LOGS / "clients.log"
    progress.run("clients", ", ".join(INSTALLED), [DIRECTORY / "install", *INSTALLED], log)
    progress.run("clients", "tests of the crate sev", [DIRECTORY / "sev-tests", "--build"], log)
