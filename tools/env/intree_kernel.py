# SPDX-License-Identifier: GPL-2.0-or-later
"""The in-tree kernels: SEV in Rust is in their source, chosen by CONFIG_KVM_AMD_SEV_RUST.

They are made as a user would: `make intree` into the source of a Debian kernel, then the kernel and its
modules, with the compiler of Debian's kernels. There is one tree for each source, which is kept: when
only this project's files have changed, it is built again in place, which takes little longer than the
module alone.
"""

import shutil
from pathlib import Path

from . import cache, intree, kernel_tree, progress, whole_kernel

# By their names, the series whose source they are.
BASES = {"intree": "7.2", "intree-7.3": "7.3"}
RECIPE = whole_kernel.Recipe(
    topic="kernel intree",
    fragment=Path(__file__).with_name("intree.config"),
    make_arguments=kernel_tree.MAKE_ARGUMENTS,
    estimate="6 minutes on 2 CPUs",
)
KEEP = 4  # kernels of each series: other checkouts use this cache as well


def ensure(name: str, base: Path) -> Path:
    """The kernel `name`, made of the tree `base` and this checkout: image/ and version."""
    release = (base / "version").read_text().split("+")[0]
    key = cache.key_of(RECIPE.key(base), Path(__file__).read_bytes(), *intree.INPUTS)
    entry = cache.CACHE / "kernel" / f"intree-{release}-{key}"
    if not cache.is_complete(entry):
        tree = entry.with_name(f"intree-tree-{base.name}")
        cache.ensure(entry, lambda new: make(base, tree, new))
        cache.point(entry.with_name(name), entry)
        cache.keep_newest(entry.parent, f"intree-{BASES[name]}.*", KEEP)
        cache.keep_newest(entry.parent, f"intree-tree-{BASES[name]}.*", 1)
        progress.say(RECIPE.topic, f"{release} is ready")
    return cache.use(entry)


def make(base: Path, tree: Path, new: Path) -> None:
    """Brings `tree` up to date, and installs the kernel in `new`."""
    log = cache.LOGS / f"kernel-{tree.name}.log"
    src, build = tree / "src", tree / "build"
    with cache.locked(f"kernel-{tree.name}"):
        if not build.exists():
            shutil.rmtree(tree, ignore_errors=True)
            whole_kernel.copy_source(base, src)
            build.mkdir()
        cache.use(tree)
        intree.drop(src)
        # Objects of another checkout's files may be younger than the files of this one.
        shutil.rmtree(build / intree.HERE, ignore_errors=True)
        RECIPE.configure(src, build, log)
        RECIPE.build(src, build, log)
        RECIPE.install(src, build, new, log)
        shutil.copy(build / intree.KVM / "kvm-amd.mod", new)


def module_of(entry: Path) -> Path:
    """The kernel's own kvm-amd.ko."""
    return kernel_tree.only(entry / "image/lib/modules", "kvm-amd.ko")
