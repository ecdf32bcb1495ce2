"""Our grader beside math-verify's own `parse` and `verify`, on the same answers, in turn.

    python scripts/benchmark/grading.py [--math ../shared/data/math] [--gsm8k ../shared/data/gsm8k]

Both sides have two processes, which are started and warmed up before the clock runs. math-verify runs as
its documentation has it: gold and response are parsed for each verdict, in the default configuration, by a
pool of two spawned processes. No (answer, gold) pair comes twice and our grader is a new one in each round,
so its memory of verdicts helps nowhere; what may repeat are parts of answers, such as a component of two
vectors.

The mixes: MATH-500's golds in a box, as they are, rewritten, and made wrong; GSM8K's golds after `####`,
right and wrong, alone and at the end of the worked solution; and a storm, the MATH mix with hostile answers
as one tenth of it.
"""

import argparse
import base64
import gzip
import json
import multiprocessing
import random
import re
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple, TypeAlias

from expert_iteration.config import GradingConfig
from expert_iteration.grading import Grader, Response

WORKERS = 2
WARM_UP = [Response("boxed", rf"\boxed{{\coth x+{number}}}", rf"{number}+\coth x") for number in range(2, 10)]
"""Answers that no exact rule settles, so that they reach the processes of both sides."""

REWRITES = (
    (re.compile(r"\\frac"), r"\\dfrac"),
    (re.compile(r"\\left|\\right|(?<=[-+=]) | (?=[-+=])"), ""),
    (re.compile(r",(?=\\?[a-z\d(-])(?!\d{3})"), r", \\,"),
)
INTEGER = re.compile(r"-?\d+")
FRACTION = re.compile(r"\\frac\{(\d+)\}\{(\d+)\}")
LAST_DIGIT = re.compile(r"\d(?=\D*$)")


class Case(NamedTuple):
    """An answer to judge, and whether it is right."""

    response: Response
    right: bool


Judge: TypeAlias = Callable[[Sequence[Response]], list[bool]]


def main() -> None:
    args = arguments()
    math = list(math_mix(rows_of(args.math / "test500.jsonl")))
    solved = list(rows_of(args.gsm8k / "train.jsonl"))
    mixes = {
        "MATH": (math, 4),
        "GSM8K, last line": (list(gsm8k_mix(solved, whole=False)), 50),
        "GSM8K, solution": (list(gsm8k_mix(solved, whole=True)), 50),
    }
    print(f"{'':18}{'answers':>8}{'answers/s':>22}{'':>16}{'as expected':>23}")
    print(f"{'':26}{'ours':>11}{'math-verify':>13}{'ratio':>7}{'target':>8}{'ours':>9}{'math-verify':>13}")
    with multiprocessing.get_context("spawn").Pool(WORKERS) as pool:
        pool.map(judge_by_math_verify, WARM_UP)
        for name, (mix, target) in mixes.items():
            compare(
                name, mix, lambda responses: pool.map(judge_by_math_verify, responses), target, args.rounds
            )
    storm(math, [hostile(row) for row in rows_of(args.hostile)])


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    data = Path("../shared/data")
    parser.add_argument("--math", type=Path, default=data / "math", help="folder with test500.jsonl")
    parser.add_argument("--gsm8k", type=Path, default=data / "gsm8k", help="folder with train.jsonl")
    parser.add_argument("--hostile", type=Path, default=data / "grader_cases" / "hostile_inputs.jsonl")
    parser.add_argument("--rounds", type=int, default=3)
    return parser.parse_args()


def compare(name: str, mix: Sequence[Case], theirs: Judge, target: int, rounds: int) -> None:
    """Judge `mix` on both sides in turn; print median speeds, and how often the verdict is as expected."""
    responses = [case.response for case in mix]
    speeds: tuple[list[float], list[float]] = [], []
    for _ in range(rounds):
        with ready_grader() as grader:
            seconds, verdicts = timed(grader.grade, responses)
        speeds[0].append(len(mix) / seconds)
        seconds, others = timed(theirs, responses)
        speeds[1].append(len(mix) / seconds)
    ours, other = map(median, speeds)
    agreed = [
        sum(one == case.right for one, case in zip(judged, mix, strict=True)) / len(mix)
        for judged in ([verdict.success for verdict in verdicts], others)
    ]
    print(
        f"{name:18}{len(mix):8,}{ours:11,.0f}{other:13,.0f}{ours / other:7.1f}{target:>7}x"
        f"{agreed[0]:9.1%}{agreed[1]:13.1%}"
    )


def storm(mix: Sequence[Case], attack: Sequence[Response]) -> None:
    """What hostile answers cost: time, and the verdicts on the good ones, which must stay."""
    calm = [case.response for case in mix]
    attack = attack[: len(calm) // 9]
    places = random.Random(0).sample(range(len(calm) + len(attack)), len(attack))
    hostile_at = dict(zip(places, attack, strict=True))
    good = iter(calm)
    stormy = [hostile_at.get(place) or next(good) for place in range(len(calm) + len(attack))]
    with ready_grader() as grader:
        calm_seconds, expected = timed(grader.grade, calm)
    with ready_grader() as grader:
        stormy_seconds, verdicts = timed(grader.grade, stormy)
    found = [verdict for place, verdict in enumerate(verdicts) if place not in hostile_at]
    changed = sum(one != other for one, other in zip(found, expected, strict=True))
    abstained = sum(verdicts[place].abstains for place in places)
    with ready_grader() as grader:
        worst = max(timed(grader.grade, [response])[0] for response in attack)
    print(f"\nstorm: {len(attack)} hostile answers among {len(calm):,}")
    print(f"  verdicts on the others that changed  {changed}")
    print(f"  hostile answers that abstained       {abstained}")
    print(f"  seconds, calm and stormy             {calm_seconds:.2f}, {stormy_seconds:.2f}")
    print(f"  extra seconds in all                 {stormy_seconds - calm_seconds:.2f}")
    print(f"  worst seconds of one hostile answer  {worst:.2f}")


def ready_grader() -> Grader:
    """A grader whose processes are up, and that has judged none of the answers."""
    grader = Grader(GradingConfig(workers=WORKERS))
    grader.grade(WARM_UP)
    return grader


def judge_by_math_verify(question: Response) -> bool:
    from math_verify import parse, verify

    return bool(verify(parse(f"${question.gold}$"), parse(question.text)))


def timed(
    judge: Callable[[Sequence[Response]], list[Any]], responses: Sequence[Response]
) -> tuple[float, list[Any]]:
    begun = time.perf_counter()
    verdicts = judge(responses)
    return time.perf_counter() - begun, verdicts


def math_mix(rows: Iterable[dict[str, Any]]) -> Iterator[Case]:
    """Each distinct gold three times: as it is, in another spelling if there is one, and made wrong."""
    golds = list(dict.fromkeys(row["answer"] for row in rows))
    for gold, next_gold in zip(golds, golds[1:] + golds[:1], strict=True):
        for answer in dict.fromkeys((gold, rewritten(gold))):
            yield Case(boxed(answer, gold), True)
        yield Case(boxed(wrong(gold) or next_gold, gold), False)


def gsm8k_mix(rows: Sequence[dict[str, Any]], whole: bool) -> Iterator[Case]:
    """Each distinct gold right, and made wrong, with or without the worked solution before it."""
    solutions = {gold: text for text, _, gold in (row["answer"].rpartition("#### ") for row in rows)}
    for gold, text in solutions.items():
        for answer in (gold, wrong(gold)):
            response = f"{text if whole else ''}#### {answer}"
            yield Case(Response("gsm8k", response, gold.replace(",", "")), answer == gold)


def rewritten(gold: str) -> str:
    """The same value as another pupil would write it."""
    if INTEGER.fullmatch(gold):
        return f"{gold}.0"
    match = FRACTION.fullmatch(gold)
    if match and 1000 % int(match[2]) == 0:
        return str(float(Fraction(int(match[1]), int(match[2]))))
    for pattern, replacement in REWRITES:
        gold = pattern.sub(replacement, gold)
    return gold


def wrong(gold: str) -> str:
    """The last digit one higher; empty if there is none."""
    match = LAST_DIGIT.search(gold)
    return f"{gold[: match.start()]}{(int(match[0]) + 1) % 10}{gold[match.end() :]}" if match else ""


def boxed(answer: str, gold: str) -> Response:
    return Response("boxed", rf"So the answer is $\boxed{{{answer}}}$.", gold)


def hostile(row: dict[str, Any]) -> Response:
    """A row of hostile_inputs.jsonl as a response with a box."""
    packed = row.get("pred_gz_b64")
    text = gzip.decompress(base64.b64decode(packed)).decode() if packed else row["pred"]
    return Response("boxed", text if "boxed" in text else rf"\boxed{{{text}}}", row["gold"])


def rows_of(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


if __name__ == "__main__":
    main()
