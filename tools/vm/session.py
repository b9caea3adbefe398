# SPDX-License-Identifier: GPL-2.0-or-later
"""One run of the machine: its process, its channels, the conversation with its init."""

import asyncio
import contextlib
import os
import socket
import sys
import tempfile
from dataclasses import dataclass, field
from typing import BinaryIO

from env.processes import kill_group

from . import figures, hang
from .machine import PORTS, Machine
from .qmp import Psp, Qmp, QmpError
from .vcpus import Vcpus

CHANNELS = (*PORTS, "qmp")
# A firmware reply can be long (a log of commands).
LINE_LIMIT = 16 << 20
QUIT_PATIENCE = 5  # seconds
FAILURES = {
    "got": "not every file of --get could be read",
    "unload": "rmmod kvm_amd failed",
    "kmemleak": "kmemleak could not search",
}


class FailedError(Exception):
    """The machine, not the command, went wrong."""


class EndedError(Exception):
    """The machine is gone in the midst of the conversation."""


@dataclass
class Result:
    status: int | None = None  # of the command; None: it did not end
    problems: list[str] = field(default_factory=list)  # of the machine
    timed_out: bool = False
    vcpus: list[str] = field(default_factory=list)  # what each did lately
    console: bytes = b""
    asked_at: int | None = None  # where on the console the answer of one that hangs begins
    state: list[str] = field(default_factory=list)  # of its CPUs
    qemu_errors: str = ""
    files: bytes = b""  # tar

    @property
    def log(self) -> str:
        return text(self.console[: self.asked_at])

    @property
    def testimony(self) -> str:
        """What the kernel of a machine that hangs said when it was asked."""
        return "" if self.asked_at is None else text(self.console[self.asked_at :])


def text(console: bytes) -> str:
    return console.decode(errors="replace").replace("\r", "")


class Session:
    """Owns QEMU and everything connected to it."""

    def __init__(self, machine: Machine, out: BinaryIO, err: BinaryIO) -> None:
        self._machine = machine
        self._out = out
        self._err = err
        self._readers: dict[str, asyncio.StreamReader] = {}
        self._writers: dict[str, asyncio.StreamWriter] = {}
        self._files = bytearray()
        self.result = Result()

    async def run(self, timeout: float) -> Result:
        with tempfile.TemporaryFile() as console:
            await self._run(timeout, console.fileno())
            self.result.console = console.read()
        return self.result

    async def _run(self, timeout: float, console: int) -> None:
        process = await self._start(console)
        tasks = [
            asyncio.create_task(self._copy("out", self._out.write, self._out.flush)),
            asyncio.create_task(self._copy("err", self._err.write, self._err.flush)),
            asyncio.create_task(self._copy("files", self._files.extend)),
        ]
        vcpus = Vcpus(process.pid)
        watch = asyncio.create_task(vcpus.watch())
        assert process.stderr
        errors = asyncio.create_task(process.stderr.read())
        try:
            async with asyncio.timeout(timeout):
                await self._talk(process)
        except TimeoutError:
            # What the CPUs do when they are asked is not what they did.
            watch.cancel()
            self.result.timed_out = True
            self.result.asked_at = os.fstat(console).st_size
            self.result.state = await hang.interrogate(self._qmp, self._machine.smp, process)
        except (EndedError, QmpError, ConnectionError):
            await asyncio.wait({asyncio.create_task(process.wait())}, timeout=QUIT_PATIENCE)
            self.result.problems.append(
                f"the machine ended by itself (QEMU status {process.returncode})"
            )
        except FailedError as error:
            self.result.problems.append(str(error))
        finally:
            watch.cancel()
            self.result.vcpus = vcpus.report()
            kill_group(process.pid)
            await process.wait()
        # The far ends are closed now, so the copies end.
        await asyncio.gather(*tasks)
        self.result.qemu_errors = (await errors).decode(errors="replace")
        for writer in self._writers.values():
            writer.close()
        closing = (writer.wait_closed() for writer in self._writers.values())
        await asyncio.gather(*closing, return_exceptions=True)
        self.result.files = bytes(self._files)

    async def _start(self, console: int) -> asyncio.subprocess.Process:
        pairs = {name: socket.socketpair() for name in CHANNELS}
        fds = {name: far.fileno() for name, (_, far) in pairs.items()} | {"console": console}
        # A group of its own, to be killed whole; setpriv kills it if the runner is killed.
        process = await asyncio.create_subprocess_exec(
            *("setpriv", "--pdeathsig", "KILL", "--"),
            *self._machine.arguments(fds),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            pass_fds=tuple(fds.values()),
            start_new_session=True,
        )
        for name, (near, far) in pairs.items():
            far.close()
            near.setblocking(False)
            reader, writer = await asyncio.open_connection(sock=near, limit=LINE_LIMIT)
            self._readers[name], self._writers[name] = reader, writer
        self._qmp = Qmp(self._readers["qmp"], self._writers["qmp"])
        return process

    async def _copy(self, name, write, flush=None) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await self._readers[name].read(1 << 16):
                write(data)
                if flush:
                    flush()

    async def _talk(self, process: asyncio.subprocess.Process) -> None:
        """Runs the conversation; QEMU's end in the midst of it is a failure."""
        talk = asyncio.create_task(self._converse())
        end = asyncio.create_task(process.wait())
        tasks = {talk, end}
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            if not talk.done():
                raise EndedError
            await talk
            # Ending it in order lets the firmware close its files.
            with contextlib.suppress(QmpError, TimeoutError):
                async with asyncio.timeout(QUIT_PATIENCE):
                    await self._qmp.execute("quit")
                    await end
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _converse(self) -> None:
        await self._qmp.greet()
        psp = Psp(self._qmp)
        relay = asyncio.create_task(self._relay(psp))
        try:
            before = await self._figures(psp)
            self._say("go")
            self.result.status = int(await self._expect("exit"))
            await self._settle(psp, before)
            async for kind, text in self._lines():
                if kind == "done":
                    break
                if text != "0":
                    self.result.problems.append(FAILURES[kind])
        finally:
            relay.cancel()
            await asyncio.gather(relay, return_exceptions=True)

    async def _settle(self, psp: Psp, before: figures.Figures) -> None:
        """Asks for the figures until nothing leaks, or for PATIENCE seconds."""
        loop = asyncio.get_running_loop()
        limit = loop.time() + figures.PATIENCE
        while leaks := figures.leaks(before, await self._figures(psp)):
            if loop.time() > limit:
                self.result.problems += [f"leak: {leak}" for leak in leaks]
                break
            self._say("again")
        self._say("finish")

    async def _figures(self, psp: Psp) -> figures.Figures:
        lines = []
        async for kind, text in self._lines():
            if kind == "end":
                break
            lines.append((kind, text))
        found = figures.of_files(lines)
        if self._machine.platform != "none":
            found |= figures.of_firmware(await psp.request("counters"))
        return found

    async def _relay(self, psp: Psp) -> None:
        """A request line of the VM's port `psp` gets one reply line."""
        reader, writer = self._readers["psp"], self._writers["psp"]
        while line := await reader.readline():
            reply = await psp.request(line.decode(errors="replace").strip())
            writer.write(reply.encode() + b"\n")
            await writer.drain()

    async def _lines(self):
        """(word, rest) of each line of init."""
        while line := await self._readers["control"].readline():
            kind, _, text = line.decode(errors="replace").strip().partition(" ")
            if kind == "failed":
                raise FailedError(f"the VM could not be set up: {text}")
            yield kind, text
        raise EndedError

    async def _expect(self, wanted: str) -> str:
        kind, text = await anext(self._lines())
        if kind != wanted:
            raise FailedError(f"init said {kind!r} instead of {wanted!r}")
        return text

    def _say(self, text: str) -> None:
        self._writers["control"].write(text.encode() + b"\n")


def run(machine: Machine, timeout: float) -> Result:
    return asyncio.run(Session(machine, sys.stdout.buffer, sys.stderr.buffer).run(timeout))
