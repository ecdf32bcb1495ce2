"""What a run asks of nodes, whether that finds room, and which places are refused."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from expert_iteration.config import ConfigError, ModelConfig
from expert_iteration.model_files import is_there, pinned
from expert_iteration.placement.bundles import Bundle, Seat, bundles_of, total
from expert_iteration.placement.nodes import Node, fits, settled, shortage
from expert_iteration.placement.places import Place, refuse_devices, refuse_model, refuse_storage
from expert_iteration.placement.storage import MARK, leave_mark, read_mark
from tests.plans import composed
from tests.runs import ROOT

REFERENCE = "loss.kl_coefficient=0.1"


def needs(*overrides: str) -> list[str]:
    return [str(bundle) for bundle in bundles_of(composed(*overrides))]


# --- what is asked for ---


def test_the_demo_asks_for_a_core_for_each_of_its_two_parts_that_compute() -> None:
    assert needs() == ["trainer 0 (1 CPU)", "collector 0 (1 CPU)"]


def test_the_buffer_sits_beside_the_first_trainer_and_takes_nothing() -> None:
    first, *others = bundles_of(composed("placement.train.devices=3"))
    assert first.seats == (Seat("buffer", 0, 0), Seat("trainer 0", 1, 0))
    assert [bundle.writes for bundle in (first, *others)] == [True, True, True, False]


def test_an_engine_with_tensor_parallel_parts_is_one_bundle() -> None:
    assert needs("placement=split", "placement.infer.tensor_parallel=4", REFERENCE) == [
        "trainer 0 (1 GPU, 1 CPU)",
        "collector 0 (4 GPU, 1 CPU)",
        "reference 0 (1 GPU, 1 CPU)",
    ]


def test_parts_that_share_a_gpu_are_one_bundle_and_take_no_more_than_the_whole() -> None:
    [bundle] = bundles_of(composed("placement=one_gpu", REFERENCE))
    assert bundle.gpus == 1
    assert [seat.part for seat in bundle.seats] == ["buffer", "trainer 0", "collector 0", "reference 0"]
    assert 0.99 < sum(seat.gpus for seat in bundle.seats) <= 1


def test_a_node_gives_its_eight_gpus_to_trainers_engines_and_a_reference() -> None:
    assert total(bundles_of(composed("placement=node", REFERENCE, "batch_size=16"))) == (8, 8)
    assert total(bundles_of(composed("placement=node")))[0] == 7


@pytest.mark.parametrize("nodes", [1, 2, 5])
def test_a_cluster_uses_every_gpu_of_its_nodes(nodes: int) -> None:
    bundles = bundles_of(composed("placement=cluster", f"placement.nodes={nodes}", REFERENCE))
    assert total(bundles)[0] == 8 * nodes
    assert None not in settled(bundles, [(8.0, 8.0)] * nodes)


# --- whether it finds room ---

ONE = Bundle((Seat("collector 0", 1, 1),), 1)
TWO = Bundle((Seat("collector 1", 1, 2),), 2)


def node(gpus: float, cpus: float, free_gpus: float | None = None) -> Node:
    return Node("a", "10.0.0.1", gpus, cpus, gpus if free_gpus is None else free_gpus, cpus)


def test_a_bundle_is_on_one_node_or_on_none() -> None:
    assert settled([TWO], [(1, 9), (1, 9)]) == [None]
    assert settled([ONE, TWO], [(2, 9), (1, 9)]) == [1, 0], "the largest chooses first"
    assert settled([ONE, ONE], [(2, 1), (2, 1)]) == [0, 1], "a node may lack cores only"


def test_nodes_that_others_use_are_not_too_small_for_a_run() -> None:
    assert fits([ONE, TWO], [node(3, 2, free_gpus=0)])
    assert not fits([ONE, TWO], [node(2, 2)])


def test_what_is_lacking_is_named_by_resource_and_by_node() -> None:
    said = shortage([ONE, TWO], [node(4, 8, free_gpus=2), replace(node(1, 8), address="10.0.0.2")])
    assert said == (
        "the placement asks for 3 GPU, 2 CPU in 2 bundles, and 10.0.0.1 has 4 GPU, 8 CPU, free 2 GPU, 8 CPU; "
        "10.0.0.2 has 1 GPU, 8 CPU, free 1 GPU, 8 CPU"
    )
    assert shortage([TWO], [node(1, 8)]).endswith("no room for collector 1 (2 GPU, 1 CPU)")
    assert "no node is there" in shortage([ONE], [])


# --- where a part may be ---

HERE = Place("a", "10.0.0.1", pid=1, gpus=("0",), mark="x")


def test_two_parts_on_one_gpu_are_refused_unless_they_share_it() -> None:
    others = {"trainer 0": HERE}
    with pytest.raises(ConfigError, match=r"trainer 0 and collector 0 both have GPU 0 of 10\.0\.0\.1"):
        refuse_devices(Seat("collector 0", 1, 1), HERE, others)
    refuse_devices(Seat("collector 0", 1, 0.5), HERE, others)
    refuse_devices(Seat("collector 0", 1, 1), replace(HERE, gpus=("1",)), others)
    refuse_devices(Seat("collector 0", 1, 1), replace(HERE, node="b"), others)


def test_a_part_that_was_given_too_few_gpus_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"collector 0 asks for 2 GPU and was given 1 on 10\.0\.0\.1"):
        refuse_devices(Seat("collector 0", 1, 2), HERE, {})


def test_who_writes_checkpoints_must_see_the_run_folder_and_others_need_not(tmp_path: Path) -> None:
    mark = leave_mark(tmp_path)
    seen, other = replace(HERE, mark=read_mark(tmp_path)), replace(HERE, mark="of another run")
    for part in ("buffer", "trainer 1", "collector 0"):
        assert refuse_storage(part, seen, tmp_path, mark)
    assert not refuse_storage("collector 0", other, tmp_path, mark)
    for part in ("buffer", "trainer 1"):
        with pytest.raises(ConfigError, match=rf"{part} on 10\.0\.0\.1 does not see the run folder"):
            refuse_storage(part, other, tmp_path, mark)


def test_a_mark_is_that_of_the_last_start(tmp_path: Path) -> None:
    assert read_mark(tmp_path / "elsewhere") is None
    assert leave_mark(tmp_path) != leave_mark(tmp_path) == read_mark(tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == [MARK]
    assert (tmp_path / MARK).stat().st_mode & 0o077 == 0


def test_a_model_folder_is_named_so_that_every_node_finds_it(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tiny_model.parent)
    found = pinned(ModelConfig(path=tiny_model.name))
    assert found.path == str(tiny_model)
    assert is_there(found)
    elsewhere = replace(HERE, has_model=is_there(replace(found, path="/nowhere/model")))
    with pytest.raises(
        ConfigError, match=r"model\.path \(/nowhere/model\) is no model folder on 10\.0\.0\.1"
    ):
        refuse_model("collector 0", elsewhere, "/nowhere/model")
    refuse_model("collector 0", HERE, "/nowhere/model")


PINNED = """
from expert_iteration.config import ModelConfig
from expert_iteration.model_files import is_there, pinned
found = pinned(ModelConfig(path="someone/small"))
print(found.path, found.revision, is_there(found))
"""


def test_a_model_of_the_hub_is_named_by_its_commit_for_each_node_to_download(tmp_path: Path) -> None:
    commit = "0123456789abcdef0123456789abcdef01234567"
    cached = tmp_path / "models--someone--small"
    (cached / "snapshots" / commit).mkdir(parents=True)
    (cached / "snapshots" / commit / "config.json").write_text("{}")
    (cached / "refs").mkdir()
    (cached / "refs" / "main").write_text(commit)
    hub = {"HF_HUB_CACHE": str(tmp_path), "HF_HUB_OFFLINE": "1"}
    said = subprocess.check_output([sys.executable, "-c", PINNED], cwd=ROOT, env=os.environ | hub, text=True)
    assert said.split() == ["someone/small", commit, "True"]


def test_the_model_of_the_package_is_found_on_each_node_by_its_name() -> None:
    assert pinned(ModelConfig(path="demo")) == ModelConfig(path="demo")
