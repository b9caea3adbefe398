# SPDX-License-Identifier: GPL-2.0-or-later
"""What a kernel log must not contain."""

import re

TIMESTAMP = r"(?:<\d+>)?(?:\[[\s\d.]+(?:\]\[\s*[CT]\d+)?\]\s*)?"

# Each is matched at the start of a message, after its time stamp.
COMPLAINTS = (
    r"WARNING: ",  # WARN_ON and every lockdep report
    r"BUG: ",  # KASAN, soft lockup, bad page, sleeping in atomic context, ...
    r"kernel BUG at",
    r"INFO: task .* blocked for more than",
    r"INFO: (?:possible|trying to register|suspicious|rcu_)",
    r"rcu: INFO: .*stall",
    r"rcu: .*kthread .*starved",
    r"rust_kernel: panicked at",
    r"Oops",
    r"general protection fault",
    r"stack segment",
    r"invalid opcode: ",
    r"traps: PANIC",
    r"unchecked MSR access error",
    r"unable to handle",
    r"Kernel panic",
    r"UBSAN: ",
    r"kmemleak: (?:unreferenced object|[1-9]\d* new suspected)",
    r"kmemleak: Kernel memory leak detector disabled",
    r"not ok \d",  # KUnit
    r"DEBUG_LOCKS_WARN_ON",
    r"SEV-SNP: .*(?:RMP fault|leaked)",
    r"watchdog: .*(?:hard LOCKUP|soft lockup)",
    r"workqueue lockup",
    r"refcount_t: ",
    r"list_(?:add|del) corruption",
)
PATTERN = re.compile(TIMESTAMP + r"(?:[\w-]+: )?(?:" + "|".join(COMPLAINTS) + ")")

# The kernel says this of itself on some machines; nobody here can do anything about it.
HARMLESS = re.compile(r"WARNING: (?:CPU0 microcode|Spectre|unprivileged eBPF)", re.IGNORECASE)


# guest/init says this when kmemleak has found what the kernel lost before any module was loaded:
# that is the kernel's own affair.
SEARCHED = "vm: kmemleak has looked for what the kernel lost"
LOST = re.compile(TIMESTAMP + "kmemleak: (?!Kernel memory leak detector disabled)")


def complaining(lines: list[str]) -> list[int]:
    """The indices of the lines that say that something is wrong with the kernel."""
    searched = next((n for n, line in enumerate(lines) if SEARCHED in line), 0)
    return [
        n
        for n, line in enumerate(lines)
        if PATTERN.match(line)
        and not HARMLESS.search(line)
        and not (n < searched and LOST.match(line))
    ]


def complaints(log: str) -> list[str]:
    """Those lines."""
    lines = log.splitlines()
    return [lines[n].strip() for n in complaining(lines)]


def excerpt(log: str, before: int = 5, after: int = 100) -> str:
    """The surroundings of the first complaint, or the end of a log without any."""
    lines = log.splitlines()
    if not (found := complaining(lines)):
        return "\n".join(lines[-(before + after) :])
    return "\n".join(lines[max(0, found[0] - before) : found[0] + after])
