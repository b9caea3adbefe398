# SPDX-License-Identifier: GPL-2.0-or-later
"""The tests that Documentation/history.rst names exist."""

import re
import unittest
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
NAMED = re.compile(r"``(sev_\w+)\.(\w+)``|``(\w+\.rs)::(\w+)``")


def exists(suite: str, test: str, file: str, function: str) -> bool:
    if suite:
        programs = (f"selftests/src/bin/{suite}{end}" for end in (".rs", "/main.rs"))
        existing = [path for path in map(ROOT.joinpath, programs) if path.exists()]
        return any(f'("{test}", ' in path.read_text() for path in existing)
    sources = [*(ROOT / "src").rglob(file), *(ROOT / "tools/unit").rglob(file)]
    return any(re.search(rf"\bfn {function}\b", path.read_text()) for path in sources)


class History(unittest.TestCase):
    def test_named_tests_exist(self):
        text = (ROOT / "Documentation/history.rst").read_text()
        named = NAMED.findall(text)
        self.assertGreater(len(named), 20)
        missing = [".".join(filter(None, name)) for name in named if not exists(*name)]
        self.assertEqual(missing, [])

    def test_others_do_not(self):
        self.assertFalse(exists("sev_init", "no_such_test", "", ""))
        self.assertFalse(exists("", "", "asid.rs", "no_such_test"))


if __name__ == "__main__":
    unittest.main()
