"""Ray: one actor for each role, shells around the plain classes, and the instance that holds them.

This is the only room that imports ray. Ray reads its environment when it is imported, so it is set
here: a run's Ray is guarded by a token of its own, and tells nobody about itself.
"""

import os
import secrets

os.environ.update(
    RAY_AUTH_MODE="token",
    RAY_USAGE_STATS_ENABLED="0",
    RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO="0",
    RL_WARNINGS="0",
)
os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
