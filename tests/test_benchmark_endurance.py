"""What grows is told from what does not, and every process has its role."""

import json
import mmap
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from scripts.benchmark.endurance import (
    Watch,
    events_of,
    highest,
    line_through,
    role_of,
    table,
    times_of,
    trend_of,
    unused,
)
from tests.runs import wait_until


@pytest.mark.parametrize(
    ("command", "role"),
    [
        (["ray::CollectorActor.collect"], "CollectorActor"),
        (["ray::IDLE"], "IDLE"),
        (["VLLM::EngineCore"], "EngineCore"),
        (["/usr/bin/python3", "/work/scripts/train.py", "seed=1"], "scripts/train.py"),
        (["python", "-u", "/ray/_private/log_monitor.py", "--x=y.py"], "_private/log_monitor.py"),
        (["/ray/core/raylet", "--worker=python default_worker.py"], "raylet"),
        (["python", "-c", "from multiprocessing.resource_tracker import main;main(7)"], "resource_tracker"),
        (["python3.11"], "python3.11"),
        ([], "unknown"),
    ],
)
def test_a_process_has_the_role_that_its_command_line_tells(command: list[str], role: str) -> None:
    assert role_of(command) == role


def test_a_line_has_the_slope_of_its_points_and_their_scatter() -> None:
    assert line_through([(1, 5.0), (2, 7.0), (3, 9.0)]) == pytest.approx((2.0, 0.0))
    # residuals -1/6, 1/3, -1/6 with one degree of freedom, over a spread of 2
    assert line_through([(0, 0.0), (1, 1.0), (2, 1.0)]) == pytest.approx((0.5, (1 / 6 / 2) ** 0.5))


def test_only_the_second_half_decides_on_growth() -> None:
    levelled = [(i, float(min(i, 50))) for i in range(1, 101)]
    trend = trend_of(levelled)
    assert trend is not None
    assert (trend.start, trend.end, trend.mean, trend.slope) == (1, 50, 50, 0)
    growing = trend_of([(i, float(i)) for i in range(1, 101)])
    assert growing is not None and growing.slope == pytest.approx(100)
    assert trend_of([(1, 3.0), (99, 4.0), (100, 5.0)]) is None
    assert trend_of([]) is None


@pytest.mark.parametrize(
    ("base", "per_iteration", "noise", "rises"),
    [
        (100, 0.06, 0.0, True),
        (100, 0.04, 0.0, False),  # 4 MiB per 100: below the floor
        (1000, 0.15, 0.0, False),  # 1.5% of the mean
        (1000, 0.25, 0.0, True),
        (1000, 0.25, 300.0, False),  # lost in noise
        (1000, -0.5, 0.0, False),
    ],
)
def test_memory_rises_beyond_share_floor_and_noise(
    base: float, per_iteration: float, noise: float, rises: bool
) -> None:
    points = [(float(i), base + per_iteration * i + noise * (-1) ** i) for i in range(1, 101)]
    text, rising = table({("Actor", "PSS, MiB"): points}, "iterations")
    assert rising == (["Actor: PSS, MiB"] if rises else [])
    assert ("not flat" in text) == rises


def test_one_descriptor_in_a_hundred_iterations_is_no_leak_and_two_are() -> None:
    def slow(step: int) -> list[tuple[float, float]]:
        return [(i, 30 + i / step) for i in range(1, 201)]

    found = {("A", "descriptors"): slow(50), ("B", "descriptors"): slow(101), ("A", "seconds"): slow(101)}
    assert table(found, "iterations")[1] == ["A: descriptors", "A: seconds"]


def test_a_series_has_the_highest_value_of_each_count_without_start_and_end() -> None:
    looks = [(0, 900.0), (1, 10.0), (1, 30.0), (1, 20.0), (2, 25.0), (3, 999.0)]
    samples = [(done, {"Actor": {"threads": value}}) for done, value in looks]
    assert highest(samples, total=3) == {("Actor", "threads"): [(1, 30.0), (2, 25.0)]}


def test_times_are_those_of_each_iteration_and_of_its_steps() -> None:
    events = [
        {"iteration": 0, "step": 0, "seconds": 10.0, "time/start": 10.0},
        {"iteration": 1, "step": 3, "seconds": 14.0, "time/collect": 1.0},
        {"iteration": 1, "step": 4, "seconds": 15.0, "time/learn": 2.0},
        {"iteration": 2, "step": 4, "seconds": 16.0},
    ]
    assert times_of(events) == {
        ("iteration", "seconds"): [(1, 5.0), (2, 1.0)],
        ("optimizer step", "seconds"): [(1, 0.5)],
    }


def test_a_line_that_is_half_written_is_not_read(tmp_path: Path) -> None:
    assert events_of(tmp_path) == []
    (tmp_path / "metrics.jsonl").write_text(json.dumps({"iteration": 1}) + '\n{"iter')
    assert events_of(tmp_path) == [{"iteration": 1}]


def test_a_look_sums_over_the_tree_and_sees_who_outlives_it() -> None:
    body = "import subprocess; subprocess.Popen(['sh', '-c', 'sleep 60; :']); input()"
    with subprocess.Popen([sys.executable, "-c", body], stdin=subprocess.PIPE, text=True) as root:
        assert root.stdin is not None
        watch = Watch(psutil.Process(root.pid))
        assert wait_until(lambda: "sleep" in watch.look(), seconds=10)
        seen = watch.look()
        assert seen["sh"]["processes"] == 1 and seen["sleep"]["PSS, MiB"] > 0
        root.stdin.write("\n")
        root.stdin.flush()
        root.wait(timeout=10)
    survivors = sorted(watch.survivors(limit=0.1), key=lambda survivor: survivor.endswith("(sleep)"))
    for survivor in survivors:
        psutil.Process(int(survivor.split()[1])).kill()
    assert [survivor.split()[2] for survivor in survivors] == ["(sh)", "(sleep)"]


def test_a_file_that_a_process_has_mapped_is_not_left_behind(tmp_path: Path) -> None:
    used, left = tmp_path / "used", tmp_path / "left"
    for file in (used, left):
        file.write_bytes(b"0")
    with used.open("r+b") as opened, mmap.mmap(opened.fileno(), 1):
        assert unused([used, left]) == [str(left)]
    assert unused([used, left]) == [str(left), str(used)]
