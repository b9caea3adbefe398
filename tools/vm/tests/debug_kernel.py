# SPDX-License-Identifier: GPL-2.0-or-later
"""What the debug kernel notices fails a run: builds a module, boots a VM, hence not discovered."""

import re
import subprocess
import tempfile
import unittest
from pathlib import Path

from env import module
from vm import klog

HERE = Path(__file__).resolve().parent
RUN = HERE.parent / "run"

# At least one for each mistake of provoke.c, in its order. kmemleak does not see all of what was
# lost: an old copy of an address may be lying about.
REPORTS = (
    "WARNING: suspicious RCU usage",
    "WARNING: possible circular locking dependency detected",
    "BUG: KASAN: slab-use-after-free in .*provoke",
    "BUG: KASAN: vmalloc-out-of-bounds in .*provoke",
    "UBSAN: array-index-out-of-bounds in .*provoke.c",
    "UBSAN: shift-out-of-bounds in .*provoke.c",
    "WARNING: lib/list_debug.c:",
    "BUG: sleeping function called from invalid context at provoke.c",
    "BUG: using smp_processor_id",
    "kmemleak: unreferenced object",
    "kmemleak: [1-8] new suspected memory leaks",
)


class Provoked(unittest.TestCase):
    def test_everything_is_reported(self):
        provoke = module.ensure_test("debug", HERE / "provoke")
        with tempfile.TemporaryDirectory() as name:
            work = Path(name)
            run = subprocess.run(
                [RUN, "--kernel", "debug", "--module", "stock", "--timeout", "580"]
                + ["--put", provoke, "--log", work / "log"]
                + ["--", "insmod", "/provoke.ko"],
                capture_output=True,
                text=True,
            )
            log = (work / "log").read_text()
        self.assertEqual(run.returncode, 125, run.stderr)
        complaints = klog.complaints(log)
        for report in REPORTS:
            with self.subTest(report):
                self.assertTrue([line for line in complaints if re.search(report, line)], log)


if __name__ == "__main__":
    unittest.main()
