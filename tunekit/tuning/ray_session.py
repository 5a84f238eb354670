"""Ray: our own on this machine, started quietly and ended without a trace, or a cluster that is joined."""

from __future__ import annotations

import gc
import logging
import os
import shutil
import signal
import socket
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tunekit.errors import ResourceError
from tunekit.tracking.server import login_withheld
from tunekit.tuning.assignment import GpuShare
from tunekit.tuning.resources import Node, Resources, check_share, divide

_LISTENS_WITHIN = 5.0  # seconds


@dataclass(frozen=True)
class Machine:
    """What Ray may hand out; None for what it finds. GPUs that do not exist are logical ones, with
    which scheduling can be tested: their trials train on the CPU.
    """

    cpus: int | None = None
    gpus: int | None = None
    address: str | None = None  # of a Ray cluster to join ("auto": this node's); None for a Ray of our own


@contextmanager
def ray_session(log_file: Path, machine: Machine) -> Iterator[None]:
    """A Ray of our own, or a cluster that is joined, inside the block; its messages go to `log_file`.

    Args:
        log_file: text file, appended to.
        machine: what Ray may hand out.
    Raises:
        ResourceError: if no cluster answers.
    """
    import ray

    previous = signal.getsignal(signal.SIGTERM)
    folder = tempfile.mkdtemp(prefix="tunekit-ray-")  # Ray's own, below /tmp, anybody may write to
    try:
        with login_withheld(), _interruptible():  # workers record nothing
            if machine.address:
                _join(machine.address, log_file)
            else:
                _start(machine, folder)
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


@contextmanager
def _interruptible() -> Iterator[None]:
    """While Ray starts, it takes SIGTERM for itself and ends the process: an interruption like others."""
    try:
        yield
    except SystemExit:
        raise KeyboardInterrupt from None


def _start(machine: Machine, folder: str) -> None:
    import ray

    ray.init(
        address="local",  # never join a Ray that happens to run here
        num_cpus=machine.cpus,
        num_gpus=machine.gpus,
        include_dashboard=False,
        log_to_driver=False,
        configure_logging=False,
        _temp_dir=folder,
    )


def _join(address: str, log_file: Path) -> None:
    import ray

    _check_listens(address)
    try:
        with _stderr_to(log_file):
            ray.init(address=address, log_to_driver=False, configure_logging=False)
    except (ConnectionError, RuntimeError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ResourceError(
            f"--address {address}: no Ray cluster answers there ({reason}); its token is taken from "
            "RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH"
        ) from None


def _check_listens(address: str) -> None:
    """Where nobody listens Ray would try for minutes."""
    if address == "auto":
        return
    host, _, port = address.rpartition(":")
    if not (host and port.isdecimal()):
        raise ResourceError(f"--address must be auto or HOST:PORT, but got {address!r}")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_LISTENS_WITHIN).close()
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ResourceError(f"--address {address}: no Ray cluster answers there ({reason})") from None


@contextmanager
def _stderr_to(file: Path) -> Iterator[None]:
    """What Ray's C++ part says of each attempt to join goes to `file` inside the block."""
    sys.stderr.flush()
    kept = os.dup(2)
    try:
        with open(file, "ab") as log:
            os.dup2(log.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


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


def plan_resources(
    samples: int, cpus_per_trial: float | None, gpus_per_trial: float | None, may_grow: bool
) -> Resources:
    """Divide what the running Ray has among trials, as `divide` does.

    Raises:
        ResourceError: if no node can take a trial.
    """
    return divide(nodes_there(), samples, cpus_per_trial, gpus_per_trial, may_grow)


def nodes_there() -> list[Node]:
    """What each node of the running Ray has."""
    import ray

    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def check_shares(cpus_per_trial: float | None, gpus_per_trial: GpuShare | None, machine: Machine) -> None:
    """Check, before Ray starts and anything is written, that a trial fits this machine, or that somebody
    listens where a cluster is to be joined. An automatic share fits every machine.

    Raises:
        ResourceError: naming the option, what came and what there is.
    """
    if machine.address:
        _check_listens(machine.address)
        return  # its nodes are known when it was joined, and more may come
    if cpus_per_trial:
        cpus = machine.cpus if machine.cpus is not None else os.cpu_count() or 1
        check_share("--cpus-per-trial", cpus_per_trial, cpus, "CPU")
    if gpus_per_trial and not isinstance(gpus_per_trial, str):
        if machine.gpus is None:
            import torch  # costs seconds: only for who asks for GPUs

            check_share("--gpus-per-trial", gpus_per_trial, torch.cuda.device_count(), "GPU")
        else:
            check_share("--gpus-per-trial", gpus_per_trial, machine.gpus, "GPU")
