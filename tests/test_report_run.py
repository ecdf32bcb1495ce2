"""The report of a run: a page that loads nothing, shows what there is, and lets no text out of its cage."""

import base64
import gzip
import json
import logging
import math
import random
import re
import runpy
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer

from expert_iteration.ledger import Ledger, Record
from expert_iteration.reports.apart import report_apart
from expert_iteration.reports.look import asset
from expert_iteration.reports.packing import LEVELS_PER_ROOT, LOWEST, Packed, level, pack
from expert_iteration.reports.pieces import Pieces, byte_of_character, units
from expert_iteration.reports.run import write_run_report
from expert_iteration.reports.run_curves import plain, running_mean
from expert_iteration.reports.run_timeline import Clock, bars_of, timelines
from expert_iteration.reports.runs import NoRun, RunFiles
from expert_iteration.reports.spans import Chronicle, Lane, Span, Stage, rows_of, sessions

ROOT = Path(__file__).parents[1]
TOKENIZER = ROOT / "expert_iteration" / "demo" / "model" / "tokenizer.json"
SCRIPT = ROOT / "scripts" / "report.py"
HOSTILE = (
    "<script>window.hacked = 1</script>",
    "</script><img src=x onerror=alert(1)>",
    "<!-- ",
    '<a href="javascript:alert(1)">',
    "line\u2028separator",
    "\u202eturned\u202c \u2066isolated",
    "\x1b[2J${jndi} $\\frac{1}{2$",
)
EVENTS: list[dict[str, Any]] = [
    {"iteration": 0, "step": 0, "seconds": 1.0, "eval/n": 100.0, "eval/greedy": 0.25, "time/evaluate": 1.0},
    {"iteration": 1, "step": 4, "seconds": 3.0, "loss/total": 0.5, "loss/kl": 0.0, "train/grad_norm": 1.5},
    {"iteration": 1, "step": 4, "seconds": 4.0, "rollout/count": 8.0, "selection/kept": 2.0}
    | {"selection/kept_share": 0.25, "rollout/headroom": 0.5, "policy/age_max": 0.0},
    {"iteration": 1, "step": 4, "seconds": 5.0, "eval/n": 100.0, "eval/greedy": 0.75, "time/evaluate": 1.0},
]


def write_lines(file: Path, rows: list[dict[str, Any]]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(f"{json.dumps(row)}\n" for row in rows))


def row(prompt: int = 1, iteration: int = 1, response: str = "4", **others: Any) -> dict[str, Any]:
    plain = {
        "iteration": iteration,
        "prompt_id": prompt,
        "rollout_index": 0,
        "task": "sums",
        "level": "easy",
        "subject": "",
        "question": f"Question {prompt}?",
        "gold": "4",
        "response": response,
        "verdict": "correct",
        "reason": "exact",
        "reward": 1.0,
        "fate": "kept",
        "policy_version": 0,
        "policy_version_end": 0,
        "finish": "stop",
        "tokens": 2,
    }
    return plain | others


def write_run(
    folder: Path, events: list[dict[str, Any]] = EVENTS, rows: list[dict[str, Any]] | None = None
) -> Path:
    write_lines(folder / "metrics.jsonl", events)
    if rows is not None:
        write_lines(folder / "rollouts" / "iteration_0001.jsonl", rows)
    return folder


def add_checkpoint(run: Path) -> None:
    checkpoint = run / "checkpoints" / "step_00000004"
    (checkpoint / "model").mkdir(parents=True)
    (checkpoint / "manifest.json").write_text("{}")
    (checkpoint / "model" / "tokenizer.json").write_bytes(TOKENIZER.read_bytes())
    ledger = Ledger(
        {1: Record(visits=1, attempts=4, successes=1, first_solved=1, last_seen=1, last_rate=0.25)}
    )
    (checkpoint / "ledger.json").write_text(json.dumps(ledger.state()))


def unpacked(page: str) -> dict[str, Any]:
    """What the browser of rollouts reads, by name."""
    islands = re.findall(
        r'<script type="application/gzip" id="([a-z0-9-]+)">([A-Za-z0-9+/=]*)</script>', page
    )
    return {name: json.loads(gzip.decompress(base64.b64decode(blob))) for name, blob in islands}


def opened(packed: Packed) -> dict[str, Any]:
    return {name: json.loads(gzip.decompress(base64.b64decode(blob))) for name, blob in packed.blobs.items()}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with everything, and its report."""
    folder = tmp_path_factory.mktemp("runs") / "full"
    ids = Tokenizer.from_file(str(TOKENIZER)).encode("4 </answer>").ids
    tokens = {"token_ids": [*ids, 2], "log_probs": [-0.5] * len(ids) + [-0.25]}
    rows = [
        row(1, response="4 </answer>", **tokens),
        row(2, response="5", verdict="wrong", fate="unsuccessful"),
    ]
    write_run(folder, rows=rows)
    add_checkpoint(folder)
    write_lines(
        folder / "timeline" / "driver.jsonl", [{"stage": "learn", "iteration": 1, "start": 10.0, "end": 12.0}]
    )
    (folder / ".hydra").mkdir()
    (folder / ".hydra" / "config.yaml").write_text("seed: 7\nlogger:\n  api_key: sesame-open\n")
    (folder / ".hydra" / "overrides.yaml").write_text("- seed=7\n- logger.name='a b'\n")
    (folder / "run.log").write_text(
        "2026-01-31 12:00:00,000 INFO expert_iteration.data: all is well\n"
        "2026-01-31 12:00:01,000 WARNING expert_iteration.stages: 3 answers <b>could not</b> be judged\n"
        "    deadline of 5 s\n"
        "2026-01-31 12:00:02,000 INFO expert_iteration.data: later\n"
    )
    part = {
        "dataset": "sums",
        "split": "train",
        "source": "file",
        "rows": 9,
        "kept": 7,
        "prompts_too_long": 0,
    }
    part |= {"used": 7, "dropped": {"empty question": {"count": 2, "rows": ["row 3", "row 5"]}}, "notes": []}
    (folder / "data_report.json").write_text(json.dumps({"parts": [part], "hash": "abc"}))
    assert write_run_report(folder) == folder / "report.html"
    return folder


@pytest.fixture(scope="module")
def page(run: Path) -> str:
    return (run / "report.html").read_text()


# ---------------------------------------------------------------- the page


def test_the_page_loads_nothing_from_anywhere(page: str) -> None:
    assert "default-src 'none'" in page
    assert not re.search(r"https?://|src=\"(?!data:image/png;base64,)|<link|@import|url\(", page)


def test_the_headline_tells_the_accuracy_with_its_interval(page: str) -> None:
    assert "<b>75.0%</b><span>[65.7, 82.5]; before training 25.0% [17.5, 34.3]</span>" in page


def test_what_the_run_has_is_drawn_and_saved_beside_the_page(run: Path, page: str) -> None:
    names = {file.stem for file in (run / "report").iterdir()}
    assert {"accuracy", "kept", "headroom", "loss", "gradient", "fates", "phases", "timeline"} <= names
    assert page.count("<img ") == len(names)
    assert 'alt="Held-out accuracy by iteration. greedy: from 25.0% at 0 to 75.0% at 1."' in page


def test_what_the_run_lacks_is_not_drawn_empty(run: Path) -> None:
    assert not {"entropy", "lengths", "importance", "ledger"} & {
        file.stem for file in (run / "report").iterdir()
    }


def test_what_is_zero_throughout_is_said_and_not_drawn(run: Path, page: str) -> None:
    assert "0 throughout, and not drawn: KL to the initial model; Staleness." in page
    assert not (run / "report" / "kl.png").exists()


def test_warnings_of_the_log_are_shown_with_their_details_and_nothing_else_of_it(page: str) -> None:
    assert "3 answers &lt;b&gt;could not&lt;/b&gt; be judged\n    deadline of 5 s</pre>" in page
    assert "all is well" not in page


def test_the_configuration_is_shown_without_its_secrets_and_as_a_command(page: str) -> None:
    assert "python scripts/train.py seed=7 &#x27;logger.name=" in page
    assert "api_key: &lt;redacted&gt;" in page
    assert "sesame-open" not in page


def test_the_data_and_the_ledger_are_summed_up(page: str) -> None:
    assert "<td>empty question: 2</td>" in page
    assert "1 questions up to iteration 1" in page


def test_a_run_that_was_killed_at_once_has_a_page(tmp_path: Path) -> None:
    events = [{"iteration": 0, "step": 0, "seconds": 0.5, "run/data_hash": "abc"}]
    page = write_run_report(write_run(tmp_path / "killed", events)).read_text()
    assert "going on, or was killed" in page
    assert "<img" not in page


def test_a_second_report_leaves_no_picture_of_the_first(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    write_run_report(run)
    write_run_report(write_run(run, EVENTS[:1]))
    assert {file.stem for file in (run / "report").iterdir()} == {"accuracy", "phases"}


def test_hostile_text_appears_nowhere_raw_and_is_carried_whole(tmp_path: Path) -> None:
    hostile = " ".join(HOSTILE)
    rows = [row(1, response=hostile, question=hostile, gold=hostile, task=hostile, reason=hostile)]
    events = [*EVENTS, {"iteration": 1, "step": 4, "seconds": 5.0}]
    for name in (hostile, "second"):
        events[-1] |= {f"eval/greedy/{name}": 0.5, f"eval/n/{name}": 10.0}
    run = write_run(tmp_path / "hostile", events, rows)
    (run / ".hydra").mkdir()
    (run / ".hydra" / "overrides.yaml").write_text(json.dumps([hostile.replace("${jndi}", "")]))
    (run / "run.log").write_text(f"2026-01-31 12:00:01,000 WARNING x: {hostile}\n", encoding="utf-8")
    page = write_run_report(run).read_text(encoding="utf-8")
    for text in (
        "<script>window",
        "</script><img",
        "<!-- ",
        '<a href="java',
        "\u2028",
        "\u202e",
        "\u2066",
        "\x1b",
    ):
        assert text not in page
    carried = unpacked(page)
    assert carried["texts-0"] == [hostile]
    assert carried["head"]["prompts"] == [[1, hostile, "easy", "", hostile, hostile]]


def test_the_script_of_the_page_makes_no_html_of_texts() -> None:
    script = asset("browser.js")
    assert not re.search(
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|Function\(|fetch\(", script
    )
    assert "</script" not in script
    assert "<!--" not in script


# ---------------------------------------------------------------- rollouts


def test_the_page_carries_every_rollout_with_its_tokens(page: str) -> None:
    carried = unpacked(page)
    head = carried["head"]
    assert carried["texts-0"] == ["4 </answer>", "5"]
    assert [head["names"]["verdict"][place] for place in head["columns"]["verdict"]] == ["correct", "wrong"]
    lengths, levels = carried["tokens-0"][0]
    cut = [ord(character) - head["shortest"] for character in lengths]
    assert sum(cut) == len("4 </answer>")
    assert cut[-1] == 0, "the end of the answer shows nothing"
    assert levels[-1] == level(-0.25)
    assert carried["tokens-0"][1] == ["", ""], "a row without tokens has no colours"
    assert "All 2 rollouts of the run are in this page. 1 of them can be coloured" in page


def long_rows(prompts: int, iterations: int) -> Iterator[Mapping[str, Any]]:
    rng = random.Random(0)
    for iteration in range(1, iterations + 1):
        for prompt in range(prompts):
            yield row(
                prompt, iteration, f"{rng.getrandbits(2000):x}", verdict=rng.choice(["correct", "wrong"])
            )


def test_what_does_not_fit_is_left_out_by_whole_prompts_and_counted_all_the_same() -> None:
    packed = pack(long_rows(100, 3), None, budget=40_000)
    assert packed.size <= 40_000
    assert 0 < packed.carried < packed.total == 300
    columns = opened(packed)["head"]["columns"]
    visits = list(zip(columns["prompt"], columns["iteration"], strict=True))
    assert len(set(visits)) == len(visits) == packed.carried
    assert {iteration for _, iteration in visits} == {1, 2, 3}
    assert packed.carried == 3 * len(set(columns["prompt"])), "a prompt comes with all its iterations"
    assert sum(tally["verdict correct"] + tally["verdict wrong"] for tally in packed.counts.values()) == 300


def test_the_same_rollouts_make_the_same_page() -> None:
    assert pack(long_rows(60, 2), None, 30_000) == pack(long_rows(60, 2), None, 30_000)


def test_the_page_says_how_much_it_holds(tmp_path: Path) -> None:
    run = write_run(tmp_path / "large", EVENTS[:1], [dict(one) for one in long_rows(40, 1)])
    page = write_run_report(run, budget=10_000).read_text()
    held = len(unpacked(page)["head"]["columns"]["prompt"])
    assert 0 < held < 40
    assert f"{held} of 40 rollouts are in this page" in page


@pytest.mark.long
def test_a_hundred_thousand_rollouts_stay_below_20_megabytes() -> None:
    tokenizer = Tokenizer.from_file(str(TOKENIZER))
    rng = random.Random(0)
    answers = []
    for _ in range(500):
        response = " ".join(f"{rng.randrange(1000)}+{rng.randrange(1000)}" for _ in range(6))
        ids = tokenizer.encode(response).ids
        answers.append((response, ids, [round(-(rng.random() ** 6) * 5, 3) for _ in ids]))

    def rows() -> Iterator[Mapping[str, Any]]:
        for place in range(100_000):
            response, ids, log_probs = rng.choice(answers)
            yield row(place % 9000, place // 20_000 + 1, response, token_ids=ids, log_probs=log_probs)

    packed = pack(rows(), Pieces(tokenizer))
    assert packed.carried == packed.coloured == packed.total == 100_000
    assert packed.size < 18_000_000


def test_a_level_tells_the_probability_to_two_points() -> None:
    for thousandth in range(20_000):
        log_prob = -thousandth / 1000
        told = -(((ord(level(log_prob)) - LOWEST) / LEVELS_PER_ROOT) ** 2)
        assert abs(math.exp(told) - math.exp(log_prob)) < 0.022


# ---------------------------------------------------------------- tokens


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.from_file(str(TOKENIZER))


@pytest.mark.parametrize("text", ["12+3=15 </think> <answer> 15", "é", "a 😀 b", "漢字 1", ""])
def test_the_pieces_of_a_text_are_as_long_as_the_text(tokenizer: Tokenizer, text: str) -> None:
    ids = tokenizer.encode(text, add_special_tokens=False).ids
    pieces = Pieces(tokenizer).cut(text, ids, [-1.0] * len(ids))
    assert pieces is not None
    assert sum(length for length, _ in pieces) == units(text)
    assert sum(log_prob for _, log_prob in pieces) == -len(ids)


def test_tokens_of_one_character_are_one_piece(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode("😀", add_special_tokens=False).ids
    assert len(ids) > 1, "the test needs a character of several tokens"
    assert Pieces(tokenizer).cut("😀", ids, [-1.0] * len(ids)) == [(2, -float(len(ids)))]


def test_tokens_that_do_not_make_the_text_are_not_shown(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode("7", add_special_tokens=False).ids
    assert Pieces(tokenizer).cut("8", ids, [-1.0] * len(ids)) is None


def test_a_character_that_was_cut_off_is_shown_as_the_engine_does(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode("😀", add_special_tokens=False).ids[:-1]
    assert Pieces(tokenizer).cut("\ufffd", ids, [-1.0] * len(ids)) == [(1, -float(len(ids)))]


def test_without_a_tokenizer_there_are_no_pieces(tmp_path: Path) -> None:
    assert Pieces.of(tmp_path / "tokenizer.json") is None


def test_the_alphabet_of_bytes_has_every_byte_once() -> None:
    assert sorted(byte_of_character().values()) == list(range(256))


# ---------------------------------------------------------------- time


def lane(*stages: tuple[str, float, float], name: str = "trainer_0") -> Lane:
    return Lane(name, tuple(Stage(kind, 1, Span(start, end)) for kind, start, end in stages))


def test_a_process_waits_when_it_does_nothing_while_the_run_goes_on() -> None:
    trainer, driver = lane(("learn", 2, 4), ("push", 4, 5)), lane(("collect", 0, 10), name="driver")
    chronicle = Chronicle((driver, trainer), (Span(0, 10),))
    assert chronicle.spent(trainer) == {"learn": 2, "push": 1, "wait": 7}


def test_a_long_silence_of_all_processes_parts_two_sessions() -> None:
    assert sessions([Span(0, 10), Span(12, 20), Span(500, 510)]) == [Span(0, 20), Span(500, 510)]


def test_what_happens_at_the_same_time_lies_in_rows_of_its_own() -> None:
    assert rows_of(lane(("collect", 0, 4), ("grade", 3, 5), ("push", 6, 7))) == [
        ["collect", "push"],
        ["grade"],
    ]
    assert rows_of(lane(("collect", 0, 4), ("grade", 4, 5))) == [["collect", "grade"]]


def test_short_stages_do_not_hide_a_long_one_however_many_there_are() -> None:
    stages = []
    for start in range(10_000):
        stages += [("learn", start, start + 0.9), ("other", start + 0.9, start + 1)]
    trainer = lane(*stages)
    bars = bars_of(trainer, ["learn", "other"], Clock((Span(0, 10_000),)))
    assert bars == {"learn": [(0, pytest.approx(10_000))], "other": []}


def test_a_timeline_of_no_length_can_be_drawn() -> None:
    driver = lane(("other", 5, 5), name="driver")
    (picture,) = timelines(Chronicle((driver,), (Span(5, 5),)))
    assert picture.name == "timeline"


def test_the_clock_leaves_out_the_time_between_sessions() -> None:
    clock = Clock((Span(0, 100), Span(1000, 1100)))
    assert clock.at(Span(1010, 1020)) == (110 + clock.gap, 10)
    assert clock.seconds == 200 + clock.gap
    assert clock.at(Span(500, 600)) is None


def test_the_timeline_of_an_iteration_is_that_of_its_last_session(tmp_path: Path) -> None:
    spans = [(0, 10, 1), (10, 20, 2), (1000, 1030, 2), (1030, 1040, 3)]
    stages = [{"stage": "learn", "iteration": i, "start": start, "end": end} for start, end, i in spans]
    write_lines(tmp_path / "timeline" / "driver.jsonl", stages)
    write_lines(tmp_path / "timeline" / "collector_10.jsonl", stages)
    write_lines(tmp_path / "timeline" / "collector_9.jsonl", stages)
    chronicle = Chronicle.of(tmp_path)
    assert chronicle is not None
    assert [one.name for one in chronicle.lanes] == ["driver", "collector_9", "collector_10"]
    assert chronicle.window(2) == Span(1000, 1030)


def test_a_run_without_a_timeline_has_no_chronicle(tmp_path: Path) -> None:
    assert Chronicle.of(tmp_path) is None


def test_a_running_mean_is_that_of_the_last_values() -> None:
    assert running_mean([1, 2, 3, 4], 2) == [1, 1.5, 2.5, 3.5]


def test_a_label_is_no_formula() -> None:
    assert plain("_a $x$") == r"a \$x\$"


# ---------------------------------------------------------------- commands


def test_a_torn_line_of_rollouts_is_passed_over(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", EVENTS[:1], [row(1)])
    with (run / "rollouts" / "iteration_0001.jsonl").open("a") as file:
        file.write('{"iteration": 1, "resp')
    assert [one["prompt_id"] for one in RunFiles.of(run).rollouts()] == [1]


def test_the_script_writes_the_report_and_says_where(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = write_run(tmp_path / "run", EVENTS[:1])
    runpy.run_path(str(SCRIPT))["main"]([str(run)])
    assert capsys.readouterr().out == f"{run / 'report.html'}\n"


def test_the_script_takes_a_folder_of_runs_for_a_sweep(tmp_path: Path) -> None:
    for seed in "01":
        hydra = write_run(tmp_path / seed, EVENTS) / ".hydra"
        hydra.mkdir()
        (hydra / "overrides.yaml").write_text(f"- seed={seed}\n")
        (hydra / "config.yaml").write_text(f"seed: {seed}\n")
    runpy.run_path(str(SCRIPT))["main"]([str(tmp_path)])
    assert "<title>Sweep" in (tmp_path / "report.html").read_text()


@pytest.mark.parametrize("name", [".", "missing"])
def test_the_script_refuses_a_folder_without_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    with pytest.raises(SystemExit) as stopped:
        runpy.run_path(str(SCRIPT))["main"]([str(tmp_path / name)])
    assert stopped.value.code == 2
    assert capsys.readouterr().err.startswith(f"error: {tmp_path / name} holds neither a run")
    assert not list(tmp_path.iterdir())


def test_a_report_needs_a_run(tmp_path: Path) -> None:
    with pytest.raises(NoRun, match=r"holds no metrics\.jsonl"):
        write_run_report(tmp_path)


def test_a_report_that_fails_does_so_apart_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        assert report_apart(tmp_path) is None
    assert "holds no metrics.jsonl" in caplog.text
    assert f"python scripts/report.py {tmp_path}" in caplog.text


def test_a_report_apart_is_the_same_page(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", EVENTS[:1])
    assert report_apart(run) == run / "report.html"
    assert (run / "report.html").is_file()


def test_the_report_loads_no_model_library() -> None:
    loaded = "import sys, expert_iteration.reports.run; print(*sys.modules)"
    output = subprocess.run(
        [sys.executable, "-c", loaded], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert not {"torch", "transformers", "ray", "vllm", "pandas"} & set(output.stdout.split())
