"""The program of an instruction worker: TorchRL's scorer of IFEval in a process that may be killed.

Run by pool.py as a plain script. It reads JSON pairs ``[response, gold]`` from a connection and answers each
with a JSON object: `strict` and `loose`, one truth value for each instruction of the gold.
"""

import json
import logging
import random
import sys
from collections.abc import Callable, Iterable
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType
from typing import Any

import nltk
from langdetect import DetectorFactory
from punkt.data import english

sys.path.append(str(Path(__file__).parents[2]))

from expert_iteration.confinement import serve

WARM_UP = {
    "length_constraints:number_sentences": {"num_sentences": 2, "relation": "at least"},
    "change_case:capital_word_frequency": {"capital_frequency": 1, "capital_relation": "at least"},
    "language:response_language": {"language": "en"},
}
"""Instructions that read data from disk when they are first judged."""


def main() -> None:
    # One clock and one set of data: the pool's deadline instead of NLTK's own, and no folder of the user's.
    nltk.redos.DEFAULT_TIMEOUT = None
    DetectorFactory.seed = 0
    scorer = load_scorer()
    with TemporaryDirectory() as folder:
        write_punkt(Path(folder))
        nltk.data.path[:] = [folder]
        warm_up = {"instruction_id_list": list(WARM_UP), "kwargs": list(WARM_UP.values())}
        judge(scorer, "HELLO, dear reader. This is a text in English.", json.dumps(warm_up))
    serve(partial(judge, scorer))


def load_scorer() -> ModuleType:
    """TorchRL's scorer without TorchRL, which would load torch and vLLM: it needs nothing of it but a logger.

    Raises:
        ImportError: another version of TorchRL keeps it elsewhere, or it needs more.
    """
    torchrl = find_spec("torchrl")
    if torchrl is None or torchrl.origin is None:
        raise ImportError("torchrl is not installed.")
    ifeval = ModuleType("ifeval")
    ifeval.__path__ = [str(Path(torchrl.origin).parent / "envs" / "llm" / "reward" / "ifeval")]
    utils = ModuleType("torchrl._utils")
    vars(utils)["logger"] = logging.getLogger("torchrl")
    sys.modules |= {"torchrl": ModuleType("torchrl"), "torchrl._utils": utils, "ifeval": ifeval}
    return import_module("ifeval._instructions_main")


def write_punkt(folder: Path) -> None:
    """The English model of NLTK's sentence tokenizer, in the files where NLTK looks for it."""
    tables: dict[str, Iterable[str]] = {
        "abbrev_types.txt": english.ABBREV_TYPES,
        "sent_starters.txt": english.SENT_STARTERS,
        "collocations.tab": ("\t".join(pair) for pair in english.COLLOCATIONS),
        "ortho_context.tab": (f"{word}\t{flags}" for word, flags in english.ORTHO_CONTEXT.items()),
    }
    model = folder / "tokenizers" / "punkt_tab" / "english"
    model.mkdir(parents=True)
    for name, lines in tables.items():
        (model / name).write_text("\n".join(lines), encoding="utf-8")


def judge(scorer: ModuleType, response: str, gold: str) -> str:
    """Which instructions the response meets; each is judged alone, so that none spoils another."""
    asked = json.loads(gold)
    examples = [
        scorer._InputExample(key=0, instruction_id_list=[name], prompt="", kwargs=[arguments])
        for name, arguments in zip(asked["instruction_id_list"], asked["kwargs"], strict=True)
    ]
    strict, loose = scorer._test_instruction_following_strict, scorer._test_instruction_following_loose
    return json.dumps(
        {
            "strict": [is_met(strict, example, response) for example in examples],
            "loose": [is_met(loose, example, response) for example in examples],
        }
    )


def is_met(test: Callable[..., Any], example: object, response: str) -> bool:
    """Whether the response meets the one instruction of `example`."""
    # Where an argument makes no sense to it, the scorer draws another one.
    random.seed(0)
    try:
        return bool(test(example, response).follow_all_instructions)
    except RecursionError:
        # The parser of JSON gave up on nested brackets.
        return False


if __name__ == "__main__":
    main()
