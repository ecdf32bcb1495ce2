"""The moments of AdamW as files: each rank writes a share of them, and any number of ranks reads all.

Also where the weights are sharded: the moments of each are gathered, one at a time, and kept by the rank
whose share they belong to. No rank ever holds more than its part and its share, and what is written does not
tell whether it was sharded.
"""

from collections.abc import Mapping
from pathlib import Path

from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn
from torch.optim import Optimizer

from expert_iteration.sharding import laid_out, whole


def save_moments(
    optimizer: Optimizer, trained: Mapping[str, nn.Parameter], folder: Path, rank: int, ranks: int
) -> None:
    """Write those of every `ranks`-th parameter, starting with number `rank`, as ``<moment>/<parameter>``.

    Of sharded ones all ranks must call it.
    """
    moments = {}
    for number, (name, parameter) in enumerate(trained.items()):
        for kind, value in optimizer.state.get(parameter, {}).items():
            gathered = whole(value)
            if number % ranks == rank:
                moments[f"{kind}/{name}"] = gathered.cpu()
    save_file(moments, _file(folder, rank))


def load_moments(optimizer: Optimizer, trained: Mapping[str, nn.Parameter], folder: Path, ranks: int) -> None:
    """Bring what `ranks` ranks wrote into `optimizer`, which is fresh.

    Raises:
        FileNotFoundError: the share of a rank is missing.
    """
    for rank in range(ranks):
        with safe_open(_file(folder, rank), "pt") as share:
            for key in list(share.keys()):
                kind, name = key.split("/", 1)
                optimizer.state[trained[name]][kind] = laid_out(share.get_tensor(key), trained[name])


def _file(folder: Path, rank: int) -> Path:
    return folder / f"trainer_{rank}.safetensors"
