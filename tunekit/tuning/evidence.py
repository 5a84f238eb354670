"""What a sampler may know: the values of a search's recipes at its epochs of comparison."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tunekit.history import History, Trial
from tunekit.space import Params
from tunekit.tuning.schedulers import values_at

_LITTLE = 1e-6  # a difference in value that no trial would show


@dataclass(frozen=True, slots=True)
class Observation:
    """What a sampler may know of one trial."""

    params: Params  # in the space
    values: Mapping[int, float]  # at each epoch of comparison that it reached; -inf where the recipe failed
    training: bool = False  # whether it is being trained, so that more values will come
    default: bool = False  # whether it is the default recipe of the space

    def failed_by(self, epoch: int) -> bool:
        """Whether the recipe failed on the way to `epoch`."""
        return any(value == -np.inf and reached <= epoch for reached, value in self.values.items())


@dataclass(frozen=True)
class Evidence:
    """What a sampler may know of one search."""

    trials: tuple[Observation, ...]
    epochs: tuple[int, ...]  # of comparison: the rungs and the last epoch, rising

    def at(self, epoch: int) -> list[Observation]:
        """The trials that have a value there."""
        return [trial for trial in self.trials if epoch in trial.values]

    def ends(self) -> Evidence:
        """Of a search that trained in full, its first and last epoch alone."""
        first, last = self.epochs[0], self.epochs[-1]
        return Evidence(self.trials, (first, last)) if self.in_full(first, last) else self

    def in_full(self, first: int, last: int) -> bool:
        """Whether at least half of the trials that came to `first` came to `last` as well."""
        return first < last and len(self.at(first)) <= 2 * len(self.at(last))

    def without_default(self) -> Evidence:
        """The same without the default recipe; warm starts stay."""
        return Evidence(tuple(trial for trial in self.trials if not trial.default), self.epochs)

    def pending(self, epoch: int) -> list[Params]:
        """Params of the trials that may still get a value there."""
        return [trial.params for trial in self.trials if trial.training and epoch not in trial.values]


@dataclass(frozen=True)
class EarlierSearch:
    """A search that came before, as the space of this one sees it."""

    name: str
    best: tuple[Params, ...]  # its best recipes, best first
    evidence: Evidence


def evidence_of(
    history: History, rungs: Sequence[int], max_epochs: int, params_of: Callable[[Trial], Params | None]
) -> Evidence:
    """The values of a history's recipes at its epochs of comparison.

    Args:
        history: of one search.
        rungs: of that search.
        max_epochs: of that search.
        params_of: a trial's params in the space that is sampled from, or None to leave it out.
    """
    trials = (
        observe(trial, params, rungs, max_epochs)
        for trial in history.recipes
        if (params := params_of(trial)) is not None
    )
    return Evidence(tuple(trials), (*rungs, max_epochs))


def observe(trial: Trial, params: Params, rungs: Sequence[int], max_epochs: int) -> Observation:
    """What a sampler may know of one trial, which has these params in the space."""
    values = {
        epoch: value
        for epoch in (*rungs, max_epochs)
        for value in values_at(epoch, [trial], rungs, max_epochs).values()
    }
    return Observation(params, values, trial.unfinished, trial.default)


def with_failures_worst(values: Sequence[float]) -> NDArray[np.float64]:
    """`values` with each -inf replaced by a little less than the worst of the others, or by 0."""
    array = np.array(values, dtype=np.float64)
    finite = array[np.isfinite(array)]
    replaced: NDArray[np.float64] = np.maximum(array, finite.min() - _LITTLE if len(finite) else 0.0)
    return replaced


def telling(values: NDArray[np.float64], count: int) -> NDArray[np.intp]:
    """Places of at most `count` values: the best, where precision counts, and an even part of the rest."""
    best_first = np.argsort(-values, kind="stable")
    half = count // 2
    stride = max(1, math.ceil((len(values) - half) / half))
    return np.append(best_first[:half], best_first[half:][::stride])
