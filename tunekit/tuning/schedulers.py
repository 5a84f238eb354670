"""When a trial goes on, pauses or stops: rules on plain numbers, and the schedulers made of them.

    asha             stops at rungs         Li et al. 2020, ASHA, arXiv:1810.05934, section 3; the stopping
                                            rule and its cutoff as in Ray Tune's `AsyncHyperBandScheduler`
    asha-promotion   pauses at rungs        the same, algorithm 2 as it stands in the paper
    hyperband        stops, in brackets     Li et al. 2018, Hyperband, arXiv:1603.06560, algorithm 1, made
                                            asynchronous by the stopping rule of ASHA
    median           stops at any epoch     Golovin et al. 2017, Google Vizier, section 3.2
    none             trains everything in full

Larger values are better. A recipe that failed counts as -inf where it would have been compared next.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from statistics import fmean
from typing import Literal

import numpy as np

from tunekit.history import Trial

Decision = Literal["continue", "pause", "stop"]

_ENOUGH_FOR_A_MEDIAN = 5  # other trials; with fewer a median says little
_BRACKET_DRAW = 1  # keeps these draws apart from the sampler's, which also begin with (seed, trial)


def rung_epochs(max_epochs: int, grace_period: int, reduction_factor: int) -> tuple[int, ...]:
    """The epochs at which trials are compared: grace, grace * factor, ... below `max_epochs`."""
    rungs = []
    epoch = grace_period
    while epoch < max_epochs:
        rungs.append(epoch)
        epoch *= reduction_factor
    return tuple(rungs)


def survives(value: float, earlier: Sequence[float], reduction_factor: int) -> bool:
    """Whether a trial goes on at a rung of the stopping variant.

    Args:
        value: its value there.
        earlier: the values that others had there before it; -inf for a recipe that failed on its way.
        reduction_factor: about one in so many goes on.
    Returns:
        True if `value` reaches the (1 - 1/factor) quantile of `earlier`, or is the first.
    """
    if not earlier:
        return True
    # A quantile between -inf and a number is not a number: failures count as the worst that was seen.
    worst = min([v for v in earlier if v > -np.inf], default=value)
    finite = np.maximum(earlier, min(worst, value))
    return bool(value >= np.quantile(finite, 1 - 1 / reduction_factor))


def promotable(values: Mapping[int, float], paused: Collection[int], reduction_factor: int) -> int | None:
    """The trial that a rung of the promotion variant sends on, if there is one.

    Args:
        values: of every trial that reached the rung, wherever it is now, by trial; -inf for a recipe
            that failed on its way.
        paused: the trials that wait at this rung: those of `values` that were not promoted yet.
        reduction_factor: one in so many is promoted.
    Returns:
        The best waiting trial among the top floor(n / factor) of all n; the earliest of equals.
    """
    top = ranked(values)[: len(values) // reduction_factor]
    return next((trial for trial in top if trial in paused), None)


def ranked(values: Mapping[int, float]) -> list[int]:
    """The trials of a rung, best first; the earliest of equals."""
    return sorted(values, key=lambda trial: (-values[trial], trial))


def bracket_shares(brackets: int, reduction_factor: int) -> tuple[float, ...]:
    """The share of trials in each bracket, the one that stops earliest first; they add up to 1.

    In Hyperband a bracket that reduces s times begins with trials in proportion to factor**s / (s + 1),
    so that each bracket has about the same budget.
    """
    weights = [reduction_factor**s / (s + 1) for s in reversed(range(brackets))]
    return tuple(weight / sum(weights) for weight in weights)


@cache
def bracket_of(seed: int, trial: int, shares: tuple[float, ...]) -> int:
    """The bracket of a trial, drawn by `shares`: the same for the same seed and trial, whatever happens."""
    return int(np.random.default_rng((seed, trial, _BRACKET_DRAW)).choice(len(shares), p=shares))


def below_median(best: float, averages: Sequence[float]) -> bool:
    """Whether a trial is to stop by the median rule.

    Args:
        best: its highest value so far.
        averages: of other trials, each the mean of its values up to the same epoch.
    """
    return len(averages) >= _ENOUGH_FOR_A_MEDIAN and best < float(np.median(averages))


def values_at(rung: int, trials: Iterable[Trial], rungs: Sequence[int], max_epochs: int) -> dict[int, float]:
    """The value of each trial at a rung; -inf for a recipe that failed on its way to it.

    Args:
        rung: one of `rungs`, or `max_epochs`.
        trials: those to compare.
        rungs: the epochs at which they are compared, rising.
        max_epochs: the end of a full training.
    """
    values = {}
    for trial in trials:
        if trial.failed_at is not None and _next(rungs, trial.failed_at, max_epochs) == rung:
            values[trial.id] = -np.inf
        elif (value := trial.value_at(rung)) is not None:
            values[trial.id] = value
    return values


@dataclass(frozen=True)
class Scheduler:
    """`none`: every trial trains to its end. The others say what they do differently."""

    max_epochs: int  # of a full training
    rungs: tuple[int, ...]  # epochs at which trials can be compared, rising, below `max_epochs`
    reduction_factor: int
    seed: int

    def decide(self, trial: Trial, epoch: int, value: float, others: Iterable[Trial]) -> Decision:
        """How a trial goes on.

        Args:
            trial: as it was before this result; one that may end early.
            epoch: just finished, below `max_epochs`.
            value: at that epoch.
            others: every other trial; no recipe twice.
        """
        return "continue"

    def promotion(self, trials: Sequence[Trial]) -> int | None:
        """The paused trial that is to go on now, if there is one."""
        return None

    def hopeless(self, trials: Sequence[Trial], to_come: int) -> list[Trial]:
        """The paused trials that can never go on, whatever the others will be worth.

        Args:
            trials: all of the search; no recipe twice.
            to_come: how many more may still be proposed.
        """
        return []

    def most_paused(self, trials: int) -> int:
        """About how many of so many trials wait at the same time, at most."""
        return 0

    def next_comparison(self, trial: Trial) -> int:
        """The next epoch at which the trial may be stopped or paused, or its last."""
        return self.max_epochs

    def survivors(self) -> tuple[tuple[int, float], ...]:
        """(epoch, share): after that epoch about so large a share of the trials still trains."""
        return ()

    def words(self) -> str:
        """What happens to trials, for the plan of a search."""
        return "no early stopping"


class Asha(Scheduler):
    """Stops a trial at a rung unless it is among the best there so far."""

    def decide(self, trial: Trial, epoch: int, value: float, others: Iterable[Trial]) -> Decision:
        rungs = self.rungs_of(trial.id)
        if epoch not in rungs:
            return "continue"
        peers = (other for other in others if self.rungs_of(other.id) == rungs)
        earlier = values_at(epoch, peers, rungs, self.max_epochs)
        return "continue" if survives(value, list(earlier.values()), self.reduction_factor) else "stop"

    def rungs_of(self, trial: int) -> tuple[int, ...]:
        """The rungs of one trial; those with the same ones are compared."""
        return self.rungs

    def next_comparison(self, trial: Trial) -> int:
        return _next(self.rungs_of(trial.id), trial.epoch + 1, self.max_epochs)

    def survivors(self) -> tuple[tuple[int, float], ...]:
        return tuple((rung, 1 / self.reduction_factor**n) for n, rung in enumerate(self.rungs, start=1))

    def words(self) -> str:
        return f"early stopping at {_epochs(self.rungs)}" if self.rungs else super().words()


class AshaPromotion(Asha):
    """Pauses every trial at a rung, and sends the best of the rung on.

    A trial that would be sent on at once does not pause: the same trials train, and no worker starts anew.
    """

    def decide(self, trial: Trial, epoch: int, value: float, others: Iterable[Trial]) -> Decision:
        if epoch not in self.rungs:
            return "continue"
        everyone = list(others)
        values = {**values_at(epoch, everyone, self.rungs, self.max_epochs), trial.id: value}
        waiting = {*self._paused_at(epoch, everyone), trial.id}
        return "continue" if promotable(values, waiting, self.reduction_factor) == trial.id else "pause"

    def promotion(self, trials: Sequence[Trial]) -> int | None:
        """From the highest rung that has one to promote."""
        for rung in reversed(self.rungs):
            values = values_at(rung, trials, self.rungs, self.max_epochs)
            found = promotable(values, self._paused_at(rung, trials), self.reduction_factor)
            if found is not None:
                return found
        return None

    def hopeless(self, trials: Sequence[Trial], to_come: int) -> list[Trial]:
        """Those behind the last place that is promoted even if all that can still reach the rung do."""
        found: list[Trial] = []
        for rung in self.rungs:
            values = values_at(rung, trials, self.rungs, self.max_epochs)
            over = sum(trial.over and trial.id not in values for trial in trials)
            places = (len(trials) + to_come - over) // self.reduction_factor
            behind = set(ranked(values)[places:]) & self._paused_at(rung, trials)
            found += [trial for trial in trials if trial.id in behind]
        return found

    def most_paused(self, trials: int) -> int:
        return sum(trials // self.reduction_factor**n for n in range(1, len(self.rungs) + 1))

    def _paused_at(self, rung: int, trials: Iterable[Trial]) -> set[int]:
        return {trial.id for trial in trials if trial.status == "paused" and trial.rung == rung}

    def words(self) -> str:
        if not self.rungs:
            return super().words()
        return f"pausing at {_epochs(self.rungs)}, where the best 1 in {self.reduction_factor} goes on"


class Hyperband(Asha):
    """Stops as `asha`, in brackets: one from the first rung on, one from the second, ... and one never."""

    def rungs_of(self, trial: int) -> tuple[int, ...]:
        return self.rungs[bracket_of(self.seed, trial, self._shares) :]

    @property
    def _shares(self) -> tuple[float, ...]:
        return bracket_shares(len(self.rungs) + 1, self.reduction_factor)

    def survivors(self) -> tuple[tuple[int, float], ...]:
        """After so many rungs, the sum over the brackets."""
        left = [
            sum(
                share / self.reduction_factor ** max(place - first, 0)
                for first, share in enumerate(self._shares)
            )
            for place in range(1, len(self.rungs) + 1)
        ]
        return tuple(zip(self.rungs, left, strict=True))

    def words(self) -> str:
        if not self.rungs:
            return super().words()
        begins = [*(f"from epoch {rung} on" for rung in self.rungs), "never"]
        shares = (f"{begin} ({share:.0%})" for begin, share in zip(begins, self._shares, strict=True))
        return f"early stopping in brackets of the trials: {', '.join(shares)}"


class MedianRule(Scheduler):
    """Stops a trial whose best value is below the median of the others' running averages."""

    @property
    def _grace(self) -> int:
        return self.rungs[0] if self.rungs else self.max_epochs

    def decide(self, trial: Trial, epoch: int, value: float, others: Iterable[Trial]) -> Decision:
        if epoch < self._grace:
            return "continue"
        best = max(value, trial.best.value if trial.best else value)
        averages = [average for other in others if (average := _average_to(epoch, other)) is not None]
        return "stop" if below_median(best, averages) else "continue"

    def next_comparison(self, trial: Trial) -> int:
        return min(max(self._grace, trial.epoch + 1), self.max_epochs)

    def survivors(self) -> tuple[tuple[int, float], ...]:
        # As on 250 recorded curves of small residual networks: half at first, then who is left competes on.
        shares = ((self._grace, 1 / 2), (2 * self._grace, 1 / 4))
        return tuple((epoch, share) for epoch, share in shares if epoch < self.max_epochs)

    def words(self) -> str:
        if not self.rungs:
            return super().words()
        return f"early stopping from epoch {self._grace} on, of what is below the median"


_BY_NAME: dict[str, type[Scheduler]] = {
    "asha-promotion": AshaPromotion,
    "asha": Asha,
    "hyperband": Hyperband,
    "median": MedianRule,
    "none": Scheduler,
}
SCHEDULERS = tuple(_BY_NAME)


def make_scheduler(
    name: str, max_epochs: int, grace_period: int, reduction_factor: int, seed: int
) -> Scheduler:
    """The scheduler called `name`, one of `SCHEDULERS`."""
    rungs = rung_epochs(max_epochs, grace_period, reduction_factor)
    return _BY_NAME[name](max_epochs, rungs, reduction_factor, seed)


def _next(rungs: Sequence[int], epoch: int, max_epochs: int) -> int:
    """The first rung that is not before `epoch`, or the end."""
    return next((rung for rung in rungs if rung >= epoch), max_epochs)


def _average_to(epoch: int, trial: Trial) -> float | None:
    """The mean value up to `epoch`; -inf if the recipe failed before; None if the trial is not there yet."""
    if trial.failed_at is not None and trial.failed_at <= epoch:
        return -np.inf
    if trial.epoch < epoch:
        return None
    return fmean(result.value for result in trial.results if result.epoch <= epoch)


def _epochs(rungs: Sequence[int]) -> str:
    """`epoch 3`, `epochs 3, 9`."""
    return f"epoch{'s' * (len(rungs) > 1)} {', '.join(map(str, rungs))}"
