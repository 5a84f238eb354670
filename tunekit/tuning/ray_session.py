"""Ray on this machine: started quietly, with warm workers, and ended without a trace."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunekit.errors import ResourceError

# Ray reads these when it is imported or started; each one is explained where it is needed.
_ENVIRONMENT = {
    "RAY_AIR_NEW_OUTPUT": "0",  # Ray's own progress tables
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # CSV, JSON and TensorBoard files that nobody reads
    "TUNE_GLOBAL_CHECKPOINT_S": "1000000",  # snapshots; the history is the memory
    "RAY_CHDIR_TO_TRIAL_DIR": "0",  # relative paths keep their meaning
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",  # no copy of the working folder under `uv run`
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AUTH_MODE": "token",  # other users of the machine cannot reach this Ray
    "RAY_DEDUP_LOGS": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}


@dataclass(frozen=True)
class Resources:
    """What trials get, and how many run at a time."""

    cpus: float  # of the machine or cluster
    gpus: float
    cpus_per_trial: float
    gpus_per_trial: float
    slots: int


@contextmanager
def ray_session(log_file: Path, cpus: int | None = None, gpus: int | None = None) -> Iterator[None]:
    """A Ray of our own inside the block; its messages go to `log_file`.

    Args:
        log_file: text file, appended to.
        cpus, gpus: what Ray may hand out; None for what the machine has. GPUs that do not exist are
            logical ones, with which scheduling can be tested.
    """
    os.environ.update(_ENVIRONMENT)
    import ray

    handler = logging.FileHandler(log_file)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    loggers = [logging.getLogger(name) for name in ("ray", "tunekit")]
    for logger in loggers:
        logger.addHandler(handler)
        logger.propagate = False
    ray.init(
        address="local",  # never join a Ray that happens to run here
        num_cpus=cpus,
        num_gpus=gpus,
        include_dashboard=False,
        log_to_driver=False,
        configure_logging=False,
    )
    _protect_token()
    previous = signal.getsignal(signal.SIGTERM)
    try:
        # Tune ends cleanly on SIGUSR1; on SIGTERM Ray would abort.
        signal.signal(signal.SIGTERM, lambda *_: os.kill(os.getpid(), signal.SIGUSR1))
        yield
    finally:
        ray.shutdown()
        signal.signal(signal.SIGTERM, previous)
        for logger in loggers:
            logger.removeHandler(handler)
        handler.close()


def _protect_token() -> None:
    """Ray writes its access token readable for everybody."""
    token = Path.home() / ".ray" / "auth_token"
    if token.is_file():
        token.chmod(0o600)


def plan_resources(samples: int, cpus_per_trial: float | None, gpus_per_trial: float | None) -> Resources:
    """Divide what the running Ray has among trials.

    Defaults: a GPU a trial where there are GPUs; CPUs shared evenly among the GPUs' trials, one CPU a
    trial where there is no GPU.

    Raises:
        ResourceError: if not even one trial fits.
    """
    import ray

    total = ray.cluster_resources()
    cpus, gpus = float(total.get("CPU", 0)), float(total.get("GPU", 0))
    if gpus_per_trial is None:
        gpus_per_trial = 1.0 if gpus else 0.0
    if gpus_per_trial > gpus:
        have = f"there are {gpus:g}" if gpus else "there is no GPU here"
        raise ResourceError(f"--gpus-per-trial {gpus_per_trial:g}: {have}")
    by_gpu = int(gpus / gpus_per_trial + 1e-9) if gpus_per_trial else None
    if cpus_per_trial is None:
        cpus_per_trial = float(max(1, int(cpus / min(by_gpu, samples)))) if by_gpu else 1.0
    if cpus_per_trial > cpus:
        raise ResourceError(f"--cpus-per-trial {cpus_per_trial:g}: there are {cpus:g} CPUs here")
    by_cpu = int(cpus / cpus_per_trial + 1e-9) if cpus_per_trial else samples
    slots = min(by_cpu, samples, by_gpu if by_gpu is not None else samples)
    return Resources(cpus, gpus, cpus_per_trial, gpus_per_trial, slots)


def warm_workers(resources: Resources) -> list[Any]:
    """Start a worker process for each slot and let it import what a trial imports.

    Ray gives the idle processes of finished tasks to the actors that come next. So trials start at
    once, and, with trials shorter than the start of a process, Tune does not hand every trial to
    the first process that is up while the others are still starting.
    """
    import ray

    @ray.remote(num_cpus=resources.cpus_per_trial, num_gpus=resources.gpus_per_trial)
    def warm_up(_: int) -> int:
        import time

        import ray.tune

        import tunekit.tuning.trainable

        assert ray.tune and tunekit.tuning.trainable
        time.sleep(0.2)  # long enough that no process gets two of these tasks
        return os.getpid()

    return [warm_up.remote(slot) for slot in range(resources.slots)]


def measure_networks(
    models: list[str], image_shape: tuple[int, int, int], classes: int, resources: Resources
) -> list[float]:
    """Seconds an image for each network, measured on workers, as many at a time as there are slots."""
    import ray

    from tunekit.tuning.estimate import seconds_per_image

    measure = ray.remote(num_cpus=resources.cpus_per_trial, num_gpus=resources.gpus_per_trial)(
        seconds_per_image
    )
    tasks = [
        measure.remote(model, image_shape, classes, resources.cpus_per_trial, resources.gpus_per_trial)
        for model in models
    ]
    return list(ray.get(tasks))
