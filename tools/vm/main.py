# SPDX-License-Identifier: GPL-2.0-or-later
"""Command line of the runner."""

import argparse
import io
import re
import signal
import sys
import tarfile
import tempfile
import traceback
from pathlib import Path

from env import debug_tree, firmware, kernel, kselftest, module, qemu
from env.progress import StepError

from . import initramfs, klog, session
from .machine import PLATFORMS, Machine

DESCRIPTION = """\
Boot an unmodified Debian kernel on an emulated AMD SEV host, run COMMAND there, and
return its exit status. Other statuses:
  124  time-out; where the VM hangs is shown
  125  the host kernel complained (WARN, BUG, Oops, stall, hung task, ...), something
       leaked, or the VM ended by itself; the kernel log is shown
  2    the run could not be set up
In the VM: files of --put in /, /dev/kvm, /dev/sev, the modules
/lib/modules/kvm-amd-{stock,rust}.ko, and /dev/virtio-ports/psp, where a line with a
request to the firmware (counters, fault ..., machine-counters) gets a line in reply, as
long as the port is kept open; `psp REQUEST` does that from a shell."""

TIMED_OUT = 124
VM_FAILED = 125
NOT_SET_UP = 2

# The debug kernel shows where leaked objects came from, and goes on after a report of KASAN.
DEBUG = "kmemleak.verbose=1 kasan_multi_shot"
# On it, a VM takes a fifth of a second to make and close, and there are tests that use every ASID
# several times: 50 are for SEV guests there instead of 410.
DEBUG_ASIDS = 149

# EPYC models have features that TCG lacks; Linux does without them.
QEMU_NOISE = re.compile(r".*warning: TCG doesn't support requested feature: .*\n?")


def parse(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="tools/vm/run",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--module", choices=("rust", "stock"), default="rust", help="which kvm-amd (rust)")
    add("--platform", choices=tuple(PLATFORMS), default="sev", help="what the CPU offers (sev)")
    add(
        "--kernel",
        default="7.2",
        metavar="SERIES",
        help="Debian's 7.2 or 7.3, or debug, intree, intree-7.3 (7.2)",
    )
    add("--cpu", action="append", default=[], metavar="NAME=VALUE", help="property of the CPUs")
    add("--kselftest", metavar="NAME", help="build and run an in-tree kvm selftest (x86/NAME)")
    add("--repeat", type=int, default=1, metavar="N", help="run COMMAND until it fails, or N times")
    add("--smp", type=int, default=2, metavar="N", help="CPUs (2)")
    add("--mem", metavar="SIZE", help="memory (2G; with the debug kernel, which searches it, 1G)")
    add(
        "--icount",
        action="store_true",
        help="one thread for all CPUs, the clock counts instructions (always on the debug kernel)",
    )
    add("--asids", type=int, metavar="N", help="ASIDs of encrypted guests (509)")
    add("--min-sev-asid", type=int, metavar="N", help="the lowest one of plain SEV guests (100)")
    add("--put", type=Path, action="append", default=[], metavar="FILE", help="copy to the VM's /")
    add("--get", action="append", default=[], metavar="PATH", help="copy from the VM afterwards")
    add("--out", type=Path, default=Path(), metavar="DIR", help="where --get puts files (.)")
    add("--timeout", type=float, default=120, metavar="S", help="seconds for everything (120)")
    add("--param", action="append", default=[], metavar="NAME=VALUE", help="kvm_amd parameter")
    add("--append", default="", metavar="ARGS", help="kernel arguments")
    add("--firmware-config", default="", metavar="STR", help="key=value,... of the PSP firmware")
    add("--log", type=Path, metavar="FILE", help="write the kernel log there")
    add("command", nargs="*", metavar="COMMAND", help="with --kselftest: the test's arguments")
    arguments = parser.parse_args(argv)
    if not arguments.command and not arguments.kselftest:
        parser.error("COMMAND is missing")
    names = [path.rstrip("/").rpartition("/")[2] for path in arguments.get]
    if len(set(names)) != len(names):
        parser.error("two files of --get have the same name")
    return arguments


def say(text: str) -> None:
    print(f"vm: {text}", file=sys.stderr, flush=True)


def repeated(command: list[str], times: int) -> list[str]:
    """A command that runs another one, until it fails, or so many times."""
    if times == 1:
        return command
    loop = f'n=0; while [ $n -lt {times} ] && n=$((n + 1)); do "$@" || exit; done'
    return ["sh", "-c", loop, "sh", *command]


def prepare(arguments: argparse.Namespace, work: Path) -> Machine:
    """Builds what the run needs, unless it is there, and writes the initramfs."""
    tree = kernel.ensure(arguments.kernel)
    command = arguments.command
    if arguments.kselftest:
        test = kselftest.ensure(arguments.kernel, arguments.kselftest)
        arguments.put.append(test)
        command = [f"/{test.name}", *command]
    rust = arguments.module == "rust"
    debug = arguments.kernel == debug_tree.NAME
    contents = initramfs.Contents(
        command=repeated(command, arguments.repeat),
        module=arguments.module,
        rust_module=module.ensure(arguments.kernel) if rust else None,
        params=arguments.param,
        put=arguments.put,
        get=arguments.get,
    )
    initramfs.write(tree, contents, work / "initramfs")
    return Machine(
        qemu=qemu.ensure(),
        firmware=firmware.ensure(),
        kernel=tree / "image/vmlinuz",
        initramfs=work / "initramfs",
        platform=arguments.platform,
        smp=arguments.smp,
        memory=arguments.mem or ("1G" if debug else "2G"),
        # So slow a kernel would, on a busy machine, do nothing but serve its timer: the next
        # interrupt would always be due before a guest's first instruction.
        icount=arguments.icount or debug,
        asids=arguments.asids or (DEBUG_ASIDS if debug else None),
        min_sev_asid=arguments.min_sev_asid,
        cpu_properties=tuple(arguments.cpu),
        firmware_config=arguments.firmware_config,
        append=f"{DEBUG if debug else ''} {arguments.append}".strip(),
    )


def unpack(files: bytes, into: Path) -> None:
    into.mkdir(parents=True, exist_ok=True)
    with tarfile.open(fileobj=io.BytesIO(files)) as tar:
        tar.extractall(into, filter="data")


def conclude(result: session.Result, arguments: argparse.Namespace) -> int:
    """Says what went wrong, with the kernel log, and chooses the exit status."""
    if arguments.log:
        arguments.log.write_text(result.log + result.testimony)
    complaints = klog.complaints(result.log)
    problems = result.problems + [f"kernel: {line}" for line in complaints]
    if result.timed_out:
        problems.insert(0, f"timed out after {arguments.timeout:g} s")
    if problems or result.status != 0:
        say("end of the kernel log:" if not complaints else "kernel log:")
        print(klog.excerpt(result.log), file=sys.stderr)
        if errors := QEMU_NOISE.sub("", result.qemu_errors).strip():
            say(f"QEMU said:\n{errors}")
    if result.testimony:
        say("when asked by an NMI, the kernel said:")
        print(klog.excerpt(result.testimony), file=sys.stderr)
    for problem in problems:
        say(problem)
    for line in result.state:
        say(line)
    if result.status is None:
        for line in result.vcpus:
            say(line)
    if result.timed_out:
        return TIMED_OUT
    if problems or result.status is None:
        return VM_FAILED
    return result.status


def main(argv: list[str]) -> int:
    arguments = parse(argv)
    # So that a killed run cleans up like one that ends.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        with tempfile.TemporaryDirectory(prefix="vm-") as work:
            machine = prepare(arguments, Path(work))
            result = session.run(machine, arguments.timeout)
        if arguments.get and result.files:
            unpack(result.files, arguments.out)
        return conclude(result, arguments)
    except StepError as error:
        say(str(error))
        return NOT_SET_UP
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except Exception:
        # Python's own status would look like the command's.
        traceback.print_exc()
        return NOT_SET_UP
