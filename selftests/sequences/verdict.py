# SPDX-License-Identifier: GPL-2.0-or-later
"""Whether two modules answered alike, and which differences are deliberate."""

import re
from dataclasses import dataclass
from enum import Enum
from itertools import zip_longest

from .script import Outcome, without_bytes

NOTHING = "nothing"
# The commands with which an SEV-SNP guest ends.
ENDS = ("SNP_DECOMMISSION", "SNP_PAGE_RECLAIM")


@dataclass(frozen=True)
class Difference:
    """A line of differences.list: `SEQUENCE | BEFORE | OPERATION | STOCK | OURS | REASON`."""

    # A scripted one that shows it, or a seed.
    sequence: str
    # An operation that has to come before, `-` if none; {vm} is the one of OPERATION.
    before: str
    operation: str
    stock: str
    ours: str
    reason: str

    def fits(self, earlier: list[str], operation: str, stock: str, ours: str) -> bool:
        pairs = ((self.operation, operation), (self.stock, stock), (self.ours, ours))
        if not all(re.fullmatch(pattern, text) for pattern, text in pairs):
            return False
        words = operation.split()
        before = self.before.replace("{vm}", re.escape(words[1]) if len(words) > 1 else "-")
        return before == "-" or any(re.fullmatch(before, op) for op in earlier)


def differences(text: str) -> list[Difference]:
    listed = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        # A pattern has its bars in classes or escaped; fields have spaces around theirs.
        fields = [field.strip() for field in line.split(" | ")]
        if len(fields) != 6 or not all(fields):
            raise ValueError(
                f"differences.list:{number}: not `SEQUENCE | BEFORE | OPERATION | STOCK | OURS | REASON`"
            )
        try:
            for pattern in fields[1:5]:
                re.compile(pattern)
        except re.error as error:
            raise ValueError(f"differences.list:{number}: {error}") from error
        listed.append(Difference(*fields))
    return listed


class Kind(Enum):
    SAME = "same"
    LISTED = "listed"
    WRONG = "wrong"


@dataclass(frozen=True)
class Verdict:
    kind: Kind
    # Of the first difference.
    index: int = 0
    operation: str = ""
    stock: str = ""
    ours: str = ""
    difference: Difference | None = None

    def signature(self) -> tuple[str, ...]:
        """What stays the same when unnecessary operations are left out."""
        words = [word for word in self.operation.split() if "=" not in word]
        # Not the name of the VM.
        return (*words[:1], *words[2:], outline(self.stock), outline(self.ours))


def outline(answer: str) -> str:
    """An answer without handles and bytes; of the commands only that there are some."""
    answer = re.sub(r"psp=\S+", "psp", without_bytes(answer))
    return re.sub(r"(handle|policy|references|pins)=\S+", r"\1", answer)


def complaint(outcome: Outcome) -> tuple[int, str] | None:
    for index, (operation, answer) in enumerate(outcome.answers):
        if operation == "kernel":
            return index, answer
    return None


def without_flushes(outcome: Outcome) -> Outcome:
    """When ASIDs run out, how often they are flushed depends on when closed VMs are gone."""
    if not any(operation.startswith("exhaust") for operation, _ in outcome.answers):
        return outcome
    answers = [
        (operation, re.sub(r"(?<=[=,])(?:SNP_)?DF_FLUSH(\*\d+)?,?", "", answer))
        for operation, answer in outcome.answers
    ]
    return Outcome(answers, outcome.complete)


def without_order(outcome: Outcome) -> Outcome:
    """Whether a guest goes first or a page that is not its context's does not matter."""

    def arrange(match: re.Match[str]) -> str:
        commands: list[str] = []
        ends: list[str] = []
        for text in match[1].split(","):
            name, _, count = text.partition("*")
            if name in ENDS:
                ends += [name] * int(count or 1)
            else:
                commands += sorted(ends) + [text]
                ends = []
        return "psp=" + ",".join(commands + sorted(ends))

    answers = [
        (operation, re.sub(r"psp=(\S+)", arrange, answer)) for operation, answer in outcome.answers
    ]
    return Outcome(answers, outcome.complete)


def judge(stock: Outcome, ours: Outcome, listed: list[Difference]) -> Verdict:
    """Both firmwares drew the same random numbers, as long as they got the same commands."""
    stock, ours = (without_order(without_flushes(outcome)) for outcome in (stock, ours))
    found = first_difference(stock, ours, without_bytes)
    if found is None:
        if bad := complaint(ours):
            return Verdict(Kind.WRONG, bad[0], "kernel", bad[1], bad[1])
        found = first_difference(stock, ours, str)
        if found is None:
            return Verdict(Kind.SAME)
    earlier = [operation for operation, _ in stock.answers[: found[0]]]
    for difference in listed:
        if difference.fits(earlier, *found[1:]):
            return after_listed(stock, ours, listed) or Verdict(Kind.LISTED, *found, difference)
    return Verdict(Kind.WRONG, *found)


def after_listed(stock: Outcome, ours: Outcome, listed: list[Difference]) -> Verdict | None:
    """Behind a deliberate difference only what must never be is looked for."""
    if bad := complaint(ours):
        return Verdict(Kind.WRONG, bad[0], "kernel", NOTHING, bad[1])
    if not ours.complete:
        return Verdict(Kind.WRONG, len(ours.answers), "end", NOTHING, NOTHING)
    held = [dict(outcome.answers).get("held", NOTHING) for outcome in (stock, ours)]
    if held[1] not in (NOTHING, held[0]):
        earlier = [operation for operation, _ in ours.answers]
        if not any(difference.fits(earlier, "held", *held) for difference in listed):
            return Verdict(Kind.WRONG, len(ours.answers) - 1, "held", *held)
    return None


def first_difference(stock: Outcome, ours: Outcome, view) -> tuple[int, str, str, str] | None:
    nothing = ("", NOTHING)
    pairs = zip_longest(stock.answers, ours.answers, fillvalue=nothing)
    for index, ((operation, answer), (other, our_answer)) in enumerate(pairs):
        if operation == other and view(answer) == view(our_answer):
            continue
        if operation == other:
            return index, operation, answer, our_answer
        # One of the two has a line more (`kernel`, `held`), or ended early.
        if operation in ("kernel", "held"):
            return index, operation, answer, NOTHING
        if other in ("kernel", "held"):
            return index, other, NOTHING, our_answer
        return index, operation or other, answer, our_answer
    if stock.complete != ours.complete:
        ends = ["end" if outcome.complete else NOTHING for outcome in (stock, ours)]
        return len(stock.answers), "end", *ends
    if not stock.complete:
        # Both died: nothing can be said about ours.
        return len(stock.answers), "end", NOTHING, NOTHING
    return None
