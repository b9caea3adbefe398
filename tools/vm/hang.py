# SPDX-License-Identifier: GPL-2.0-or-later
"""What a machine that hangs has to say: where its CPUs are, and what the kernel waits for.

The monitor tells the former whatever the CPUs do. For the latter they get an NMI: it makes the
kernel panic, which then lists what its tasks and CPUs are doing (see machine.COMMAND_LINE).
"""

import asyncio
import re

from .qmp import Qmp, QmpError

PATIENCE = 10  # seconds, for all of it

# Of `info registers`: where it is, and whether it is halted. Of `info lapic`: the timer, and which
# interrupts are in service, requested and held back.
TELLING = re.compile(r"(?:CPU#|RIP=|dumping local APIC|LVTT\s|Timer\s|ISR\s|IRR\s|.* PPR )")


async def interrogate(qmp: Qmp, cpus: int, machine: asyncio.subprocess.Process) -> list[str]:
    """The telling lines. After the NMI, the machine ends."""
    lines: list[str] = []
    try:
        async with asyncio.timeout(PATIENCE):
            for command in ("info registers -a", *(f"info lapic {cpu}" for cpu in range(cpus))):
                text = await qmp.execute("human-monitor-command", **{"command-line": command})
                lines += [line for line in str(text).splitlines() if TELLING.match(line)]
            await qmp.execute("inject-nmi")
            await machine.wait()
    except QmpError as error:
        lines.append(f"no answer: {error}")
    except TimeoutError:
        lines.append(f"no answer to {'an NMI' if lines else 'the monitor'} for {PATIENCE} s")
    return lines
