# SPDX-License-Identifier: GPL-2.0-or-later
"""Kernel packages of Debian: which versions there are, and fetching them unpacked."""

import os
import re
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from . import progress
from .progress import StepError

# apt's state is this process's own: apt-get update takes a lock and does not wait for it,
# and QEMU's script, or another series, may be asking the mirror as well.
STATE = Path(tempfile.gettempdir()) / f"apt-{os.getpid()}"
OPTIONS = (
    *("-o", f"Dir::State::Lists={STATE}/lists", "-o", f"Dir::Cache={STATE}/cache"),
    *("-o", "APT::Sandbox::User=root", "-o", "Acquire::Retries=3"),
)


@dataclass(frozen=True)
class KernelPackages:
    """One patch level of a series, all packages of the same source version."""

    series: str  # 7.2
    release: str  # uname -r: 7.2.12+deb13-amd64
    version: str  # Debian version: 7.2.12-1~bpo13+1
    binary: str  # package of vmlinuz; not every series has a signed one

    @property
    def source(self) -> str:
        return f"linux-source-{self.series}"

    @property
    def headers(self) -> str:
        return f"linux-headers-{self.release}"

    @property
    def modules(self) -> str:
        return f"linux-modules-{self.release}"

    @property
    def base(self) -> str:
        """The lists of built-in modules that depmod wants."""
        return f"linux-base-{self.release}"

    @property
    def all(self) -> tuple[str, ...]:
        return (self.source, self.headers, self.modules, self.base, self.binary)

    @property
    def localversion(self) -> str:
        """What Debian appends to the kernel's own version: +deb13-amd64."""
        return re.sub(r"^[\d.]+", "", self.release)


def available(pattern: str) -> set[tuple[str, str]]:
    """(package, version) pairs known to apt whose name matches `pattern`."""
    names = subprocess.run(
        ["apt-cache", *OPTIONS, "pkgnames", "linux-"], check=True, capture_output=True, text=True
    ).stdout.split()
    names = [name for name in names if re.fullmatch(pattern, name)]
    if not names:
        return set()
    table = subprocess.run(
        ["apt-cache", *OPTIONS, "madison", *names], check=True, capture_output=True, text=True
    ).stdout
    rows = (line.split("|") for line in table.splitlines())
    return {(name.strip(), version.strip()) for name, version, *_ in rows}


def series_of(kernel: str) -> str:
    """7.2, of 7.2 as well as of 7.2.12+deb13-amd64."""
    match = re.match(r"\d+\.\d+", kernel)
    return match[0] if match else kernel


def choose(kernel: str, packages: set[tuple[str, str]]) -> KernelPackages:
    """A certain release, or the newest patch level of a series, if every package exists."""
    found = []
    series = series_of(kernel)
    headers = re.compile(rf"linux-headers-({re.escape(series)}\.(\d+)\+deb\d+-amd64)")
    for name, version in packages:
        match = headers.fullmatch(name)
        if not match or kernel not in (series, match[1]):
            continue
        release = match[1]
        for binary in (f"linux-binary-{release}", f"linux-binary-unsigned-{release}"):
            candidate = KernelPackages(series, release, version, binary)
            if all((package, version) in packages for package in candidate.all):
                found.append((int(match[2]), candidate))
                break
    if not found:
        raise StepError(
            f"no complete set of Linux {kernel} packages (source, headers, modules, image) "
            "in trixie-backports; is the mirror current?"
        )
    return max(found, key=lambda pair: pair[0])[1]


def find(topic: str, kernel: str, log: Path) -> KernelPackages:
    """Asks the mirror; patch levels come and go there."""
    for directory in ("lists", "cache"):
        (STATE / directory).mkdir(parents=True, exist_ok=True)
    progress.run(topic, "updating package lists", ["apt-get", *OPTIONS, "update"], log)
    return choose(kernel, available(r"linux-(source|headers|modules|base|binary)-.*"))


def fetch(topic: str, package: str, version: str, into: Path, log: Path) -> None:
    """Downloads a package and unpacks it below `into`, without installing it."""
    into.mkdir(parents=True, exist_ok=True)
    command = ["apt-get", *OPTIONS, "download", f"{package}={version}"]
    progress.run(topic, f"downloading {package}", command, log, cwd=into)
    (deb,) = into.glob(f"{package}_*.deb")
    progress.run(topic, f"unpacking {package}", ["dpkg-deb", "-x", deb, into], log)
    deb.unlink()
