"""Ray on this machine: started quietly, with warm workers, and ended without a trace."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tunekit.errors import ResourceError


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
    import ray

    ray.init(
        address="local",  # never join a Ray that happens to run here
        num_cpus=cpus,
        num_gpus=gpus,
        include_dashboard=False,
        log_to_driver=False,
        configure_logging=False,
    )
    previous = signal.getsignal(signal.SIGTERM)
    try:
        # Tune ends cleanly on SIGUSR1; on SIGTERM Ray would abort.
        signal.signal(signal.SIGTERM, lambda *_: os.kill(os.getpid(), signal.SIGUSR1))
        with _logs_to(log_file):
            yield
    finally:
        ray.shutdown()
        signal.signal(signal.SIGTERM, previous)


@contextmanager
def _logs_to(file: Path) -> Iterator[None]:
    """What Ray and tunekit log goes to `file` inside the block, and not to the terminal."""
    handler = logging.FileHandler(file)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    loggers = [logging.getLogger(name) for name in ("ray", "tunekit")]
    before = [(logger.handlers, logger.propagate) for logger in loggers]
    for logger in loggers:
        logger.handlers, logger.propagate = [handler], False
    try:
        yield
    finally:
        for logger, (handlers, propagate) in zip(loggers, before, strict=True):
            logger.handlers, logger.propagate = handlers, propagate
        handler.close()


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
