# SPDX-License-Identifier: GPL-2.0-or-later
"""Puts SEV in Rust into a kernel source tree, where CONFIG_KVM_AMD_SEV_RUST chooses it over sev.c.

Two files of the tree get some lines more; done again, the files are refreshed.
"""

import argparse
import shutil
import sys
from pathlib import Path

from .cache import SRC
from .progress import StepError

KVM = Path("arch/x86/kvm")
HERE = KVM / "svm/sev"
HEADER = Path("arch/x86/include/uapi/asm/kvm_sev_impl.h")

# File of the tree, the line there that is looked for, and what becomes of it.
OBJECT = "kvm-amd-$(CONFIG_KVM_AMD_SEV)\t+= svm/sev.o\n"
IN_MAKEFILE = f"""\
ifdef CONFIG_KVM_AMD_SEV_RUST
kvm := $(srctree)/{KVM}
sev := svm/sev/
include $(src)/$(sev)sev.mk
else
{OBJECT}endif
"""
OPTION = "config KVM_IOAPIC\n"
IN_KCONFIG = f"""\
source "{HERE}/Kconfig"

{OPTION}"""
# All of this project that gets there.
INPUTS = (Path(__file__), SRC / "src", SRC / "Kconfig", SRC / "uapi/asm" / HEADER.name)
EDITS = ((KVM / "Makefile", OBJECT, IN_MAKEFILE), (KVM / "Kconfig", OPTION, IN_KCONFIG))


def edited(text: str, found: str, instead: str) -> str | None:
    """`text` with the one line `found` exchanged; None if that cannot be done."""
    if instead in text:
        return text
    return text.replace(found, instead) if text.count(found) == 1 else None


def drop(source: Path) -> None:
    """Puts everything into the kernel source `source`, or nothing."""
    if not (source / KVM / "svm/sev.c").exists():
        raise StepError(f"{source} is not the source of a kernel that has {KVM}/svm/sev.c")
    texts = {}
    for name, found, instead in EDITS:
        text = edited((source / name).read_text(), found, instead)
        if text is None:
            raise StepError(f"{source / name} has not exactly one line {found.strip()!r}")
        texts[source / name] = text
    shutil.rmtree(source / HERE, ignore_errors=True)
    shutil.copytree(SRC / "src", source / HERE, ignore=shutil.ignore_patterns(".*", "Kbuild"))
    shutil.copy(SRC / "Kconfig", source / HERE)
    shutil.copy(SRC / "uapi/asm" / HEADER.name, source / HEADER)
    for path, text in texts.items():
        # Not in place: the tree may share its files with another one.
        path.unlink()
        path.write_text(text)


def main() -> int:
    parser = argparse.ArgumentParser(prog="tools/env/intree", description=__doc__)
    parser.add_argument("source", type=Path, metavar="KSRC", help="a kernel source tree")
    source = parser.parse_args().source
    try:
        drop(source)
    except (OSError, StepError) as error:
        print(f"intree: {error}", file=sys.stderr)
        return 1
    print(f"{source / HERE} holds SEV in Rust now. Next, in {source}:")
    print("  scripts/config -e RUST -m KVM_AMD -e KVM_AMD_SEV -e KVM_AMD_SEV_RUST")
    print("  make olddefconfig && make")
    return 0
