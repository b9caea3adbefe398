# SPDX-License-Identifier: GPL-2.0-or-later
import os
import tempfile
import time
import unittest
from pathlib import Path
from unittest import mock

from env import drive
from env.processes import dies
from env.progress import StepError


class Table(unittest.TestCase):
    def test_the_table_can_be_read(self):
        checks = drive.read_table(drive.TABLE.read_text())
        names = [(check.group, check.name) for check in checks]
        self.assertEqual(len(set(names)), len(names))
        self.assertEqual({group for group, _ in names}, set(drive.GROUPS))

    def test_commands_keep_their_spaces(self):
        (check,) = drive.read_table("# comment\n\ncheck name 60   echo 'a  b'\n")
        self.assertEqual((check.name, check.limit, check.command), ("name", 60, "echo 'a  b'"))

    def test_groups_are_checked(self):
        with self.assertRaises(StepError):
            drive.read_table("chekc name 60 true")


class Count(unittest.TestCase):
    def test_cases(self):
        cargo = (
            "test result: ok. 9 passed; 0 failed; 0 ignored\n"
            "test result: FAILED. 1 passed; 2 failed; 0 ignored\n"
        )
        for expected, output, status in (
            ((1, 0), "", 0),
            ((0, 1), "", 3),
            ((0, 1), "", None),
            ((4, 0), "1 passed, 1 failed\n4 passed, 0 failed\n", 0),
            ((4, 1), "4 passed, 0 failed\n", 1),
            ((4, 2), "4 passed, 2 failed\n", 1),
            ((10, 2), cargo, 1),
        ):
            with self.subTest(output=output, status=status):
                self.assertEqual(drive.count(output, status), expected)


@mock.patch.object(drive.rust, "programs", lambda: Path("/programs"))
class Execute(unittest.TestCase):
    def run_check(self, command, limit=20):
        with tempfile.TemporaryDirectory() as name, mock.patch("builtins.print") as output:
            check = drive.Check("check", "name", limit, command)
            result = drive.run_check(check, Path(name), show=False)
        return result, output.call_args.args[0]

    def test_pass(self):
        result, report = self.run_check("echo secret; [ $PROGRAMS = /programs ]")
        self.assertEqual(result, (1, 0))
        self.assertNotIn("secret", report)

    def test_a_failure_shows_its_output(self):
        result, report = self.run_check("echo why; exit 3")
        self.assertEqual(result, (0, 1))
        self.assertIn("failed with status 3", report)
        self.assertIn("why\n", report)

    def test_time_out_kills_the_children(self):
        with tempfile.NamedTemporaryFile("r") as pid:
            start = time.monotonic()
            result, report = self.run_check(f"sleep 1000 & echo $! >{pid.name}; wait", limit=0.5)
            self.assertLess(time.monotonic() - start, 10)
            self.assertEqual(result, (0, 1))
            self.assertIn("timed out after 0.5 s", report)
            self.assertTrue(dies(int(pid.read())))

    def test_shown_output_keeps_the_status(self):
        with tempfile.TemporaryDirectory() as name, open(os.devnull, "w") as null:
            saved = os.dup(1)
            try:
                os.dup2(null.fileno(), 1)
                check = drive.Check("run", "name", 20, "echo 3 passed, 0 failed; false")
                result = drive.run_check(check, Path(name), show=True)
            finally:
                os.dup2(saved, 1)
                os.close(saved)
        self.assertEqual(result, (3, 1))


if __name__ == "__main__":
    unittest.main()
