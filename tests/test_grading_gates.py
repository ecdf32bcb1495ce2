"""The grader against published verdicts and hostile inputs; the cases are not part of the project."""

import base64
import gzip
import json
import re
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from os import getpid
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest

from expert_iteration.config import GradingConfig
from expert_iteration.grading import Grader, Response
from expert_iteration.types import Verdict

CASES = Path(__file__).parents[1] / "../shared/data/grader_cases"
LISTED = Path(__file__).with_name("grading_disagreements.md")
SLOWEST = 10.0
"""Seconds for one verdict."""
LARGEST = 1200
"""Megabytes of all workers together."""
RIGHT_ALL_THE_SAME = {
    *("mat_ok", "brace_depth_50", "unbal_close", "unbal_boxed", "boxed_ok_1e3", "boxed_ok_1e4"),
    *("text_1MB_then_box", "text_100k_then_box", "dollar_inline_1e4", "inf", "zoo", "zero_zero"),
    *("unicode_frac", "unicode_sup", "unicode_minus", "fullwidth", "surrogate", "combining"),
}
"""Hostile inputs that do hold their gold."""

pytestmark = pytest.mark.skipif(not CASES.exists(), reason="the shared grader cases are not here")

Case = dict[str, Any]


def cases(name: str) -> list[Case]:
    return [json.loads(line) for line in (CASES / f"{name}.jsonl").read_text().splitlines()]


def judge(style: str, rows: list[Case]) -> list[Verdict]:
    with Grader(GradingConfig()) as grader:
        return grader.grade([Response(style, row["pred"], row["gold"]) for row in rows])


def disagreements(name: str) -> dict[str, str]:
    """Id of each case that we judge differently -> our verdict as the list words it."""
    rows = cases(name)
    judged = zip(rows, judge("free", rows), strict=True)
    return {row["id"]: worded(one) for row, one in judged if one.success != bool(row["expected"])}


def worded(verdict: Verdict) -> str:
    return "abstains" if verdict.abstains else "correct" if verdict.success else "wrong"


def listed(name: str) -> dict[str, str]:
    """The rows of one table of the list of disagreements: id -> our verdict."""
    rows = re.findall(r"^\| ([\w, -]+?) \| (correct|wrong|abstains) \|", LISTED.read_text(), re.MULTILINE)
    return {case: ours for ids, ours in rows for case in ids.split(", ") if case.startswith(name)}


@pytest.mark.parametrize(
    ("name", "share"),
    [
        ("math_verify_tests", 0.90),
        ("areal_math_verify_reward", 0.90),
        ("rl_framework_reward_tests", 0.95),
    ],
)
def test_published_verdicts_are_met_but_for_the_disagreements_that_are_listed(
    name: str, share: float
) -> None:
    found = disagreements(name)
    assert found == listed(name)
    assert len(found) <= (1 - share) * len(cases(name))


def test_edge_cases_are_met_and_policies_decided() -> None:
    rows = cases("edge_cases_own")
    verdicts = {row["id"]: one for row, one in zip(rows, judge("free", rows), strict=True)}
    policies = listed("edge-")
    assert {case: worded(verdicts[case]) for case in policies} == policies
    missed = [row["id"] for row in rows if verdicts[row["id"]].success != bool(row["expected"])]
    assert set(missed) <= {row["id"] for row in rows if "policy" in row["note"]} & set(policies)


@pytest.mark.parametrize("style", ["boxed", "free"])
def test_every_answer_of_math500_is_correct_against_itself(style: str) -> None:
    rows = cases("math500_self")
    verdicts = judge(style, rows)
    assert len(verdicts) == 500
    assert [row["gold"] for row, one in zip(rows, verdicts, strict=True) if not one.success] == []


@pytest.mark.parametrize("style", ["boxed", "free"])
def test_hostile_responses_are_judged_soon_in_little_memory_and_never_falsely_correct(style: str) -> None:
    before = children()
    with Grader(GradingConfig()) as grader, peak_of_children(before) as megabytes:
        for row in cases("hostile_inputs"):
            text = hostile_text(row)
            for response in {text, rf"\boxed{{{text}}}"}:
                start = time.monotonic()
                [one] = grader.grade([Response(style, response, row["gold"])])
                assert time.monotonic() - start < SLOWEST, row["id"]
                assert not one.success or row["id"] in RIGHT_ALL_THE_SAME, row["id"]
    assert children() == before
    assert max(megabytes, default=0) < LARGEST


def hostile_text(row: Case) -> str:
    if "pred" in row:
        return row["pred"]
    return gzip.decompress(base64.b64decode(row["pred_gz_b64"])).decode()


def children() -> set[int]:
    """Processes started by this one, dead and unreaped ones included."""
    command = ["ps", "-o", "pid=,comm=", "--ppid", str(getpid())]
    listing = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return {int(line.split()[0]) for line in listing.splitlines() if "ps" not in line.split()[1:]}


@contextmanager
def peak_of_children(others: set[int]) -> Iterator[list[float]]:
    """Megabytes that the children other than `others` hold together, sampled all the time."""
    samples: list[float] = []
    done = Event()

    def watch() -> None:
        while not done.wait(0.2):
            samples.append(sum(resident(child) for child in children() - others))

    thread = Thread(target=watch)
    thread.start()
    yield samples
    done.set()
    thread.join()


def resident(process: int) -> float:
    with suppress(FileNotFoundError, ProcessLookupError):
        pages = int(Path(f"/proc/{process}/statm").read_text().split()[1])
        return pages * 4096 / 1e6
    return 0.0
