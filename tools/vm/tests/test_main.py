# SPDX-License-Identifier: GPL-2.0-or-later
import subprocess
import tempfile
import unittest
from pathlib import Path

from vm.main import repeated


class Repeated(unittest.TestCase):
    def run_counting(self, times: int, fails_at: int = 0) -> tuple[int, int]:
        """How often the command ran, and its status."""
        with tempfile.NamedTemporaryFile() as file:
            script = 'echo >>"$0"; [ "$(wc -l <"$0")" != "$1" ] || exit 7'
            command = repeated(["sh", "-c", script, file.name, str(fails_at)], times)
            status = subprocess.run(command, check=False).returncode
            return len(Path(file.name).read_text()), status

    def test_once_is_the_command_itself(self):
        self.assertEqual(repeated(["a", "b c"], 1), ["a", "b c"])

    def test_so_many_times(self):
        self.assertEqual(self.run_counting(10), (10, 0))

    def test_until_it_fails(self):
        self.assertEqual(self.run_counting(10, fails_at=3), (3, 7))


if __name__ == "__main__":
    unittest.main()
