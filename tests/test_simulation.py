"""Runs on paper: what they take follows from the rates, and the laws are those of real runs."""

import asyncio
import json
import random
import runpy
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest

from expert_iteration.config import ConfigError
from expert_iteration.planning.odds import Groups, Odds
from expert_iteration.simulation import lengths
from expert_iteration.simulation.calibration import FinishedRun, Sampled, fitted, rates_of, steps_of
from expert_iteration.simulation.clock import in_no_time
from expert_iteration.simulation.hardware import ACCELERATORS, Assumptions
from expert_iteration.simulation.lengths import Lengths, lognormal, measured
from expert_iteration.simulation.outcome import Outcome, simulate
from expert_iteration.simulation.prospects import Prospects
from expert_iteration.simulation.rates import Rates
from expert_iteration.simulation.split import Split, splits
from expert_iteration.simulation.turns import Turns
from expert_iteration.simulation.workload import expected
from tests.plans import composed
from tests.test_planning import write_rollouts

SCRIPT = Path(__file__).parents[1] / "scripts" / "benchmark" / "simulate.py"
RATES = Rates(
    step=0.01,
    answer=0.0001,
    floor=0.0,
    prompt=0.0,
    room=64,
    judge=0.0,
    score=0.0,
    learn=0.05,
    position=0.0001,
    order=0.0,
    publish=1.0,
    save=2.0,
    prompt_tokens=10,
)
SMALL = (
    *("iterations=3", "prompts_per_iteration=64", "rollouts_per_prompt=4", "batch_size=16", "epochs=1"),
    *("eval.limit=64", "algorithm=raft", "selection.duplicates=keep"),
)
ASYNC = ("mode=async", "mode.publish_every=4", "mode.min_buffer=16", "mode.prompts_per_request=8")
TEN = measured([10])


def outcome(*overrides: str, rates: Rates = RATES, length: Lengths = TEN, right: float = 0.5) -> Outcome:
    config = composed(*SMALL, *overrides)
    return simulate(config, rates, expected(config, [Odds(right)], [(length, length)]))


def test_sleepers_wake_in_the_order_of_their_times_and_nobody_waits() -> None:
    woken: list[tuple[str, float]] = []

    async def sleep(name: str, seconds: float) -> None:
        await asyncio.sleep(seconds)
        woken.append((name, asyncio.get_running_loop().time()))

    async def both() -> None:
        await asyncio.gather(sleep("late", 90_000.0), sleep("early", 0.5))

    in_no_time(both())
    assert [name for name, _ in woken] == ["early", "late"]
    assert [at for _, at in woken] == pytest.approx([0.5, 90_000.0])


def test_whoever_waits_for_nobody_is_told_so() -> None:
    async def forever() -> None:
        await asyncio.Event().wait()

    with pytest.raises(AssertionError, match="nobody for a time"):
        in_no_time(forever())


def test_a_synchronous_iteration_is_the_sum_of_its_phases() -> None:
    # 64 x 4 answers of 10 tokens in four waves of 64; 128 rows of 20 tokens in 8 steps; two rounds of 64
    step = 0.01 + 64 * 0.0001
    collect, learn, evaluate = 4 * 10 * step, 8 * (0.05 + 16 * 20 * 0.0001), 2 * 10 * step
    found = outcome()
    assert found.iterations == pytest.approx([collect + learn + 1.0 + evaluate + 2.0] * 3)
    assert found.phases["sample"] == pytest.approx(3 * collect)
    assert found.phases["learn"] == pytest.approx(3 * learn)
    assert found.idle["train"] == pytest.approx(1 - learn / found.seconds)


@pytest.mark.parametrize("spread", [0.0, 0.3, 1.0])
def test_as_many_answers_are_sampled_in_turns_as_a_plan_expects(spread: float) -> None:
    config = composed("rollouts_per_prompt=6", "sampling.at_once=2", "selection.top_k=2")
    odds, lot = Odds(0.4, spread), random.Random(0)
    [answers] = expected(config, [odds], [(TEN, TEN)]).iterations

    def sampled() -> int:
        turns = Turns(config, answers, lot)
        return sum(len(lengths) for lengths in iter(turns.next, []))

    assert fmean(sampled() for _ in range(20_000)) == pytest.approx(
        Groups(config).expect(odds).sampled, rel=0.02
    )


@pytest.mark.parametrize(("right", "turns"), [(1.0, 1), (0.0, 4)])
def test_turns_are_taken_one_after_the_other(right: float, turns: int) -> None:
    few = "sampling.at_once=1", "selection.top_k=1", "eval.every=0"
    found = outcome(*few, rates=replace(RATES, room=256), right=right)
    assert found.phases["sample"] == pytest.approx(3 * turns * 10 * (0.01 + 64 * 0.0001))


def test_an_asynchronous_run_hides_sampling_behind_learning() -> None:
    slow = replace(RATES, publish=0.1)
    sync, overlapped = outcome(rates=slow), outcome(*ASYNC, rates=slow)
    assert overlapped.phases["sample"] < 0.7 * sync.phases["sample"]
    assert overlapped.seconds < sync.seconds
    assert overlapped.gpu_idle < sync.gpu_idle


def test_engines_share_the_sampling_and_ranks_the_learning() -> None:
    one, more = outcome(), outcome("placement.infer.replicas=4", "placement.train.devices=4")
    assert more.phases["sample"] == pytest.approx(one.phases["sample"] / 4, rel=0.1)
    assert more.phases["learn"] == pytest.approx(3 * 8 * (0.05 + 4 * 20 * 0.0001))


def test_on_one_gpu_sampling_and_learning_take_turns() -> None:
    apart, together = outcome(*ASYNC), outcome(*ASYNC, "placement.shared=true", "placement.device=cuda")
    assert together.seconds > apart.seconds
    assert together.gpu_idle < apart.gpu_idle


def test_demonstrations_are_not_sampled() -> None:
    config = composed(*SMALL[:6], "algorithm=sft", "eval.every=0")
    found = simulate(config, RATES, expected(config, [Odds()], [(TEN, TEN)]))
    assert found.phases["sample"] == pytest.approx(0.0) and found.phases["learn"] > 0


@pytest.mark.parametrize(
    ("rates", "length", "words"),
    [
        (replace(RATES, position=0.1), TEN, "forward and backward"),
        (replace(RATES, learn=5.0), TEN, "AdamW, gradient sums"),
        (replace(RATES, publish=50.0), TEN, "pushes"),
        (replace(RATES, save=50.0), TEN, "checkpoints"),
        (replace(RATES, step=0.2), TEN, "sampling"),
        (replace(RATES, room=256), measured([10] * 99 + [900]), "the longest answer"),
    ],
)
def test_the_bottleneck_is_named(rates: Rates, length: Lengths, words: str) -> None:
    assert outcome("eval.every=0", rates=rates, length=length).bottleneck == words


def test_a_lognormal_has_its_mean_and_percentile() -> None:
    found = lognormal(300, 900, most=10_000)
    assert found.mean == pytest.approx(300, rel=0.02)
    assert found.tokens[round(0.99 * len(found.tokens))] == pytest.approx(900, rel=0.05)
    assert lognormal(300, 900, most=500).longest == 500
    with pytest.raises(ConfigError, match=r"must be above --mean \(300\)"):
        lognormal(300, 200, most=10_000)


def prospects(gpu: str = "h100") -> Prospects:
    config = composed("experiment=cs336_ei")
    return Prospects.of(config, ACCELERATORS[gpu], lognormal(300, 1000, 1024), Odds(), Assumptions())


def test_a_decode_step_reads_the_weights_and_the_cache_of_each_answer() -> None:
    config, found = composed("experiment=cs336_ei"), prospects().rates(composed("experiment=cs336_ei"))
    bandwidth = 3.35e12 * 0.6
    assert found.step == pytest.approx(0.004 + 2 * 1_543_714_304 / bandwidth)
    assert found.position == pytest.approx(8 * 1_543_714_304 / (989e12 * 0.4)), "checkpointing: 8, not 6"
    assert prospects("h200").rates(config).step < found.step < prospects("a100").rates(config).step


def test_splits_use_all_gpus_and_no_more() -> None:
    config = composed("experiment=cs336_ei")
    assert splits(config, 8) == [Split(1, 7, 0), Split(2, 6, 0), Split(4, 4, 0)]
    scored = composed("experiment=cs336_ei", "loss.kl_coefficient=0.1", "placement.infer.tensor_parallel=2")
    found = splits(scored, 8)
    assert all(one.train + 2 * one.replicas + one.references in (7, 8) for one in found)
    assert all(one.references for one in found)
    with pytest.raises(ConfigError, match="--suggest-split 1 cannot be split"):
        splits(config, 1)


def test_what_is_suggested_is_faster_than_what_is_not() -> None:
    config = composed("experiment=cs336_ei")
    ranked = prospects().ranked(config, 8)
    seconds = [found.seconds for _, found in ranked]
    assert seconds == sorted(seconds) and len(seconds) > 3
    best = ranked[0][0]
    typed = composed("experiment=cs336_ei", *best.overrides(config).split())
    assert typed.placement == best.of(config).placement


def test_a_model_of_unknown_size_is_refused() -> None:
    config = composed("experiment=cs336_ei", "model.path=someone/else")
    with pytest.raises(ConfigError, match="has no size to compute with"):
        Prospects.of(config, ACCELERATORS["h100"], TEN, Odds(), Assumptions())


def test_steps_are_counted_as_the_room_allows() -> None:
    assert steps_of([5, 3, 9], room=3) == 9
    assert steps_of([5, 3, 9], room=1) == 17
    assert steps_of([5, 3, 9], room=2) == 12, "the third one waits for the second"


def test_a_fit_tells_steps_answers_and_prompts_apart() -> None:
    sizes = [(10, 640, 16), (50, 900, 300), (131, 26_016, 256), (65, 7_606, 30)]
    observed = [Sampled(*size, 0.01 * size[0] + 0.0001 * size[1] + 0.002 * size[2]) for size in sizes]
    assert fitted(observed) == pytest.approx((0.01, 0.0001, 0.002))
    noise = [Sampled(100, 1000, 10, 1.0), Sampled(200, 1000, 10, 0.9)]
    assert min(fitted(noise)) == 0.0, "longer for fewer steps: no rate is negative"


def written(folder: Path, config_overrides: tuple[str, ...], found: Outcome, rates: Rates) -> FinishedRun:
    """A run folder as a run of these rates would have left it."""
    from omegaconf import OmegaConf

    from expert_iteration.config import to_plain

    config = composed(*SMALL, *config_overrides)
    prompts, answers = config.prompts_per_iteration, config.rollouts_per_prompt
    spans, trained, events = [], [], [{"iteration": 0, "step": 0, "seconds": 5.0}]
    for number in range(1, config.iterations + 1):
        half = ["right"] * (answers // 2) + [""] * (answers - answers // 2)
        first = (number - 1) * prompts
        write_rollouts(folder, {first + i: half for i in range(prompts)}, iteration=number)
        for stage in ("collect", "learn", "publish", "evaluate", "save"):
            seconds = found.phases["sample" if stage == "collect" else stage] / config.iterations
            spans.append({"stage": stage, "iteration": number, "start": 0.0, "end": seconds})
        learned = found.phases["learn"] / config.iterations
        trained.append({"stage": "learn", "iteration": None, "start": 0.0, "end": learned})
        steps = prompts * answers // 2 // config.batch_size
        rows = {"train/sequences": config.batch_size, "train/response_tokens": 10.0 * config.batch_size}
        tokens = {"train/tokens": steps * config.batch_size * (10 + rates.prompt_tokens)}
        ended = 5.0 + sum(found.iterations[:number])
        events.append({"iteration": number, "step": steps * number, "seconds": ended, **rows, **tokens})
        events.append({"iteration": number, "step": steps * number, "seconds": ended, "eval/n": 64.0})
    (folder / "metrics.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))
    (folder / "timeline").mkdir()
    for process, rows_of in (("driver", spans), ("trainer_0", trained)):
        text = "".join(json.dumps(row) + "\n" for row in rows_of)
        (folder / "timeline" / f"{process}.jsonl").write_text(text)
    (folder / ".hydra").mkdir()
    OmegaConf.save(OmegaConf.create(to_plain(config)), folder / ".hydra" / "config.yaml")
    return FinishedRun.of(folder)


def test_rates_of_a_run_predict_it_and_others(tmp_path: Path) -> None:
    truth = replace(RATES, learn=0.0, room=256)
    run = written(tmp_path / "run", (), outcome(rates=truth), truth)
    assert run.seconds == pytest.approx(outcome(rates=truth).iterations)
    rates = rates_of(run)
    assert rates.prompt_tokens == pytest.approx(10) and rates.position == pytest.approx(0.0001)
    for other in ((), ("batch_size=8", "epochs=2"), ("prompts_per_iteration=128",), ASYNC):
        config = composed(*SMALL, *other)
        predicted = simulate(config, rates, run.workload(config)).seconds
        assert predicted == pytest.approx(outcome(*other, rates=truth).seconds, rel=0.03)


def test_asynchronous_runs_and_those_of_other_versions_are_not_calibrated_with(tmp_path: Path) -> None:
    run = written(tmp_path / "run", ASYNC, outcome(), RATES)
    with pytest.raises(ConfigError, match=r"was asynchronous.*calibrate with a synchronous run"):
        rates_of(run)
    file = run.files.folder / ".hydra" / "config.yaml"
    file.write_text(file.read_text() + "unheard_of: 1\n")
    with pytest.raises(ConfigError, match="was composed by another version"):
        rates_of(FinishedRun.of(run.files.folder))
    (run.files.folder / "timeline" / "driver.jsonl").unlink()
    with pytest.raises(ConfigError, match="has no iteration with a timeline"):
        FinishedRun.of(run.files.folder)


def test_lengths_are_read_from_the_rollouts_of_a_run(tmp_path: Path) -> None:
    from expert_iteration.reports.runs import RunFiles

    run = write_rollouts(tmp_path, {0: ["a", ""]})
    assert lengths.of_run(RunFiles.of(run)).tokens == (10, 10)
    (run / "rollouts" / "iteration_0000.jsonl").unlink()
    with pytest.raises(ConfigError, match="has no rollouts"):
        lengths.of_run(RunFiles.of(run))


@pytest.fixture(scope="module")
def script() -> dict[str, Any]:
    return runpy.run_path(str(SCRIPT))


def test_the_script_predicts_both_modes_and_checks_predictions(
    script: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = written(tmp_path / "run", (), outcome(), RATES).files.folder
    script["main"](
        ["experiment=cs336_ei", "--gpus", "8", "--mean", "200", "--p99", "900", "--assume", "disk=1e10"]
    )
    told = capsys.readouterr().out
    assert "mode=sync, 8 GPUs" in told and "mode=async, 8 GPUs" in told and "disk 1e+10" in told
    script["main"](["--from-run", str(run), *SMALL])
    assert "mode=async" in capsys.readouterr().out
    script["main"](["--from-run", str(run), "--validate", str(run)])
    assert "error" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        script["main"](["--assume", "luck=1"])
    assert "--assume luck is none of" in capsys.readouterr().err
