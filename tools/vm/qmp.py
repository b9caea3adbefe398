# SPDX-License-Identifier: GPL-2.0-or-later
"""QEMU's machine protocol, as much of it as a run needs, and the PSP behind it."""

import asyncio
import itertools
import json

PSP = "/machine/peripheral/psp"


class QmpError(Exception):
    """QEMU refused a command."""


class Qmp:
    """One connection; commands are executed in the order of the calls."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._lock = asyncio.Lock()
        self._ids = itertools.count()

    async def greet(self) -> None:
        await self._reader.readline()
        await self.execute("qmp_capabilities")

    async def execute(self, command: str, **arguments: object) -> object:
        request = {"execute": command, "arguments": arguments, "id": next(self._ids)}
        async with self._lock:
            try:
                self._writer.write(json.dumps(request).encode() + b"\n")
                await self._writer.drain()
                while line := await self._reader.readline():
                    answer = json.loads(line)
                    # An event, or the answer to somebody who did not wait for it.
                    if answer.get("id") != request["id"]:
                        continue
                    if "return" in answer:
                        return answer["return"]
                    if "error" in answer:
                        raise QmpError(answer["error"]["desc"])
            except ConnectionError:
                pass
            raise QmpError("QEMU is gone")


class Psp:
    """The firmware's text control channel (faults, counters) and the machine's counters."""

    def __init__(self, qmp: Qmp) -> None:
        self._qmp = qmp
        # A request and the reply to it must not be torn apart by another request.
        self._lock = asyncio.Lock()

    async def request(self, text: str) -> str:
        """The reply, or a line that starts with `error:`."""
        try:
            async with self._lock:
                if text == "machine-counters":
                    return await self._get("machine-counters")
                await self._qmp.execute("qom-set", path=PSP, property="control", value=text)
                return await self._get("control")
        except QmpError as error:
            return f"error: {error}"

    async def _get(self, name: str) -> str:
        value = await self._qmp.execute("qom-get", path=PSP, property=name)
        return str(value).strip().replace("\n", " ")
