"""Ray: one actor for each role, shells around the plain classes, and the instance that holds them.

This is the only room that imports ray. Ray reads its environment when it is imported, so it is set
here: Ray is guarded by a token, a run's own instance listens on the loopback interface alone, and it tells
nobody about itself.
"""

import os

os.environ.update(
    RAY_AUTH_MODE="token",
    # its name is about other systems, but without clusters Ray stays on the loopback interface here too
    RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER="0",
    RAY_USAGE_STATS_ENABLED="0",
    # a record of every call would make Ray's server grow with the run
    RAY_task_events_report_interval_ms="0",
    RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO="0",
    RL_WARNINGS="0",
)
