# SPDX-License-Identifier: GPL-2.0-or-later
"""The runner as a whole, with the stock module: boots VMs, hence not found by discovery."""

import json
import re
import subprocess
import tempfile
import unittest
from pathlib import Path

RUN = Path(__file__).resolve().parents[1] / "run"


def start(*arguments, **kwargs):
    return subprocess.Popen(
        [RUN, "--module", "stock", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **kwargs,
    )


def run(*arguments):
    process = start(*arguments)
    out, err = process.communicate()
    return process.returncode, out, err


class Boot(unittest.TestCase):
    def test_a_good_run(self):
        with tempfile.TemporaryDirectory() as name:
            directory = Path(name)
            (directory / "in put").write_text("text\n")
            status, out, err = run(
                *(
                    "--put",
                    directory / "in put",
                    "--get",
                    "/tmp/upper case",
                    "--get",
                    "/proc/version",
                ),
                *("--out", directory / "out", "--log", directory / "log", "--smp", "1", "--"),
                *("sh", "-c", 'tr a-z A-Z <"$1" >"/tmp/upper case"; nproc; echo oops >&2; exit 3'),
                *("sh", "/in put"),
            )
            self.assertEqual((status, out), (3, "1\n"), err)
            self.assertIn("oops\n", err)
            self.assertEqual((directory / "out/upper case").read_text(), "TEXT\n")
            self.assertIn("Linux version", (directory / "out/version").read_text())
            self.assertIn("kvm_amd: SEV enabled (ASIDs ", (directory / "log").read_text())

    def test_the_kernel_log_is_whole(self):
        with tempfile.TemporaryDirectory() as name:
            log = Path(name) / "log"
            status, _, err = run("--log", log, "--", "true")
            self.assertEqual(status, 0, err)
            # What is printed before the console is there comes at once, faster than ever again.
            lines = log.read_text().splitlines()
            self.assertGreater(len(lines), 200)
            odd = [line for line in lines if not re.match(r"\[ *\d+\.\d{6}\] ", line)]
            self.assertEqual(odd, [])

    def test_firmware_requests(self):
        status, out, err = run(
            "--", "sh", "-c", "psp counters && psp machine-counters && ! psp nonsense"
        )
        self.assertEqual(status, 0, err)
        counters, machine, refusal = out.splitlines()
        self.assertEqual(json.loads(counters)["contexts"], 0)
        self.assertGreater(json.loads(machine)["wbinvd"], 0)
        self.assertRegex(refusal, "^error: ")

    def test_two_at_once(self):
        both = [start("--", "echo", str(number)) for number in range(2)]
        for number, process in enumerate(both):
            out, err = process.communicate()
            self.assertEqual((process.returncode, out), (0, f"{number}\n"), err)

    def test_no_sev_without_the_platform(self):
        status, out, err = run(
            "--platform", "none", "--", "cat", "/sys/module/kvm_amd/parameters/sev"
        )
        self.assertEqual((status, out), (0, "N\n"), err)

    def test_kernel_complaint(self):
        status, _, err = run("--", "sh", "-c", "echo 'WARNING: at example' >/dev/kmsg")
        self.assertEqual(status, 125)
        self.assertRegex(err, r"vm: kernel: \[[ \d.]+\] WARNING: at example")

    def test_panic(self):
        status, _, err = run("--", "sh", "-c", "echo c >/proc/sysrq-trigger")
        self.assertEqual(status, 125)
        self.assertIn("vm: the machine ended by itself", err)
        self.assertIn("Kernel panic - not syncing: sysrq triggered crash", err)

    def test_leak(self):
        # What is left of the command keeps /dev/kvm open, and with it the module.
        status, _, err = run("--", "sh", "-c", "sleep 1000 </dev/kvm >/dev/null 2>&1 &")
        self.assertEqual(status, 125)
        self.assertIn("vm: leak: kvm_amd_refcnt: 0 before, 1 after", err)

    def test_time_out(self):
        status, out, err = run("--timeout", "20", "--", "sh", "-c", "echo begun; sleep 1000")
        self.assertEqual((status, out), (124, "begun\n"))
        self.assertIn("kvm_amd: ", err)


if __name__ == "__main__":
    unittest.main()
