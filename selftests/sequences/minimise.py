# SPDX-License-Identifier: GPL-2.0-or-later
"""Makes a sequence shorter while two modules still answer it differently in the same way.

A VM's start takes as long as dozens of sequences, so every round tries many candidates at once.
"""

from collections.abc import Callable, Iterable

# Says for each candidate whether it still shows the difference.
Oracle = Callable[[list[tuple[str, ...]]], list[bool]]
ROUNDS = 12
# Operations whose arguments must all be there.
NEED_ALL = {
    *("vm", "vcpu", "argp", "run", "raw", "reg", "unreg", "copy", "move"),
    *("fault", "attr", "exhaust", "limit", "private", "punch", "prefault", "identity"),
}

# Operations that are not about a VM.
NO_VM = ("fault", "limit", "attr", "exhaust", "identity", "certificates")


def without(ops: tuple[str, ...], start: int, count: int) -> tuple[str, ...]:
    return ops[:start] + ops[start + count :]


def vms(op: str) -> set[str]:
    words = [word for word in op.split() if "=" not in word]
    named = set(words[1:2]) if words[0] not in NO_VM else set()
    return named | {word.split("=")[1] for word in op.split() if word.startswith("from=")}


def operations(ops: tuple[str, ...]) -> list[tuple[str, ...]]:
    """Candidates with fewer operations, shortest first."""
    candidates = []
    names = {name for op in ops for name in vms(op) if len(name) == 1}
    for name in names:
        candidates.append(tuple(op for op in ops if not vms(op) - {name}))
        candidates.append(tuple(op for op in ops if name not in vms(op)))
    size = max(len(ops) // 2, 1)
    while True:
        for start in range(0, len(ops), size):
            candidates.append(without(ops, start, size))
        if size == 1:
            break
        size //= 2
    return sorted({c for c in candidates if c and len(c) < len(ops)}, key=lambda c: (len(c), c))


def arguments(ops: tuple[str, ...]) -> list[tuple[str, ...]]:
    """Candidates in which one operation lacks one KEY=VALUE."""
    candidates = []
    for index, op in enumerate(ops):
        words = op.split()
        for place, word in enumerate(words):
            if "=" in word and words[0] not in NEED_ALL:
                shorter = " ".join(words[:place] + words[place + 1 :])
                candidates.append((*ops[:index], shorter, *ops[index + 1 :]))
    return candidates


def combined(ops: tuple[str, ...], singles: Iterable[tuple[str, ...]]) -> tuple[str, ...]:
    """Without every operation that could be left out alone."""
    needed = list(ops)
    for single in singles:
        for index in range(len(ops)):
            if single == without(ops, index, 1):
                needed[index] = ""
    return tuple(op for op in needed if op)


def minimise(ops: tuple[str, ...], oracle: Oracle) -> tuple[str, ...]:
    """The shortest that was found; `ops` has to show the difference itself."""
    guess: tuple[str, ...] = ()
    for _ in range(ROUNDS):
        candidates = operations(ops)
        if guess:
            candidates.insert(0, guess)
        good = keep(candidates, oracle)
        if not good:
            break
        guess = combined(ops, [c for c in good if len(c) == len(ops) - 1])
        ops = min(good, key=len)
        if len(guess) >= len(ops):
            guess = ()
    for _ in range(ROUNDS):
        good = keep(arguments(ops), oracle)
        if not good:
            break
        ops = min(good, key=lambda c: len(" ".join(c)))
    return ops


def keep(candidates: list[tuple[str, ...]], oracle: Oracle) -> list[tuple[str, ...]]:
    if not candidates:
        return []
    shown = oracle(candidates)
    return [candidate for candidate, yes in zip(candidates, shown, strict=True) if yes]
