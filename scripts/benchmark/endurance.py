"""Does a long run grow? Memory, descriptors, threads, /dev/shm and time, and the slope of each.

    python scripts/benchmark/endurance.py --output outputs/endurance [--iterations 200] [overrides ...]
    python scripts/benchmark/endurance.py --output outputs/jobs --multirun 100 [overrides ...]

The first command trains for many tiny iterations, by Ray unless an override says `placement=local`; the
second does tiny local runs one after the other, as a Hydra multirun does them: in one process. Every few
seconds the processes of the run are looked at, and their numbers summed by role: an actor's class, a script,
or a program. PSS, unlike RSS, divides a shared page among those that share it. Times are those of the run's
own log; /dev/shm is the whole machine's. All samples go to samples.jsonl in the folder, the table to standard
output and endurance.md.

A series is the highest value seen at each count of done iterations (or jobs), without start-up and the end.
Its slope is a least-squares fit over the second half, per 100 of them. It is not flat if it exceeds 2% of the
mean of that half, twice its standard error, and a floor: 5 MiB of memory, or one descriptor, thread, process
or entry. Falling is flat.

In the end, no process of the run may be left for more than 10 seconds, nor anything in its temporary folder,
where Ray has its own, nor anything new in /dev/shm but for what other processes use. The exit code is 1 if
anything is left or not flat.
"""

import argparse
import json
import math
import os
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise
from operator import itemgetter
from pathlib import Path
from statistics import fmean
from typing import Any, TextIO, TypeAlias

import psutil

ROOT = Path(__file__).parents[2]
SHARED_MEMORY = Path("/dev/shm")
SHARED = (
    "prompts_per_iteration=8 rollouts_per_prompt=4 epochs=1 batch_size=8 eval.limit=8 "
    "placement.infer.kv_cache_mib=16"
)
"""The engine takes one page of its cache after the other: a small one is soon touched as a whole."""
LONG = "eval.every=10 checkpoint.every=5"
JOB = "placement=local iterations=1"
LEAVE_LIMIT = 10.0
"""Seconds that processes have to end after the run, and to take back what they shared."""
CACHES = "torchinductor_*"
"""Compiled kernels in the temporary folder, which are to outlive a run."""

SHARE = 0.02
"""Of the mean, per 100 iterations."""
FLOORS = {"RSS, MiB": 5.0, "PSS, MiB": 5.0, "MiB": 5.0, "seconds": 0.0}
COUNTED_FLOOR = 1.0
"""Of all other measures."""

TITLE = re.compile(r"(?:ray|VLLM)::(\w+)")
"""Title that a process gives itself: class of the actor, then the method it runs."""
IMPORTED = re.compile(r"from multiprocessing\.(\w+) import")

Points: TypeAlias = list[tuple[float, float]]
"""(iterations or jobs done, value), in this order."""
Series: TypeAlias = dict[tuple[str, str], Points]
"""By role and measure."""
Roles: TypeAlias = Mapping[str, Mapping[str, float]]
"""Role -> measure -> value: what one look found."""


@dataclass(frozen=True)
class Trend:
    """A line through the second half of a series."""

    start: float
    """First value of the series."""
    end: float
    """Last one."""
    mean: float
    """Of the second half, as all below."""
    slope: float
    """Per 100 iterations."""
    error: float
    """Standard error of the slope."""

    def flat(self, floor: float) -> bool:
        return self.slope <= max(SHARE * self.mean, 2 * self.error, floor)


@dataclass(frozen=True)
class Work:
    """A run or a multirun that is to be watched."""

    folder: Path
    command: tuple[str, ...]
    unit: str
    """What its progress counts."""
    total: int
    """How much of it there is."""

    def done(self) -> int:
        if self.unit == "jobs":
            return len(list(self.folder.glob("*/summary.json")))
        return max((event["iteration"] for event in events_of(self.folder)), default=0)

    def times(self) -> Series:
        """Seconds of each iteration and of its steps, or of each job."""
        if self.unit == "iterations":
            return times_of(events_of(self.folder))
        summaries = sorted(self.folder.glob("*/summary.json"), key=lambda file: int(file.parent.name))
        seconds = [json.loads(file.read_text(encoding="utf-8"))["seconds"] for file in summaries]
        return {("job", "seconds"): list(enumerate(seconds, start=1))}


def work_of(options: argparse.Namespace, overrides: Sequence[str]) -> Work:
    folder = options.output / "run"
    script, shared = (sys.executable, str(ROOT / "scripts" / "train.py")), SHARED.split()
    if options.multirun is None:
        own = (*LONG.split(), f"iterations={options.iterations}", f"hydra.run.dir={folder}")
        return Work(folder, (*script, *shared, *own, *overrides), "iterations", options.iterations)
    jobs = (*JOB.split(), f"seed=range(0,{options.multirun})", f"hydra.sweep.dir={folder}")
    return Work(folder, (*script, "--multirun", *shared, *jobs, *overrides), "jobs", options.multirun)


def role_of(command: Sequence[str]) -> str:
    """What a process is for, by its command line: `CollectorActor`, `scripts/train.py`, `raylet`."""
    program = Path(command[0]).name if command else "unknown"
    if match := TITLE.match(program):
        return match[1]
    if not program.startswith("python"):
        return program
    if match := IMPORTED.search(" ".join(command)):
        return match[1]
    files = [Path(argument) for argument in command[1:] if argument.endswith(".py")]
    return "/".join(files[0].parts[-2:]) if files else program


def trend_of(points: Points) -> Trend | None:
    """None if the second half has fewer than three points."""
    half = [point for point in points if point[0] >= points[-1][0] / 2]
    if len(half) < 3:
        return None
    slope, error = line_through(half)
    mean = fmean(value for _, value in half)
    return Trend(points[0][1], points[-1][1], mean, 100 * slope, 100 * error)


def line_through(points: Points) -> tuple[float, float]:
    """Slope of the least-squares line, and its standard error."""
    middle, mean = (fmean(column) for column in zip(*points, strict=True))
    spread = sum((x - middle) ** 2 for x, _ in points)
    slope = sum((x - middle) * (y - mean) for x, y in points) / spread
    rest = sum((y - mean - slope * (x - middle)) ** 2 for x, y in points)
    return slope, math.sqrt(rest / (len(points) - 2) / spread)


def times_of(events: Iterable[Mapping[str, Any]]) -> Series:
    """Seconds of each iteration, and of the optimizer steps in it, by the events of metrics.jsonl."""
    found: Series = {("iteration", "seconds"): [], ("optimizer step", "seconds"): []}
    place_of = itemgetter("iteration")
    by_iteration = [list(group) for _, group in groupby(sorted(events, key=place_of), key=place_of)]
    for before, now in pairwise(by_iteration):
        place, last = place_of(now[0]), before[-1]
        found["iteration", "seconds"].append((place, now[-1]["seconds"] - last["seconds"]))
        if steps := now[-1]["step"] - last["step"]:
            learning = sum(event.get("time/learn", 0.0) for event in now)
            found["optimizer step", "seconds"].append((place, learning / steps))
    return found


def events_of(folder: Path) -> list[dict[str, Any]]:
    """Whole lines of the run's log; the last one may be half written."""
    file = folder / "metrics.jsonl"
    lines = file.read_text(encoding="utf-8").splitlines(keepends=True) if file.is_file() else []
    return [json.loads(line) for line in lines if line.endswith("\n")]


class Watch:
    """Looks at the processes of a run and remembers them, in case that they outlive it."""

    def __init__(self, root: psutil.Process) -> None:
        self._root = root
        self._seen: set[psutil.Process] = set()

    def look(self) -> Roles:
        """Sums over the processes of each role; `/dev/shm` is a role, too."""
        self._meet()
        found = {str(SHARED_MEMORY): shared_memory()}
        for process in self._seen:
            try:
                with process.oneshot():
                    found.setdefault(role_of(process.cmdline()), Counter()).update(measured(process))
            except (psutil.NoSuchProcess, psutil.AccessDenied):
                continue  # it has just ended
        return found

    def survivors(self, limit: float = LEAVE_LIMIT) -> list[str]:
        """Those that do not end in so many seconds."""
        _, alive = psutil.wait_procs([one for one in self._seen if running(one)], timeout=limit)
        return [name for process in alive if (name := running(process))]

    def _meet(self) -> None:
        self._seen = {process for process in self._seen if process.is_running()}
        try:
            self._seen |= {self._root, *self._root.children(recursive=True)}
        except psutil.NoSuchProcess:
            return  # it has just ended


def running(process: psutil.Process) -> str | None:
    """Its number and role; None: it has ended, even if its parent has not taken note of that."""
    try:
        if process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
            return f"process {process.pid} ({role_of(process.cmdline())})"
    except psutil.NoSuchProcess:
        pass
    return None


def measured(process: psutil.Process) -> dict[str, float]:
    memory = process.memory_full_info()
    return {
        "RSS, MiB": memory.rss / 2**20,
        "PSS, MiB": memory.pss / 2**20,
        "descriptors": process.num_fds(),
        "threads": process.num_threads(),
        "processes": 1,
    }


def shared_memory() -> Counter[str]:
    used = psutil.disk_usage(str(SHARED_MEMORY)).used
    return Counter({"MiB": used / 2**20, "entries": len(list(SHARED_MEMORY.iterdir()))})


def highest(samples: Sequence[tuple[int, Roles]], total: int) -> Series:
    """The highest value at each count of what is done, while some of `total` is done and some is not."""
    found: dict[tuple[str, str], dict[float, float]] = {}
    for done, roles in samples:
        for role, measure, value in flattened(roles if 0 < done < total else {}):
            best = found.setdefault((role, measure), {})
            best[done] = max(value, best.get(done, value))
    return {name: list(best.items()) for name, best in found.items()}


def flattened(roles: Roles) -> Iterator[tuple[str, str, float]]:
    return ((role, measure, value) for role, values in roles.items() for measure, value in values.items())


def left_in_shared_memory(before: set[Path]) -> list[str]:
    """What is new in /dev/shm, is used by nobody, and does not go away in time."""
    deadline = time.monotonic() + LEAVE_LIMIT
    while (left := unused(set(SHARED_MEMORY.iterdir()) - before)) and time.monotonic() < deadline:
        time.sleep(1.0)
    return left


def unused(files: Iterable[Path]) -> list[str]:
    """Those of `files` that no process has mapped."""
    mapped = "".join(map(maps_of, Path("/proc").glob("[0-9]*")))
    return sorted(str(file) for file in files if str(file) not in mapped)


def maps_of(process: Path) -> str:
    """Of a process, by its folder in /proc."""
    try:
        return (process / "maps").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""  # it has just ended


def watched(work: Work, every: float, output: Path) -> tuple[Series, list[str]]:
    """Do `work`; the series of what was seen, and what it left behind.

    Raises:
        SystemExit: it failed.
    """
    before = set(SHARED_MEMORY.iterdir())
    with tempfile.TemporaryDirectory(prefix="ei-") as temporary:
        with (output / "output.log").open("wb") as log:
            environment = os.environ | {"TMPDIR": temporary}
            process = subprocess.Popen(work.command, cwd=ROOT, env=environment, stdout=log, stderr=log)
        watch = Watch(psutil.Process(process.pid))
        with process, (output / "samples.jsonl").open("w") as file:
            seen = list(samples_of(process, work, watch, every, file))
        left = watch.survivors()
        left += sorted(str(path) for path in Path(temporary).iterdir() if not path.match(CACHES))
    left += left_in_shared_memory(before)
    if process.returncode:
        raise SystemExit(f"the run failed ({process.returncode}); {output / 'output.log'} says why.")
    return highest(seen, work.total) | work.times(), left


def samples_of(
    process: subprocess.Popen[bytes], work: Work, watch: Watch, every: float, file: TextIO
) -> Iterator[tuple[int, Roles]]:
    """What is done, and what a look finds, until `process` ends; each is written to `file`, too."""
    begun = time.monotonic()
    while process.poll() is None:
        done, roles = work.done(), watch.look()
        sample = {"seconds": round(time.monotonic() - begun, 3), "done": done, **roles}
        file.write(json.dumps(sample) + "\n")
        yield done, roles
        time.sleep(every)


def table(series: Series, unit: str) -> tuple[str, list[str]]:
    """In Markdown, and the names of those that are not flat."""
    lines = [f"| role | measure | start | end | slope per 100 {unit} | |", "|---|---|---|---|---|---|"]
    rising = []
    for (role, measure), points in series.items():
        if (trend := trend_of(points)) is None:
            continue
        flat = trend.flat(FLOORS.get(measure, COUNTED_FLOOR))
        values = f"{trend.start:,.4g} | {trend.end:,.4g} | {trend.slope:+,.3g} ± {trend.error:,.2g}"
        lines.append(f"| {role} | {measure} | {values} | {'' if flat else 'not flat'} |")
        rising += [] if flat else [f"{role}: {measure}"]
    return "\n".join(lines) + "\n", rising


def parse_arguments() -> tuple[argparse.Namespace, list[str]]:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, required=True, help="folder of the run and of the results")
    parser.add_argument("--iterations", type=int, default=200)
    parser.add_argument("--multirun", type=int, metavar="JOBS", help="so many runs instead of a long one")
    parser.add_argument("--every", type=float, default=3.0, help="seconds between looks")
    options, overrides = parser.parse_known_args()
    options.output = options.output.resolve()
    if (options.output / "run").exists():
        parser.error(f"--output: {options.output} holds a run; name another folder.")
    options.output.mkdir(parents=True, exist_ok=True)
    return options, overrides


def main() -> None:
    options, overrides = parse_arguments()
    work = work_of(options, overrides)
    series, left = watched(work, options.every, options.output)
    text, rising = table(series, work.unit)
    text += f"\nNot flat: {', '.join(rising) or 'nothing'}.\nLeft behind: {', '.join(left) or 'nothing'}.\n"
    (options.output / "endurance.md").write_text(text, encoding="utf-8")
    print(text, end="")
    if rising or left:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
