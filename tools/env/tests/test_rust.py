# SPDX-License-Identifier: GPL-2.0-or-later
import tempfile
import unittest
from pathlib import Path
from unittest import mock

from env import cache, rust


class Sources(unittest.TestCase):
    def test_files(self):
        with tempfile.TemporaryDirectory() as name:
            root = Path(name)
            for file in (
                "tools/Cargo.toml",
                "tools/demo/src/main.rs",
                "tools/vm/main.py",
                "tools/.cache/x",
                "selftests/tests/__pycache__/x.pyc",
                "selftests/Cargo.toml",
                "selftests/run",
                "selftests/src/lib.rs",
                "src/main.rs",
            ):
                (root / file).parent.mkdir(parents=True, exist_ok=True)
                (root / file).touch()
            with (
                mock.patch.object(cache, "SRC", root),
                mock.patch.object(rust, "WORKSPACE", root / "tools"),
            ):
                found = [str(path.relative_to(root)) for path in rust.files(rust.PROGRAMS)]
        crates = ["selftests/Cargo.toml", "selftests/src/lib.rs"]
        self.assertEqual(found, [*crates, "tools/Cargo.toml", "tools/demo/src/main.rs"])


if __name__ == "__main__":
    unittest.main()
