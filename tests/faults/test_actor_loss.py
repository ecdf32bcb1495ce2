"""Actors that die are replaced, once for each death; those that say nothing are named, with their stacks."""

import asyncio
import logging
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import ray
from ray import ActorID
from safetensors.torch import load_file

from expert_iteration.actors.crew import Crew, Lost, Part
from expert_iteration.actors.shells import NotStarted
from expert_iteration.actors.silence import write_stacks
from expert_iteration.actors.workers import cause_of
from expert_iteration.faults import POINTS, order_of
from expert_iteration.placement.places import Place
from expert_iteration.workers import ComponentLost
from tests.runs import ROOT, SMALL, Finished, train, wait_until

SLEEPER = """
import time
from expert_iteration.actors.silence import write_stacks_when_told
write_stacks_when_told()
print("ready", flush=True)
def wait_for_godot():
    time.sleep(600)
wait_for_godot()
"""


class FakeMethod:
    def __init__(self, remote):
        self.remote = remote


class FakeActor:
    """Dies at the calls of `work` that `deaths` counts down from; is down until it is started again."""

    def __init__(self, deaths=0, restarts=9):
        self._actor_id = ActorID.from_random()
        self.deaths = deaths
        self.restarts = restarts
        self.up = True
        self.work = FakeMethod(self._work)
        self.is_up = FakeMethod(self._is_up)

    async def _work(self):
        if not self.up:
            raise failed(NotStarted("collector 0"))
        if self.deaths:
            self.deaths -= 1
            self.up = False
            raise ray.exceptions.ActorUnavailableError("socket closed", self._actor_id.binary())
        return "done"

    async def _is_up(self):
        if not self.up and self.restarts == 0:
            raise ray.exceptions.ActorDiedError()
        return self.up


class FakeGround:
    """One machine."""

    async def write_stacks(self, found):
        return await write_stacks([(place.pid, log) for place, log in found])


class FakeSilent:
    """Has the process `pid`, and never answers."""

    def __init__(self, pid):
        self._actor_id = ActorID.from_random()
        self.work = FakeMethod(lambda: asyncio.sleep(600))
        self.number = pid


def failed(cause):
    """What Ray raises for an error in an actor."""
    return ray.exceptions.RayTaskError("f", "Traceback", cause, "proctitle", 1, "ip")


def part(actor, name="collector 0", log=Path("run/logs/collector_0.log")):
    return Part(name, actor, log, replaceable=not name.startswith("trainer"))


def crew_of(*parts, max_restarts=3, limit=30.0):
    """A crew, and the names of the actors that it has renewed."""
    renewed = []

    async def renew(part):
        await asyncio.sleep(0.01)
        renewed.append(part.name)
        part.actor.up = True

    return Crew(parts, limit, max_restarts, renew, FakeGround()), renewed


def test_a_lost_actor_is_renewed_and_asked_again(caplog):
    lost = part(FakeActor(deaths=2))
    crew, renewed = crew_of(lost)
    with caplog.at_level(logging.WARNING, logger="expert_iteration"):
        assert asyncio.run(crew.persist(lambda: crew.ask(lost, "work"))) == "done"
    assert renewed == ["collector 0", "collector 0"]
    assert [re.findall(r"\d of 3 restarts", record.getMessage()) for record in caplog.records] == [
        ["2 of 3 restarts"],
        ["1 of 3 restarts"],
    ]


def test_all_calls_that_one_death_breaks_cost_one_restart():
    lost = part(FakeActor(deaths=1))
    crew, renewed = crew_of(lost, max_restarts=1)

    async def work():
        return await asyncio.gather(*(crew.persist(lambda: crew.ask(lost, "work")) for _ in range(5)))

    assert asyncio.run(work()) == ["done"] * 5
    assert renewed == ["collector 0"]


def test_an_actor_that_dies_while_it_is_renewed_is_renewed_again():
    lost = part(FakeActor(deaths=1))
    crew, _ = crew_of(lost)
    tries = []

    async def renew(part):
        tries.append(part.name)
        if len(tries) == 2:
            part.actor.up = True
        else:
            raise Lost(part, "again", for_good=False)

    crew._renew = renew
    assert asyncio.run(crew.persist(lambda: crew.ask(lost, "work"))) == "done"
    assert len(tries) == 2


@pytest.mark.parametrize("restarts_of_ray", [0, 9])
def test_when_no_restart_is_left_the_run_is_told_so(restarts_of_ray):
    lost = part(FakeActor(deaths=1, restarts=restarts_of_ray))
    crew, renewed = crew_of(lost, max_restarts=0)
    with pytest.raises(
        ComponentLost, match=r"^collector 0 died: .*ray.max_restarts \(0\).*resume=run goes on"
    ):
        asyncio.run(crew.persist(lambda: crew.ask(lost, "work")))
    assert renewed == []


def test_a_trainer_is_not_replaced():
    lost = part(FakeActor(deaths=1), "trainer 0", Path("run/logs/trainer_0.log"))
    crew, renewed = crew_of(lost, part(FakeActor()))
    with pytest.raises(ComponentLost, match=r"trainer 0 died: .*\(see run/logs/trainer_0.log; resume=run"):
        asyncio.run(crew.persist(lambda: crew.ask(lost, "work")))
    assert renewed == []


def test_the_loss_of_a_rank_is_told_before_what_it_did_to_the_others():
    broken, silent = RuntimeError("Connection closed by peer"), TimeoutError("trainer 0 is silent.")
    lost = Lost(part(FakeActor(), "trainer 1"), "killed", for_good=True)
    assert cause_of([broken, silent, lost]) is lost
    assert cause_of([broken, silent]) is broken
    both = cause_of([silent, TimeoutError("trainer 1 does not react to signals.")])
    assert str(both) == "trainer 0 is silent. trainer 1 does not react to signals."


def test_an_actor_that_lives_is_not_asked_again_when_a_call_broke():
    broken = part(FakeActor(deaths=1))
    crew, renewed = crew_of(broken)

    async def work():
        try:
            return await crew.ask(broken, "work")
        finally:
            broken.actor.up = True

    with pytest.raises(ComponentLost, match="collector 0"):
        asyncio.run(crew.persist(work))
    assert renewed == []


def test_a_loss_that_another_actor_meets_is_put_down_to_the_one_that_died():
    dead, asking = part(FakeActor()), part(FakeActor(), "trainer 0")
    met = [
        ray.exceptions.ActorUnavailableError("socket closed", dead.actor._actor_id.binary()),
        NotStarted("collector 0"),
    ]

    async def work():
        if met:
            dead.actor.up = False
            raise failed(met.pop())
        return "done"

    asking.actor.work = FakeMethod(work)
    crew, renewed = crew_of(dead, asking)
    assert asyncio.run(crew.persist(lambda: crew.ask(asking, "work"))) == "done"
    assert renewed == ["collector 0", "collector 0"]


def test_an_error_of_an_actor_is_raised_in_its_own_words():
    wrong = part(FakeActor())

    async def work():
        raise failed(KeyError("what it says"))

    wrong.actor.work = FakeMethod(work)
    crew, _ = crew_of(wrong)
    with pytest.raises(KeyError, match="what it says"):
        asyncio.run(crew.ask(wrong, "work"))


def test_a_wait_goes_on_as_long_as_there_are_signs_of_work():
    slow = part(FakeActor())
    slow.actor.work = FakeMethod(lambda: asyncio.sleep(0.25, "done"))
    crew, _ = crew_of(slow, limit=0.05)

    async def signs():
        return time.monotonic()

    assert asyncio.run(crew.ask(slow, "work", signs=signs)) == "done"


@pytest.fixture
def sleeper(tmp_path):
    """A process that waits in Python and tells where when it is asked, and its part."""
    log = tmp_path / "logs" / "collector_0.log"
    log.parent.mkdir()
    with log.open("w") as output:
        process = subprocess.Popen([sys.executable, "-c", SLEEPER], cwd=ROOT, stdout=output, stderr=output)
    try:
        assert wait_until(lambda: "ready" in log.read_text(), seconds=60)
        silent = part(FakeSilent(process.pid), log=log)
        silent.place = Place("here", "127.0.0.1", process.pid)
        yield silent
    finally:
        process.kill()
        process.wait()


def test_a_silent_actor_is_named_and_its_stacks_are_in_its_log(sleeper):
    crew, _ = crew_of(sleeper, limit=0.1)
    with pytest.raises(
        TimeoutError, match=rf"^collector 0, asked for work: .* 0 s \(wait_limit\); .*{sleeper.log}"
    ):
        asyncio.run(crew.ask(sleeper, "work"))
    assert "in wait_for_godot" in sleeper.log.read_text()


def test_a_silent_actor_that_is_stopped_is_said_to_be(sleeper):
    crew, _ = crew_of(sleeper, limit=0.1)
    os.kill(sleeper.place.pid, signal.SIGSTOP)
    with pytest.raises(TimeoutError, match=r"^collector 0, .* does not react to signals"):
        asyncio.run(crew.ask(sleeper, "work"))


def reach_twice(**environment):
    """Reach one point twice in a process of its own; the exit code, and what it said."""
    code = """
from expert_iteration.faults import reach
for visit in "first", "second":
    reach("trainer.step")
    print(visit, flush=True)
"""
    ended = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=os.environ | environment, capture_output=True, text=True
    )
    return ended.returncode, ended.stdout.split()


def test_a_process_dies_where_it_is_told_to():
    assert reach_twice() == (0, ["first", "second"])
    assert reach_twice(EI_FAULT="trainer.step:2") == (-signal.SIGKILL, ["first"])
    assert reach_twice(EI_FAULT="trainer.step:3") == (0, ["first", "second"])
    assert reach_twice(EI_FAULT="trainer.push:1") == (0, ["first", "second"])


def test_only_one_process_dies_when_told_so(tmp_path):
    environment = {"EI_FAULT": "trainer.step:1", "EI_FAULT_ONCE": str(tmp_path / "died")}
    assert reach_twice(**environment) == (-signal.SIGKILL, [])
    assert reach_twice(**environment) == (0, ["first", "second"])


@pytest.mark.parametrize(
    "order", ["trainer.stop:1", "trainer.step", "trainer.step:0", "trainer.step:x", ":1"]
)
def test_an_order_to_die_nowhere_is_refused(order):
    with pytest.raises(ValueError, match=re.escape(f"EI_FAULT ({order}) must be POINT:N")):
        order_of(order)


def test_every_point_to_die_at_is_reached_somewhere():
    sources = [file.read_text(encoding="utf-8") for file in (ROOT / "expert_iteration").rglob("*.py")]
    reached = {point for source in sources for point in re.findall(r'\breach\("([^"]+)"\)', source)}
    assert reached == set(POINTS)


OVERRIDES = (*SMALL, "loss.kl_coefficient=0.05", "mode.prompts_per_request=8")


def assert_nothing_lost_or_doubled(run: Finished, undisturbed: Finished, died: str) -> None:
    assert run.code == 0, run.output[-3000:]
    assert re.findall(rf"{died} died .* 2 of 3 restarts", (run.folder / "run.log").read_text())
    assert run.summary["totals"] == undisturbed.summary["totals"]
    assert said(run) == said(undisturbed)
    assert run.values("loss/total") == undisturbed.values("loss/total")
    for name, weight in weights(undisturbed).items():
        assert weight.equal(weights(run)[name]), name


def said(run):
    """Every answer of a run, whatever the order in which the groups arrived."""
    keys = ("iteration", "group_id", "rollout_index", "prompt_id", "response", "verdict", "fate")
    return sorted(tuple(row[key] for key in keys) for row in run.rollouts)


def weights(run):
    return load_file(sorted(run.folder.glob("checkpoints/step_*"))[-1] / "model" / "model.safetensors")


def train_with_a_death(folder, point, *overrides):
    fault = {"EI_FAULT": point, "EI_FAULT_ONCE": str(folder.parent / "died")}
    return train(folder, *OVERRIDES, *overrides, env=fault)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    run = train(tmp_path_factory.mktemp("runs") / "local", "placement=local", *OVERRIDES)
    assert run.code == 0, run.output[-3000:]
    return run


@pytest.mark.faults
@pytest.mark.real
def test_a_run_whose_collector_dies_ends_as_if_it_had_not(tmp_path, undisturbed):
    """It dies in the second iteration, when the first of three orders is under way."""
    run = train_with_a_death(tmp_path / "ray", "collector.generate:9")
    assert_nothing_lost_or_doubled(run, undisturbed, "collector 0")
    assert run.survivors == []


@pytest.mark.faults
@pytest.mark.parametrize(
    ("point", "died"),
    [
        ("collector.store:3", r"collector \d"),
        ("collector.receive:1", r"collector \d"),
        ("reference.score:3", "reference 0"),
    ],
)
def test_wherever_one_of_two_collectors_or_the_reference_dies_a_run_ends_as_if_it_had_not(
    tmp_path, undisturbed, point, died
):
    run = train_with_a_death(tmp_path / "ray", point, "placement.infer.replicas=2")
    assert_nothing_lost_or_doubled(run, undisturbed, died)


@pytest.mark.faults
def test_no_group_is_lost_or_doubled_when_one_of_two_collectors_of_an_asynchronous_run_dies(tmp_path):
    run = train_with_a_death(
        tmp_path / "async",
        "collector.store:4",
        *("mode=async", "mode.publish_every=4", "mode.min_buffer=8", "mode.prompts_per_request=4"),
        "placement.infer.replicas=2",
    )
    assert run.code == 0, run.output[-3000:]
    assert "died" in (run.folder / "run.log").read_text()
    rows = [(row["group_id"], row["rollout_index"]) for row in run.rollouts]
    assert sorted(rows) == [(group, index) for group in range(48) for index in range(4)]
    assert max(run.values("policy/age_max")) <= 2


@pytest.mark.faults
def test_a_run_goes_back_to_its_last_checkpoint_when_one_of_two_ranks_that_share_weights_is_killed(tmp_path):
    folder = tmp_path / "run"

    def kill_the_second(_):
        assert wait_until(lambda: any(folder.glob("checkpoints/step_*/manifest.json")), 250)
        os.kill(writer_of(folder / "logs" / "trainer_1.log"), signal.SIGKILL)

    ranks = ("placement.train.devices=2", "placement.train.sharding=full", "iterations=4")
    run = train(folder, *SMALL, *ranks, interfere=kill_the_second)
    assert run.code == 0, run.output[-3000:]
    assert re.search(r"trainer 1 died: .* Going back to ", (folder / "run.log").read_text())
    assert run.summary["iterations"] == 4 and run.survivors == []


def writer_of(log):
    """The process whose output goes to `log`."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if (folder / "fd" / "1").readlink() == log:
                return int(folder.name)
        except OSError:
            continue  # it ended meanwhile, or is not ours
    raise AssertionError(f"nobody writes to {log}")


@pytest.mark.faults
def test_a_run_whose_trainer_stops_ends_and_names_it(tmp_path):
    folder = tmp_path / "run"

    def stop_the_trainer(process):
        metrics = folder / "metrics.jsonl"
        assert wait_until(lambda: metrics.is_file() and "loss/total" in metrics.read_text(), seconds=200)
        os.kill(pid_of("ray::TrainerActor", child_of=process.pid), signal.SIGSTOP)

    run = train(folder, *SMALL, "iterations=500", "wait_limit=60", interfere=stop_the_trainer)
    assert run.code == 3
    assert re.search(r"error: trainer 0, asked for \w+: gave no sign of life in 60 s", run.output)
    assert run.survivors == []


def pid_of(title, child_of):
    """The process that calls itself `title` and has the mark of `child_of` in its environment."""
    [mark] = re.findall(rb"EI_TEST_MARK=\w+", Path(f"/proc/{child_of}/environ").read_bytes())
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            named = (folder / "cmdline").read_bytes().startswith(title.encode())
            if named and mark in (folder / "environ").read_bytes():
                return int(folder.name)
        except OSError:
            continue  # it ended meanwhile, or is not ours
    raise AssertionError(f"there is no {title}")
