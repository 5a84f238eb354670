"""What to try and what to stop (plain numbers), and the rooms that hand it to Ray Tune."""

from __future__ import annotations

import os
import secrets

# Ray reads these once, when it is first imported; every import of it in tunekit comes after this one.
_RAY_ENVIRONMENT = {
    "RAY_AIR_NEW_OUTPUT": "0",  # no progress tables of Ray's own
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # trials without a GPU: leave CUDA_VISIBLE_DEVICES alone
    "RAY_CHDIR_TO_TRIAL_DIR": "0",  # relative paths keep their meaning
    "RAY_DEDUP_LOGS_SKIP_REGEX": "^",  # no lines of other processes on the terminal, say that a node was lost
    "RAY_DISABLE_FAILURE_SIGNAL_HANDLER": "1",  # SIGTERM is ours: Ray's own handler aborts the process
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",  # no copy of the working folder under `uv run`
    "RAY_USAGE_STATS_ENABLED": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # no CSV, JSON and TensorBoard files that nobody reads
    "TUNE_GLOBAL_CHECKPOINT_S": "1000000",  # no snapshots: the history is the memory
}
_OWN_RAY = {
    # Nobody else can reach it. Ray's own token would lie in the home folder, readable for all.
    "RAY_AUTH_MODE": "token",
    "RAY_AUTH_TOKEN": secrets.token_hex(32),
}
if "RAY_ADDRESS" not in os.environ:
    _RAY_ENVIRONMENT |= _OWN_RAY
elif {"RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"} & {*os.environ}:
    _RAY_ENVIRONMENT |= {"RAY_AUTH_MODE": "token"}  # a cluster that is joined: its token, if one was given
for _name, _value in _RAY_ENVIRONMENT.items():
    os.environ.setdefault(_name, _value)
