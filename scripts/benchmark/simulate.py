"""Iteration time of runs that nobody has started, by the real scheduler on a clock that jumps.

    python scripts/benchmark/simulate.py experiment=cs336_ei --gpu h100 --gpus 8 64 512
    python scripts/benchmark/simulate.py --from-run RUN [overrides ...]
    python scripts/benchmark/simulate.py --from-run RUN --validate RUN [RUN ...]

The first takes rates from the data sheet of a GPU and prints the fastest splits of so many of them; without
--gpus, the placement as it is configured. The second takes rates and answers from a finished synchronous run,
and predicts another one on the same machine. The third holds such predictions against what other runs took.
Without `mode=`, both modes are simulated. Nothing is started.
"""

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path
from statistics import fmean

sys.path.insert(0, str(Path(__file__).parents[2]))

import hydra
from hydra.errors import HydraException
from rich.console import Console, RenderableType

from expert_iteration.checks import from_hydra
from expert_iteration.config import ConfigError, RunConfig
from expert_iteration.launch import EXIT_CONFIGURATION, config_folder, register
from expert_iteration.planning.odds import Odds
from expert_iteration.planning.tables import numbers
from expert_iteration.simulation import drawing
from expert_iteration.simulation.calibration import FinishedRun, rates_of
from expert_iteration.simulation.hardware import ACCELERATORS, Assumptions
from expert_iteration.simulation.lengths import Lengths, lognormal, supposed
from expert_iteration.simulation.outcome import Outcome, simulate
from expert_iteration.simulation.prospects import Prospects

WIDTH = 130
SHOWN = 3
"""Splits of each number of GPUs."""


def main(arguments: Sequence[str] | None = None) -> None:
    options = parse(arguments)
    console = Console(width=WIDTH, markup=False, emoji=False, highlight=False)
    begun = time.perf_counter()
    try:
        for part in parts(options):
            console.print(part)
    except (ConfigError, HydraException) as error:
        sys.stderr.write(f"error: {' '.join(str(error).split())}\n")
        raise SystemExit(EXIT_CONFIGURATION) from None
    console.print(f"\nsimulated in {time.perf_counter() - begun:.1f} s", style="dim")


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("overrides", nargs="*", help="as for scripts/train.py: key=value")
    parser.add_argument("--gpu", choices=sorted(ACCELERATORS), default="h100")
    parser.add_argument("--gpus", type=int, nargs="+", metavar="N", help="split so many of them")
    parser.add_argument("--mean", type=float, help="tokens of an answer, lognormal (default: by max_tokens)")
    parser.add_argument("--p99", type=float, help="tokens that one answer in a hundred exceeds")
    parser.add_argument("--pass-rate", type=float, default=Odds.pass_rate, help="share of right answers")
    parser.add_argument("--assume", nargs="+", default=[], metavar="NAME=VALUE", help="another assumption")
    parser.add_argument("--from-run", type=Path, metavar="RUN", help="rates and answers of this run")
    parser.add_argument("--validate", type=Path, nargs="+", metavar="RUN", help="predict these runs by it")
    options = parser.parse_intermixed_args(arguments)
    if options.validate and options.from_run is None:
        parser.error("--validate holds runs against another one: name it by --from-run")
    if (options.mean is None) != (options.p99 is None):
        parser.error("--mean and --p99 belong together")
    return options


def parts(options: argparse.Namespace) -> list[RenderableType]:
    """What is printed.

    Raises:
        ConfigError, HydraException: the configuration cannot work, or a run cannot be calibrated with.
    """
    if options.validate:
        return validated(FinishedRun.of(options.from_run), [FinishedRun.of(run) for run in options.validate])
    if options.from_run:
        return foretold(FinishedRun.of(options.from_run), options.overrides)
    return by_datasheet(options)


def by_datasheet(options: argparse.Namespace) -> list[RenderableType]:
    gpu, given = ACCELERATORS[options.gpu], assumptions(options.assume)
    found: list[RenderableType] = [drawing.premises(gpu, given)]
    for mode, config in in_modes(options.overrides).items():
        prospects = Prospects.of(config, gpu, lengths(options, config), Odds(options.pass_rate), given)
        if not options.gpus:
            found += [f"\n{mode}", drawing.rates(prospects.rates(config))]
            found.append(drawing.outcomes({"as configured": prospects.outcome(config)}))
        for count in options.gpus or []:
            best = prospects.ranked(config, count)[:SHOWN]
            rows = {drawing.named(split): outcome for split, outcome in best}
            found += [f"\n{mode}, {count} GPUs", drawing.outcomes(rows)]
    return found


def foretold(run: FinishedRun, overrides: Sequence[str]) -> list[RenderableType]:
    """Runs of some overrides on the machine of another run."""
    rates = rates_of(run)
    rows = {
        mode: simulate(config, rates, run.workload(config)) for mode, config in in_modes(overrides).items()
    }
    return [drawing.rates(rates), drawing.outcomes(rows)]


def validated(run: FinishedRun, others: Sequence[FinishedRun]) -> list[RenderableType]:
    """Each of `others` as predicted by `run` alone, and by its rates with the answers that `others` had."""
    rates = rates_of(run)
    table = numbers("run", "measured, s", "predicted", "error", "with its own answers", "error", left=1)
    for other in others:
        measured = fmean(other.seconds)
        predicted = simulate(other.config, rates, run.workload(other.config))
        informed = simulate(other.config, rates, other.workload(other.config))
        table.add_row(
            other.files.folder.name, f"{measured:.2f}", *held(predicted, measured), *held(informed, measured)
        )
    return [drawing.rates(rates), table]


def held(predicted: Outcome, measured: float) -> tuple[str, str]:
    return f"{predicted.seconds:.2f}", f"{predicted.seconds / measured - 1:+.1%}"


def in_modes(overrides: Sequence[str]) -> dict[str, RunConfig]:
    """The configuration in both modes, or in the one that is asked for, for any number of GPUs."""
    register()
    asked = any(override.startswith("mode=") for override in overrides)
    found = {}
    with hydra.initialize_config_dir(str(config_folder()), version_base="1.3"):
        for mode in [[]] if asked else [["mode=sync"], ["mode=async"]]:
            composed = hydra.compose("train", [*overrides, *mode])
            config = from_hydra(composed, gpus=sys.maxsize)
            found["mode=sync" if config.mode.publish_every is None else "mode=async"] = config
    return found


def lengths(options: argparse.Namespace, config: RunConfig) -> Lengths:
    if options.mean is None:
        return supposed(config)
    return lognormal(options.mean, options.p99, config.sampling.max_tokens)


def assumptions(changes: Sequence[str]) -> Assumptions:
    """
    Raises:
        ConfigError: there is none of that name, or its value is no number.
    """
    values = {}
    for change in changes:
        name, _, value = change.partition("=")
        try:
            values[name] = float(value)
        except ValueError:
            raise ConfigError(f"--assume {change} is no NAME=NUMBER.") from None
    names = {field.name for field in fields(Assumptions)}
    if unknown := sorted(set(values) - names):
        raise ConfigError(f"--assume {unknown[0]} is none of {', '.join(sorted(names))}.")
    return replace(Assumptions(), **values)


if __name__ == "__main__":
    main()
