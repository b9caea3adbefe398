# SPDX-License-Identifier: GPL-2.0-or-later
"""What the debug kernel notices fails a run: builds a module, boots a VM, hence not discovered."""

import subprocess
import tempfile
import unittest
from pathlib import Path

from env import kernel
from vm import klog

HERE = Path(__file__).resolve().parent
RUN = HERE.parent / "run"

# One for each mistake of provoke.c, in its order.
REPORTS = (
    "BUG: KASAN: slab-use-after-free in provoke",
    "BUG: KASAN: vmalloc-out-of-bounds in provoke",
    "UBSAN: array-index-out-of-bounds in ",
    "UBSAN: shift-out-of-bounds in ",
    "list_add double add",
    "BUG: sleeping function called from invalid context",
    "BUG: using smp_processor_id() in preemptible",
    "WARNING: suspicious RCU usage",
    "WARNING: possible circular locking dependency detected",
    "kmemleak: 8 new suspected memory leaks",
)


class Provoked(unittest.TestCase):
    def test_everything_is_reported(self):
        tree = kernel.ensure("debug")
        with tempfile.TemporaryDirectory() as name:
            work = Path(name)
            options = (f"M={HERE / 'provoke'}", f"MO={work}", "modules")
            build = subprocess.run(
                kernel.make_command(tree, *options), capture_output=True, text=True
            )
            self.assertEqual(build.returncode, 0, build.stderr)
            run = subprocess.run(
                [RUN, "--kernel", "debug", "--module", "stock", "--timeout", "280"]
                + ["--put", work / "provoke.ko", "--log", work / "log"]
                + ["--", "insmod", "/provoke.ko"],
                capture_output=True,
                text=True,
            )
            log = (work / "log").read_text()
        self.assertEqual(run.returncode, 125, run.stderr)
        complaints = klog.complaints(log)
        for report in REPORTS:
            with self.subTest(report):
                self.assertTrue([line for line in complaints if report in line], complaints)
        # Each is a reason of its own for the run to fail.
        self.assertEqual(len(complaints), len(REPORTS), complaints)
        self.assertIn("lose", log.partition("kmemleak: ")[2])


if __name__ == "__main__":
    unittest.main()
