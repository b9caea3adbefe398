# SPDX-License-Identifier: GPL-2.0-or-later
import sys
import unittest
from pathlib import Path

HERE = Path(__file__).resolve()
sys.path[:0] = [str(HERE.parents[1]), str(HERE.parents[2] / "tools")]

from sequences import script
from sequences.generate import FEATURES, sequence
from sequences.generate_snp import snp_sequence
from sequences.machines import judge_all
from sequences.main import LIST, SNP_SHARE, batches, generated, is_snp, parse
from sequences.minimise import minimise
from sequences.script import Outcome, Sequence
from sequences.verdict import Kind, differences, judge


def outcome(*answers: tuple[str, str], complete: bool = True) -> Outcome:
    return Outcome(list(answers), complete)


def kind(stock: Outcome, ours: Outcome, listed: str = "") -> Kind:
    return judge(stock, ours, differences(listed)).kind


class GenerateTest(unittest.TestCase):
    def test_a_seed_is_a_sequence(self):
        self.assertEqual(sequence(7), sequence(7))
        self.assertNotEqual(sequence(7), sequence(8))

    def test_features_can_be_left_out(self):
        words = ("copy", "move", "SEND", "RECEIVE", "REPORT", "VMSA", "sev_es", "type=3")
        everything = "\n".join("\n".join(sequence(seed)) for seed in range(300))
        plain = "\n".join("\n".join(sequence(seed, ())) for seed in range(300))
        for word in words:
            self.assertIn(word, everything)
            # ES_INIT and vmsa_features are refused for plain SEV VMs.
            self.assertNotIn(f" {word}", plain)

    def test_scripts_are_read_back(self):
        sequences = [Sequence(str(seed), tuple(sequence(seed))) for seed in range(20)]
        text = "# a remark\n\n" + "".join(one.text() for one in sequences)
        self.assertEqual(script.read(text), sequences)
        with self.assertRaises(ValueError):
            script.read("close a\n")

    def test_every_feature_has_a_name(self):
        self.assertEqual(len(set(FEATURES)), len(FEATURES))


    def test_some_are_about_snp(self):
        sequences = generated(parse(["-n", "100"]))
        snp = [one for one in sequences if is_snp(one.name)]
        self.assertEqual(len(snp), 100 // SNP_SHARE)
        self.assertTrue(all(" type=4" in "\n".join(one.ops) for one in snp if one.ops))
        for batch in batches(sequences):
            self.assertEqual(len({is_snp(one.name) for one in batch}), 1)
        self.assertEqual(len(sum(batches(sequences), [])), 100)
        for platform, expected in (("snp", 100), ("es", 0)):
            sequences = generated(parse(["-n", "100", "--platform", platform]))
            self.assertEqual(sum(is_snp(one.name) for one in sequences), expected)

    def test_snp_sequences_reach_every_operation(self):
        text = "\n".join("\n".join(snp_sequence(seed)) for seed in range(300))
        self.assertEqual(snp_sequence(7), snp_sequence(7))
        for word in ("SNP_LAUNCH_FINISH", "SNP_REQ_CERTS", "by=race", "punch", "prefault", "copy",
                     "identity", "fault cmd=SNP_", "type_=6", "LAUNCH_MEASURE"):  # fmt: skip
            self.assertIn(word, text)


class OutputTest(unittest.TestCase):
    def test_answers_belong_to_operations(self):
        sequences = [Sequence("1", ("vm a type=2", "close a")), Sequence("2", ("run a n=0",))]
        text = "physical 0x1\nsequence 1\n0 ok\n1 closed\nclose psp=X\nend 1\nsequence 2\n0 no"
        output = script.outcomes(text, sequences)
        self.assertEqual(output.physical, "0x1")
        self.assertFalse(output.complete)
        first, second = output.outcomes["1"], output.outcomes["2"]
        self.assertEqual(first.answers[0], ("vm a type=2", "ok"))
        self.assertEqual(first.answers[2], ("close", "psp=X"))
        self.assertTrue(first.complete)
        self.assertFalse(second.complete)


class JudgeTest(unittest.TestCase):
    def test_equal_answers_are_the_same(self):
        self.assertIs(kind(outcome(("a", "1")), outcome(("a", "1"))), Kind.SAME)

    def test_another_answer_is_wrong(self):
        verdict = judge(
            outcome(("a", "0"), ("b", "1")),
            outcome(("a", "0"), ("b", "2")),
            [],
        )
        self.assertEqual((verdict.kind, verdict.index), (Kind.WRONG, 1))

    def test_a_line_more_or_less_is_wrong(self):
        one, two = outcome(("a", "0")), outcome(("a", "0"), ("held", "pins=1"))
        self.assertIs(kind(one, two), Kind.WRONG)
        self.assertIs(kind(two, one), Kind.WRONG)
        dead = outcome(("a", "0"), complete=False)
        self.assertIs(kind(one, dead), Kind.WRONG)
        self.assertIs(kind(dead, one), Kind.WRONG)
        self.assertIs(kind(dead, dead), Kind.WRONG)

    def test_a_complaint_is_wrong_even_if_both_have_it(self):
        both = outcome(("a", "0"), ("kernel", "WARNING: x"))
        self.assertIs(kind(both, both), Kind.WRONG)

    def test_other_bytes_are_wrong(self):
        one, two = outcome(("a", "bytes:16:00000000")), outcome(("a", "bytes:16:11111111"))
        self.assertIs(kind(one, two), Kind.WRONG)

    def test_flushes_are_by_chance_when_asids_run_out(self):
        one = outcome(("exhaust type=2", "EBUSY"), ("close", "psp=ACTIVATE,DEACTIVATE"))
        two = outcome(("exhaust type=2", "EBUSY"), ("close", "psp=DF_FLUSH,ACTIVATE,DF_FLUSH*2,DEACTIVATE"))
        self.assertIs(kind(one, two), Kind.SAME)
        self.assertIs(kind(outcome(one.answers[1]), outcome(two.answers[1])), Kind.WRONG)

    def test_an_snp_guest_ends_in_any_order(self):
        def close(*commands: str) -> Outcome:
            return outcome(("close", "psp=SNP_ACTIVATE," + ",".join(commands)))

        one = close("SNP_DECOMMISSION", "SNP_PAGE_RECLAIM*2")
        two = close("SNP_PAGE_RECLAIM", "SNP_DECOMMISSION", "SNP_PAGE_RECLAIM")
        self.assertIs(kind(one, two), Kind.SAME)
        self.assertIs(kind(one, close("SNP_DECOMMISSION", "SNP_PAGE_RECLAIM")), Kind.WRONG)
        other = close("SNP_DECOMMISSION/BUSY", "SNP_PAGE_RECLAIM*2")
        self.assertIs(kind(one, other), Kind.WRONG)

    def test_listed_differences(self):
        listed = "1 | move {vm} from=. | sev . STATUS | errno=EBADF | .* | moves"
        first = ("move a from=b", "0")
        stock, ours = ("sev a STATUS", "errno=EBADF"), ("sev a STATUS", "errno=0")
        self.assertIs(kind(outcome(first, stock), outcome(first, ours), listed), Kind.LISTED)
        # Without the move, of another VM, or answered otherwise, it is not the one listed.
        self.assertIs(kind(outcome(stock), outcome(ours), listed), Kind.WRONG)
        other = ("move c from=b", "0")
        self.assertIs(kind(outcome(other, stock), outcome(other, ours), listed), Kind.WRONG)
        eio = ("sev a STATUS", "errno=EIO")
        self.assertIs(kind(outcome(first, eio), outcome(first, ours), listed), Kind.WRONG)

    def test_behind_a_listed_difference_nothing_may_be_left(self):
        listed = "1 | - | a | 0 | 1 | reason"
        stock = outcome(("a", "0"), ("b", "0"))
        self.assertIs(kind(stock, outcome(("a", "1"), ("b", "5")), listed), Kind.LISTED)
        for bad in (("held", "pins=1"), ("kernel", "WARNING: x")):
            self.assertIs(kind(stock, outcome(("a", "1"), ("b", "0"), bad), listed), Kind.WRONG)
        died = outcome(("a", "1"), complete=False)
        self.assertIs(kind(stock, died, listed), Kind.WRONG)

    def test_the_list(self):
        self.assertTrue(differences(LIST.read_text()))
        for bad in ("a | b | c", "1 | - | ( | a | b | c"):
            with self.assertRaises(ValueError):
                differences(bad)


class AgainTest(unittest.TestCase):
    """Sequences that could not be compared are run again."""

    def run_all(self, texts: list[tuple[str, str]]) -> tuple[dict[str, Kind], list[list[str]]]:
        sequences = [Sequence(name, ("a",)) for name in "123"]
        asked = []
        answers = iter(texts)

        def both(batch, _label):
            asked.append([one.name for one in batch])
            return tuple(script.outcomes(text, batch) for text in next(answers))

        verdicts = judge_all(both, sequences, [])
        return {name: verdict.kind for name, verdict in verdicts.items()}, asked

    @staticmethod
    def text(*parts: tuple[str, str]) -> str:
        return "".join(f"sequence {n}\n0 {answer}\nclose\nend {n}\n" for n, answer in parts)

    def test_behind_a_crash(self):
        stock = self.text(("1", "x"), ("2", "x"), ("3", "x"))
        ours = self.text(("1", "x")) + "sequence 2\n"
        same = self.text(("3", "x"))
        kinds, asked = self.run_all([(stock, ours), (same, same)])
        self.assertEqual(asked, [["1", "2", "3"], ["3"]])
        self.assertEqual(kinds, {"1": Kind.SAME, "2": Kind.WRONG, "3": Kind.SAME})


class MinimiseTest(unittest.TestCase):
    def test_only_what_is_needed_is_left(self):
        needed = {"vm a type=2", "sev a INIT2", "sev a X len=1"}
        ops = []
        for i in range(10):
            ops += [f"vm {'bcde'[i % 4]} type=2", f"fault cmd=any n={i + 1} status=1"]
        ops[3:3] = ["vm a type=2"]
        ops[9:9] = ["sev a INIT2 flags=0"]
        ops[14:14] = ["sev a X len=1 fd=second"]
        rounds = []

        def oracle(candidates):
            rounds.append(len(candidates))
            plain = [
                {op.replace(" flags=0", "").replace(" fd=second", "") for op in candidate}
                for candidate in candidates
            ]
            return [needed <= ops for ops in plain]

        self.assertEqual(set(minimise(tuple(ops), oracle)), needed)
        self.assertLess(len(rounds), 15)


if __name__ == "__main__":
    unittest.main()
