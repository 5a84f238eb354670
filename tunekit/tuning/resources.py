"""What a Ray has is divided among trials: how much each gets, and how many there may be at a time."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from tunekit.errors import ResourceError

_LOOK_EVERY = 1.0  # seconds between two looks at what nodes there are
Node = Mapping[str, float]  # what a node has, by Ray's names: "CPU", "GPU"


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
        check_share("--gpus-per-trial", gpus, max(node.get("GPU", 0) for node in nodes), "GPU")
        check_share("--cpus-per-trial", cpus, max(node.get("CPU", 0) for node in nodes), "CPU")
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


class Room:
    """How many trials there may be. Nodes of a cluster come and go: it looks once a second at most."""

    def __init__(self, resources: Resources, look: Callable[[], Sequence[Node]]) -> None:
        """
        Args:
            resources: of a trial.
            look: gives the nodes that are there.
        """
        self._resources = resources
        self._look = look
        self._slots, self._looked = 0, -math.inf

    @property
    def slots(self) -> int:
        """How many trials can train at the same time."""
        if not self._resources.may_grow:
            return self._resources.most_at_once
        if time.monotonic() - self._looked > _LOOK_EVERY:
            shares = self._resources.cpus_per_trial, self._resources.gpus_per_trial
            most = self._resources.most_at_once
            self._slots = divide(self._look(), most, *shares, may_grow=True).slots
            self._looked = time.monotonic()
        return self._slots

    @property
    def trials(self) -> int:
        """How many may have begun and not ended: in a cluster a quarter more, which wait, so that it has a
        reason to grow. What is proposed later knows more results.
        """
        waiting = max(1, self.slots // 4) if self._resources.may_grow else 0
        return min(self._resources.most_at_once, self.slots + waiting)


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


def check_share(option: str, share: float, total: float, what: str) -> None:
    """Check that what an option asks for is there.

    Raises:
        ResourceError: naming the option, what came and what there is.
    """
    if share > total:
        have = f"there are {total:g} {what}s here" if total else f"there is no {what} here"
        raise ResourceError(f"{option} {share:g}: {have}")
