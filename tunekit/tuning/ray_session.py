"""Ray on this machine: started quietly, with warm workers, and ended without a trace."""

from __future__ import annotations

import gc
import logging
import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tunekit.errors import ResourceError
from tunekit.tracking.server import login_withheld


@dataclass(frozen=True)
class Machine:
    """What Ray may hand out; None for what it finds. GPUs that do not exist are logical ones, with
    which scheduling can be tested: their trials train on the CPU.
    """

    cpus: int | None = None
    gpus: int | None = None


@dataclass(frozen=True)
class Resources:
    """What trials get, and how many run at a time."""

    cpus: float  # of the machine or cluster
    gpus: float
    cpus_per_trial: float
    gpus_per_trial: float
    slots: int

    def words(self) -> str:
        """`2 at a time with 1 CPU each`."""
        gpus = f" and {self.gpus_per_trial:g} GPU" if self.gpus_per_trial else ""
        return f"{self.slots} at a time with {self.cpus_per_trial:g} CPU{gpus} each"


@contextmanager
def ray_session(log_file: Path, machine: Machine) -> Iterator[None]:
    """A Ray of our own inside the block; its messages go to `log_file`.

    Args:
        log_file: text file, appended to.
        machine: what Ray may hand out.
    """
    import ray

    previous = signal.getsignal(signal.SIGTERM)
    folder = tempfile.mkdtemp(prefix="tunekit-ray-")  # Ray's own, below /tmp, anybody may write to
    try:
        with login_withheld():  # workers record nothing
            ray.init(
                address="local",  # never join a Ray that happens to run here
                num_cpus=machine.cpus,
                num_gpus=machine.gpus,
                include_dashboard=False,
                log_to_driver=False,
                configure_logging=False,
                _temp_dir=folder,
            )
        # Tune ends cleanly on SIGUSR1; on SIGTERM Ray would abort.
        signal.signal(signal.SIGTERM, lambda *_: os.kill(os.getpid(), signal.SIGUSR1))
        with _logs_to(log_file):
            yield
    finally:
        # Tune leaves circles of objects that know Ray. Python would free them later, in any thread, and Ray
        # ends the whole process when one of them speaks to it after its end.
        gc.collect()
        ray.shutdown()
        shutil.rmtree(folder, ignore_errors=True)
        signal.signal(signal.SIGTERM, previous)


class _LogFile(logging.FileHandler):
    """A log that a full disk leaves without a line, and the terminal without a traceback of that."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name
        pass


@contextmanager
def _logs_to(file: Path) -> Iterator[None]:
    """What Ray and tunekit log goes to `file` inside the block, and not to the terminal."""
    handler = _LogFile(file)
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
    _check_share("--gpus-per-trial", gpus_per_trial, gpus, "GPU")
    by_gpu = int(gpus / gpus_per_trial + 1e-9) if gpus_per_trial else None
    if cpus_per_trial is None:
        cpus_per_trial = float(max(1, int(cpus / min(by_gpu, samples)))) if by_gpu else 1.0
    _check_share("--cpus-per-trial", cpus_per_trial, cpus, "CPU")
    by_cpu = int(cpus / cpus_per_trial + 1e-9) if cpus_per_trial else samples
    slots = min(by_cpu, samples, by_gpu if by_gpu is not None else samples)
    return Resources(cpus, gpus, cpus_per_trial, gpus_per_trial, slots)


def check_shares(cpus_per_trial: float | None, gpus_per_trial: float | None, machine: Machine) -> None:
    """Check, before Ray starts and anything is written, that a trial fits this machine.

    Raises:
        ResourceError: naming the option, what came and what there is.
    """
    if cpus_per_trial:
        cpus = machine.cpus if machine.cpus is not None else os.cpu_count() or 1
        _check_share("--cpus-per-trial", cpus_per_trial, cpus, "CPU")
    if gpus_per_trial:
        if machine.gpus is None:
            import torch  # costs seconds: only for who asks for GPUs

            _check_share("--gpus-per-trial", gpus_per_trial, torch.cuda.device_count(), "GPU")
        else:
            _check_share("--gpus-per-trial", gpus_per_trial, machine.gpus, "GPU")


def _check_share(option: str, share: float, total: float, what: str) -> None:
    if share > total:
        have = f"there are {total:g} {what}s here" if total else f"there is no {what} here"
        raise ResourceError(f"{option} {share:g}: {have}")
