"""When a trial goes on, pauses or stops: rules on plain numbers, and the schedulers made of them.

    asha             stops at rungs         Li et al. 2020, ASHA, arXiv:1810.05934, section 3; the stopping
                                            rule and its cutoff as in Ray Tune's `AsyncHyperBandScheduler`
    asha-promotion   pauses at rungs        the same, algorithm 2 as it stands in the paper
    hyperband        stops, in brackets     Li et al. 2018, Hyperband, arXiv:1603.06560, algorithm 1, made
                                            asynchronous by the stopping rule of ASHA
    median           stops at any epoch     Golovin et al. 2017, Google Vizier, section 3.2
    none             trains everything in full

Larger values are better. A recipe that failed counts as -inf where it would have been compared next. At a
rung, a trial that has trained just as another stops: `Board.is_copy`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from statistics import fmean
from typing import Literal

import numpy as np

from tunekit.history import Trial
from tunekit.tuning.board import Board

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

    def board(self, worth: Callable[[Trial, int, float], float] = lambda trial, epoch, value: value) -> Board:
        """An empty board for what this scheduler decides from.

        Args:
            worth: what a trial's value at a rung counts there.
        """
        return Board(self.rungs, self.rungs_of, worth)

    def rungs_of(self, trial: int) -> tuple[int, ...]:
        """The rungs of one trial; those with the same ones are compared."""
        return self.rungs

    def decide(self, trial: Trial, epoch: int, value: float, board: Board) -> Decision:
        """How a trial goes on.

        Args:
            trial: as it was before this result; one that may end early.
            epoch: just finished, below `max_epochs`.
            value: at that epoch.
            board: as it was before this result.
        """
        return "continue"

    def promotion(self, board: Board) -> int | None:
        """The paused trial that is to go on now, if there is one."""
        return None

    def hopeless(self, board: Board, trials: int) -> list[int]:
        """The paused trials that can never go on, whatever the others will be worth.

        Args:
            board: of the search.
            trials: of the whole search, those to come among them.
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

    def decide(self, trial: Trial, epoch: int, value: float, board: Board) -> Decision:
        if epoch not in self.rungs_of(trial.id):
            return "continue"
        if board.is_copy(trial, epoch, value):
            return "stop"
        earlier = self._comparable(trial.id, board.rung(epoch).compared)
        worth = board.worth(trial, epoch, value)
        return "continue" if survives(worth, earlier, self.reduction_factor) else "stop"

    def _comparable(self, trial: int, values: Mapping[int, float]) -> list[float]:
        """Of the values at a rung, those that the trial is compared with."""
        return list(values.values())

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

    def decide(self, trial: Trial, epoch: int, value: float, board: Board) -> Decision:
        if epoch not in self.rungs:
            return "continue"
        if board.is_copy(trial, epoch, value):
            return "stop"
        worth = board.worth(trial, epoch, value)
        goes_on = board.rung(epoch).would_be_promotable(trial.id, worth, self.reduction_factor)
        return "continue" if goes_on else "pause"

    def promotion(self, board: Board) -> int | None:
        """From the highest rung that has one to promote."""
        waiting = (board.rung(rung).promotable(self.reduction_factor) for rung in reversed(self.rungs))
        return next((trial for trial in waiting if trial is not None), None)

    def hopeless(self, board: Board, trials: int) -> list[int]:
        return [
            trial for rung in self.rungs for trial in board.rung(rung).hopeless(trials, self.reduction_factor)
        ]

    def most_paused(self, trials: int) -> int:
        return sum(trials // self.reduction_factor**n for n in range(1, len(self.rungs) + 1))

    def words(self) -> str:
        if not self.rungs:
            return super().words()
        return f"pausing at {_epochs(self.rungs)}, where the best 1 in {self.reduction_factor} goes on"


class Hyperband(Asha):
    """Stops as `asha`, in brackets: one from the first rung on, one from the second, ... and one never."""

    def rungs_of(self, trial: int) -> tuple[int, ...]:
        return self.rungs[bracket_of(self.seed, trial, self._shares) :]

    def _comparable(self, trial: int, values: Mapping[int, float]) -> list[float]:
        own = self.rungs_of(trial)
        return [value for other, value in values.items() if self.rungs_of(other) == own]

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

    def decide(self, trial: Trial, epoch: int, value: float, board: Board) -> Decision:
        if epoch < self._grace:
            return "continue"
        best = max(value, trial.best.value if trial.best else value)
        averages = [
            average for other in board.others(trial) if (average := _average_to(epoch, other)) is not None
        ]
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
