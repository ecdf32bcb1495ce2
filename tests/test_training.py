"""Whole runs with real parts: vLLM, the TorchRL buffer, the trainer, and Ray where processes matter."""

from collections import Counter

import pytest

from tests.runs import SMALL, Finished, train

pytestmark = [pytest.mark.real, pytest.mark.alone]


def assert_clean(run):
    assert run.code == 0, run.output[-3000:]
    assert run.survivors == []
    assert run.shared_memory == set()


def assert_books_agree(run, groups, rollouts_per_prompt=4):
    """summary.json, rollouts/ and metrics.jsonl count the same things."""
    totals, rows = run.summary["totals"], run.rollouts
    assert totals["groups"] == groups
    assert totals["rollouts"] == groups * rollouts_per_prompt == len(rows)
    assert totals["correct"] == sum(row["verdict"] == "correct" for row in rows)
    fates = Counter(row["fate"] for row in rows)
    assert totals["kept"] == fates["kept"] > 0
    assert sum(fates.values()) == totals["rollouts"]
    assert all(row["verdict"] == "correct" for row in rows if row["fate"] == "kept")
    assert max(Counter(row["group_id"] for row in rows if row["fate"] == "kept").values()) <= 2


@pytest.fixture(scope="module")
def local(tmp_path_factory):
    return train(tmp_path_factory.mktemp("runs") / "local", "placement=local", *SMALL)


def test_a_local_run_leaves_its_files_and_nothing_else(local):
    assert_clean(local)
    assert_books_agree(local, groups=48)
    assert local.summary["exit_reason"] == "finished"
    assert local.summary["iterations"] == 2
    for point in ("start", "end"):
        assert 0 <= local.summary[point]["eval/greedy"] <= 1
    assert local.values("policy/version")[-1] == 2
    model = sorted(local.folder.glob("checkpoints/step_*/model"))[-1]
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= {file.name for file in model.iterdir()}


def test_every_kept_sample_of_a_synchronous_run_is_read_epochs_times(local):
    kept, steps = local.summary["totals"]["kept"], local.values("train/sequences")
    assert steps
    sequences = sum(
        event["train/sequences"] * (event["step"] - before["step"])
        for before, event in zip(
            [{"step": 0}] + [e for e in local.events if "train/sequences" in e],
            [e for e in local.events if "train/sequences" in e],
            strict=False,
        )
    )
    assert sequences == pytest.approx(2 * kept)
    assert local.values("buffer/expired") == [0, 0], "nothing is lost to age"


def test_output_without_a_terminal_is_plain(local):
    assert "\x1b" not in local.output
    assert "before" in local.output.lower()


def test_two_collectors_and_two_trainer_ranks_on_ray_learn_what_one_process_learns(tmp_path, local):
    run = train(tmp_path / "ray", *SMALL, "placement.infer.replicas=2", "placement.train.devices=2")
    assert_clean(run)
    assert_books_agree(run, groups=48)
    assert {file.name for file in (run.folder / "logs").iterdir()} >= {
        *("buffer.log", "collector_0.log", "collector_1.log"),
        *("trainer_0.log", "trainer_1.log", "driver.log"),
    }
    iteration_1 = [row["response"] for row in local.rollouts if row["iteration"] == 1]
    assert Counter(iteration_1) == Counter(
        row["response"] for row in run.rollouts if row["iteration"] == 1
    ), "sampling does not depend on the replica"
    assert run.values("loss/total")[0] == pytest.approx(local.values("loss/total")[0], rel=1e-3)


def test_an_asynchronous_run_on_ray_keeps_its_laws(tmp_path):
    run = train(
        tmp_path / "async",
        "mode=async",
        *SMALL,
        "mode.publish_every=4",
        "mode.min_buffer=8",
        "mode.prompts_per_request=4",
        "loss.kl_coefficient=0.05",
    )
    assert_clean(run)
    assert_books_agree(run, groups=48)
    assert (run.folder / "logs" / "reference_0.log").is_file()
    assert max(run.values("loss/kl")) > 0
    assert max(run.values("policy/age_max")) <= 2
    assert run.values("policy/version")[-1] >= 1
    assert run.summary["end"]["eval/n"] == 20


@pytest.mark.long
def test_a_sweep_runs_each_job_clean_of_the_one_before(tmp_path):
    run = train(
        tmp_path / "unused",
        "-m",
        f"hydra.sweep.dir={tmp_path}",
        "placement=local",
        *SMALL,
        "iterations=1",
        "loss.kl_coefficient=0.1",
        "algorithm=sft,expert_iteration",
    )
    assert_clean(run)
    worked, sampled = (Finished(tmp_path / job, 0, "", [], set()) for job in ("0", "1"))
    assert_books_agree(worked, groups=24, rollouts_per_prompt=1)
    assert worked.summary["totals"]["kept"] == 24, "every worked example of the dataset grades correct"
    assert_books_agree(sampled, groups=24)
    assert min(worked.values("loss/kl")[-1], sampled.values("loss/kl")[-1]) > 0
