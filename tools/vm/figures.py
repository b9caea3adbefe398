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

# Columns of the module's `pool` table. An ASID that is dirty is not in use.
POOL = ("leased", "leaked")

Figures = dict[str, int]


def of_files(lines: list[tuple[str, str]]) -> Figures:
    """From (file, line) pairs: the files that init reads, see guest/init."""
    files: dict[str, list[list[str]]] = {}
    for file, line in lines:
        files.setdefault(file, []).append(line.split())
    figures: Figures = {}
    if vmstat := dict(files.get("vmstat", [])):
        pinned = int(vmstat["nr_foll_pin_acquired"]) - int(vmstat["nr_foll_pin_released"])
        figures["pinned_pages"] = pinned
    for (count,) in files.get("refcnt", []):
        figures["kvm_amd_refcnt"] = int(count)
    for resource, charge in files.get("misc.current", []):
        figures[f"misc_cgroup_{resource}"] = int(charge)
    if table := files.get("pool"):
        header, *rows = table
        for row in rows:
            # A line of another length is a figure about the whole pool.
            if len(row) == len(header):
                asids = dict(zip(header, row, strict=True))
                figures |= {f"pool_{asids['kind']}_{name}": int(asids[name]) for name in POOL}
    if table := files.get("contexts"):
        figures["contexts"] = len(table) - 1
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
