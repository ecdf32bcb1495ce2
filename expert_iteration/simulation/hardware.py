"""What accelerators can do by their data sheets, and what share of it is taken to be reached."""

from dataclasses import dataclass
from math import ceil, log2

GIGA, TERA = 1e9, 1e12
NODE = 8
"""GPUs of a node; what leaves it goes over the network."""


@dataclass(frozen=True)
class Accelerator:
    """Peaks, in units per second and GPU."""

    name: str
    memory: float
    """GB that it holds."""
    bfloat16: float
    """Floating-point operations of the tensor cores, without sparsity."""
    float32: float
    """Likewise outside of them: PyTorch leaves TF32 off."""
    bandwidth: float
    """Bytes of its memory."""
    link: float
    """Bytes to other GPUs of its node, in one direction."""
    host: float
    """Bytes to the host, in one direction."""
    network: float
    """Bytes to other nodes, in one direction."""
    source: str


ACCELERATORS = {
    "a100": Accelerator(
        *("A100 SXM 80 GB", 80, 312 * TERA, 19.5 * TERA, 2039 * GIGA, 300 * GIGA, 32 * GIGA, 25 * GIGA),
        source="NVIDIA A100 and DGX A100 data sheets",
    ),
    "h100": Accelerator(
        *("H100 SXM 80 GB", 80, 989 * TERA, 67 * TERA, 3350 * GIGA, 450 * GIGA, 64 * GIGA, 50 * GIGA),
        source="NVIDIA H100 and DGX H100 data sheets",
    ),
    "h200": Accelerator(
        *("H200 SXM 141 GB", 141, 989 * TERA, 67 * TERA, 4800 * GIGA, 450 * GIGA, 64 * GIGA, 50 * GIGA),
        source="NVIDIA H200 and DGX H200 data sheets",
    ),
}


@dataclass(frozen=True)
class Assumptions:
    """What no data sheet says. None of it was measured on a GPU: change a number, and look again."""

    training: float = 0.4
    """Share of the peak operations in forward and backward passes."""
    sampling: float = 0.5
    """Likewise in the passes of an engine, prefill included."""
    bandwidth: float = 0.6
    """Share of the memory's peak bandwidth, in decoding and in AdamW."""
    links: float = 0.7
    """Share of the bandwidth between GPUs."""
    copies: float = 0.3
    """Share of the bandwidth to the host in a push: weights are packed, stored and unpacked on the way."""
    engine_step: float = 0.004
    """Seconds that the host takes for a decode step, whatever the GPU does."""
    optimizer_step: float = 0.03
    """Likewise for an optimizer step: rows are drawn, batches made, metrics read."""
    order: float = 0.02
    """Likewise for an order to an actor, until it is answered."""
    answer: float = 0.0005
    """Seconds to judge an answer and write it down: nine in ten take microseconds, the rest 4 ms each, and
    two processes share them (grading); rows and log take as long again."""
    disk: float = 2e9
    """Bytes that a checkpoint writes in a second; they are brought to the disk while the run goes on."""


def broadcast_hops(gpus: int) -> int:
    """Nodes pass on what they have got: how often bytes cross the network until all `gpus` have them."""
    return ceil(log2(max(1, ceil(gpus / NODE))))
