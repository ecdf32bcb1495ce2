"""Word problems of one to four steps of arithmetic, in three splits that never share a question.

A question tells a short story about things that one person owns. A running value goes through one
operation per step and stays between 1 and `LARGEST`; the last value is the answer:

    >>> problem = held_out(4)[2]
    >>> problem.difficulty
    3

The split of a question is a hash of its text, so the splits are disjoint without being generated.
"""

import hashlib
import operator
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from itertools import cycle

LARGEST = 50
"""No value on the way to an answer is larger."""
HELD_OUT_SIZE = 1200

_EVEN_MIX = (1, 2, 3, 4)
_BASE_MIX = (1, 2, 2, 3, 3, 4, 4, 4)
_MULTIPLICATION_START = 0.35
_HELD_OUT_SEED = 999

_MEN = ("Tom", "Sam", "Ben", "Leo", "Max", "Dan", "Jim", "Ned", "Bob", "Ray")
_WOMEN = ("Ann", "Mia", "Eva", "Zoe", "Amy", "Ida", "Kim", "Liz", "Sue", "Joy")
_PEOPLE = _MEN + _WOMEN
_PRONOUN = dict.fromkeys(_MEN, "He") | dict.fromkeys(_WOMEN, "She")
# fmt: off
_ITEMS = (
    "apples", "books", "coins", "cards", "eggs", "pens", "cups", "stamps", "shells", "plums",
    "toys", "kites", "nuts", "figs", "rings", "cakes", "balls", "beads", "hats", "keys",
)
# fmt: on
_CONTAINERS = ("boxes", "bags", "jars", "trays")
_REQUESTS = ("How many {items} does {name} have?", "How many {items} are left?", "How many {items} now?")
_VERB = {2: "doubles", 3: "triples"}
_SHARE = {2: "half", 3: "a third"}


class Split(Enum):
    """Three sets of questions that share none; the value is the split's share of 16 hash buckets."""

    held_out = range(0, 1)
    base = range(1, 9)
    train = range(9, 16)


@dataclass(frozen=True, slots=True)
class Problem:
    """One question, its answer and the arithmetic between them."""

    question: str
    answer: int
    """Between 1 and `LARGEST`."""
    steps: tuple[str, ...]
    """Worked steps such as ``("4*3=12", "12+5=17")``; each goes on from the result before it."""

    @property
    def difficulty(self) -> int:
        """Number of steps, 1 to 4."""
        return len(self.steps)


@dataclass(frozen=True, slots=True)
class Operation:
    """One kind of step: how it is computed, told, and with which second operands it may continue a value."""

    symbol: str
    weight: int
    """Relative frequency among the operations that fit."""
    compute: Callable[[int, int], int]
    operands: Callable[[int], Sequence[int]]
    """Second operands that keep the result a whole number between 1 and `LARGEST`; may be empty."""
    sentences: tuple[str, ...]


OPERATIONS = (
    Operation(
        "+",
        3,
        operator.add,
        lambda value: range(2, min(6, LARGEST - value) + 1),
        (
            "{he} buys {number} more.",
            "{he} finds {number} more.",
            "{he} gets {number} from {friend}.",
            "{friend} gives {name} {number}.",
        ),
    ),
    Operation(
        "-",
        3,
        operator.sub,
        lambda value: range(2, min(6, value - 1) + 1),
        (
            "{he} gives {number} to {friend}.",
            "{he} loses {number}.",
            "{he} sells {number}.",
            "{friend} takes {number}.",
        ),
    ),
    Operation(
        "*",
        2,
        operator.mul,
        lambda value: [factor for factor in (2, 3) if value * factor <= LARGEST],
        ("{he} {verb} them.",),
    ),
    Operation(
        "/",
        2,
        operator.floordiv,
        lambda value: [divisor for divisor in (2, 3) if value % divisor == 0],
        ("{he} keeps {share}.",),
    ),
)
COMPUTE = {operation.symbol: operation.compute for operation in OPERATIONS}


def held_out(count: int = HELD_OUT_SIZE) -> list[Problem]:
    """The first `count` evaluation problems, equally many of each difficulty; never trained on.

    Raises:
        ValueError: if `count` exceeds `HELD_OUT_SIZE`.
    """
    if count > HELD_OUT_SIZE:
        raise ValueError(f"held_out has {HELD_OUT_SIZE} problems, {count} were asked for; ask for fewer.")
    return _draw(Split.held_out, count, _HELD_OUT_SEED, _EVEN_MIX)


def train(count: int, seed: int) -> list[Problem]:
    """`count` distinct problems for expert iteration, equally many of each difficulty."""
    return _draw(Split.train, count, seed, _EVEN_MIX)


def base_corpus(count: int, seed: int) -> list[Problem]:
    """`count` distinct problems for training the base model; the difficulties 1:2:2:3 of 8."""
    return _draw(Split.base, count, seed, _BASE_MIX)


def solution(problem: Problem) -> str:
    """The correct worked response, without the ``<think>`` that ends the prompt."""
    return worked_response(problem.steps, problem.answer)


def worked_response(steps: Sequence[str], answer: int) -> str:
    """Steps and an answer in the response format of the task."""
    return f" {'; '.join(steps)} </think> <answer> {answer} </answer>"


def split_of(question: str) -> Split:
    """The split that owns a question, known from its text alone."""
    bucket = hashlib.sha256(question.encode()).digest()[0] % 16
    return next(split for split in Split if bucket in split.value)


def _draw(split: Split, count: int, seed: int, mix: Sequence[int]) -> list[Problem]:
    """Distinct problems of one split in a fixed order, whose difficulties go round the mix."""
    rng = random.Random(seed)
    difficulties = cycle(mix)
    found: dict[str, Problem] = {}
    while len(found) < count:
        difficulty = next(difficulties)
        candidates = _of_difficulty(rng, difficulty)
        problem = next(p for p in candidates if split_of(p.question) is split and p.question not in found)
        found[problem.question] = problem
    return list(found.values())


def _of_difficulty(rng: random.Random, difficulty: int) -> Iterator[Problem]:
    while True:
        yield _tell(rng, difficulty)


def _tell(rng: random.Random, difficulty: int) -> Problem:
    name, friend = rng.sample(_PEOPLE, 2)
    cast = {"name": name, "friend": friend, "he": _PRONOUN[name], "items": rng.choice(_ITEMS)}
    sentence, value, steps = _beginning(rng, cast)
    sentences = [sentence]
    while len(steps) < difficulty:
        sentence, step, value = _continue(rng, cast, value)
        sentences.append(sentence)
        steps.append(step)
    sentences.append(rng.choice(_REQUESTS).format_map(cast))
    return Problem(" ".join(sentences), value, tuple(steps))


def _beginning(rng: random.Random, cast: dict[str, str]) -> tuple[str, int, list[str]]:
    """First sentence, first value, and the step that gave it if it had to be computed."""
    owner = f"{cast['name']} has"
    if rng.random() >= _MULTIPLICATION_START:
        value = rng.randint(3, 20)
        return f"{owner} {value} {cast['items']}.", value, []
    many, each = rng.randint(2, 6), rng.randint(2, 6)
    sentence = f"{owner} {many} {rng.choice(_CONTAINERS)} of {each} {cast['items']}."
    return sentence, many * each, [f"{many}*{each}={many * each}"]


def _continue(rng: random.Random, cast: dict[str, str], value: int) -> tuple[str, str, int]:
    """Next sentence, its step, and the value after it."""
    possible = [operation for operation in OPERATIONS if operation.operands(value)]
    (operation,) = rng.choices(possible, [operation.weight for operation in possible])
    number = rng.choice(operation.operands(value))
    result = operation.compute(value, number)
    words = {**cast, "number": number, "verb": _VERB.get(number), "share": _SHARE.get(number)}
    return (
        rng.choice(operation.sentences).format_map(words),
        f"{value}{operation.symbol}{number}={result}",
        result,
    )
