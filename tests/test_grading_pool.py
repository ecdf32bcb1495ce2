"""math-verify behind the pool: verdicts on algebra, and what is left when a worker must die."""

import base64
import gzip
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from expert_iteration.config import GradingConfig
from expert_iteration.grading import Grader
from expert_iteration.grading.pool import Pool
from expert_iteration.types import Outcome

ROOT = Path(__file__).parents[1]
CASES = ROOT / "../shared/data/grader_cases"
ENDLESS = ("9^{9^{9}}", "42")
integers = st.integers(-20, 20)
PATIENCE = 60.0
"""Seconds to wait for another process; only a failing test waits that long."""


@pytest.fixture(scope="module")
def grader() -> Iterator[Grader]:
    with Grader("boxed", GradingConfig(workers=1, deadline=10.0)) as grader:
        yield grader


def outcome(grader: Grader, answer: str, gold: str) -> Outcome:
    return grader.grade([(rf"\boxed{{{answer}}}", gold)])[0].outcome


def alive(pid: int) -> bool:
    """Whether a process exists and is more than a zombie."""
    try:
        return process_state(pid) != "Z"
    except FileNotFoundError:
        return False


def process_state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0]


def cpu_ticks(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()[11])


def children() -> set[int]:
    """Processes started by this one, dead and unreaped ones included."""
    listed = subprocess.run(
        ["ps", "-o", "pid=,comm=", "--ppid", str(os.getpid())], capture_output=True, text=True, check=True
    )
    return {int(line.split()[0]) for line in listed.stdout.splitlines() if "ps" not in line.split()[1:]}


def wait_until(holds: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < end, f"gave up waiting until {what}"
        time.sleep(0.02)


@pytest.mark.parametrize(
    ("answer", "gold"),
    [
        ("x+1", "1+x"),
        (r"2\sqrt{5}", r"\sqrt{20}"),
        (r"\frac{\sqrt{3}}{3}", r"\frac{1}{\sqrt{3}}"),
        ("(b+2)(a+5)", "(a+5)(b+2)"),
        ("y = 3 + 2x", "y = 2x + 3"),
        ("5x-7y+11z=-4", "5x - 7y + 11z + 4 = 0"),
        (r"(1, \sqrt{20})", r"\left(1, 2\sqrt5\right)"),
        (r"\begin{pmatrix} 0.5 \\ 2 \end{pmatrix}", r"\begin{pmatrix} 1/2 \\ 2 \end{pmatrix}"),
        (r"(9,36) \cup (0,9)", r"(0,9) \cup (9,36)"),
    ],
)
def test_algebraic_equality_is_correct(grader: Grader, answer: str, gold: str) -> None:
    assert outcome(grader, answer, gold) is Outcome.CORRECT


@pytest.mark.parametrize(
    ("answer", "gold"),
    [
        ("x+2", "1+x"),
        ("3.1415927", r"\pi"),
        (r"\frac{1}{2^{98}}", r"\frac{1}{2^{99}}"),
        ("2^{-2000}", "2^{-2001}"),
        (r"10^{-20}\sqrt{2}", r"2 \cdot 10^{-20}\sqrt{2}"),
        (r"1+\frac{1}{\mathrm{e}}", r"1-\frac{1}{\mathrm{e}}"),
        ("y = 5", "x = 5"),
        ("x^2 = -1", "x^2 = -2"),
        (r"[0,9) \cup (9,36)", r"(0,9) \cup (9,36)"),
        (r"(\sqrt{20}, 1)", r"(1, 2\sqrt5)"),
        (r"\begin{pmatrix}1\\3\end{pmatrix}", r"\begin{pmatrix}1\\2\end{pmatrix}"),
        ("x", "2"),
    ],
)
def test_what_math_verify_would_forgive_is_wrong(grader: Grader, answer: str, gold: str) -> None:
    assert outcome(grader, answer, gold) is Outcome.WRONG


def test_an_answer_that_is_no_formula_is_unparsable_and_such_a_gold_an_error(grader: Grader) -> None:
    assert outcome(grader, "x+", "2") is Outcome.UNPARSABLE
    assert outcome(grader, "2", "x+") is Outcome.ERROR


@settings(deadline=None, max_examples=50)
@given(answer=st.text(st.characters(codec=None, exclude_categories=()), max_size=30), gold=integers.map(str))
def test_grading_any_text_against_an_integer_never_raises(grader: Grader, answer: str, gold: str) -> None:
    assert outcome(grader, answer, gold) in Outcome


@settings(deadline=None, max_examples=50)
@given(left=integers, right=integers, gold=integers)
def test_no_sum_with_another_value_is_correct(grader: Grader, left: int, right: int, gold: int) -> None:
    expected = Outcome.CORRECT if left + right == gold else Outcome.WRONG
    assert outcome(grader, f"{left}+{right}".replace("+-", "-"), str(gold)) is expected


def test_several_threads_may_grade_at_once(grader: Grader) -> None:
    rows = [(rf"\boxed{{{n}+x}}", f"x+{n % 5}") for n in range(10)]
    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(grader.grade, [rows] * 4))
    assert found == [found[0]] * 4
    assert [one.success for one in found[0]] == [n < 5 for n in range(10)]


def test_no_worker_starts_for_answers_that_need_no_algebra() -> None:
    with Grader("gsm8k", GradingConfig(workers=1)) as grader:
        before = children()
        grader.grade([("#### 7", "7"), ("#### (1, 2)", "(1, 3)"), ("#### 9^{9^{9}}", "7")])
        assert children() == before


def test_endless_computations_are_ended_and_the_next_answer_is_judged() -> None:
    pool = Pool(workers=1, deadline=1.0)
    endless, greedy, easy = pool.map([ENDLESS, ("2^{3^{4^5}}", "5"), ("x+1", "1+x")])
    assert endless[0] is Outcome.TIMEOUT
    assert greedy[0] in (Outcome.TIMEOUT, Outcome.ERROR)
    assert easy[0] is Outcome.CORRECT
    pool.close()


def test_a_killed_worker_is_replaced_and_only_its_answer_is_an_error() -> None:
    pool = Pool(workers=1, deadline=PATIENCE)
    assert pool.map([("x+1", "1+x")])[0][0] is Outcome.CORRECT
    [victim] = pool.processes()
    ticks = cpu_ticks(victim)
    with ThreadPoolExecutor(1) as threads:
        answers = threads.submit(pool.map, [ENDLESS, ("x+1", "1+x")])
        wait_until(lambda: cpu_ticks(victim) > ticks + 20, "the worker computes")
        os.kill(victim, signal.SIGKILL)
        outcomes = [outcome for outcome, _ in answers.result()]
    assert outcomes == [Outcome.ERROR, Outcome.CORRECT]
    assert pool.processes() != [victim]
    pool.close()


def test_a_worker_killed_while_idle_is_replaced_unnoticed() -> None:
    pool = Pool(workers=1, deadline=10.0)
    pool.map([("x+1", "1+x")])
    [victim] = pool.processes()
    os.kill(victim, signal.SIGKILL)
    wait_until(lambda: not alive(victim), "the worker is dead")
    assert pool.map([("x+1", "1+x")])[0][0] is Outcome.CORRECT
    pool.close()


def test_closing_leaves_no_process_behind() -> None:
    before = children()
    with Grader("boxed", GradingConfig(workers=2, deadline=10.0)) as grader:
        grader.grade([(r"\boxed{x+1}", "1+x"), (r"\boxed{x+2}", "2+x"), (r"\boxed{x+3}", "3+x")])
        assert len(children() - before) in (1, 2)
    assert children() == before


def test_workers_die_with_their_parent() -> None:
    parent_code = (
        "from expert_iteration.grading.pool import Pool\n"
        "import sys, time\n"
        "pool = Pool(1, 100.0)\n"
        "pool.map([('x+1', '1+x')])\n"
        "sys.stdout.write(f'{pool.processes()[0]}\\n'); sys.stdout.flush()\n"
        f"pool.map([{ENDLESS!r}])\n"
    )
    with subprocess.Popen([sys.executable, "-c", parent_code], cwd=ROOT, stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        worker = int(parent.stdout.readline())
        assert alive(worker)
        parent.kill()
    wait_until(lambda: not alive(worker), "the worker is dead")


def test_a_worker_sees_no_token_of_its_parent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hidden")
    pool = Pool(workers=1, deadline=10.0)
    pool.map([("x+1", "1+x")])
    [worker] = pool.processes()
    assert b"hidden" not in Path(f"/proc/{worker}/environ").read_bytes()
    pool.close()


@pytest.mark.skipif(not CASES.exists(), reason="the shared grader cases are not here")
def test_hostile_responses_get_a_verdict_and_none_is_falsely_correct(grader: Grader) -> None:
    rows = [json.loads(line) for line in (CASES / "hostile_inputs.jsonl").read_text().splitlines()]
    rows = [row for row in rows if row["gold"] == "42"][::4]
    responses = [
        row["pred"] if "pred" in row else gzip.decompress(base64.b64decode(row["pred_gz_b64"])).decode()
        for row in rows
    ]
    assert len(rows) >= 20
    bare = [(rf"\boxed{{{text}}}", "42") for text in responses if "boxed" not in text]
    boxed = [(text, "42") for text in responses if r"\boxed{42}" not in text]
    judged = grader.grade([*bare, *boxed])
    assert not any(one.success for one in judged)
