"""What a run shows and writes: files keep their contract, foreign text stays text."""

import io
import json
import logging
import math
import runpy
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from expert_iteration.choices import WandbMode
from expert_iteration.grading import GRADER_VERSION
from expert_iteration.reporting import Reporter, RolloutLog, wilson
from expert_iteration.reporting.jsonl import EventLog, encode, read_events, read_rows, write_json
from expert_iteration.reporting.redact import REDACTED, redact
from expert_iteration.reporting.text import duration, one_line
from tests.short_runs import HOSTILE, Clock, make_config, make_group, short_run


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class AsciiPipe(io.TextIOWrapper):
    def __init__(self) -> None:
        super().__init__(io.BytesIO(), encoding="ascii", newline="\n")

    def text(self) -> str:
        self.flush()
        return self.buffer.getvalue().decode("ascii")  # type: ignore[attr-defined]


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[Terminal]:
    """A terminal of 80 columns, whatever the tests run on."""
    for name, value in {"COLUMNS": "80", "TERM": "xterm-256color"}.items():
        monkeypatch.setenv(name, value)
    for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)
    yield Terminal()


def read_summary(run_dir: Path) -> dict[str, Any]:
    return json.loads((run_dir / "summary.json").read_text())


def foreign_controls(text: str) -> set[str]:
    return {char for char in text if not char.isprintable()} - {"\n"}


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_gives_the_values_of_newcombe_1998(successes: int, n: int, low: float, high: float) -> None:
    assert wilson(successes / n, n) == pytest.approx((low, high), abs=5e-5)


def test_wilson_stays_a_share_at_the_ends() -> None:
    ends = wilson(0.0, 10) + wilson(1.0, 10)
    assert ends == pytest.approx((0.0, 0.2775, 0.7225, 1.0), abs=5e-5)
    assert min(ends) >= 0.0 and max(ends) <= 1.0


@pytest.mark.parametrize(("share", "n"), [(0.5, 0), (1.1, 10), (-0.1, 10), (math.nan, 10)])
def test_wilson_refuses_what_is_no_share(share: float, n: int) -> None:
    with pytest.raises(ValueError, match="share"):
        wilson(share, n)


def test_foreign_text_becomes_one_printable_line() -> None:
    line = one_line(HOSTILE)
    assert line.isprintable()
    assert line.startswith(r"\x1b[2J\x9b31m[bold red]ok[/]\n{}\r\u202e\u2028\x7f\x00")
    assert one_line("Grüße, 世界") == "Grüße, 世界"
    assert one_line("a" * 50, limit=10) == "aaaaaaa..."


@given(st.text(st.characters(categories=["L", "C", "Z", "P"])))
def test_any_text_is_written_without_raw_controls_and_read_back_unchanged(text: str) -> None:
    line = encode({"response": text})
    assert json.loads(line) == {"response": text}
    assert line.isascii() and line[:-1].isprintable()
    assert one_line(text).isprintable()


def test_durations_are_hours_minutes_seconds() -> None:
    assert [duration(value) for value in (0, 59.9, 3661, -3)] == ["0:00:00", "0:00:59", "1:01:01", "0:00:00"]


def test_secrets_are_redacted_at_every_depth_and_counts_of_tokens_stay() -> None:
    config = {
        "micro_batch_tokens": 4096,
        "sampling": {"max_tokens": 128, "min_tokens": 4},
        "tokenizer": "demo",
        "hf_token": "hf_1",
        "list": [{"apiKey": "k", "deep": {"db_password": 1234}}],
        "env_vars": {"harmless": "no"},
        "ray": {"client_secret": None, "tokens": "t"},
        "kind": WandbMode.offline,
        "path": Path("runs/one"),
    }
    assert redact(config) == {
        "micro_batch_tokens": 4096,
        "sampling": {"max_tokens": 128, "min_tokens": 4},
        "tokenizer": "demo",
        "hf_token": REDACTED,
        "list": [{"apiKey": REDACTED, "deep": {"db_password": REDACTED}}],
        "env_vars": REDACTED,
        "ray": {"client_secret": REDACTED, "tokens": REDACTED},
        "kind": "offline",
        "path": "runs/one",
    }


def test_metrics_hold_iteration_step_seconds_and_null_for_what_json_lacks(tmp_path: Path) -> None:
    log = EventLog(tmp_path / "metrics.jsonl")
    log.write({"loss/total": math.nan, "train/grad_norm": -math.inf, "selection/kept": 3}, 1, 20, 1.23456)
    line = (tmp_path / "metrics.jsonl").read_text()
    log.close()
    assert json.loads(line, parse_constant=pytest.fail) == {
        "iteration": 1,
        "step": 20,
        "seconds": 1.235,
        "loss/total": None,
        "train/grad_norm": None,
        "selection/kept": 3,
    }
    assert line.endswith("\n")


def test_a_metric_without_a_stage_is_refused(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="loss"):
        EventLog(tmp_path / "metrics.jsonl").write({"loss": 1.0}, 0, 0, 0.0)


def test_a_resumed_file_drops_the_torn_line_and_the_events_that_come_again(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    log = EventLog(path)
    for step in (0, 10, 20, 30):
        log.write({"loss/total": 1.0}, step // 10, step, float(step))
    log.close()
    with path.open("a") as file:
        file.write('{"iteration": 4, "st')
    resumed = EventLog(path, keep=3)
    resumed.write({"loss/total": 2.0}, 3, 25, 25.0)
    resumed.close()
    assert [event["step"] for event in read_events(path)] == [0, 10, 20, 25]
    assert [event["step"] for event in resumed.past] == [0, 10, 20]
    assert resumed.lines == 4


def test_a_summary_that_cannot_be_written_leaves_the_old_one_whole(tmp_path: Path) -> None:
    path = tmp_path / "summary.json"
    write_json(path, {"exit_reason": "finished"})
    with pytest.raises(ValueError, match="JSON"):
        write_json(path, {"seconds": math.nan})
    assert json.loads(path.read_text()) == {"exit_reason": "finished"}
    assert [file.name for file in tmp_path.iterdir()] == ["summary.json"]


def test_every_rollout_is_written_with_its_verdict_and_its_fate(tmp_path: Path) -> None:
    log = RolloutLog(tmp_path / "rollouts")
    log.write(make_group(), {0: "kept", 1: "wrong"})
    path = tmp_path / "rollouts" / "iteration_0002.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert rows[0] == {
        "iteration": 2,
        "group_id": 11,
        "prompt_id": 7,
        "rollout_index": 0,
        "task": "math",
        "level": "level_1",
        "subject": "algebra",
        "question": HOSTILE,
        "gold": "4",
        "response": f"{HOSTILE}0",
        "verdict": "correct",
        "reason": "exact",
        "grader_version": GRADER_VERSION,
        "reward": 0.9,
        "answer_reward": 1.0,
        "format_reward": 1.0,
        "fate": "kept",
        "policy_version": 3,
        "policy_version_end": 4,
        "policy_versions": [[3, 1]],
        "finish": "stop",
        "tokens": 1,
    }
    assert [row["fate"] for row in rows] == ["kept", "wrong", "abstained"]
    assert [row["reward"] for row in rows] == [0.9, 0.3, None]
    assert [row["answer_reward"] for row in rows] == [1.0, 0.25, None]
    assert [row["format_reward"] for row in rows] == [1.0, 0.5, 0.0]
    assert foreign_controls(path.read_bytes().decode("ascii")) == set()


def test_tokens_are_written_down_on_request(tmp_path: Path) -> None:
    group = make_group()
    RolloutLog(tmp_path, with_tokens=True).write(group, dict.fromkeys(group.judged, "kept"))
    rows = read_rows(tmp_path / "iteration_0002.jsonl")
    assert [row["token_ids"] for row in rows] == [list(rollout.token_ids) for rollout in group.rollouts]
    assert [len(row["log_probs"]) for row in rows] == [row["tokens"] for row in rows]


def test_a_rollout_without_a_fate_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(KeyError):
        RolloutLog(tmp_path).write(make_group(), {0: "kept"})


def test_rollouts_of_a_resumed_run_are_appended(tmp_path: Path) -> None:
    for _ in range(2):
        RolloutLog(tmp_path).write(make_group(), {0: "kept", 1: "wrong"})
    assert len((tmp_path / "iteration_0002.jsonl").read_text().splitlines()) == 6


def test_the_summary_holds_the_first_and_the_last_evaluation(tmp_path: Path, clock: Clock) -> None:
    short_run(tmp_path, io.StringIO(), clock)
    summary = read_summary(tmp_path)
    assert summary["start"]["eval/greedy"] == 0.25
    assert summary["end"]["eval/greedy"] == pytest.approx(0.65)
    assert summary["exit_reason"] == "finished"
    assert (summary["iterations"], summary["steps"], summary["seconds"]) == (4, 32, 50.0)
    assert summary["seconds_by_phase"] == {"collect": 50.0}
    assert summary["totals"] == {"rollouts": 64, "correct": 32, "kept": 16, "abstained": 1}
    assert "python" in summary["versions"]


def test_a_resumed_run_goes_on_counting_time_and_keeps_its_first_evaluation(
    tmp_path: Path, clock: Clock
) -> None:
    short_run(tmp_path, io.StringIO(), clock)
    with Reporter(make_config(), tmp_path, io.StringIO(), clock) as reporter:
        reporter.start(iteration=2, step=16, events=3)
        assert not (tmp_path / "summary.json").exists()
        with reporter.phase("collect", iteration=3):
            clock.now += 7.0
        reporter.log({"eval/greedy": 0.9, "eval/n": 300}, iteration=3, step=24)
        reporter.end_iteration(3)
        reporter.finish("signal", Counter())
    summary = read_summary(tmp_path)
    assert summary["seconds"] == 37.0
    assert summary["seconds_by_phase"] == {"collect": 37.0}
    assert summary["iterations"] == 3
    assert (summary["start"]["eval/greedy"], summary["end"]["eval/greedy"]) == (0.25, 0.9)
    assert [event["step"] for event in read_events(tmp_path / "metrics.jsonl")] == [0, 8, 16, 24]


def test_what_a_run_rests_on_is_its_first_event_and_in_the_summary(tmp_path: Path, clock: Clock) -> None:
    facts = {"grader_version": "7", "data_hash": "c0ffee"}
    with Reporter(make_config(), tmp_path, io.StringIO(), clock) as reporter:
        reporter.start()
        reporter.stamp(facts)
        reporter.log({"eval/greedy": 0.5}, iteration=0, step=0)
        reporter.finish("signal", Counter())
    path = tmp_path / "metrics.jsonl"
    first = {"run/grader_version": "7", "run/data_hash": "c0ffee", "iteration": 0, "step": 0, "seconds": 0.0}
    assert json.loads(path.read_text().splitlines()[0]) == first
    assert {key: read_summary(tmp_path)[key] for key in facts} == facts
    assert read_events(path)[0] == {"iteration": 0, "step": 0, "seconds": 0.0}, (
        "readers of numbers see numbers"
    )


def test_a_resumed_run_keeps_the_old_stamp_and_adds_its_own(tmp_path: Path, clock: Clock) -> None:
    for number in range(2):
        with Reporter(make_config(), tmp_path, io.StringIO(), clock) as reporter:
            reporter.start(iteration=number, step=8 * number, events=2 * number)
            reporter.stamp({"grader_version": str(number)})
            reporter.log({"eval/greedy": 0.5}, iteration=number, step=8 * number)
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [row.get("run/grader_version") for row in rows] == ["0", None, "1", None]


def test_a_run_that_goes_back_forgets_what_it_said_since(tmp_path: Path, clock: Clock) -> None:
    with Reporter(make_config(), tmp_path, io.StringIO(), clock) as reporter:
        reporter.start()
        reporter.log({"eval/greedy": 0.5}, iteration=1, step=8)
        events = reporter.events
        reporter.end_iteration(1)
        reporter.phase("collect", iteration=2)
        clock.now += 5.0
        reporter.log({"eval/greedy": 0.9}, iteration=2, step=16)
        reporter.go_back(1, 8, events)
        with reporter.phase("collect", iteration=2):
            clock.now += 1.0
        reporter.log({"eval/greedy": 0.6}, iteration=2, step=16)
        reporter.end_iteration(2)
        reporter.finish("finished", Counter())
    assert [event["eval/greedy"] for event in read_events(tmp_path / "metrics.jsonl")] == [0.5, 0.6]
    summary = read_summary(tmp_path)
    assert (summary["iterations"], summary["steps"], summary["end"]["eval/greedy"]) == (2, 16, 0.6)


def test_two_phases_may_be_open_and_each_counts_its_own_seconds(tmp_path: Path, clock: Clock) -> None:
    with Reporter(make_config(), tmp_path, io.StringIO(), clock) as reporter:
        reporter.start()
        collect = reporter.phase("collect", total=4, iteration=2)
        clock.now += 3.0
        with reporter.phase("learn", total=2, iteration=1):
            clock.now += 5.0
            reporter.advance("learn")
            reporter.advance("collect", 4)
        clock.now += 1.0
        collect.close()
        collect.close()
        reporter.log({"loss/total": 1.0}, iteration=1, step=2)
        reporter.log({"loss/total": 1.0}, iteration=1, step=3)
        with pytest.raises(KeyError):
            reporter.advance("collect")
        reporter.finish("finished", Counter())
    first, second = read_events(tmp_path / "metrics.jsonl")
    assert (first["time/collect"], first["time/learn"]) == (9.0, 5.0)
    assert "time/collect" not in second
    assert read_summary(tmp_path)["seconds_by_phase"] == {"learn": 5.0, "collect": 9.0}


def test_a_run_that_fails_has_no_summary_and_gives_everything_back(tmp_path: Path, clock: Clock) -> None:
    package = logging.getLogger("expert_iteration")
    before = package.level, package.propagate, list(package.handlers)
    with pytest.raises(RuntimeError), Reporter(make_config(), tmp_path, io.StringIO(), clock) as reporter:
        reporter.start()
        assert len(package.handlers) == len(before[2]) + 2
        raise RuntimeError
    assert (package.level, package.propagate, package.handlers) == before
    assert not (tmp_path / "summary.json").exists()


def test_a_second_run_in_the_same_process_writes_each_message_once(tmp_path: Path, clock: Clock) -> None:
    streams = [io.StringIO(), io.StringIO()]
    for number, stream in enumerate(streams):
        short_run(tmp_path / str(number), stream, clock)
    for number, stream in enumerate(streams):
        assert stream.getvalue().count("bad answer") == 5
        assert (tmp_path / str(number) / "run.log").read_text().count("bad answer") == 5
    assert logging.getLogger("expert_iteration").handlers == []


def test_lines_for_a_pipe_have_no_control_characters(tmp_path: Path, clock: Clock) -> None:
    pipe = AsciiPipe()
    short_run(tmp_path, pipe, clock)
    text = pipe.text()
    assert foreign_controls(text) == set()
    lines = text.splitlines()
    assert "[0:00:20] iteration 1/4 collect: 16/16, done in 10.0 s, 1,834 tok/s" in lines
    assert "[0:00:20] iteration 1/4: done in 10.0 s, greedy 35.0%, 0:00:30 left" in lines
    assert all(len(line) <= 80 for line in lines if not line.startswith(("WARNING", str(tmp_path))))


def test_a_long_phase_writes_a_line_about_every_ten_seconds(tmp_path: Path, clock: Clock) -> None:
    stream = io.StringIO()
    with Reporter(make_config(), tmp_path, stream, clock) as reporter:
        reporter.start()
        with reporter.phase("collect", total=100, iteration=1):
            for _ in range(100):
                clock.now += 0.5
                reporter.advance("collect")
    counts = [line.split()[-1] for line in stream.getvalue().splitlines() if "done" not in line]
    assert counts == ["20/100", "40/100", "60/100", "80/100", "100/100"]


def test_a_model_cannot_forge_a_line_of_the_log(tmp_path: Path, clock: Clock) -> None:
    stream = io.StringIO()
    with Reporter(make_config(), tmp_path, stream, clock) as reporter:
        reporter.start()
        log = logging.getLogger("expert_iteration.grading")
        log.warning("answer %s", "4\n[0:00:00] iteration 4/4: greedy 100.0%")
        try:
            raise ValueError("\n2026-01-01 ERROR forged")
        except ValueError:
            log.exception("verifier")
    for text in (stream.getvalue(), (tmp_path / "run.log").read_text()):
        assert not any(line.startswith(("[0:00:00]", "2026-01-01 ERROR")) for line in text.splitlines())
        assert r"4\n[0:00:00] iteration 4/4" in text


def test_a_terminal_shows_foreign_markup_and_escapes_as_text(
    tmp_path: Path, clock: Clock, terminal: Terminal
) -> None:
    short_run(tmp_path, terminal, clock)
    text = terminal.getvalue()
    assert r"\x1b[2J\x9b31m[bold red]ok[/]\n" in text
    assert "\x1b[2J" not in text and "\x9b" not in text and ":smile:" in text


def test_a_terminal_ends_with_before_and_after_and_their_intervals(
    tmp_path: Path, clock: Clock, terminal: Terminal
) -> None:
    short_run(tmp_path, terminal, clock)
    text = terminal.getvalue()
    for shown in ("25.0% [20.4,  30.2]", "65.0% [59.4,  70.2]", "+40.0", "16 kept (25.0%)", "metrics.jsonl"):
        assert shown in text
    assert "\x1b[?25h" in text.rpartition("\x1b[?25l")[2], "the cursor is shown again"


def final_table(tmp_path: Path, clock: Clock, metrics: dict[str, float]) -> list[list[str]]:
    """The lines that a run with one evaluation ends with, in words."""
    stream = io.StringIO()
    with Reporter(make_config(), tmp_path, stream, clock) as reporter:
        reporter.start()
        reporter.log({"eval/greedy": 0.5, "eval/n": 100} | metrics, iteration=0, step=0)
        reporter.finish("finished", Counter())
    lines = stream.getvalue().splitlines()
    assert all(len(line) <= 80 for line in lines if not line.lstrip().startswith(str(tmp_path)[:20]))
    return [line.split() for line in lines if line.strip()]


def parts(*names: str) -> dict[str, float]:
    return {f"eval/{kind}/{name}": value for name in names for kind, value in (("greedy", 0.5), ("n", 10.0))}


def test_the_final_table_shows_levels_then_tasks_then_subjects(tmp_path: Path, clock: Clock) -> None:
    metrics = parts("subject_counting_probability", "task_math", "level_10", "level_9", "3_steps")
    starts = [line[:2] for line in final_table(tmp_path, clock, metrics)]
    wanted = [["3", "steps"], ["level", "9"], ["level", "10"], ["task", "math"], ["counting", "probability"]]
    assert [start for start in starts if start in wanted] == wanted


def test_many_subjects_do_not_flood_the_final_table(tmp_path: Path, clock: Clock) -> None:
    subjects = [f"subject_{number}" for number in range(57)]
    lines = final_table(tmp_path, clock, parts("level_1", *subjects))
    assert ["level", "1"] in [line[:2] for line in lines]
    assert ["57", "more", "in", "summary.json"] in lines
    assert len(lines) < 15


def test_instruction_accuracies_stand_in_the_table_with_their_own_intervals(
    tmp_path: Path, clock: Clock
) -> None:
    metrics = {"eval/prompt_strict": 0.5, "eval/n/prompt": 10.0, "eval/instruction_strict": 0.5}
    lines = final_table(tmp_path, clock, metrics | {"eval/n/instruction": 1000.0})
    assert any(line[:4] == ["prompts,", "strict", "50.0%", "[23.7,"] for line in lines)
    assert any(line[:4] == ["instructions,", "strict", "50.0%", "[46.9,"] for line in lines)


def test_a_run_without_evaluation_ends_without_a_table(tmp_path: Path, clock: Clock) -> None:
    stream = io.StringIO()
    with Reporter(make_config(), tmp_path, stream, clock) as reporter:
        reporter.start()
        reporter.finish("signal", Counter())
    assert read_summary(tmp_path)["end"] == {}
    assert "0 sampled" in stream.getvalue() and "before" not in stream.getvalue()


def fake_run(folder: Path, shares: list[float]) -> Path:
    folder.mkdir()
    log = EventLog(folder / "metrics.jsonl")
    for iteration, share in enumerate(shares):
        log.write({"loss/total": math.nan}, iteration, iteration, 0.0)
        log.write({"eval/greedy": share, "eval/pass@1": share / 2, "eval/n": 100}, iteration, iteration, 0.0)
    log.close()
    return folder


def test_the_plot_draws_runs_and_averages_the_seeds_of_a_label(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    plot = runpy.run_path(str(Path(__file__).parent.parent / "scripts" / "plot.py"))
    runs = [fake_run(tmp_path / str(seed), [0.2, 0.4 + seed / 10, 0.6][: 3 - seed]) for seed in range(2)]
    curves = [plot["read_curve"](run, "eval/greedy") for run in runs]
    assert plot["mean_curve"](curves) == {0: (0.2, 100), 1: (pytest.approx(0.45), 100)}
    output = tmp_path / "curve.png"
    plot["main"]([*map(str, runs), "--labels", "sync", "sync", "--output", str(output)])
    assert output.read_bytes().startswith(b"\x89PNG")
    with pytest.raises(SystemExit, match=r"metrics\.jsonl does not exist"):
        plot["main"]([str(tmp_path / "missing"), "--output", str(output)])
