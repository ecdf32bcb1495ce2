"""What a run will do and need: ``python scripts/plan.py [overrides] [--devices N --memory GiB]``.

Takes the overrides of train.py, loads no model and starts nothing. Without --devices it plans for this
machine. Where the run cannot fit, it says why and exits with 2.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import hydra
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf, open_dict
from rich.console import Console, RenderableType

from expert_iteration.checks import from_hydra
from expert_iteration.config import ConfigError, RunConfig, to_plain
from expert_iteration.launch import EXIT_CONFIGURATION, config_folder, register
from expert_iteration.planning.drawing import drawn
from expert_iteration.planning.machine import described, this_machine
from expert_iteration.planning.odds import PASS_RATES, Odds
from expert_iteration.planning.plan import plan_of
from expert_iteration.planning.shapes import Shape, shape_of
from expert_iteration.planning.sizes import table
from expert_iteration.planning.summary import short_configuration
from expert_iteration.reporting.redact import redact
from expert_iteration.reporting.text import one_line
from expert_iteration.tokenizer import resolve_model

WIDTH = 100
GPUS = ("a100", "h100", "h200")
"""Those of simulation/hardware.py, which a plan does not load."""


def main(arguments: Sequence[str] | None = None) -> None:
    options = parse(arguments)
    try:
        show(options)
    except (ConfigError, HydraException) as error:
        sys.stdout.flush()
        sys.stderr.write(f"error: {one_line(' '.join(str(error).split()))}\n")
        raise SystemExit(EXIT_CONFIGURATION) from None


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    summary, _, details = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(description=summary, epilog=details)
    parser.add_argument("overrides", nargs="*", help="as for scripts/train.py: key=value")
    parser.add_argument("--all", action="store_true", help="show every key of the configuration")
    parser.add_argument("--devices", type=int, metavar="N", help="GPUs of the machine to plan for")
    parser.add_argument("--memory", type=float, metavar="GiB", help="memory of each of them")
    parser.add_argument("--ram", type=float, metavar="GiB", help="memory of its host")
    parser.add_argument("--fit", action="store_true", help="show what fits on GPUs of which size instead")
    parser.add_argument(
        "--suggest-split", type=int, metavar="N", help="show the best split of N GPUs instead"
    )
    parser.add_argument("--gpu", choices=GPUS, default="h100", help="what the GPUs to be split are like")
    rates = parser.add_mutually_exclusive_group()
    rates.add_argument("--pass-rate", type=share, metavar="P", help="share of right answers (0.5)")
    rates.add_argument("--like", type=Path, metavar="RUN", help="plan with what this run measured")
    options = parser.parse_intermixed_args(arguments)
    if options.devices is None and (options.memory or options.ram):
        parser.error("--memory and --ram describe another machine: say how many GPUs it has by --devices")
    return options


def share(text: str) -> float:
    value = float(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text} is no share between 0 and 1")
    return value


def show(options: argparse.Namespace) -> None:
    """Print the plan.

    Raises:
        ConfigError: the configuration cannot work, or the run cannot fit; the plan is printed before.
    """
    if options.fit:
        sys.stdout.write(rendered([table(shipped(options.overrides))]))
        return
    config, run_dir = composed(options.overrides)
    if options.suggest_split is not None:
        suggest(options, config, run_dir)
        return
    another = options.devices is not None
    machine = described(options.devices, options.memory, options.ram) if another else this_machine(run_dir)
    plan = plan_of(config, run_dir, machine, odds(options, config))
    sys.stdout.write(rendered([whole(config) if options.all else short_configuration(config), drawn(plan)]))
    for problem in plan.problems():
        raise ConfigError(problem)


def shipped(overrides: Sequence[str]) -> dict[str, tuple[RunConfig, Shape]]:
    """The run with each model of config/model in turn, by its name, small ones first."""
    found = {}
    for file in (config_folder() / "model").glob("*.yaml"):
        config, _ = composed([*overrides, f"model={file.stem}"])
        shape = shape_of(resolve_model(config).model).shape
        if shape is not None:
            found[file.stem] = config, shape
    return dict(sorted(found.items(), key=lambda item: item[1][1].parameters))


def suggest(options: argparse.Namespace, config: RunConfig, run_dir: Path) -> None:
    """Print the fastest splits, and what to type for the best one.

    Raises:
        ConfigError: nothing can be split so, or the best split does not fit; it is printed before.
    """
    from expert_iteration.reports.runs import RunFiles
    from expert_iteration.simulation.drawing import suggestion
    from expert_iteration.simulation.hardware import ACCELERATORS, Assumptions
    from expert_iteration.simulation.lengths import of_run, supposed
    from expert_iteration.simulation.prospects import Prospects

    gpu, likely = ACCELERATORS[options.gpu], odds(options, config)
    lengths = supposed(config) if options.like is None else of_run(RunFiles.of(options.like))
    found = Prospects.of(config, gpu, lengths, likely[0], Assumptions()).ranked(config, options.suggest_split)
    sys.stdout.write(rendered([suggestion(config, gpu, found)]))
    machine = described(options.suggest_split, gpu.memory, options.ram)
    for problem in plan_of(found[0][0].of(config), run_dir, machine, likely[:1]).problems():
        raise ConfigError(problem)


def whole(config: RunConfig) -> str:
    return OmegaConf.to_yaml(redact(to_plain(config))).rstrip()


def rendered(parts: Sequence[RenderableType]) -> str:
    """As standard output can show it, without the blanks that fill up columns."""
    console = Console(markup=False, emoji=False, highlight=False)
    console.width = min(WIDTH, console.width) if console.is_terminal else WIDTH
    with console.capture() as capture:
        for part in parts:
            console.print(part)
    return "".join(f"{line.rstrip()}\n" for line in capture.get().splitlines())


def composed(overrides: Sequence[str]) -> tuple[RunConfig, Path]:
    """The checked configuration, for any number of GPUs, and the folder that a run of it would have.

    Raises:
        ConfigError, HydraException: it cannot work.
    """
    register()
    with hydra.initialize_config_dir(str(config_folder()), version_base="1.3"):
        found = hydra.compose("train", list(overrides), return_hydra_config=True)
    run_dir = Path(found.hydra.run.dir)
    return from_hydra(without_hydra(found), gpus=sys.maxsize), run_dir


def without_hydra(found: DictConfig) -> DictConfig:
    OmegaConf.set_readonly(found.hydra, False)
    with open_dict(found):
        del found["hydra"]
    return found


def odds(options: argparse.Namespace, config: RunConfig) -> list[Odds]:
    """What to plan with first, then others to compare it with."""
    if options.like is not None:
        from expert_iteration.planning.measured import odds_of

        return [odds_of(options.like, config.selection.duplicates)]
    if options.pass_rate is not None:
        return [Odds(options.pass_rate)]
    return [Odds(), *(Odds(rate) for rate in PASS_RATES if rate != Odds.pass_rate)]


if __name__ == "__main__":
    main()
