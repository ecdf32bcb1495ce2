"""Runs over several nodes of a cluster, and what becomes of them when a node is lost."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from expert_iteration.checkpoint import existing
from tests.clusters import Cluster, cluster, may_hide_folders
from tests.runs import ROOT, SMALL, Finished, train, wait_until
from tests.wires import may_wire, wires

pytestmark = [pytest.mark.long, pytest.mark.real]

TWO_COLLECTORS = (*SMALL, "placement.infer.replicas=2", "mode.prompts_per_request=4")
PLACED = r"INFO expert_iteration.actors.ground: (\w+ ?\d?) is on (\d+(?:\.\d+)+)"


def train_on(nodes: Cluster, folder: Path, *overrides: str, **options: object) -> Finished:
    assert wait_until(nodes.up, seconds=300)
    return train(folder, f"ray.address={nodes.address}", *overrides, env=nodes.environment, **options)


@pytest.mark.parametrize("loss", ["killed", "cut off"])
def test_a_node_with_a_network_of_its_own_is_lost(tmp_path: Path, loss: str) -> None:
    """Everything goes from node to node by their addresses. A node that is cut off gives no sign of it."""
    if not may_wire():
        pytest.skip("no namespaces can be made here")
    with wires() as network, cluster(tmp_path / "cluster", network) as nodes:
        home, lost = nodes.add(cpus=2), nodes.add(cpus=1)
        folder = tmp_path / "run"

        def lose_the_node() -> None:
            nodes.kill(lost) if loss == "killed" else network.cut(lost)
            nodes.add(cpus=1)

        run = train_on(
            nodes,
            folder,
            *TWO_COLLECTORS,
            "iterations=8",
            interfere=once_it_has_saved(folder, lose_the_node),
            prefix=nodes.at(home),
        )
        assert run.code == 0, run.output[-3000:]
        assert [place for part, place in places(run) if part == "collector 1"] == [lost, "10.77.0.4"]
        assert_every_answer_once(run, iterations=8)


def places(run: Finished) -> list[tuple[str, str]]:
    """Each part with the address of its node, in the order in which they came."""
    return re.findall(PLACED, (run.folder / "run.log").read_text())


def assert_every_answer_once(run: Finished, iterations: int) -> None:
    rows = [(row["group_id"], row["rollout_index"]) for row in run.rollouts]
    assert sorted(rows) == [(group, index) for group in range(24 * iterations) for index in range(4)]


def once_it_has_saved(folder: Path, then: Callable[[], None]) -> Callable[[object], None]:
    def interfere(_: object) -> None:
        assert wait_until(lambda: bool(existing(folder)), seconds=500)
        then()

    return interfere


def test_collectors_sample_on_other_nodes_and_the_cluster_stays_as_it_was(tmp_path: Path) -> None:
    """The second node has a disk of its own where the run folder would be, if this machine permits that."""
    runs = tmp_path / "runs"
    runs.mkdir()
    with cluster(tmp_path / "cluster") as nodes:
        home = nodes.add(cpus=2)
        other = nodes.add(cpus=1, hidden=runs if may_hide_folders() else None)
        run = train_on(nodes, runs / "run", *TWO_COLLECTORS)
        assert run.code == 0, run.output[-3000:]
        assert dict(places(run)) == {
            "buffer": home,
            "trainer 0": home,
            "collector 0": home,
            "collector 1": other,
        }
        assert_every_answer_once(run, iterations=2)
        assert any("raylet" in title for title in nodes.processes())
        assert not any(title.startswith("ray::") and "Actor" in title for title in nodes.processes())
        waiting = ["bash", "scripts/ray/wait_for.sh", nodes.address]
        assert (
            subprocess.run(waiting, cwd=ROOT, env=os.environ | nodes.environment, timeout=100).returncode == 0
        )
        if may_hide_folders():
            assert "collector 1 is on 127.0.0.3, which has a run folder of its own" in run.output
            assert not (run.folder / "logs" / "collector_1.log").exists()


def test_a_collector_whose_node_is_lost_goes_on_on_another_one(tmp_path: Path) -> None:
    with cluster(tmp_path / "cluster") as nodes:
        nodes.add(cpus=2)
        lost = nodes.add(cpus=1)
        assert wait_until(nodes.up, seconds=300)
        folder = tmp_path / "run"

        def lose_the_node() -> None:
            nodes.kill(lost)
            nodes.add(cpus=1)

        run = train_on(
            nodes, folder, *TWO_COLLECTORS, "iterations=6", interfere=once_it_has_saved(folder, lose_the_node)
        )
        assert run.code == 0, run.output[-3000:]
        assert [place for part, place in places(run) if part == "collector 1"] == [lost, "127.0.0.4"]
        assert re.search(r"collector 1 died .* 2 of 3 restarts", (folder / "run.log").read_text())
        assert_every_answer_once(run, iterations=6)


def test_a_run_whose_trainer_is_on_a_lost_node_goes_back_to_its_checkpoint(tmp_path: Path) -> None:
    """The node of the driver has no room for actors, so that all of them are on another one."""
    with cluster(tmp_path / "cluster") as nodes:
        nodes.add(cpus=0)
        lost = nodes.add(cpus=2)
        folder = tmp_path / "run"

        def lose_the_node() -> None:
            nodes.kill(lost)
            nodes.add(cpus=2)

        run = train_on(
            nodes, folder, *SMALL, "iterations=6", interfere=once_it_has_saved(folder, lose_the_node)
        )
        assert run.code == 0, run.output[-3000:]
        log = (folder / "run.log").read_text()
        assert "on storage that all of them share" in log and "Going back to" in log
        assert [place for part, place in places(run) if part == "trainer 0"] == [lost, "127.0.0.4"]
        assert_every_answer_once(run, iterations=6)


REPLACED = """
import asyncio, sys, time
from pathlib import Path
from expert_iteration.actors.crew import Crew, Part
from expert_iteration.actors.ground import Ground
from expert_iteration.actors.instance import start_ray
from expert_iteration.actors.shells import NotStarted, Shell
from expert_iteration.placement.bundles import bundles_of
from tests.plans import composed
import ray  # after the package, which sets what Ray reads then

class Idle(Shell):
    up = False

    def start(self):
        self.up = True

    def is_up(self):
        return self.up

    def work(self):
        if not self.up:
            raise NotStarted(self._name)
        time.sleep(0.5)

async def main(config, run_dir):
    start_ray(config)
    ground = Ground(config, run_dir)

    def part(name):
        replaceable = name.startswith("collector")
        options = ground.seat(name) | {"max_restarts": 3 if replaceable else 0}
        actor = ray.remote(**options)(Idle).remote(config, run_dir, name)
        return Part(name, actor, run_dir / "logs" / name, replaceable)

    parts = [part(seat.part) for bundle in bundles_of(config) for seat in bundle.seats]
    crew = Crew(parts, 200, 3, lambda lost: crew.start(lost), ground)
    await ground.secure()
    await asyncio.gather(*(crew.start(part) for part in parts))
    while True:
        await crew.persist(lambda: crew.ask(parts[-1], "work"))
        print(parts[-1].place.address, flush=True)

asyncio.run(main(composed(*sys.argv[2:]), Path(sys.argv[1])))
"""


def test_an_actor_whose_node_is_lost_comes_back_where_there_is_room(tmp_path: Path) -> None:
    with cluster(tmp_path / "cluster") as nodes:
        nodes.add(cpus=2)
        lost = nodes.add(cpus=1)
        assert wait_until(nodes.up, seconds=300)
        said = tmp_path / "said"
        command = [sys.executable, "-c", REPLACED, str(tmp_path / "run"), f"ray.address={nodes.address}"]
        with said.open("w") as output:
            asking = subprocess.Popen(
                [*command, "placement.infer.replicas=2"],
                cwd=ROOT,
                env=os.environ | nodes.environment,
                stdout=output,
                stderr=output,
            )
        try:
            assert wait_until(lambda: lost in said.read_text() or asking.poll() is not None, seconds=300)
            nodes.kill(lost)
            other = nodes.add(cpus=1)
            assert wait_until(lambda: other in said.read_text() or asking.poll() is not None, seconds=300)
            assert asking.poll() is None, said.read_text()
        finally:
            asking.kill()
            asking.wait()


SEATED = """
import asyncio, json, os, sys
from pathlib import Path
from expert_iteration.actors.ground import Ground
from expert_iteration.actors.instance import start_ray
from expert_iteration.actors.shells import Shell
from expert_iteration.placement.bundles import bundles_of
from tests.plans import composed
import ray  # after the package, which sets what Ray reads then

async def seat(config, run_dir):
    start_ray(config)
    ground = Ground(config, run_dir)
    await ground.secure()
    parts = [seat.part for bundle in bundles_of(config) for seat in bundle.seats]
    actors = [ray.remote(**ground.seat(part))(Shell).remote(config, run_dir, part) for part in parts]
    places = await asyncio.gather(*(actor.place.remote() for actor in actors))
    for part, place in zip(parts, places):
        ground.admit(part, place)
    print(json.dumps({part: place.gpus for part, place in zip(parts, places)}), flush=True)
    if "die" in os.environ:
        os.kill(os.getpid(), 9)
    ground.leave()
    ray.shutdown()

asyncio.run(seat(composed(*sys.argv[2:]), Path(sys.argv[1])))
"""


def test_every_part_has_gpus_of_its_own_unless_all_share_one(tmp_path: Path) -> None:
    with cluster(tmp_path / "cluster") as nodes:
        nodes.add(cpus=8, gpus=8)
        assert wait_until(nodes.up, seconds=300)
        assert nodes.folder().stat().st_mode & 0o077 == 0

        def seated(*overrides: str, **environment: str) -> dict[str, list[str]]:
            command = [sys.executable, "-c", SEATED, str(tmp_path / "run"), f"ray.address={nodes.address}"]
            said = subprocess.run(
                [*command, "loss.kl_coefficient=0.1", "batch_size=16", *overrides],
                cwd=ROOT,
                env=os.environ | nodes.environment | environment,
                stdout=subprocess.PIPE,
                timeout=500,
            )
            return json.loads(said.stdout)

        apart = seated("placement=node", die="at once")
        assert apart.pop("buffer") == []
        assert sorted(gpu for gpus in apart.values() for gpu in gpus) == [str(number) for number in range(8)]
        # a driver that was killed has left nothing, so that all GPUs can be had again
        engines = seated("placement=node", "placement.infer.tensor_parallel=3", "placement.infer.replicas=1")
        assert len(engines["collector 0"]) == 3 and len(engines) == 7
        together = seated("placement=one_gpu")
        assert together == {"buffer": [], "trainer 0": ["0"], "collector 0": ["0"], "reference 0": ["0"]}


def test_a_cluster_without_room_is_described_and_left_alone(tmp_path: Path) -> None:
    with cluster(tmp_path / "cluster") as nodes:
        nodes.add(cpus=1)
        run = train_on(nodes, tmp_path / "run", *TWO_COLLECTORS, "wait_limit=8")
        assert run.code == 3, run.output[-3000:]
        assert "the placement asks for 3 CPU in 3 bundles" in run.output
        assert (
            "127.0.0.2 has 1 CPU, free 1 CPU; no room for collector 0 (1 CPU), collector 1 (1 CPU)"
            in run.output
        )
        stopped = train(
            tmp_path / "other", f"ray.address={nodes.address}", *SMALL, env={"HOME": str(tmp_path)}
        )
        assert stopped.code == 2
        assert "which is joined with its token alone" in stopped.output
        stranger = train(
            tmp_path / "another", f"ray.address={nodes.address}", env={"RAY_AUTH_TOKEN": "0" * 64}
        )
        assert stranger.code == 2
        assert f"ray.address ({nodes.address}) cannot be joined" in stranger.output
