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
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from tunekit.errors import ResourceError
from tunekit.tracking.server import login_withheld
from tunekit.tuning.assignment import GpuShare

_LISTENS_WITHIN = 5.0  # seconds


@dataclass(frozen=True)
class Machine:
    """What Ray may hand out; None for what it finds. GPUs that do not exist are logical ones, with
    which scheduling can be tested: their trials train on the CPU.
    """

    cpus: int | None = None
    gpus: int | None = None
    address: str | None = None  # of a Ray cluster to join ("auto": this node's); None for a Ray of our own


@dataclass(frozen=True)
class Resources:
    """What trials get, and how many run at a time."""

    cpus: float  # of the machine or cluster
    gpus: float
    cpus_per_trial: float
    gpus_per_trial: float
    slots: int  # trials at a time, on the nodes that are there
    most_at_once: int  # trials at a time if nodes come
    may_grow: bool = False  # whether nodes may come

    def words(self) -> str:
        """`2 at a time with 1 CPU each`."""
        gpus = f" and {self.gpus_per_trial:g} GPU" if self.gpus_per_trial else ""
        return f"{self.slots} at a time with {self.cpus_per_trial:g} CPU{gpus} each"


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


Node = Mapping[str, float]  # what a node has, by Ray's names: "CPU", "GPU"


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


def divide(
    nodes: Sequence[Node],
    samples: int,
    cpus_per_trial: float | None = None,
    gpus_per_trial: float | None = None,
    may_grow: bool = False,
) -> Resources:
    """Divide nodes among trials, each of which runs on one node.

    Args:
        nodes: those that are there.
        samples: trials to run.
        cpus_per_trial: None for an even share of a node's CPUs for each trial that its GPUs take, or one
            CPU where there is no GPU.
        gpus_per_trial: None for one where there are GPUs.
        may_grow: whether nodes may still come: then trials may wait for them.
    Raises:
        ResourceError: if no node can take a trial, and none may come.
    """
    with_gpus = [node for node in nodes if node.get("GPU", 0) > 0]
    gpus = (1.0 if with_gpus else 0.0) if gpus_per_trial is None else gpus_per_trial
    cpus = _cpu_share(with_gpus, gpus) if cpus_per_trial is None else cpus_per_trial
    if not may_grow:
        _check_share("--gpus-per-trial", gpus, max(node.get("GPU", 0) for node in nodes), "GPU")
        _check_share("--cpus-per-trial", cpus, max(node.get("CPU", 0) for node in nodes), "CPU")
    slots = min(samples, sum(_trials_on(node, cpus, gpus, samples) for node in nodes))
    return Resources(
        cpus=sum(node.get("CPU", 0) for node in nodes),
        gpus=sum(node.get("GPU", 0) for node in nodes),
        cpus_per_trial=cpus,
        gpus_per_trial=gpus,
        slots=max(slots, 1),
        most_at_once=samples if may_grow else max(slots, 1),
        may_grow=may_grow,
    )


def room_now(resources: Resources) -> int:
    """How many trials may have begun and not ended: in a cluster those that its nodes take now, and a
    quarter more that wait, so that it has a reason to grow. What is proposed later knows more results.
    """
    return room_on(nodes_there(), resources) if resources.may_grow else resources.most_at_once


def room_on(nodes: Sequence[Node], resources: Resources) -> int:
    """The same for these nodes of a cluster."""
    most, cpus, gpus = resources.most_at_once, resources.cpus_per_trial, resources.gpus_per_trial
    running = divide(nodes, most, cpus, gpus, may_grow=True).slots
    return min(most, running + max(1, running // 4))


def for_more_trials(nodes: Sequence[Node], resources: Resources, trials: int) -> Resources:
    """The same shares with room for so many trials: those that are asked for later may run on what so few
    as now leave idle."""
    cpus, gpus = resources.cpus_per_trial, resources.gpus_per_trial
    most = divide(nodes, trials, cpus, gpus, resources.may_grow).most_at_once
    return replace(resources, most_at_once=most)


def _cpu_share(with_gpus: Sequence[Node], gpus_per_trial: float) -> float:
    """An even share on the node that has the fewest CPUs for each trial. However few trials there are:
    more may be asked for, and would find the CPUs taken and GPUs idle.
    """
    if not (with_gpus and gpus_per_trial):
        return 1.0
    trials = [(node, int(node["GPU"] / gpus_per_trial + 1e-9)) for node in with_gpus]
    return float(min((max(1, int(node.get("CPU", 0) / count)) for node, count in trials if count), default=1))


def _trials_on(node: Node, cpus: float, gpus: float, most: int) -> int:
    """How many trials a node can take at the same time."""
    shares = ((node.get("CPU", 0), cpus), (node.get("GPU", 0), gpus))
    return min([most, *(int(total / share + 1e-9) for total, share in shares if share)])


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
        _check_share("--cpus-per-trial", cpus_per_trial, cpus, "CPU")
    if gpus_per_trial and not isinstance(gpus_per_trial, str):
        if machine.gpus is None:
            import torch  # costs seconds: only for who asks for GPUs

            _check_share("--gpus-per-trial", gpus_per_trial, torch.cuda.device_count(), "GPU")
        else:
            _check_share("--gpus-per-trial", gpus_per_trial, machine.gpus, "GPU")


def _check_share(option: str, share: float, total: float, what: str) -> None:
    if share > total:
        have = f"there are {total:g} {what}s here" if total else f"there is no {what} here"
        raise ResourceError(f"{option} {share:g}: {have}")
