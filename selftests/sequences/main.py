# SPDX-License-Identifier: GPL-2.0-or-later
"""Command line of the differential run."""

import argparse
import os
import sys
import time
from pathlib import Path

from env import cache, rust

from . import script
from .generate import FEATURES, sequence
from .generate_snp import snp_sequence
from .machines import Machines, judge_all
from .minimise import minimise
from .script import Sequence
from .verdict import Difference, Kind, Verdict, differences

DESCRIPTION = """\
Run seeded random sequences of ioctls, with faults injected into the firmware, on the stock
kvm-amd and on ours, on identical emulated hosts, and compare every answer: return values,
error numbers, firmware errors, bytes, the firmware's log of commands, what is still held at the
end. Deliberate differences are in differences.list. A sequence that differs otherwise is
minimised and printed as a script for --replay."""

LIST = Path(__file__).with_name("differences.list")
SCRIPTED = Path(__file__).with_name("scripted")
BATCH = 1000
# One sequence in so many is about SEV-SNP VMs, on a host of its own.
SNP_SHARE = 5
# What the names of those begin with.
SNP = "snp-"
PLATFORMS = ("sev", "es", "snp")


def parse(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="selftests/sequences/run",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("-n", "--number", type=int, default=2000, metavar="N", help="sequences (2000)")
    add("--seed", type=int, default=1, metavar="N", help="seed of the first one (1)")
    add("--replay", type=Path, metavar="FILE", help="run this script, and show every answer")
    add("--print", action="store_true", dest="show", help="print the sequences, run nothing")
    add("--features", default=",".join(FEATURES), help="beyond plain SEV (%(default)s)")
    add("--platform", choices=PLATFORMS, help="only sequences for this host (es and snp)")
    add("--kernel", default="7.2", metavar="SERIES", help="Debian's 7.2 or 7.3 (7.2)")
    add("--minimise", type=int, default=3, metavar="N", help="kinds of failures at most (3)")
    add("--out", type=Path, metavar="DIR", help="directory for the output (in the cache)")
    arguments = parser.parse_args(argv)
    features = tuple(filter(None, arguments.features.split(",")))
    if unknown := set(features) - set(FEATURES):
        parser.error(f"unknown features: {', '.join(sorted(unknown))}")
    arguments.features = features
    return arguments


def say(text: str) -> None:
    print(f"[compare] {text}", flush=True)


def describe(verdict: Verdict) -> str:
    return f"{verdict.operation}: stock {verdict.stock} | ours {verdict.ours}"


def is_snp(name: str) -> bool:
    return name.startswith(SNP)


def replay(machines: Machines, sequences: list[Sequence], listed: list[Difference]) -> int:
    """Shows all answers; 1 if any differs that must not."""
    kinds = {is_snp(one.name) for one in sequences}
    if len(kinds) != 1:
        raise ValueError(f"sequences about SEV-SNP, {SNP}..., have to be in a script of their own")
    machines = machines.on("snp") if kinds == {True} else machines
    stock, ours = machines.both(sequences, each=True)
    verdicts = judge_all(lambda *_: (stock, ours), sequences, listed)
    for one in sequences:
        print(f"sequence {one.name}: {verdicts[one.name].kind.value}")
        pairs = [output.outcomes[one.name].answers for output in (stock, ours)]
        for index in range(max(map(len, pairs))):
            answers = [pair[index] if index < len(pair) else ("", "nothing") for pair in pairs]
            print(f"    {answers[0][0] or answers[1][0]}")
            if answers[0] == answers[1]:
                print(f"        both  {answers[0][1]}")
            else:
                print(f"        stock {answers[0][1]}\n        ours  {answers[1][1]}")
    wrong = sum(verdict.kind is Kind.WRONG for verdict in verdicts.values())
    return conclude(machines, len(sequences) - wrong, wrong)


def explain(
    machines: Machines, found: Sequence, verdict: Verdict, listed: list[Difference]
) -> None:
    """Minimises a failing sequence and prints it."""
    rounds = 0

    def oracle(candidates: list[tuple[str, ...]]) -> list[bool]:
        nonlocal rounds
        rounds += 1
        tried = [Sequence(str(i), ops) for i, ops in enumerate(candidates)]
        shortest = min(map(len, candidates))
        say(f"sequence {found.name}: round {rounds}, {len(tried)} candidates from {shortest} operations")
        verdicts = judge_all(lambda s, _: machines.both(s, ", minimising"), tried, listed)
        return [
            verdicts[one.name].kind is Kind.WRONG
            and verdicts[one.name].signature() == verdict.signature()
            for one in tried
        ]

    ops = minimise(found.ops, oracle)
    shortest = Sequence(found.name, ops)
    # What the two answer to it now.
    again = judge_all(lambda s, _: machines.both(s, each=True), [shortest], listed)[found.name]
    path = machines.out / f"failing-{found.name}"
    text = f"# {describe(again)}\n{shortest.text()}"
    path.write_text(text)
    print(f"--- sequence {found.name}, {len(ops)} of {len(found.ops)} operations:\n{text}---")
    print(f"again: tools/env/enter selftests/sequences/run --replay {path}", flush=True)


def conclude(machines: Machines, passed: int, failed: int) -> int:
    for problem in sorted(set(machines.problems)):
        print(f"WRONG: {problem}")
        # The stock module may complain and leak.
        failed += problem.startswith("rust")
    print(f"{passed} passed, {failed} failed", flush=True)
    return 1 if failed or not passed else 0


def generated(arguments: argparse.Namespace) -> list[Sequence]:
    seeds = range(arguments.seed, arguments.seed + arguments.number)
    platform = arguments.platform

    def about_snp(seed: int) -> bool:
        return platform == "snp" or (platform is None and seed % SNP_SHARE == 0)

    return [
        Sequence(f"{SNP}{seed}", tuple(snp_sequence(seed)))
        if about_snp(seed)
        else Sequence(str(seed), tuple(sequence(seed, arguments.features)))
        for seed in seeds
    ]


def batches(sequences: list[Sequence]) -> list[list[Sequence]]:
    """Each for one kind of host."""
    groups = [[one for one in sequences if is_snp(one.name) == snp] for snp in (False, True)]
    return [group[i : i + BATCH] for group in groups for i in range(0, len(group), BATCH)]


def unshown(
    listed: list[Difference], verdicts: dict[str, Verdict], platform: str | None
) -> list[str]:
    """Entries of the list whose sequence does not show them."""
    return [
        f"differences.list: sequence {entry.sequence} does not show: {entry.reason}"
        for entry in listed
        if runs_on(platform, entry.sequence)
        and (entry.sequence not in verdicts or verdicts[entry.sequence].difference != entry)
    ]


def runs_on(platform: str | None, name: str) -> bool:
    return platform is None or (platform == "snp") == is_snp(name)


def compare(
    machines: Machines, arguments: argparse.Namespace, listed: list[Difference]
) -> int:
    start = time.monotonic()
    verdicts: dict[str, Verdict] = {}
    failing: dict[tuple[str, ...], list[tuple[Sequence, Verdict]]] = {}
    wrong = 0
    scripted = script.read(SCRIPTED.read_text())
    sequences = [one for one in scripted if runs_on(arguments.platform, one.name)]
    sequences += generated(arguments)
    for batch in batches(sequences):
        host = machines.on("snp") if is_snp(batch[0].name) else machines
        judged = judge_all(host.both, batch, listed)
        verdicts |= judged
        for one in batch:
            verdict = judged[one.name]
            if verdict.kind is Kind.WRONG:
                wrong += 1
                alike = failing.setdefault(verdict.signature(), [])
                alike.append((one, verdict))
                if len(alike) == 1:
                    say(f"sequence {one.name}: {describe(verdict)}")
        say(
            f"{len(verdicts)} of {len(sequences)} sequences, {wrong} wrong, "
            f"{time.monotonic() - start:.0f} s"
        )
    for alike in list(failing.values())[: arguments.minimise]:
        host = machines.on("snp") if is_snp(alike[0][0].name) else machines
        explain(host, *alike[0], listed)
    for alike in failing.values():
        names = ", ".join(one.name for one, _ in alike)
        print(f"WRONG: sequences {names}: {describe(alike[0][1])}")
    reasons: dict[str, list[str]] = {}
    for name, verdict in verdicts.items():
        if verdict.difference:
            reasons.setdefault(verdict.difference.reason, []).append(name)
    for reason, names in sorted(reasons.items()):
        say(f"{len(names)} deliberately different, sequence {names[0]} and others: {reason}")
    missing = unshown(listed, verdicts, arguments.platform)
    for line in missing:
        print(f"WRONG: {line}")
    return conclude(machines, len(verdicts) - wrong, wrong + len(missing))


def main(argv: list[str]) -> int:
    arguments = parse(argv)
    if arguments.show:
        for one in generated(arguments):
            print(one.text(), end="")
        return 0
    try:
        listed = differences(LIST.read_text())
        programs = Path(os.environ.get("PROGRAMS") or rust.programs())
        out = arguments.out or cache.LOGS / f"compare-{cache.SRC.stat().st_ino:x}"
        out.mkdir(parents=True, exist_ok=True)
        machines = Machines(
            programs / "sev_sequences", arguments.platform or "es", arguments.kernel, out, say
        )
        if arguments.replay:
            return replay(machines, script.read(arguments.replay.read_text()), listed)
        return compare(machines, arguments, listed)
    except (RuntimeError, ValueError, OSError) as error:
        print(f"compare: {error}", file=sys.stderr)
        print("0 passed, 1 failed")
        return 1
