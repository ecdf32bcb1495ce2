"""Names that become parts of paths and addresses elsewhere."""

import re
from reprlib import repr as short

from expert_iteration.config import RunConfig

RUN_NAME = re.compile(r"(?!\.+\Z)[A-Za-z0-9._-]{1,64}")


def name_problems(config: RunConfig) -> list[str]:
    """What cannot be a name, each with the way out."""
    names = {key: getattr(config.logger, key) for key in ("project", "group", "name")}
    return [
        f"logger.{key} ({short(name)}) must be 1 to 64 letters, digits, dots, dashes or underscores, and not "
        "dots alone; choose a name such as demo-seed0."
        for key, name in names.items()
        if name is not None and not RUN_NAME.fullmatch(name)
    ]
