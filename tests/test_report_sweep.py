"""The report of a sweep: what varies, what is best, how sure that is, and a page that says so."""

import shlex
from statistics import fmean

import pytest

from expert_iteration.reporting.statistics import wilson
from expert_iteration.reports.sweep import write_sweep_report
from expert_iteration.reports.sweep_axes import Axis, Scale, axes_of, followers
from expert_iteration.reports.sweep_curves import mean_of, smooth
from expert_iteration.reports.sweep_look import shown
from expert_iteration.reports.sweep_ranking import Estimate, command, estimate, ranked, rivals, t_95
from expert_iteration.reports.sweep_runs import SweepRun
from expert_iteration.sweeps.jobs import NoSweep, jobs_of, note_error
from tests.sweep_folders import finish, write_job


def runs_of(sweep):
    return [SweepRun(job) for job in jobs_of(sweep)]


def grid(sweep, values, greedy=None):
    """A finished run for each of `values`, dicts of key to value, which are also its overrides."""
    for number, settings in enumerate(values):
        overrides = [f"{key}={shown(value)}" for key, value in settings.items()]
        finish(write_job(sweep / str(number), overrides, settings), greedy(**settings) if greedy else 0.5)
    return runs_of(sweep)


def keys(axes):
    return [axis.key for axis in axes]


# ---------------------------------------------------------------- what varies


def test_seeds_are_repeats_and_no_axis(tmp_path):
    runs = grid(tmp_path, [{"seed": seed, "epochs": epochs} for epochs in (1, 2) for seed in (0, 1)])
    axes = axes_of(runs)
    assert axes == [Axis("epochs", (1, 2))]
    assert [len(group.runs) for group in ranked(runs, axes)] == [2, 2]


def test_a_grid_has_two_axes_with_values_in_order(tmp_path):
    runs = grid(tmp_path, [{"d": d, "r": r} for d in (128, 64) for r in (2, 4)])
    assert axes_of(runs) == [Axis("d", (64, 128)), Axis("r", (2, 4))]


def test_a_key_that_no_override_names_is_found_in_the_configuration(tmp_path):
    for number, epochs in enumerate((1, 2)):
        finish(write_job(tmp_path / str(number), ["seed=0"], {"epochs": epochs, "batch_size": 8}))
    assert keys(axes_of(runs_of(tmp_path))) == ["epochs"]


def test_what_a_chosen_group_sets_follows_its_name(tmp_path):
    methods = {"sft": (3, 1), "grpo": (1, 4), "star": (1, 4)}
    for number, (name, (epochs, rollouts)) in enumerate(methods.items()):
        config = {"algorithm.name": name, "epochs": epochs, "rollouts_per_prompt": rollouts}
        overrides = [f"algorithm={name}", f"epochs={epochs}"]
        finish(write_job(tmp_path / str(number), overrides, config, {"algorithm": name}))
    runs = runs_of(tmp_path)
    assert keys(axes_of(runs)) == ["algorithm.name"]
    assert set(followers(runs, axes_of(runs))) == {"algorithm", "epochs", "rollouts_per_prompt"}


def test_a_group_without_a_name_is_named_by_its_choice(tmp_path):
    for number, (choice, top_k) in enumerate({"single_trace": 1, "multi_trace": None}.items()):
        config, choices = {"selection.top_k": top_k}, {"selection": choice, "hydra/launcher": str(number)}
        finish(write_job(tmp_path / str(number), [f"selection={choice}"], config, choices))
    assert axes_of(runs_of(tmp_path)) == [Axis("selection", ("single_trace", "multi_trace"))]


def test_numbers_that_never_repeat_do_not_hide_other_keys(tmp_path):
    values = [{"lr": 1e-4 * 1.3**n, "epochs": n % 3} for n in range(6)]
    assert set(keys(axes_of(grid(tmp_path, values)))) == {"lr", "epochs"}


def test_a_reference_to_another_key_follows_it(tmp_path):
    for number, rate in enumerate((0.1, 0.2)):
        config = {"model.learning_rate": rate, "optimizer.learning_rate": "${model.learning_rate}"}
        finish(write_job(tmp_path / str(number), [f"model.learning_rate={rate}"], config))
    runs = runs_of(tmp_path)
    assert keys(axes_of(runs)) == ["model.learning_rate"]
    assert runs[1].settings["optimizer.learning_rate"].value == 0.2


def test_places_and_names_are_no_settings(tmp_path):
    values = [{"epochs": n, "logger.name": f"run{n}", "values.path": f"{n}.json"} for n in (1, 2)]
    assert keys(axes_of(grid(tmp_path, values))) == ["epochs"]


@pytest.mark.parametrize(
    ("values", "scale"),
    [
        ((64, 128, 256), Scale.LOG),
        ((1e-4, 2e-4, 5e-4, 1e-3), Scale.LOG),
        ((1, 2, 4), Scale.LOG),
        ((1, 2, 3, 4), Scale.LINEAR),
        ((0.7, 1.0), Scale.LINEAR),
        ((0, 0.01, 0.1, 1), Scale.ORDINAL),
        ((1, 2, 4, None), Scale.ORDINAL),
        (("raft", "sft"), Scale.ORDINAL),
        ((False, True), Scale.ORDINAL),
    ],
)
def test_values_in_a_geometric_row_get_a_logarithmic_scale(values, scale):
    axis = Axis("key", values)
    assert axis.scale is scale
    assert [axis.height(value) for value in (values[0], values[-1])] == [0.0, 1.0]


# ---------------------------------------------------------------- what is best


def test_settings_are_ranked_by_the_mean_of_their_seeds(tmp_path):
    accuracy = {(1, 0): 0.9, (1, 1): 0.1, (2, 0): 0.6, (2, 1): 0.7}
    values = [{"epochs": epochs, "seed": seed} for epochs, seed in accuracy]
    runs = grid(tmp_path, values, lambda epochs, seed: accuracy[epochs, seed])
    first, second = ranked(runs, axes_of(runs))
    assert (first.values, second.values) == ((2,), (1,))
    assert [group.estimate("eval/greedy") for group in (first, second)] == [
        estimate([0.6, 0.7], 100),
        estimate([0.9, 0.1], 100),
    ]


def test_several_runs_have_students_interval():
    found = estimate([0.5, 0.6, 0.7], questions=100)
    assert found is not None
    assert found.mean == pytest.approx(0.6)
    assert found.high - found.mean == pytest.approx(4.303 * 0.1 / 3**0.5)
    assert estimate([0.1, 0.9], 100) == Estimate(0.5, 0.0, 1.0)
    assert estimate([], 100) is None


def test_one_run_has_wilsons_interval():
    assert estimate([0.5], questions=100) == Estimate(0.5, *wilson(0.5, 100))


@pytest.mark.parametrize(("freedom", "quantile"), [(1, 12.706), (10, 2.228), (11, 2.201), (30, 2.042)])
def test_the_quantiles_are_those_of_the_printed_tables(freedom, quantile):
    assert t_95(freedom) == pytest.approx(quantile, abs=0.003)


def test_settings_whose_intervals_meet_the_best_one_are_named(tmp_path):
    accuracy = {1: 0.9, 2: 0.88, 3: 0.2}
    runs = grid(tmp_path, [{"epochs": epochs} for epochs in accuracy], lambda epochs: accuracy[epochs])
    assert [group.values for group in rivals(ranked(runs, axes_of(runs)))] == [(2,)]


def test_the_best_setting_becomes_a_command_for_a_shell(tmp_path):
    overrides = ["task.prompt.prefix='a (b)'", "seed=3", "resume=x", "epochs=2"]
    finish(write_job(tmp_path / "0", overrides, {"epochs": 2}))
    (group,) = ranked(runs_of(tmp_path), [])
    assert shlex.split(command(group)) == ["python", "scripts/train.py", overrides[0], "epochs=2"]


def test_a_mean_curve_ends_where_the_first_run_does():
    assert mean_of([{0: 1.0, 1: 3.0, 2: 9.0}, {0: 2.0, 1: 5.0}]) == {0: 1.5, 1: 4.0}


def test_smoothing_keeps_a_straight_line_and_few_values():
    line = [float(value) for value in range(20)]
    assert smooth(line) == [0.5, *line[1:-1], 18.5]
    assert smooth([1.0, 5.0]) == [1.0, 5.0]


# ---------------------------------------------------------------- the page


def names(written):
    return {file.name for file in written}


def test_two_keys_become_a_heat_map(tmp_path):
    grid(tmp_path, [{"d": d, "r": r} for d in (64, 128) for r in (2, 4)], lambda d, r: d * r / 1024)
    written = write_sweep_report(tmp_path)
    assert names(written) == {
        *("report.html", "heat_map.png", "final_d.png", "final_r.png", "curves_d.png", "curves_r.png")
    }
    assert all(file.stat().st_size > 1000 for file in written)


def test_a_grid_with_a_hole_still_becomes_a_heat_map(tmp_path):
    grid(tmp_path, [{"d": 1, "r": 1}, {"d": 1, "r": 2}, {"d": 2, "r": 1}])
    assert "heat_map.png" in names(write_sweep_report(tmp_path))


def test_a_search_that_leaves_most_of_the_map_empty_becomes_parallel_axes(tmp_path):
    grid(tmp_path, [{"lr": 1e-4 * 1.3**n, "r": n % 3} for n in range(9)])
    written = names(write_sweep_report(tmp_path))
    assert "parallel.png" in written
    assert "heat_map.png" not in written


def test_more_keys_become_parallel_axes(tmp_path):
    grid(tmp_path, [{"a": n % 2, "b": n // 2 % 2, "c": ("x", "y")[n // 4]} for n in range(8)])
    written = names(write_sweep_report(tmp_path))
    assert "parallel.png" in written
    assert "heat_map.png" not in written


def test_seeds_alone_become_one_setting_with_its_curves(tmp_path):
    grid(tmp_path, [{"seed": seed} for seed in range(3)], lambda seed: 0.5 + seed / 10)
    assert names(write_sweep_report(tmp_path)) == {"report.html", "curves_all.png"}
    assert "60.0% [35.2, 84.8]" in (tmp_path / "report.html").read_text()


def test_many_values_of_one_key_are_drawn(tmp_path):
    grid(tmp_path, [{"lr": 1e-4 * 1.2**n} for n in range(20)])
    assert "curves_lr.png" in names(write_sweep_report(tmp_path))


def test_the_page_loads_nothing_and_shows_foreign_text_as_text(tmp_path):
    grid(tmp_path, [{"epochs": 1, "task.path": "<script>alert(1)</script>"}, {"epochs": 2, "task.path": "b"}])
    note_error(write_job(tmp_path / "9", ["x=<b>"]), ValueError("<img src=http://x>"))
    write_sweep_report(tmp_path)
    page = (tmp_path / "report.html").read_text()
    assert "<script>alert" not in page
    assert "<img src=http" not in page
    assert "&lt;img src=http://x&gt;" in page
    assert 'src="data:image/png;base64,' in page


def test_runs_that_did_not_finish_are_listed_and_left_out_of_the_ranking(tmp_path):
    grid(tmp_path, [{"epochs": 1}, {"epochs": 2}])
    note_error(write_job(tmp_path / "2", ["epochs=3"], {"epochs": 3}), ValueError("no memory"))
    finish(write_job(tmp_path / "3", ["epochs=4"], {"epochs": 4}), greedy=1.0, reason="stopped")
    write_sweep_report(tmp_path)
    page = (tmp_path / "report.html").read_text()
    assert "4 runs: 2 finished, 1 stopped, 1 failed" in page
    assert "ValueError: no memory" in page
    assert f"--retry-failed {tmp_path}" in page
    assert "100.0%" not in page


def test_a_sweep_of_failures_has_a_page_without_a_winner(tmp_path):
    write_job(tmp_path / "0", ["epochs=1"], {"epochs": 1})
    assert names(write_sweep_report(tmp_path)) == {"report.html"}
    assert "The best setting" not in (tmp_path / "report.html").read_text()


def test_a_report_written_again_leaves_no_old_picture(tmp_path):
    grid(tmp_path / "a", [{"d": 1, "r": 1}])
    (tmp_path / "a" / "report").mkdir()
    (tmp_path / "a" / "report" / "old.png").write_text("")
    write_sweep_report(tmp_path / "a")
    assert not (tmp_path / "a" / "report" / "old.png").exists()


def test_runs_without_an_evaluation_are_ranked_last(tmp_path):
    finish(write_job(tmp_path / "0", ["epochs=1"], {"epochs": 1}))
    bare = write_job(tmp_path / "1", ["epochs=2"], {"epochs": 2})
    (bare / "summary.json").write_text('{"exit_reason": "finished"}')
    runs = runs_of(tmp_path)
    assert [group.values for group in ranked(runs, axes_of(runs))] == [(1,), (2,)]
    assert "curves_epochs.png" in names(write_sweep_report(tmp_path))


def test_a_folder_without_runs_has_no_report(tmp_path):
    with pytest.raises(NoSweep):
        write_sweep_report(tmp_path)


def test_final_and_curve_come_from_the_files_of_the_run(tmp_path):
    (run,) = grid(tmp_path, [{"epochs": 1}])
    assert run.final("eval/greedy") == 0.5
    assert run.by_iteration("eval/greedy") == {0: 0.1, 1: 0.5}
    assert fmean(run.by_step("train/entropy").values()) == pytest.approx(0.15)
