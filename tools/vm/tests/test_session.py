# SPDX-License-Identifier: GPL-2.0-or-later
"""Sessions with a program in QEMU's place that plays init and the machine protocol."""

import asyncio
import io
import json
import sys
import tempfile
import time
import unittest
from pathlib import Path
from typing import cast
from unittest import mock

from env.processes import dies
from vm import figures, hang, session, vcpus
from vm.machine import Machine

PRELUDE = """
import json, os, socket, sys, threading, time
fds = json.loads(sys.argv[1])
console = open(f"/dev/fd/{fds.pop('console')}", "wb", buffering=0)
port = {name: socket.socket(fileno=fd) for name, fd in fds.items()}
qmp = port["qmp"].makefile("rw")
counters = '{"contexts": 0, "asids_bound": 0}'
monitor = {}
def nmi():
    pass
def machine():
    print('{"QMP": {}}', file=qmp, flush=True)
    for line in qmp:
        request = json.loads(line)
        value = counters if request["execute"] == "qom-get" else {}
        if request["execute"] == "human-monitor-command":
            value = monitor.get(request["arguments"]["command-line"], "")
        print(json.dumps({"return": value, "id": request["id"]}), file=qmp, flush=True)
        if request["execute"] == "quit":
            os._exit(0)
        if request["execute"] == "inject-nmi":
            nmi()
threading.Thread(target=machine, daemon=True).start()
control = port["control"].makefile("rw")
def say(*lines):
    print(*lines, sep="\\n", file=control, flush=True)
def hear():
    return control.readline().strip()
def forever():
    time.sleep(3600)
"""

WELL = """
say("refcnt 0", "end"); assert hear() == "go"
port["out"].sendall(b"output\\n"); port["err"].sendall(b"errors\\n")
say("exit 7", "refcnt 0", "end"); assert hear() == "finish"
say("unload 0", "done"); forever()
"""


class FakeMachine:
    platform = "sev"
    firmware = Path("libsevfw.so")
    smp = 2

    def __init__(self, script: str) -> None:
        self._script = script

    def arguments(self, fds):
        return [sys.executable, "-c", self._script, json.dumps(fds)]


def run(script: str, timeout: float = 20, prelude: str = PRELUDE):
    out, err = io.BytesIO(), io.BytesIO()
    result = asyncio.run(
        session.Session(cast(Machine, FakeMachine(prelude + script)), out, err).run(timeout)
    )
    return result, out.getvalue(), err.getvalue()


class Runs(unittest.TestCase):
    def test_status_and_output_of_the_command(self):
        result, out, err = run(WELL)
        self.assertEqual((result.status, result.problems, result.timed_out), (7, [], False))
        self.assertEqual((out, err), (b"output\n", b"errors\n"))

    def test_a_cpu_that_this_machine_stops_is_reported(self):
        script = """
import signal
def cpu(number, work):
    open(f"/proc/self/task/{threading.get_native_id()}/comm", "w").write(f"CPU {number}/TCG")
    work()
threading.Thread(target=cpu, args=(1, forever), daemon=True).start()
say("refcnt 0", "end"); assert hear() == "go"
cpu(0, lambda: os.kill(os.getpid(), signal.SIGSTOP))
"""
        with (
            mock.patch.object(vcpus, "PERIOD", 0.1),
            mock.patch.object(vcpus, "REMARKABLE", 0.3),
            mock.patch.object(hang, "PATIENCE", 1),
        ):
            result, _, _ = run(script, timeout=8)
        self.assertTrue(result.timed_out)
        self.assertEqual(len(result.vcpus), 2)
        for line in result.vcpus:
            self.assertRegex(line, r"CPU [01] ran 0\.\d s of the last \d s; .* for \d s")

    def test_console_and_files_are_kept(self):
        script = WELL.replace('"unload 0"', '"got 0", "unload 0"').replace(
            'say("got',
            'port["files"].sendall(b"tar"); console.write(b"log\\r\\n"); say("got',
        )
        result, _, _ = run(script)
        self.assertEqual((result.files, result.log), (b"tar", "log\n"))

    def test_figures_are_polled_until_they_are_back(self):
        script = WELL.replace(
            'say("exit 7", ',
            'say("exit 7", "refcnt 9", "end"); assert hear() == "again"\nsay(',
        )
        result, _, _ = run(script)
        self.assertEqual((result.status, result.problems), (7, []))

    def test_a_leak_is_a_problem(self):
        script = """
say("refcnt 0", "end"); hear(); say("exit 0")
say("refcnt 9", "end")
while hear() == "again": say("refcnt 9", "end")
say("done"); forever()
"""
        with mock.patch.object(figures, "PATIENCE", 0.1):
            result, _, _ = run(script)
        self.assertEqual(result.problems, ["leak: kvm_amd_refcnt: 0 before, 9 after"])

    def test_a_context_left_in_the_firmware_is_a_problem(self):
        script = """
say("end"); hear(); counters = '{"contexts": 1, "asids_bound": 0}'; say("exit 0", "end")
while hear() == "again": say("end")
say("done"); forever()
"""
        with mock.patch.object(figures, "PATIENCE", 0.1):
            result, _, _ = run(script)
        self.assertEqual(result.problems, ["leak: psp_contexts: 0 before, 1 after"])

    def test_a_module_that_stays_is_a_problem(self):
        result, _, _ = run(WELL.replace("unload 0", "unload 1"))
        self.assertEqual(result.problems, ["rmmod kvm_amd failed"])

    def test_set_up_failure(self):
        result, _, _ = run('say("failed modprobe ccp (status 1)"); forever()')
        self.assertIsNone(result.status)
        self.assertEqual(result.problems, ["the VM could not be set up: modprobe ccp (status 1)"])

    def test_a_panic_ends_the_machine(self):
        result, _, _ = run('say("end"); hear(); console.write(b"panic"); os._exit(0)')
        self.assertIsNone(result.status)
        self.assertEqual(result.log, "panic")
        self.assertIn("the machine ended by itself", result.problems[0])

    def test_a_qemu_that_does_not_start(self):
        result, _, _ = run("", prelude='import sys; sys.exit("no such device")')
        self.assertEqual(result.problems, ["the machine ended by itself (QEMU status 1)"])
        self.assertEqual(result.qemu_errors, "no such device\n")

    def test_requests_of_the_vm_reach_the_firmware(self):
        script = """
say("end"); hear(); psp = port["psp"].makefile("rw")
print("counters", file=psp, flush=True)
port["out"].sendall(psp.readline().encode())
say("exit 0", "end"); hear(); say("done"); forever()
"""
        _, out, _ = run(script)
        self.assertEqual(json.loads(out), {"contexts": 0, "asids_bound": 0})


class TimeOut(unittest.TestCase):
    def setUp(self):
        patience = mock.patch.object(hang, "PATIENCE", 1)
        patience.start()
        self.addCleanup(patience.stop)

    def test_the_machine_says_where_it_hangs(self):
        script = r"""
monitor["info registers -a"] = "CPU#0\nRAX=0\nRIP=5 HLT=1\n"
monitor["info lapic 1"] = "ESR 0\nISR\t 236\n"
def nmi():
    console.write(b"Kernel panic\r\n")
    os._exit(0)
console.write(b"so far\r\n")
forever()
"""
        result, _, _ = run(script, timeout=2)
        self.assertTrue(result.timed_out)
        self.assertEqual(result.problems, [])
        self.assertEqual((result.log, result.testimony), ("so far\n", "Kernel panic\n"))
        self.assertEqual(result.state, ["CPU#0", "RIP=5 HLT=1", "ISR\t 236"])

    def test_a_machine_that_does_not_answer(self):
        silent = """
class Silent:
    def get(self, *_): forever()
monitor = Silent()
forever()
"""
        answering = 'monitor["info registers -a"] = "CPU#0"; forever()'
        for script, what in ((silent, "the monitor"), (answering, "an NMI")):
            result, _, _ = run(script, timeout=2)
            self.assertEqual(result.state[-1], f"no answer to {what} for 1 s")

    def test_the_whole_group_is_killed(self):
        with tempfile.TemporaryDirectory() as name:
            pids = Path(name) / "pids"
            script = f"""
import subprocess
child = subprocess.Popen(["sleep", "3600"])
open({str(pids)!r}, "w").write(f"{{os.getpid()}} {{child.pid}}")
console.write(b"so far")
forever()
"""
            start = time.monotonic()
            result, _, _ = run(script, timeout=2)
            self.assertTrue(result.timed_out)
            self.assertEqual(result.log, "so far")
            self.assertLess(time.monotonic() - start, 10)
            for pid in pids.read_text().split():
                self.assertTrue(dies(int(pid)), f"process {pid} is left")


if __name__ == "__main__":
    unittest.main()
