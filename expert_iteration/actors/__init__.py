"""Ray: one actor for each role, shells around the plain classes, and the instance that holds them.

This is the only room that imports ray. Ray reads its environment when it is imported, so it is set
here: a run's Ray listens on the loopback interface alone, is guarded by a token of its own, keeps its files
in a folder of its own, and tells nobody about itself.
"""

import atexit
import os
import secrets
from shutil import rmtree
from tempfile import mkdtemp

os.environ.update(
    RAY_AUTH_MODE="token",
    # its name is about other systems, but without clusters Ray stays on the loopback interface here too
    RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER="0",
    RAY_USAGE_STATS_ENABLED="0",
    RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO="0",
    RL_WARNINGS="0",
)
os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
if "RAY_TMPDIR" not in os.environ:
    # Ray lets everyone write to its folders, and unpickles what comes through the sockets in them
    os.environ["RAY_TMPDIR"] = mkdtemp(prefix="ray-")
    atexit.register(rmtree, os.environ["RAY_TMPDIR"], ignore_errors=True)
