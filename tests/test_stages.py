"""What the stages of a run write down and warn of, with fake workers and a real reporter."""

import asyncio
import io
import json
from collections import Counter
from dataclasses import dataclass, field, replace

import pytest

from expert_iteration.checkpoint import Origin, Provenance, SaveFailed, newest
from expert_iteration.choices import OnCollapse, PromptStrategy
from expert_iteration.config import (
    AlgorithmConfig,
    EvalConfig,
    GradingConfig,
    HealthConfig,
    InferPlacement,
    LoggerConfig,
    OptimizerConfig,
    PlacementConfig,
    PromptsConfig,
    ReferencePlacement,
    RunConfig,
    SamplingConfig,
)
from expert_iteration.ledger import Ledger
from expert_iteration.reporting import Reporter
from expert_iteration.scheduler import Stopped
from expert_iteration.stages import Run
from expert_iteration.types import Finish, Outcome, Prompt, Rollout, Snapshot, Verdict


class FakeWorkers:
    """Every answer is judged as `verdict` says; the books say what `book` says."""

    def __init__(self, verdict=None, book=None):
        self.verdict = verdict or Verdict(Outcome.CORRECT, "exact", 1.0)
        self.totals = book or Counter(groups=2, rollouts=200, correct=200)
        self.loaded = None
        self.tickets = []

    async def answer(self, prompts, *_):
        return [(Rollout(0, (5,), (0.0,), "", Finish.STOP, 0, 0), self.verdict) for _ in prompts]

    async def book(self, _):
        return self.totals

    async def snapshot(self):
        return Snapshot(self.totals, 0, 0, 0, 0, 0, 0)

    async def collect(self, tickets):
        self.tickets += tickets

    async def ledger(self):
        return Ledger()

    async def publish(self, *_):
        return {}

    async def save(self, folder):
        (folder / "weights").touch()

    async def load(self, folder):
        self.loaded = folder


@dataclass
class FakeSplit:
    prompts: tuple[Prompt, ...]
    weights: dict[str, float] = field(default_factory=dict)


@dataclass
class FakeData:
    train: FakeSplit
    held_out: FakeSplit
    hash: str


QUESTIONS = FakeSplit(tuple(Prompt(i, f"{i}+1?", "1", f"{i}+1?", (1,), "boxed") for i in range(2)))
DATA = FakeData(QUESTIONS, QUESTIONS, "c0ffee")
ORIGIN = Provenance("3", "c0ffee", "decaf", {"torch": "2"})


@pytest.fixture
def stage(tmp_path):
    """Act on a run in its own folder; returns what the terminal showed."""

    def act(action, workers=None, resume=False, **changes):
        config = RunConfig(
            iterations=2,
            prompts_per_iteration=2,
            rollouts_per_prompt=1,
            algorithm=AlgorithmConfig(name="expert_iteration"),
            optimizer=OptimizerConfig(learning_rate=1e-3),
            sampling=SamplingConfig(max_tokens=8),
            grading=GradingConfig(deadline=7.0),
            eval=EvalConfig(every=1),
            **changes,
        )
        saved = newest(tmp_path) if resume else None
        shown = io.StringIO()
        with Reporter(config, tmp_path, shown) as reporter:
            reporter.start(events=saved.standing.events if saved else 0)
            run = Run(config, tmp_path, DATA, workers or FakeWorkers(), reporter, Origin(ORIGIN, saved))
            asyncio.run(to_the_end(run, action))
            reporter.finish("finished", Counter())
        return shown.getvalue()

    return act


async def to_the_end(run, action):
    try:
        await action(run)
    finally:
        await run.settle()


async def first_iteration(run):
    await run.begin()
    run.progress.iteration = 1
    await run.finish_iteration(1)


def test_a_run_says_what_it_rests_on_in_its_first_event_its_checkpoints_and_its_summary(stage, tmp_path):
    stage(first_iteration)
    first = json.loads((tmp_path / "metrics.jsonl").read_text().splitlines()[0])
    assert (first["run/grader_version"], first["run/data_hash"]) == ("3", "c0ffee")
    standing = newest(tmp_path).standing
    assert standing.provenance == ORIGIN
    assert standing.config["iterations"] == 2 and standing.accuracy == 1.0
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert (summary["grader_version"], summary["data_hash"]) == ("3", "c0ffee")


def test_a_secret_in_the_configuration_is_not_saved_and_does_not_hinder_a_resume(stage, tmp_path):
    stage(first_iteration, logger=LoggerConfig(project="wandb-https://me:canary@host"))
    assert "canary" not in (newest(tmp_path).folder / "standing.json").read_text()


def test_a_checkpoint_knows_how_much_of_the_metrics_is_part_of_it(stage, tmp_path):
    async def beyond(run):
        await first_iteration(run)
        run._log({"loss/total": 1.0}, 2, 9)

    stage(beyond)
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert "loss/total" in lines[-1] and newest(tmp_path).standing.events == len(lines) - 1
    stage(lambda run: run.begin(), resume=True)
    assert (tmp_path / "metrics.jsonl").read_text().splitlines()[: len(lines) - 1] == lines[:-1]
    assert "loss/total" not in (tmp_path / "metrics.jsonl").read_text()


def test_what_goes_wrong_after_a_save_is_said_at_the_next_one(stage, tmp_path):
    async def saved_twice(run):
        await run.begin()
        await run.save()
        (tmp_path / "checkpoints" / "tmp-step_00000000").rename(tmp_path / "gone")
        with pytest.raises(SaveFailed, match="could not be written"):
            await run.save()

    stage(saved_twice)


def test_answers_that_cannot_be_judged_are_warned_of_once_per_iteration_and_evaluation(stage):
    book = Counter(groups=2, rollouts=200, correct=190, abstained=7, timeout=4, error=3)
    shown = stage(first_iteration, FakeWorkers(Verdict(Outcome.TIMEOUT, "over 7 s"), book))
    warnings = [line for line in shown.splitlines() if line.startswith("WARNING")]
    before, trained, after = warnings
    assert before.startswith("WARNING evaluation after iteration 0: 4 of 4 answers (100.0%)")
    assert "over 7 s (4)" in before
    assert trained.startswith("WARNING iteration 1: 7 of 200 answers (3.5%)")
    assert "(timeout 4, error 3)" in trained
    assert "grading.deadline (7 s)" in trained and "rollouts/iteration_0001.jsonl" in trained
    assert after.startswith("WARNING evaluation after iteration 1:")


def test_a_few_answers_that_cannot_be_judged_are_counted_without_a_warning(stage, tmp_path):
    shown = stage(first_iteration, FakeWorkers(book=Counter(groups=2, rollouts=200, abstained=2, timeout=2)))
    assert "WARNING" not in shown
    events = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [event["rollout/timeout"] for event in events if "rollout/timeout" in event] == [0.01]


ALIKE = Counter(groups=2, rollouts=200, correct=200, tokens=400, distinct=2)
"""All answers to a prompt say the same."""


def test_a_collapse_is_warned_of_and_ends_the_run_only_where_that_is_asked_for(stage):
    health = HealthConfig(distinct_floor=0.5)
    shown = stage(first_iteration, FakeWorkers(book=ALIKE), health=health)
    assert "sampling collapses: only 1% of the answers" in shown.replace("\n", " ")
    with pytest.raises(Stopped, match="collapsed"):
        stage(
            first_iteration,
            FakeWorkers(book=ALIKE),
            health=replace(health, on_collapse=OnCollapse.stop),
        )


def test_after_a_collapse_answers_may_be_sampled_hotter_also_in_a_resumed_run(stage):
    health = HealthConfig(OnCollapse.raise_temperature, distinct_floor=0.5, temperature_factor=1.2)
    workers, resumed = FakeWorkers(book=ALIKE), FakeWorkers()

    async def one_more(run):
        await run.collect([0])
        await first_iteration(run)
        await run.collect([2])

    async def another(run):
        await run.begin()
        await run.collect([3])

    stage(one_more, workers, health=health)
    assert [ticket.temperature for ticket in workers.tickets] == [None, 1.2]
    stage(another, resumed, resume=True, health=health)
    assert [ticket.temperature for ticket in resumed.tickets] == [1.2]


def test_a_plateau_ends_the_run_with_its_checkpoint(stage, tmp_path):
    with pytest.raises(Stopped, match="plateau"):
        stage(first_iteration, health=HealthConfig(patience=1))
    assert newest(tmp_path).standing.progress.iteration == 1


def test_plans_of_the_frontier_survive_a_checkpoint(stage):
    frontier = PromptsConfig(strategy=PromptStrategy.frontier)
    plans = []

    async def planned(run):
        await run.begin()
        await run.collect([2, 3])
        plans.append(run._visits.plans)
        if run.progress.iteration == 0:
            run.progress.iteration = 1
            await run.save()

    stage(planned, prompts=frontier)
    stage(planned, resume=True, prompts=frontier)
    assert plans[0] == plans[1] and list(plans[0]) == [2]


class Orders(FakeWorkers):
    """Notes what it is asked for, in order."""

    def __init__(self):
        super().__init__()
        self.calls = []

    async def collect(self, _):
        self.calls.append("collect")

    async def rest(self):
        self.calls.append("rest")

    async def learn(self, pace):
        self.calls.append(f"learn {pace.first_step}")
        return {}

    async def publish(self, version, _=()):
        self.calls.append(f"publish {version}")
        return {}

    async def answer(self, prompts, *_):
        self.calls.append("answer")
        return await super().answer(prompts)


async def two_iterations(run):
    for iteration in (1, 2):
        await run.collect([2 * iteration - 2, 2 * iteration - 1])
        for _ in range(2):
            await run.learn(3, (0.0, 0.5))
            run.progress.steps += 3
            run.progress.unpublished += 3
        await run.publish(iteration)
        run.progress.unpublished = 0
        run.progress.iteration = iteration
        await run.finish_iteration(iteration)


GIVE_WAY = [
    PlacementConfig(shared=True, infer=InferPlacement(sleep_level=1)),
    PlacementConfig(shared=True, reference=ReferencePlacement(offload=True)),
]


@pytest.mark.parametrize("placement", GIVE_WAY)
def test_on_one_gpu_others_give_way_after_the_last_answer_and_before_the_first_step(stage, placement):
    """Until the push: what is asked of engines afterwards, as by an evaluation, finds them awake."""
    workers = Orders()
    stage(two_iterations, workers, placement=placement)
    assert [call for call in workers.calls if call != "answer"] == [
        *("collect", "rest", "learn 0", "learn 3", "publish 1"),
        *("collect", "rest", "learn 6", "learn 9", "publish 2"),
    ]
    for iteration, learning in ((1, "learn 0"), (2, "learn 6")):
        rested = workers.calls.index(learning) - 1
        assert "answer" not in workers.calls[rested : workers.calls.index(f"publish {iteration}")]


def test_nobody_is_asked_to_give_way_where_nobody_needs_it(stage):
    workers = Orders()
    stage(two_iterations, workers)
    assert "rest" not in workers.calls
