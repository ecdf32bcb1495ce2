"""The moments of AdamW as files: each rank writes a share of them, and any number of ranks reads all."""

from pathlib import Path

from safetensors.torch import load_file, save_file
from torch import nn
from torch.optim import Optimizer


def save_moments(optimizer: Optimizer, model: nn.Module, folder: Path, rank: int, ranks: int) -> None:
    """Write those of every `ranks`-th parameter, starting with number `rank`, as ``<moment>/<parameter>``."""
    moments = {
        f"{kind}/{name}": value
        for name, parameter in list(model.named_parameters())[rank::ranks]
        for kind, value in optimizer.state.get(parameter, {}).items()
    }
    save_file(moments, _file(folder, rank))


def load_moments(optimizer: Optimizer, model: nn.Module, folder: Path, ranks: int) -> None:
    """Bring what `ranks` ranks wrote into `optimizer`, which is fresh.

    Raises:
        FileNotFoundError: the share of a rank is missing.
    """
    parameters = dict(model.named_parameters())
    for rank in range(ranks):
        for key, value in load_file(_file(folder, rank)).items():
            kind, name = key.split("/", 1)
            parameter = parameters[name]
            optimizer.state[parameter][kind] = value.to(parameter.device, copy=True)


def _file(folder: Path, rank: int) -> Path:
    return folder / f"trainer_{rank}.safetensors"
