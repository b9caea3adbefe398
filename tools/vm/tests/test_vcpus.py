# SPDX-License-Identifier: GPL-2.0-or-later
import tempfile
import unittest
from pathlib import Path

from vm.vcpus import TICKS, Sample, longest_standstill, read, summary


def samples(states: str, ran: list[float]) -> list[Sample]:
    return [Sample(at, *pair) for at, pair in enumerate(zip(states, ran, strict=True))]


class Standstill(unittest.TestCase):
    def test_running_or_sleeping_is_none(self):
        self.assertEqual(longest_standstill(samples("RRRR", [0, 0.1, 0.2, 0.3])), 0)
        self.assertEqual(longest_standstill(samples("SSSS", [0, 0, 0, 0])), 0)
        self.assertEqual(longest_standstill(samples("RSRS", [0, 0, 0, 0])), 0)
        self.assertEqual(longest_standstill([]), 0)

    def test_wanting_to_run_is_one(self):
        self.assertEqual(longest_standstill(samples("RRRR", [0, 0, 0, 1])), 2)

    def test_the_longest_counts(self):
        self.assertEqual(longest_standstill(samples("RRRRRRSR", [0, 0, 0, 0, 1, 1, 1, 1])), 3)


class Summary(unittest.TestCase):
    def test_short_ones_are_not_mentioned(self):
        text = summary(1, samples("RRRR", [1, 1, 1, 3.5]))
        self.assertEqual(text, "CPU 1 ran 2.5 s of the last 3 s")

    def test_long_ones_are(self):
        text = summary(0, samples("R" * 40, [2.0] * 39 + [3]))
        self.assertEqual(
            text, "CPU 0 ran 1.0 s of the last 39 s; this machine did not let it run for 38 s"
        )


class Read(unittest.TestCase):
    def test_fields_are_found_behind_any_name(self):
        with tempfile.TemporaryDirectory() as task:
            fields = " ".join(str(n) for n in range(4, 53))
            Path(task, "stat").write_text(f"123 (CPU 0) R) S {fields}\n")
            sample = read(Path(task), 7.0)
        self.assertEqual((sample.at, sample.state), (7.0, "S"))
        self.assertAlmostEqual(sample.ran * TICKS, 14 + 15)
