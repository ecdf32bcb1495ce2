"""Who else hears of a run: what wandb and TensorBoard were told is read back from their files."""

import importlib
import io
import json
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir

from expert_iteration.checks import from_hydra
from expert_iteration.choices import WandbMode
from expert_iteration.config import ConfigError, LoggerConfig, ModelConfig, RunConfig
from expert_iteration.launch import config_folder, register
from expert_iteration.reporting import Reporter, RolloutLog
from expert_iteration.reporting.excerpt import COLUMNS, LONGEST, excerpt
from expert_iteration.reporting.jsonl import Event, encode, read_rows
from expert_iteration.reporting.loggers import make_loggers
from expert_iteration.reporting.redact import REDACTED
from expert_iteration.reporting.tensorboard_logger import TensorboardLogger, markdown_table
from expert_iteration.reporting.wandb_logger import Limits, Names, WandbLogger, names_of
from tests.short_runs import HOSTILE, make_group

SECRET = "canary-of-a-mine"


@pytest.fixture(autouse=True)
def secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("A_PASSWORD", SECRET)


def config_with(wandb: WandbMode = WandbMode.disabled, **options: Any) -> RunConfig:
    config = RunConfig(iterations=4, logger=LoggerConfig(wandb=wandb, **options))
    config.model = ModelConfig(path=f"models/{SECRET}")
    config.micro_batch_tokens = 4096
    return config


def live(run_dir: Path, config: RunConfig, iterations: Sequence[int], events: int = 0) -> None:
    """Go through some iterations of 8 steps and two events each; the last of the run is the fourth.

    Without it the run is killed, after the first event of one more. The numbers say when they were measured.
    """
    first = iterations[0]
    with Reporter(config, run_dir, io.StringIO()) as reporter:
        reporter.start(first - 1, 8 * (first - 1), events)
        if first == 1:
            reporter.log({"eval/greedy": 0.0}, 0, 0)
        for iteration in iterations:
            rollouts = replace(make_group(), ticket=replace(make_group().ticket, iteration=iteration))
            RolloutLog(run_dir / "rollouts").write(rollouts, {0: "kept", 1: "wrong"})
            reporter.log({"loss/total": 1.0 / iteration}, iteration, 8 * iteration)
            reporter.log({"eval/greedy": 0.1 * iteration + 0.01 * first}, iteration, 8 * iteration)
            reporter.end_iteration(iteration)
        if iterations[-1] == 4:
            reporter.finish("finished", Counter())
        else:
            reporter.log({"loss/total": -1.0}, iterations[-1] + 1, 8 * iterations[-1] + 8)


# Which ones


def test_nobody_is_told_by_default_and_nothing_is_imported(tmp_path: Path) -> None:
    assert make_loggers(RunConfig(), tmp_path) == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("package", "options"),
    [("wandb", {"wandb": WandbMode.offline}), ("tensorboard", {"tensorboard": True})],
)
def test_a_logger_whose_package_is_missing_is_refused_by_its_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: str, options: dict[str, Any]
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ConfigError, match=rf"logger\.{package} is .*the extra `{package}`"):
        make_loggers(config_with(**options), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_called_wandb_is_not_taken_for_the_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tensorboard").mkdir()
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    monkeypatch.delitem(sys.modules, "tensorboard", raising=False)
    importlib.invalidate_caches()
    with pytest.raises(ConfigError, match="not installed"):
        make_loggers(config_with(tensorboard=True), tmp_path)


@pytest.mark.parametrize(
    ("overrides", "kinds"),
    [
        (["logger=jsonl"], []),
        (["logger=tensorboard"], [TensorboardLogger]),
        (["logger=wandb", "logger.wandb=offline"], [WandbLogger]),
        (
            ["logger=wandb", "logger.wandb=offline", "logger.tensorboard=true"],
            [TensorboardLogger, WandbLogger],
        ),
    ],
)
def test_loggers_are_chosen_by_their_group_and_combine(
    tmp_path: Path, overrides: list[str], kinds: list[type]
) -> None:
    register()
    with initialize_config_dir(str(config_folder()), version_base="1.3"):
        config = from_hydra(compose("train", overrides))
    loggers = make_loggers(config, tmp_path)
    assert [type(logger) for logger in loggers] == kinds
    for logger in loggers:
        logger.finish()


# wandb


def offline_records(run_dir: Path) -> list[Any]:
    """The records of a run's .wandb files: LevelDB's log format, 32 KiB blocks after a header of 7 bytes."""
    pytest.importorskip("wandb")
    record = importlib.import_module("wandb.proto.wandb_internal_pb2").Record
    records, whole = [], b""
    for path in sorted(run_dir.glob("wandb/*run-*/*.wandb")):
        data, at = path.read_bytes(), 7
        while at + 7 <= len(data):
            if 32768 - at % 32768 < 7:
                at += 32768 - at % 32768
                continue
            size, kind = int.from_bytes(data[at + 4 : at + 6], "little"), data[at + 6]
            whole += data[at + 7 : at + 7 + size]
            at += 7 + size
            if kind in (1, 4):
                records.append(record.FromString(whole))
                whole = b""
    return records


def sent_runs(run_dir: Path) -> list[Any]:
    return [record.run for record in offline_records(run_dir) if record.HasField("run")]


def sent_rows(run_dir: Path) -> list[dict[str, Any]]:
    return [
        {item.key or ".".join(item.nested_key): json.loads(item.value_json) for item in record.history.item}
        for record in offline_records(run_dir)
        if record.HasField("history")
    ]


@pytest.fixture(scope="module")
def wandb_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A job of a sweep that was killed in its third iteration, went on from its second and finished."""
    pytest.importorskip("wandb")
    folder = tmp_path_factory.mktemp("sweep") / "lr_study" / "3"
    folder.mkdir(parents=True)
    (folder.parent / "multirun.yaml").touch()
    config = config_with(WandbMode.offline)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("A_PASSWORD", SECRET)
        live(folder, config, [1, 2])
        live(folder, config, [3, 4], events=5)
    return folder


def test_both_sessions_of_a_wandb_run_are_one_run_in_the_group_of_its_sweep(wandb_run: Path) -> None:
    identity = (wandb_run / "wandb" / "run_id.txt").read_text().strip()
    runs = sent_runs(wandb_run)
    assert {(run.run_id, run.display_name, run.run_group) for run in runs} == {
        (identity, "lr_study-3", "lr_study")
    }
    assert {run.host for run in runs} == {"hidden"}
    assert len(list(wandb_run.glob("wandb/offline-run-*"))) == 2


def test_wandb_gets_the_configuration_without_its_secrets_and_no_code(wandb_run: Path) -> None:
    for run in sent_runs(wandb_run):
        sent = {item.key: json.loads(item.value_json) for item in run.config.update}
        assert sent["micro_batch_tokens"] == 4096
        assert sent["model"]["path"] == f"models/{REDACTED}"
    files = [file for file in (wandb_run / "wandb").rglob("*") if file.is_file()]
    assert not [file for file in files if file.suffix == ".py" or SECRET.encode() in file.read_bytes()]


def test_wandb_gets_every_event_of_a_resumed_run_once_and_in_order(wandb_run: Path) -> None:
    rows = [row for row in sent_rows(wandb_run) if "rollouts._type" not in row and "rollouts" not in row]
    seen = [(row["step"], row.get("loss/total"), row.get("eval/greedy")) for row in rows]
    assert seen == [
        (0, None, 0.0),
        (8, 1.0, None),
        (8, None, pytest.approx(0.11)),
        (16, 0.5, None),
        (16, None, pytest.approx(0.21)),
        (24, -1.0, None),  # of the session that was killed; not sent again
        (24, None, pytest.approx(0.33)),
        (32, 0.25, None),
        (32, None, pytest.approx(0.43)),
    ]


def test_rows_of_both_sessions_are_counted_on_so_that_wandb_joins_them(wandb_run: Path) -> None:
    assert [row["_step"] for row in sent_rows(wandb_run)] == list(range(13))


def test_wandb_gets_a_table_of_rollouts_for_each_iteration(wandb_run: Path) -> None:
    files = sorted(
        wandb_run.glob("wandb/offline-run-*/files/media/table/*.json"), key=lambda file: file.stat().st_mtime
    )
    tables = [json.loads(file.read_text()) for file in files]
    assert [table["columns"] for table in tables] == [list(COLUMNS)] * 4
    rows = [dict(zip(COLUMNS, row, strict=True)) for row in tables[2]["data"]]
    assert [(row["iteration"], row["fate"], row["reward"]) for row in rows] == [
        (3, "kept", 0.9),
        (3, "wrong", 0.3),
        (3, "abstained", None),
    ]
    shown = HOSTILE.replace("\udc80", "\\udc80")
    assert [row["response"] for row in rows] == [f"{shown}{index}" for index in range(3)]


def test_an_unreachable_wandb_server_does_not_stop_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    logger = WandbLogger(config_with(WandbMode.online), tmp_path, Limits(start=2.0, finish=2.0))
    logger.stand(0, [])
    logger.log({"iteration": 1, "step": 1, "eval/greedy": 0.5, "loss/total": None})
    logger.finish({"exit_reason": "finished"})
    assert "not reachable" in caplog.text
    assert list(tmp_path.glob("wandb/offline-run-*/*.wandb"))


def test_jobs_of_a_sweep_are_a_group_and_numbered_also_when_one_is_resumed_alone(tmp_path: Path) -> None:
    job = tmp_path / "lr_study" / "3"
    job.mkdir(parents=True)
    assert names_of(LoggerConfig(), job) == Names(None, "3")
    (job.parent / "multirun.yaml").touch()
    assert names_of(LoggerConfig(), job) == Names("lr_study", "lr_study-3")
    assert names_of(LoggerConfig(group="mine", name="lr"), job) == Names("mine", "lr-3")


# TensorBoard


def read_back(run_dir: Path) -> Any:
    """What TensorBoard shows of a run."""
    pytest.importorskip("tensorboard")
    module = importlib.import_module("tensorboard.backend.event_processing.plugin_event_accumulator")
    accumulator = module.EventAccumulator(str(run_dir / "tensorboard"))
    accumulator.Reload()
    return accumulator


def points(shown: Any, tag: str) -> list[tuple[int, Any]]:
    value = importlib.import_module("tensorboard.util.tensor_util").make_ndarray
    return [(event.step, pytest.approx(value(event.tensor_proto))) for event in shown.Tensors(tag)]


@pytest.fixture(scope="module")
def tensorboard_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As `wandb_run`."""
    pytest.importorskip("tensorboard")
    folder = tmp_path_factory.mktemp("run")
    config = config_with(tensorboard=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("A_PASSWORD", SECRET)
        live(folder, config, [1, 2])
        live(folder, config, [3, 4], events=5)
    return folder


def test_tensorboard_shows_what_stands_in_metrics_jsonl(tensorboard_run: Path) -> None:
    shown = read_back(tensorboard_run)
    for key in ("loss/total", "eval/greedy"):
        written = [row for row in read_rows(tensorboard_run / "metrics.jsonl") if key in row]
        assert points(shown, key) == [(row["step"], row[key]) for row in written]
    assert points(shown, "loss/total") == [(8, 1.0), (16, 0.5), (24, 1 / 3), (32, 0.25)]
    assert points(shown, "eval/greedy") == [(0, 0.0), (8, 0.11), (16, 0.21), (24, 0.33), (32, 0.43)]


def test_tensorboard_shows_the_rollouts_of_each_iteration_once(tensorboard_run: Path) -> None:
    shown = read_back(tensorboard_run).Tensors("rollouts/text_summary")
    assert [event.step for event in shown] == [8, 16, 24, 32]
    text = shown[2].tensor_proto.string_val[0].decode()
    assert text.startswith("Iteration 3\n") and len(text.splitlines()) == 4 + 3


def test_tensorboard_compares_runs_by_their_configuration_which_holds_no_secret(
    tensorboard_run: Path,
) -> None:
    module = importlib.import_module("tensorboard.plugins.hparams.plugin_data_pb2")
    metadata = read_back(tensorboard_run).SummaryMetadata("_hparams_/session_start_info")
    start = module.HParamsPluginData.FromString(metadata.plugin_data.content).session_start_info
    assert start.hparams["micro_batch_tokens"].number_value == 4096
    assert start.hparams["model.path"].string_value == f"models/{REDACTED}"
    assert points(read_back(tensorboard_run), "final/eval/greedy") == [(32, 0.43)]
    files = (tensorboard_run / "tensorboard").iterdir()
    assert not [file for file in files if SECRET.encode() in file.read_bytes()]


def test_a_rollout_is_shown_by_tensorboard_as_text_and_nothing_else() -> None:
    pytest.importorskip("tensorboard")
    convert = importlib.import_module("tensorboard.plugin_util").markdown_to_safe_html
    response = "<b>a</b> | **b** `c` [d](http://e) <http://f> &amp; \\g\n# h\n* i"
    row = dict.fromkeys(COLUMNS) | {"response": response}
    page = convert(markdown_table([row]))
    assert page.count("<tr>") == 2 and page.count("<td>") == len(COLUMNS)
    assert not [tag for tag in ("<b>", "<strong>", "<code>", "<a", "<h1>", "<li>", "<em>") if tag in page]
    for word in ("&lt;b&gt;a&lt;/b&gt; | **b** `c` [d](http://e)", "&amp;amp; \\g\\n# h\\n* i"):
        assert word in page


def test_a_tensorboard_folder_that_cannot_be_written_does_not_stop_the_run(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pytest.importorskip("tensorboard")
    (tmp_path / "tensorboard").touch()
    logger = TensorboardLogger(config_with(tensorboard=True), tmp_path)
    event: Event = {"iteration": 1, "step": 1, "loss/total": 1.0}
    logger.stand(0, [])
    logger.log(event)
    logger.finish({"end": {}, "steps": 1})
    assert "cannot be written" in caplog.text


# What is shown of the rollouts


def write_rollouts(run_dir: Path, rows: Iterator[dict[str, Any]]) -> None:
    (run_dir / "rollouts").mkdir()
    lines = "".join(encode({"verdict": "correct"} | row) for row in rows)
    (run_dir / "rollouts" / "iteration_0001.jsonl").write_text(lines)


def test_an_excerpt_is_some_of_the_rollouts_in_the_order_written_and_always_the_same(tmp_path: Path) -> None:
    write_rollouts(tmp_path, ({"prompt_id": number} for number in range(1000)))
    drawn = [row["prompt_id"] for row in excerpt(tmp_path, 1, 200)]
    assert len(set(drawn)) == 200 and drawn == sorted(drawn)
    assert 400 < sum(drawn) / 200 < 600, "from all of the file"
    assert [row["prompt_id"] for row in excerpt(tmp_path, 1, 200)] == drawn
    assert len(excerpt(tmp_path, 1, 5000)) == 1000
    assert excerpt(tmp_path, 1, 0) == excerpt(tmp_path, 2, 10) == []


def test_an_excerpt_holds_no_secret_no_half_of_one_and_no_endless_text(tmp_path: Path) -> None:
    texts = [f"the password is {SECRET}", "a" * (LONGEST - 5) + SECRET, "b" * 10**6]
    write_rollouts(tmp_path, ({"response": text} for text in texts))
    with (tmp_path / "rollouts" / "iteration_0001.jsonl").open("a") as file:
        file.write('{"response": "torn')
    first, second, third = (row["response"] for row in excerpt(tmp_path, 1, 10))
    assert first == f"the password is {REDACTED}"
    assert "canary"[:3] not in second and len(third) == LONGEST + 3
