# SPDX-License-Identifier: GPL-2.0-or-later
"""Lines of the module, by layer: all, documentation, tests, and what is unsafe."""

import re
from dataclasses import dataclass
from pathlib import Path

SOURCES = Path(__file__).resolve().parents[2] / "src"
# Code of an `unsafe` block; functions and implementations that callers or types answer for.
BLOCK = re.compile(r"\bunsafe \{")
CONTRACT = re.compile(r"\bunsafe (?:extern \"C\" )?(?:fn|impl|trait)\b")
TESTS = re.compile(r"^#\[cfg\(any\(test, CONFIG_KUNIT\)\)\]$", re.MULTILINE)


@dataclass
class Count:
    """What is in some files."""

    files: int = 0
    lines: int = 0
    documentation: int = 0
    tests: int = 0
    blocks: int = 0
    contracts: int = 0

    def __add__(self, other: "Count") -> "Count":
        return Count(*(a + b for a, b in zip(vars(self).values(), vars(other).values())))


def count(text: str) -> Count:
    """What is in a file; tests are counted apart from the rest."""
    found = TESTS.search(text)
    code, tests = (text[: found.start()], text[found.start() :]) if found else (text, "")
    lines = [line.strip() for line in code.splitlines()]
    statements = "\n".join(line for line in lines if not line.startswith("//"))
    return Count(
        files=1,
        lines=len(lines),
        documentation=sum(line.startswith(("//", "/*", "*")) for line in lines),
        tests=len(tests.splitlines()),
        blocks=len(BLOCK.findall(statements)),
        contracts=len(CONTRACT.findall(statements)),
    )


def layer(path: Path) -> str:
    """The first directory, or the file, below src."""
    return path.relative_to(SOURCES).parts[0].removesuffix(".rs")


def table(counts: dict[str, Count]) -> list[str]:
    """A line for each layer, the largest first, and one for all of them."""
    rows = sorted(counts.items(), key=lambda item: -item[1].lines)
    rows.append(("all", sum(counts.values(), Count())))
    heading = f"{'layer':<12} {'files':>6} {'lines':>6} {'of docs':>8} {'tests':>6}"
    heading += f" {'unsafe blocks':>14} {'contracts':>10}"
    return [heading] + [
        f"{name:<12} {c.files:>6} {c.lines:>6} {c.documentation:>8} {c.tests:>6}"
        f" {c.blocks:>14} {c.contracts:>10}"
        for name, c in rows
    ]


def main() -> int:
    rust: dict[str, Count] = {}
    for path in sorted(SOURCES.rglob("*.rs")):
        rust[layer(path)] = rust.get(layer(path), Count()) + count(path.read_text())
    print("\n".join(table(rust)))
    c_files = sorted(SOURCES.rglob("*.[ch]"))
    c_lines = sum(len(path.read_text().splitlines()) for path in c_files)
    directories = ", ".join(sorted({f"src/{layer(path)}" for path in c_files}))
    print(f"C: {c_lines} lines in {len(c_files)} files, in {directories}")
    return 0
