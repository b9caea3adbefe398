# SPDX-License-Identifier: GPL-2.0-or-later
"""Scripts of sequences and what running them printed."""

import re
from dataclasses import dataclass, field

# Answers without what depends on random numbers of the firmware.
BYTES = re.compile(r"bytes:(\d+):[0-9a-f]+")


@dataclass(frozen=True)
class Sequence:
    name: str
    ops: tuple[str, ...]

    def text(self) -> str:
        return "\n".join((f"sequence {self.name}", *self.ops, ""))


def read(text: str) -> list[Sequence]:
    """The inverse of `Sequence.text`; comments and empty lines are left out."""
    found: list[tuple[str, list[str]]] = []
    for line in map(str.strip, text.splitlines()):
        if line.startswith("sequence "):
            found.append((line.removeprefix("sequence ").strip(), []))
        elif line and not line.startswith("#"):
            if not found:
                raise ValueError(f"{line!r} is before the first sequence")
            found[-1][1].append(line)
    return [Sequence(name, tuple(ops)) for name, ops in found]


@dataclass
class Outcome:
    """What one module answered."""

    # By operation, and at the end `close`, `kernel` and `held` lines under these names.
    answers: list[tuple[str, str]] = field(default_factory=list)
    complete: bool = False



def without_bytes(text: str) -> str:
    return BYTES.sub(r"bytes:\1", text)


@dataclass
class Output:
    outcomes: dict[str, Outcome]
    physical: str = ""
    complete: bool = False
    stopped: str = ""


def outcomes(output: str, sequences: list[Sequence]) -> Output:
    ops = {sequence.name: sequence.ops for sequence in sequences}
    result = Output({})
    current: Outcome | None = None
    name = ""
    for line in output.splitlines():
        word, _, rest = line.partition(" ")
        if word == "physical":
            result.physical = rest
        elif word == "stopped:":
            result.stopped = rest
        elif word == "done":
            result.complete = True
        elif word == "sequence":
            name = rest
            current = result.outcomes[name] = Outcome()
        elif current is None:
            continue
        elif word == "end":
            current.complete = True
            current = None
        elif word.isdigit() and int(word) < len(ops[name]):
            current.answers.append((ops[name][int(word)], rest))
        elif word in ("close", "kernel", "held"):
            current.answers.append((word, rest))
    return result
