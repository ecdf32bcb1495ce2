"""math-verify behind the pool: verdicts on algebra, and what is left when a worker must die."""

import asyncio
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
from expert_iteration.grading import Grader, Response
from expert_iteration.grading.grader import VERIFIER
from expert_iteration.grading.pool import Pool
from expert_iteration.types import Outcome, Verdict

ROOT = Path(__file__).parents[1]
ENDLESS = ("judge", "9^{9^{9}}", "42")
EASY = ("judge", r"\hat{x}+1", r"1+\hat{x}")
"""Equal, and not read by our own algebra."""
integers = st.integers(-20, 20)
PATIENCE = 60.0
"""Seconds to wait for another process; only a failing test waits that long."""


@pytest.fixture(scope="module")
def grader() -> Iterator[Grader]:
    with Grader(GradingConfig(workers=1, deadline=10.0)) as grader:
        yield grader


@pytest.fixture(scope="module")
def judges() -> Iterator[Pool]:
    pool = Pool(VERIFIER, workers=1, deadline=10.0)
    yield pool
    pool.close()


def outcome(grader: Grader, answer: str, gold: str) -> Outcome:
    return grader.grade([Response("boxed", rf"\boxed{{{answer}}}", gold)])[0].outcome


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
        ("y=3+2x", "y=2x+3"),
        ("5x-7y+11z=-4", "5x-7y+11z+4=0"),
        (r"\hat{x}+1", r"1+\hat{x}"),
        (
            r"\begin{matrix}1\\2\end{matrix}+\begin{matrix}3\\4\end{matrix}",
            r"\begin{matrix}4\\6\end{matrix}",
        ),
    ],
)
def test_math_verify_finds_algebraic_equality(judges: Pool, answer: str, gold: str) -> None:
    assert judges.map([("judge", answer, gold)]) == ["correct"]


@pytest.mark.parametrize(
    ("answer", "gold"),
    [
        ("x+2", "1+x"),
        ("3.1415927", r"\pi"),
        (r"\frac{1}{2^{98}}", r"\frac{1}{2^{99}}"),
        ("2^{-2000}", "2^{-2001}"),
        (r"10^{-20}\sqrt{2}", r"2\cdot10^{-20}\sqrt{2}"),
        (r"1+\frac{1}{e}", r"1-\frac{1}{e}"),
        ("y=5", "x=5"),
        ("x^2=-1", "x^2=-2"),
        (r"\begin{matrix}1\\3\end{matrix}", r"\begin{matrix}1\\2\end{matrix}"),
        ("x", "2"),
    ],
)
def test_what_math_verify_would_forgive_is_wrong(judges: Pool, answer: str, gold: str) -> None:
    assert judges.map([("judge", answer, gold)]) == ["wrong"]


@pytest.mark.parametrize(
    ("text", "expression"),
    [
        (r"First $3$, then we are left with $\frac{1}{2}$ of it.", r"\frac{1}{2}"),
        ("She has 3 apples and buys 1,250 more", "1,250"),
        ("The share rises by 28 percent in all", r"28\%"),
        (r"The roots are $3$ and $-2$, as wanted.", "3, -2"),
        ("Nothing to see here", ""),
    ],
)
def test_math_verify_finds_the_last_expression_of_a_prose_as_it_is_written(
    judges: Pool, text: str, expression: str
) -> None:
    assert judges.map([("find", text)]) == [expression]


@pytest.mark.parametrize(
    ("response", "gold"),
    [
        ("So in the end she has $18 left to spend.", "18"),
        (r"Thus we see that the area equals $\frac{7}{4}\pi$ in the limit.", r"$\frac{7\pi}{4}$"),
        (r"The roots are $3$ and $-2$, in other words.", r"\boxed{-2, 3}"),
        ("Therefore the final answer is 12.", r"We count and find $\boxed{12}$ of them."),
        ("Hence it takes 30% of the total, you see", r"30\%"),
    ],
)
def test_the_free_style_judges_prose(grader: Grader, response: str, gold: str) -> None:
    assert grader.grade([Response("free", response, gold)])[0].success
    assert not grader.grade([Response("free", response, "17")])[0].success


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
    assert outcome(grader, f"{left}+{right}+x".replace("+-", "-"), f"x+{gold}") is expected


def test_several_threads_may_grade_at_once(grader: Grader) -> None:
    rows = [Response("boxed", rf"\boxed{{{n}+\hat{{x}}}}", rf"\hat{{x}}+{n % 5}") for n in range(10)]
    rows += [Response("boxed", rf"\boxed{{{n}+\sin x}}", rf"\sin x+{n % 5}") for n in range(10)]
    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(grader.grade, [rows] * 4))
    assert found == [found[0]] * 4
    assert [one.success for one in found[0]] == 2 * [n < 5 for n in range(10)]


def test_coroutines_may_grade_inside_and_beside_their_event_loop(grader: Grader) -> None:
    rows = [Response("boxed", rf"\boxed{{{n}+\hat{{x}}}}", r"\hat{x}+2") for n in range(4)]

    async def judged() -> list[list[Verdict]]:
        beside = await asyncio.gather(*(asyncio.to_thread(grader.grade, rows) for _ in range(3)))
        return [*beside, grader.grade(rows)]

    expected = [n == 2 for n in range(4)]
    assert [[one.success for one in found] for found in asyncio.run(judged())] == [expected] * 4


def test_a_pair_that_was_judged_is_not_asked_again() -> None:
    before = children()
    with Grader(GradingConfig(workers=1, deadline=10.0)) as grader:
        row = Response("boxed", r"\boxed{\hat{x}+1}", r"1+\hat{x}")
        first = grader.grade([row, row])
        [worker] = children() - before
        ticks = cpu_ticks(worker)
        assert grader.grade([row]) == first[:1]
        assert cpu_ticks(worker) == ticks


def test_no_worker_starts_for_answers_that_need_no_algebra() -> None:
    with Grader(GradingConfig(workers=1)) as grader:
        before = children()
        rows = [("#### 7", "7"), ("#### (1, 2)", "(1, 3)"), ("#### 9^{9^{9}}", "7")]
        grader.grade([Response("gsm8k", *row) for row in rows])
        assert children() == before


def test_endless_computations_are_ended_and_the_next_answer_is_judged() -> None:
    pool = Pool(VERIFIER, workers=1, deadline=1.0)
    endless, greedy, easy = pool.map([ENDLESS, ("judge", "2^{3^{4^5}}", "5"), EASY])
    assert isinstance(endless, Verdict) and endless.outcome is Outcome.TIMEOUT
    assert isinstance(greedy, Verdict) and greedy.abstains
    assert easy == "correct"
    pool.close()


def test_a_killed_worker_is_replaced_and_only_its_answer_is_an_error() -> None:
    pool = Pool(VERIFIER, workers=1, deadline=PATIENCE)
    assert pool.map([EASY]) == ["correct"]
    [victim] = pool.processes()
    ticks = cpu_ticks(victim)
    with ThreadPoolExecutor(1) as threads:
        answers = threads.submit(pool.map, [ENDLESS, EASY])
        wait_until(lambda: cpu_ticks(victim) > ticks + 20, "the worker computes")
        os.kill(victim, signal.SIGKILL)
        lost, next_one = answers.result()
    assert lost == Verdict(Outcome.ERROR, "the grading worker died")
    assert next_one == "correct"
    assert pool.processes() != [victim]
    pool.close()


def test_a_worker_killed_while_idle_is_replaced_unnoticed() -> None:
    pool = Pool(VERIFIER, workers=1, deadline=10.0)
    pool.map([EASY])
    [victim] = pool.processes()
    os.kill(victim, signal.SIGKILL)
    wait_until(lambda: not alive(victim), "the worker is dead")
    assert pool.map([EASY]) == ["correct"]
    pool.close()


def test_closing_leaves_no_process_behind() -> None:
    before = children()
    with Grader(GradingConfig(workers=2, deadline=10.0)) as grader:
        rows = [(rf"\boxed{{\hat{{x}}+{n}}}", rf"{n}+\hat{{x}}") for n in (1, 2, 3)]
        grader.grade([Response("boxed", *row) for row in rows])
        assert len(children() - before) in (1, 2)
    assert children() == before


def test_workers_die_with_their_parent() -> None:
    parent_code = (
        "from expert_iteration.grading.grader import VERIFIER\n"
        "from expert_iteration.grading.pool import Pool\n"
        "import sys, time\n"
        "pool = Pool(VERIFIER, 1, 100.0)\n"
        f"pool.map([{EASY!r}])\n"
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
    pool = Pool(VERIFIER, workers=1, deadline=10.0)
    pool.map([EASY])
    [worker] = pool.processes()
    assert b"hidden" not in Path(f"/proc/{worker}/environ").read_bytes()
    pool.close()
