"""Sweeps: how jobs stand, what is run again, launchers that compose, and one sweep as a whole."""

import fcntl
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from expert_iteration.config import ConfigError
from expert_iteration.launch import config_folder, register
from expert_iteration.sweeps.callback import EXTRAS, is_installed, refuse_missing_plugin
from expert_iteration.sweeps.jobs import NoSweep, State, forget_error, jobs_of, note_error, objective
from expert_iteration.sweeps.retries import command_line, retry, trainer
from tests.sweep_folders import finish, write_job, write_plan

ROOT = Path(__file__).parents[1]
OPTIONS = [
    ("launcher", "parallel"),
    ("launcher", "slurm"),
    ("launcher", "slurm_local"),
    ("sweeper", "search"),
]


def states(sweep):
    return {job.folder.name: job.state for job in jobs_of(sweep)}


# ---------------------------------------------------------------- how jobs stand


def test_a_job_stands_as_its_files_say(tmp_path):
    finish(write_job(tmp_path / "0"))
    finish(write_job(tmp_path / "1"), reason="plateau")
    finish(write_job(tmp_path / "2"), reason="stopped")
    write_job(tmp_path / "3")
    assert states(tmp_path) == {
        "0": State.FINISHED,
        "1": State.FINISHED,
        "2": State.STOPPED,
        "3": State.FAILED,
    }


def test_jobs_come_in_the_order_of_their_numbers(tmp_path):
    for name in ("10", "2", "1"):
        write_job(tmp_path / name)
    assert list(states(tmp_path)) == ["1", "2", "10"]


def test_a_job_whose_folder_is_held_is_running(tmp_path):
    folder = write_job(tmp_path / "0")
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert states(tmp_path) == {"0": State.RUNNING}
    assert states(tmp_path) == {"0": State.FAILED}


def test_a_failed_job_says_why(tmp_path):
    folder = write_job(tmp_path / "0")
    assert "killed" in jobs_of(tmp_path)[0].note
    (folder / "run.log").write_text("1 INFO a: fine\n2 ERROR b: the last checkpoint is x\n3 INFO a: bye\n")
    assert jobs_of(tmp_path)[0].note == "2 ERROR b: the last checkpoint is x"
    note_error(folder, ValueError("too\nlarge"))
    assert jobs_of(tmp_path)[0].note == "ValueError: too\\nlarge"


def test_an_error_is_not_noted_where_a_run_has_finished(tmp_path):
    folder = finish(write_job(tmp_path / "0"))
    note_error(folder, ConfigError("holds a run already"))
    assert states(tmp_path) == {"0": State.FINISHED}
    assert not (folder / "error.txt").exists()


def test_a_stopped_run_that_goes_on_and_fails_has_failed_until_it_begins_again(tmp_path):
    folder = finish(write_job(tmp_path / "0"), reason="stopped")
    note_error(folder, ValueError("no"))
    assert states(tmp_path) == {"0": State.FAILED}
    forget_error(folder)
    assert states(tmp_path) == {"0": State.STOPPED}


def test_jobs_that_a_sweep_did_not_come_to_are_listed_too(tmp_path):
    write_plan(tmp_path, ["epochs=1,2", "seed=0"], {"batch_size": "8,16", "epochs": "5"})
    finish(write_job(tmp_path / "0"))
    assert list(states(tmp_path).values()) == [State.FINISHED] + 3 * [State.MISSING]
    assert jobs_of(tmp_path)[3].overrides == ("batch_size=16", "epochs=2", "seed=0")


def test_what_begins_with_a_dot_is_no_job(tmp_path):
    write_job(tmp_path / "0")
    write_job(tmp_path / ".failed" / "0-1")
    assert list(states(tmp_path)) == ["0"]


def test_a_folder_without_jobs_is_refused(tmp_path):
    with pytest.raises(NoSweep, match="holds no job of a sweep; name a folder"):
        jobs_of(tmp_path)


def test_the_objective_is_the_greedy_accuracy_at_the_end(tmp_path):
    assert objective(tmp_path) is None
    assert objective(finish(write_job(tmp_path / "0"), greedy=0.75)) == 0.75


# ---------------------------------------------------------------- once more


class Recorder:
    """Trains nothing: keeps what it was asked, and leaves a finished run behind."""

    def __init__(self):
        self.asked = []

    def __call__(self, overrides, folder):
        self.asked.append((list(overrides), folder))
        target = Path(overrides[-1].removeprefix("hydra.run.dir=").strip("'"))
        if not target.exists():
            write_job(target, [override for override in overrides if not override.startswith("hydra.")])
        finish(target)
        return 0


def save(folder):
    """A checkpoint, as far as one is looked for."""
    (folder / "checkpoints" / "step_00000001").mkdir(parents=True)
    (folder / "checkpoints" / "step_00000001" / "manifest.json").write_text("{}")


def test_only_what_did_not_finish_is_run_again(tmp_path):
    finish(write_job(tmp_path / "0", ["seed=0"]))
    write_job(tmp_path / "1", ["seed=1"])
    finish(write_job(tmp_path / "2", ["seed=2"]), reason="stopped")
    train = Recorder()
    after = list(retry(jobs_of(tmp_path), train))
    assert [overrides[0] for overrides, _ in train.asked] == ["seed=1", "seed=2"]
    assert [(job.folder.name, job.state, code) for job, code in after] == [
        ("1", State.FINISHED, 0),
        ("2", State.FINISHED, 0),
    ]


def test_a_job_goes_on_from_its_checkpoint(tmp_path):
    folder = write_job(tmp_path / "0", ["seed=0", "resume=elsewhere"])
    (folder / "metrics.jsonl").write_text("")
    save(folder)
    train = Recorder()
    list(retry(jobs_of(tmp_path), train))
    assert train.asked[0][0] == ["seed=0", f"resume='{folder}'", f"hydra.run.dir='{folder}'"]


def test_what_is_left_of_a_job_without_a_checkpoint_is_put_aside(tmp_path):
    for text in ("first", "second"):
        folder = tmp_path / "0"
        if not folder.exists():
            write_job(folder, ["seed=0"])
        (folder / "summary.json").unlink(missing_ok=True)
        (folder / "metrics.jsonl").write_text(text)
        train = Recorder()
        list(retry(jobs_of(tmp_path), train))
        assert train.asked[0][0] == ["seed=0", f"hydra.run.dir='{folder}'"]
    kept = sorted((tmp_path / ".failed").glob("*/metrics.jsonl"))
    assert [file.read_text() for file in kept] == ["first", "second"]


def test_a_job_starts_where_the_sweep_was_started(tmp_path):
    home = tmp_path / "home"
    home.mkdir()
    write_job(tmp_path / "sweep" / "0", cwd=home)
    train = Recorder()
    list(retry(jobs_of(tmp_path / "sweep"), train))
    assert train.asked[0][1] == home


def test_a_folder_is_quoted_for_hydra(tmp_path):
    write_job(tmp_path / "lr=1,it's" / "0", ["seed=0"])
    (job,) = jobs_of(tmp_path)
    override = command_line(job)[-1]
    register()
    with initialize_config_dir(str(config_folder()), version_base="1.3"):
        composed = compose("train", overrides=[override], return_hydra_config=True)
    assert composed.hydra.run.dir == str(job.folder)


def test_runs_are_processes_that_start_in_the_given_folder(tmp_path):
    script = tmp_path / "fake.py"
    script.write_text(
        "import os, sys; print(os.getcwd(), *sys.argv[1:], file=open('said', 'w')); sys.exit(3)"
    )
    assert trainer([sys.executable, str(script)])(["seed=1", "a='b c'"], tmp_path) == 3
    assert (tmp_path / "said").read_text() == f"{tmp_path} seed=1 a='b c'\n"


# ---------------------------------------------------------------- launchers and the search


def hydra_section(*overrides):
    register()
    with initialize_config_dir(str(config_folder()), version_base="1.3"):
        return compose("train", overrides=list(overrides), return_hydra_config=True).hydra


@pytest.mark.parametrize(("part", "option"), OPTIONS)
def test_every_launcher_and_sweeper_composes_without_its_plugin(part, option):
    section = hydra_section(f"hydra/{part}={option}")
    assert section[part]["_target_"].split(".")[1] in EXTRAS


def test_the_options_are_all_that_there_are():
    files = (config_folder() / "hydra").glob("*er/*.yaml")
    assert sorted((file.parent.name, file.stem) for file in files) == sorted(OPTIONS)


@pytest.mark.parametrize(("part", "option"), OPTIONS)
def test_a_plugin_that_is_missing_is_named_with_its_extra(part, option):
    section = hydra_section(f"hydra/{part}={option}")
    extra = EXTRAS[section[part]["_target_"].split(".")[1]]
    with pytest.raises(ConfigError, match=rf"hydra/{part} is {option}, .* install the extra {extra}: pip"):
        refuse_missing_plugin(section, installed={}.__contains__)
    refuse_missing_plugin(section, installed=EXTRAS.__contains__)


def test_hydras_own_launcher_needs_no_extra():
    refuse_missing_plugin(hydra_section(), installed={}.__contains__)


def test_runs_side_by_side_get_one_thread_each():
    assert hydra_section("hydra/launcher=parallel").job.env_set == {"OMP_NUM_THREADS": "1"}


# A run without a model: better, the nearer the learning rate is to 1e-3. Seed 13 fails, seed 99 is stopped.
PROGRAM = """
import json, math, os
from expert_iteration.config import ConfigError
from expert_iteration.launch import command

def work(config, run_dir):
    if config.seed == 13:
        raise ConfigError("seed (13) is unlucky; choose another.")
    greedy = max(0.0, 1 - abs(math.log10(config.optimizer.learning_rate) + 3) / 3)
    end = {"eval/greedy": greedy, "eval/pass@1": greedy, "eval/n": 100}
    row = {"iteration": 1, "step": 1, "seconds": 1, **end}
    (run_dir / "metrics.jsonl").write_text(json.dumps(row) + "\\n")
    reason = "stopped" if config.seed == 99 else "finished"
    facts = {"threads": os.environ.get("OMP_NUM_THREADS"), "process": os.getpid()}
    (run_dir / "summary.json").write_text(json.dumps({"exit_reason": reason, "end": end, **facts}))
    return reason

if __name__ == "__main__":
    command(work)
"""


def sweep(folder, *overrides):
    program = folder / "program.py"
    program.write_text(PROGRAM)
    env = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    env["PYTHONPATH"] = os.pathsep.join([str(ROOT), *filter(None, [env.get("PYTHONPATH")])])
    command = [sys.executable, str(program), "-m", "hydra.sweep.dir=sweep", *overrides]
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=300)


def test_a_sweep_goes_on_after_a_failed_job_and_writes_its_report(tmp_path):
    done = sweep(tmp_path, "seed=13,0")
    assert done.returncode == 2
    assert "error: seed (13) is unlucky" in done.stderr
    failed, finished = jobs_of(tmp_path / "sweep")
    assert (failed.state, failed.note) == (
        State.FAILED,
        "ConfigError: seed (13) is unlucky; choose another.",
    )
    assert finished.state is State.FINISHED
    assert failed.note in (tmp_path / "sweep" / "report.html").read_text()


def test_a_signal_ends_the_whole_sweep(tmp_path):
    done = sweep(tmp_path, "seed=99,0")
    assert done.returncode == 0
    assert list(states(tmp_path / "sweep").values()) == [State.STOPPED, State.MISSING]


def test_a_sweep_that_cannot_be_composed_is_a_users_error_without_a_report(tmp_path):
    done = sweep(tmp_path, "nosuchkey=1,2")
    assert done.returncode == 2
    assert not (tmp_path / "sweep" / "report.html").exists()


def needs(plugin):
    return pytest.mark.skipif(not is_installed(plugin), reason=f"{plugin} is not installed")


@needs("hydra_joblib_launcher")
def test_joblib_runs_jobs_in_processes_of_their_own(tmp_path):
    done = sweep(tmp_path, "hydra/launcher=parallel", "seed=0,1,13", "algorithm=rest_em")
    assert done.returncode == 1
    assert list(states(tmp_path / "sweep").values()) == [State.FINISHED, State.FINISHED, State.FAILED]
    assert json.loads((tmp_path / "sweep" / "0" / "summary.json").read_text())["threads"] == "1"


@needs("hydra_submitit_launcher")
def test_submitit_runs_jobs_in_processes_of_their_own(tmp_path):
    done = sweep(tmp_path, "hydra/launcher=slurm_local", "seed=0,1")
    assert done.returncode == 0, done.stderr
    files = [tmp_path / "sweep" / job / "summary.json" for job in ("0", "1")]
    assert len({json.loads(file.read_text())["process"] for file in files}) == 2


@pytest.mark.long
@needs("hydra_optuna_sweeper")
def test_the_search_finds_the_better_learning_rate_and_survives_failures(tmp_path):
    rates = "optimizer.learning_rate=tag(log,interval(1e-6,1e-1))"
    done = sweep(tmp_path, "hydra/sweeper=search", "hydra.sweeper.n_trials=10", rates, "seed=0,13")
    assert done.returncode == 0, done.stderr
    found = yaml.safe_load((tmp_path / "sweep" / "optimization_results.yaml").read_text())
    best = max(
        (json.loads(file.read_text())["end"]["eval/greedy"], str(file))
        for file in (tmp_path / "sweep").glob("*/summary.json")
    )
    assert found["best_value"] == best[0]
    assert State.FAILED in states(tmp_path / "sweep").values()


# ---------------------------------------------------------------- the script


def script(*arguments):
    command = [sys.executable, str(ROOT / "scripts" / "sweep.py"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def test_the_script_lists_jobs_by_what_tells_them_apart(tmp_path):
    finish(write_job(tmp_path / "0", ["seed=0", "epochs=3"]))
    note_error(write_job(tmp_path / "1", ["seed=1", "epochs=3"]), ValueError("no"))
    done = script("--list", tmp_path)
    assert done.returncode == 0, done.stderr
    assert "seed=1" in done.stdout
    assert "epochs=3" not in done.stdout
    assert "ValueError: no" in done.stdout
    assert "1 finished, 1 failed" in done.stdout


def test_the_script_refuses_a_folder_without_jobs(tmp_path):
    done = script("--list", tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")


def test_the_script_has_nothing_to_do_where_all_is_finished(tmp_path):
    finish(write_job(tmp_path / "0"))
    before = (tmp_path / "0" / "summary.json").stat().st_mtime_ns
    done = script("--retry-failed", tmp_path)
    assert done.returncode == 0, done.stderr
    assert "0 of 1 runs are left" in done.stdout
    assert (tmp_path / "0" / "summary.json").stat().st_mtime_ns == before


def test_the_configuration_of_a_job_can_be_read_without_hydra(tmp_path):
    """OmegaConf writes what a plain reader of YAML reads alike."""
    values = {"rate": 1e-05, "none": None, "on": True, "text": "1e-4", "list": [1, "x"]}
    OmegaConf.save(OmegaConf.create(values), tmp_path / "a.yaml")
    read = yaml.safe_load((tmp_path / "a.yaml").read_text())
    assert {**read, "text": str(read["text"])} == values
