# SPDX-License-Identifier: GPL-2.0-or-later
"""State of the host that a command has to leave as it found it.

Freeing is partly deferred (RCU, work queues), so the figures are polled until they
are back or PATIENCE is over.
"""

import json

PATIENCE = 5.0  # seconds

# From the firmware's counters. `dirty_asids` is not here: an ASID stays dirty until
# somebody needs it.
FIRMWARE = ("contexts", "asids_bound")

# Of the module's debugfs files, figures that may differ afterwards.
VOLATILE = frozenset({"pool_dirty", "pool_free", "pool_flushes", "pool_recycled"})

Figures = dict[str, int]


def of_lines(lines: list[str]) -> Figures:
    """From `figure NAME VALUE` lines; a value that is no number is left out."""
    figures: Figures = {}
    for line in lines:
        _, name, value = line.split()
        if name not in VOLATILE and value.isdigit():
            figures[name] = int(value)
    return figures


def of_firmware(reply: str) -> Figures:
    """From the firmware's answer to `counters`."""
    counters = json.loads(reply)
    return {f"psp_{name}": counters[name] for name in FIRMWARE}


def leaks(before: Figures, after: Figures) -> list[str]:
    """What is not back at its baseline.

    A figure that is gone (its module was unloaded or swapped by the command) holds
    nothing any more; one that is new has to be 0.
    """
    return [
        f"{name}: {before.get(name, 0)} before, {value} after"
        for name, value in sorted(after.items())
        if value != before.get(name, 0)
    ]
