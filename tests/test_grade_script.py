"""scripts/grade.py: every row is answered in its place, whatever it holds and however it comes."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from expert_iteration.config import GradingConfig
from expert_iteration.grading import Grader, Response
from expert_iteration.grading import lines as lines_module
from expert_iteration.grading.explain import explain
from expert_iteration.grading.grader import VERIFIER
from expert_iteration.grading.lines import BUNDLE_LINES, LONGEST_LINE, Splitter, bundles
from expert_iteration.grading.pool import Pool
from expert_iteration.grading.rows import Row, judged, read_row, write_row
from expert_iteration.types import Outcome, Verdict
from tests.runs import wait_until

ROOT = Path(__file__).parents[1]
SCRIPT = ROOT / "scripts" / "grade.py"
PATIENCE = 60.0
"""Seconds to wait for another process; only a failing test waits that long."""
ALGEBRA = {"id": "a", "response": r"\boxed{\coth x+1}", "gold": r"1+\coth x"}
"""A row that takes a worker."""


def row(number: object = 1, response: object = "#### 42", gold: object = "42") -> bytes:
    return json.dumps({"id": number, "response": response, "gold": gold}).encode() + b"\n"


def command(*options: object) -> list[str]:
    return [sys.executable, str(SCRIPT), *map(str, options)]


def grade(given: bytes, *options: object) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(command(*options), input=given, capture_output=True, timeout=PATIENCE)
    return subprocess.CompletedProcess(done.args, done.returncode, done.stdout.decode(), done.stderr.decode())


def rows_of(output: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in output.splitlines()]


@contextmanager
def running(*options: object) -> Iterator[subprocess.Popen[bytes]]:
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(  # type: ignore[call-overload]
        command(*options),
        # a shell starts its background jobs with SIGINT ignored, and children inherit that
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        **pipes,
    ) as process:
        alarm = threading.Timer(PATIENCE, process.kill)
        alarm.start()
        try:
            yield process
        finally:
            alarm.cancel()
            process.kill()


def children_of(pid: int) -> list[int]:
    listed = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(child) for file in listed for child in file.read_text().split()]


# ---------------------------------------------------------------- the contract


def test_rows_are_answered_in_order_with_success_reward_and_reason(tmp_path: Path) -> None:
    file = tmp_path / "answers.jsonl"
    file.write_bytes(row("right") + row("wrong", "#### 41") + row("none", "it is 42"))
    done = grade(b"", "--style", "gsm8k", file)
    assert done.returncode == 0
    right, wrong, none = rows_of(done.stdout)
    assert right == {
        "id": "right",
        "success": True,
        "reward": 1.0,
        "reason": "exact",
        "outcome": "correct",
        "format_reward": 1.0,
    }
    assert (wrong["id"], wrong["success"], wrong["reward"]) == ("wrong", False, 0.0)
    assert (none["success"], none["outcome"], none["format_reward"]) == (False, "unparsable", 0.0)
    assert done.stderr.startswith("3 rows: 1 correct, 1 wrong, 1 unparsable, 0 abstained; ")
    assert done.stderr.count("\n") == 1


def test_bad_rows_are_answered_in_their_place_and_warned_of() -> None:
    given = row(1) + b"not json\n\n" + row(2, response=None) + b'\xff\xfe{"id": 1}\n' + row(3)
    done = grade(given, "--style", "gsm8k")
    assert done.returncode == 0
    answered = rows_of(done.stdout)
    assert [one["success"] for one in answered] == [True, None, None, None, True]
    assert [one["reward"] for one in answered] == [1.0, None, None, None, 1.0]
    assert [one["id"] for one in answered] == [1, None, 2, None, 3]
    assert [str(one["reason"]).split(":")[0] for one in answered[1:4]] == ["line 2", "line 4", "line 5"]
    assert "WARNING: 3 of 5 answers (60.0%) could not be judged" in done.stderr


def test_algebra_is_judged_and_duplicates_agree() -> None:
    given = json.dumps(ALGEBRA).encode() + b"\n"
    done = grade(given * 3 + row(2, r"\boxed{\coth x+2}", r"1+\coth x"), "--style", "boxed", "--workers", 1)
    assert [one["success"] for one in rows_of(done.stdout)] == [True, True, True, False]
    assert {one["reason"] for one in rows_of(done.stdout)} == {"math-verify"}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--style", "roman"], ["--style (roman)", "gsm8k", "boxed"]),
        (["--style", "boxed", "no/such.jsonl"], ["no/such.jsonl", "No such file"]),
        (["--style", "boxed", ROOT], [str(ROOT), "directory"]),
        (["--style", "boxed", "--workers", 0], ["--workers (0)", "at least 1"]),
        (["--style", "boxed", "--deadline", 0], ["--deadline (0)", "0.1"]),
        (["--style", "boxed", "--deadline", "nan"], ["--deadline (nan)"]),
        (["--style", "boxed", "--explain"], ["--explain", "no row"]),
    ],
)
def test_what_cannot_be_used_is_said_in_one_line(options: list[object], words: list[str]) -> None:
    done = grade(b"\n", *options)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1
    for word in ("error: ", *words):
        assert word in done.stderr


def test_judging_does_not_load_torch() -> None:
    code = f"import runpy, sys; runpy.run_path({str(SCRIPT)!r}); print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"torch", "transformers", "math_verify"} & set(loaded.stdout.split())


# ---------------------------------------------------------------- the stream


def test_a_row_is_answered_while_the_producer_still_thinks() -> None:
    with running("--style", "gsm8k") as process:
        assert process.stdin is not None and process.stdout is not None
        for number in range(3):
            process.stdin.write(row(number))
            process.stdin.flush()
            assert json.loads(process.stdout.readline())["id"] == number
        process.stdin.write(row(3).rstrip())
        process.stdin.close()
        assert json.loads(process.stdout.readline())["id"] == 3, "the last line needs no end"
        assert process.wait(PATIENCE) == 0


def test_a_closed_pipe_ends_it_quietly_and_leaves_no_process(tmp_path: Path) -> None:
    file = tmp_path / "many.jsonl"
    file.write_bytes(json.dumps(ALGEBRA).encode() + b"\n" + b"".join(map(row, range(50_000))))
    with running("--style", "boxed", file) as process:
        assert process.stdout is not None and process.stderr is not None
        assert json.loads(process.stdout.readline())["success"] is True
        workers = children_of(process.pid)
        assert workers
        process.stdout.close()
        assert process.wait(PATIENCE) == 128 + signal.SIGPIPE
        assert process.stderr.read() == b""
    assert not any(Path(f"/proc/{pid}").exists() for pid in workers)


def test_an_interrupt_ends_it_quietly_and_leaves_no_process() -> None:
    with running("--style", "boxed") as process:
        assert process.stdin is not None and process.stdout is not None and process.stderr is not None
        process.stdin.write(json.dumps(ALGEBRA).encode() + b"\n")
        process.stdin.flush()
        process.stdout.readline()
        workers = children_of(process.pid)
        assert workers
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE) == -signal.SIGINT
        assert process.stderr.read() == b""
    gone = [f"/proc/{pid}/fd/0" for pid in workers]
    assert wait_until(lambda: not any(os.path.lexists(path) for path in gone), PATIENCE)


@given(
    lines=st.lists(st.binary(max_size=20).map(lambda line: line.replace(b"\n", b"")), max_size=10),
    cuts=st.lists(st.integers(0, 200), max_size=20),
)
def test_lines_do_not_depend_on_the_pieces_in_which_they_come(lines: list[bytes], cuts: list[int]) -> None:
    stream = b"\n".join(lines)
    ends = sorted({min(cut, len(stream)) for cut in cuts} | {0, len(stream)})
    splitter = Splitter()
    found = [line for start, end in pairwise(ends) for line in splitter.feed(stream[start:end])]
    found += splitter.finish()
    assert found == (lines if not lines or lines[-1] else lines[:-1])


def test_bundles_hold_all_lines_of_a_file_in_order_and_are_bounded(tmp_path: Path) -> None:
    lines = [b"%d " % number + b"x" * 300 for number in range(5_000)]
    file = tmp_path / "lines"
    file.write_bytes(b"\n".join(lines))
    with file.open("rb") as stream:
        found = list(bundles(stream.fileno()))
    assert [line for bundle in found for line in bundle] == lines
    assert max(map(len, found)) < BUNDLE_LINES + lines_module.READ_BYTES // 300


def test_a_line_of_any_length_takes_bounded_memory_and_does_not_disturb_the_next() -> None:
    splitter = Splitter()
    fed = [splitter.feed(b"x" * LONGEST_LINE) for _ in range(50)]
    assert not any(fed)
    long, short = splitter.feed(b"x\nshort\n")
    assert (len(long), short) == (LONGEST_LINE + 1, b"short")
    bad = read_row(long, 7, "boxed").question
    assert isinstance(bad, Verdict) and bad.reason == "line 7: longer than 4,194,304 bytes"


# ---------------------------------------------------------------- one row


@pytest.mark.parametrize(
    ("gold", "expected"),
    [("42", "42"), (42, "42"), (42.0, "42.0"), (0.1, "0.1"), (1e22, "1" + "0" * 22), (-5e-7, "-0.0000005")],
)
def test_a_gold_may_be_a_number(gold: object, expected: str) -> None:
    assert read_row(row(1, "#### 1", gold), 1, "gsm8k").question == Response("gsm8k", "#### 1", expected)


def test_the_gold_of_instructions_may_be_an_object_or_its_text() -> None:
    gold = {"instruction_id_list": ["punctuation:no_comma"], "kwargs": [{}]}
    question = Response("ifeval", "#### 42", json.dumps(gold))
    for given_as in (gold, json.dumps(gold)):
        assert read_row(row(1, gold=given_as), 1, "ifeval").question == question
    assert isinstance(read_row(row(1, gold=gold), 1, "boxed").question, Verdict)


@pytest.mark.parametrize("identity", ["a", "", 7, -2.5, "\u202e"])
def test_an_id_comes_back_as_it_was(identity: object) -> None:
    answered = write_row(read_row(row(identity), 1, "gsm8k"), Verdict(Outcome.CORRECT, "exact"))
    assert json.loads(answered)["id"] == identity
    assert answered.isascii()


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        (b"[1, 2]", "a list, not an object"),
        (b"7", "a number, not an object"),
        (b'{"id": 1, "response": "x"}', "no gold"),
        (b'{"response": "x", "gold": "1"}', "no id"),
        (b'{"id": null, "response": "x", "gold": "1"}', "id is null"),
        (b'{"id": true, "response": "x", "gold": "1"}', "id is true or false"),
        (b'{"id": 1, "response": 5, "gold": "1"}', "response is a number"),
        (b'{"id": 1, "response": "x", "gold": null}', "gold is null"),
        (b'{"id": 1, "response": "x", "gold": ["1"]}', "gold is a list"),
        (b'{"id": 1, "response": "x", "gold": NaN}', "NaN is no number"),
        (b'{"id": 1, "response": "x", "gold": 1e999}', "gold is a number"),
        (b'{"id": ' + b"9" * 5000 + b"}", "not JSON that can be read"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"id": 1,', "not JSON"),
        (b'{"id": "\xff"}', "not UTF-8 (byte 9)"),
    ],
)
def test_a_bad_row_abstains_and_says_what_is_wrong(line: bytes, problem: str) -> None:
    verdict = read_row(line, 3, "gsm8k").question
    assert isinstance(verdict, Verdict) and verdict.abstains
    assert verdict.reason.startswith("line 3: ")
    assert problem in verdict.reason
    assert "\n" not in verdict.reason


def test_a_byte_order_mark_and_windows_line_ends_do_not_matter() -> None:
    assert read_row(b"\xef\xbb\xbf" + row().rstrip() + b"\r", 1, "gsm8k") == read_row(row(), 1, "gsm8k")


@given(st.binary(max_size=60) | st.text(max_size=40).map(lambda text: text.encode("utf-8", "surrogatepass")))
def test_any_line_gets_an_answer_that_is_one_line_of_json(line: bytes) -> None:
    found = read_row(line, 1, "gsm8k")
    assert isinstance(found.question, Verdict)
    answered = write_row(found, found.question)
    assert answered.count("\n") == 1
    assert json.loads(answered)["success"] is None


def test_rows_of_several_bundles_are_numbered_on() -> None:
    with Grader(GradingConfig(workers=1)) as grader:
        found = list(judged(grader, "gsm8k", [[row(1), b""], [b"", b"?"], []]))
    assert [len(bundle) for bundle in found] == [1, 1, 0]
    assert found[1][0][1].reason.startswith("line 4: ")


# ---------------------------------------------------------------- explanations


def explained(style: str, response: str, gold: str) -> dict[str, str]:
    with (
        Grader(GradingConfig(workers=1)) as grader,
        closing(Pool(VERIFIER, workers=1, deadline=10.0)) as search,
    ):
        lines = explain(grader, search, Row("one", Response(style, response, gold))).splitlines()
    return {line[:12].strip(): line[12:].strip() for line in lines}


def test_an_exact_judgement_is_explained() -> None:
    steps = explained("boxed", r"so \boxed{\dfrac12}", "0.5")
    assert steps["extraction"] == r"\dfrac12"
    assert steps["normal form"] == r"\frac{1}{2}  |  0.5"
    assert steps["exact"] == "equal"
    assert steps["verdict"] == "correct (exact)"
    assert steps["reward"] == "answer 1, format 1"


def test_a_judgement_by_math_verify_is_explained() -> None:
    steps = explained("boxed", r"\boxed{(1, \coth x+1)}", r"(1,1+\coth x)")
    assert steps["exact"].startswith("undecided")
    assert steps["structure"] == "alike; left to compare: 2"
    assert steps["refusal"] == "none"
    assert steps["math-verify"] == r"asked about \coth x+1  |  1+\coth x"
    assert steps["verdict"] == "correct (math-verify)"


def test_a_refusal_and_another_structure_are_explained() -> None:
    refused = explained("boxed", r"\boxed{9^{9^{9}}+x}", "x")
    assert (refused["refusal"], refused["math-verify"]) == ("answer (tower of powers)", "not asked")
    assert refused["verdict"] == "unparsable (tower of powers)"
    assert explained("boxed", r"\boxed{(1,2,x)}", "(1,x)")["structure"].startswith("different")


def test_a_search_for_the_answer_is_explained() -> None:
    steps = explained("free", "They had 3 pears and bought 4 more, which makes 7 pears for us.", "7")
    assert steps["extraction"] == "7"
    assert steps["verdict"] == "correct (exact)"


def test_instructions_are_explained_by_their_verdict() -> None:
    steps = explained("ifeval", "no comma here", '{"instruction_id_list": []}')
    assert "extraction" not in steps
    assert steps["verdict"].startswith("error (gold")


def test_a_missing_answer_and_hostile_text_are_explained_in_plain_characters() -> None:
    steps = explained("boxed", "\x1b[2J no box\n", "42")
    assert steps["response"] == r"\x1b[2J no box\n"
    assert steps["extraction"].startswith("none (no \\boxed")
    assert steps["reward"] == "answer 0, format 0"


def test_the_first_row_is_explained_on_demand() -> None:
    done = grade(b"\n" + row("first") + row("second"), "--style", "gsm8k", "--explain")
    assert done.returncode == 0
    assert "first" in done.stdout and "second" not in done.stdout
    assert done.stdout.splitlines()[-1].split() == ["reward", "answer", "1,", "format", "1"]
    bad = grade(b"?\n", "--style", "gsm8k", "--explain")
    assert "error (line 1: not JSON" in bad.stdout and "abstains" in bad.stdout
