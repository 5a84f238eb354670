"""Recorded learning curves, replayed on a virtual clock under another policy. Plain numbers, no training.

A policy proposes what it likes; the recorded recipe nearest to the proposal answers with its curve.
Syne Tune's simulator does the same for tabulated benchmarks, `add_surrogate(blackbox,
KNeighborsRegressor(n_neighbors=1))` (Salinas et al. 2022, "Syne Tune", AutoML-Conf, section 4); here keys
count as far as results depend on them (similarity.py).
"""

from __future__ import annotations

import heapq
import math
import time
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from tunekit.errors import SearchError
from tunekit.history import History, Trial
from tunekit.recipe import Recipe, Value
from tunekit.space import SearchSpace
from tunekit.tuning.similarity import RecordedRecipes

if TYPE_CHECKING:
    from tunekit.tuning.policy import Decision, Suggestion

Floats = NDArray[np.float64]


class Policy(Protocol):
    """What a replay asks of a policy: ours is `SearchPolicy`, a benchmark adapts others."""

    def next(self) -> Suggestion:
        """The trial to run on a free worker; a SearchError while there is none, as in a space used up."""

    def report(self, trial_id: int, epoch: int, value: float) -> Decision:
        """Take one epoch's value and decide how the trial goes on."""

    def fail(self, trial_id: int, epoch: int, reason: str) -> None:
        """Take note that the recipe cannot be trained."""


@dataclass(frozen=True)
class Record:
    """One recipe, trained in full or until it failed."""

    params: Mapping[str, Value]
    values: Sequence[float]  # validation accuracy after epoch 1, 2, ...
    seconds: Sequence[float]  # of each of these epochs
    failed_at: int | None = None  # the epoch in which the recipe failed
    reason: str | None = None


def records_of(history: History, space: SearchSpace, epochs: int) -> list[Record]:
    """The trials of a search that are known to their end: trained for `epochs`, or failed.

    A trial that was stopped early cannot be replayed beyond that, so it is none of them; nor is a
    baseline that the space cannot propose.
    """
    trials = (t for t in history.trials.values() if t.failed_at is not None or t.epoch == epochs)
    return [record for trial in trials if (record := _record_of(trial, space)) is not None]


class Curves:
    """Recorded recipes as arrays, and the nearest of them to any recipe of the space."""

    def __init__(self, space: SearchSpace, epochs: int, records: Iterable[Record]) -> None:
        """
        Args:
            space: what varies.
            epochs: of a full training.
            records: each of `epochs` values, or fewer if it failed; at least one did not.
        """
        self.space = space
        self.epochs = epochs
        self.records = tuple(records)
        self.values = _rows([record.values for record in self.records], epochs)
        """(records, epochs): validation accuracy, 0 to 1; NaN from the epoch on in which a recipe failed."""
        self.seconds = _filled(_rows([record.seconds for record in self.records], epochs))
        """(records, epochs): training and validation; an epoch that failed counts like those that did not."""
        # A recipe that failed has no last value: it counts as the worst that was trained.
        last = self.values[:, -1]
        self.final = np.where(np.isnan(last), np.nanmin(last), last)
        """(records,): the value after the last epoch."""

    def nearest(self, params: Mapping[str, Value]) -> int:
        """The index of the record that answers for `params`: the one most like it, the lowest of equals."""
        return int(self.by_likeness(params)[0])

    def by_likeness(self, params: Mapping[str, Value]) -> NDArray[np.intp]:
        """The indices of all records, the one most like `params` first."""
        return self._recipes.by_likeness(params)

    def rank_correlation(self) -> float:
        """How well the nearest record tells the last value of one that is not there, -1 to 1."""
        return self._recipes.rank_correlation()

    def value(self, record: int, epoch: int) -> float:
        """Validation accuracy of a record after an epoch, 1 for the first."""
        return float(self.values[record, epoch - 1])

    def failure(self, record: int, epoch: int) -> str | None:
        """Why a record fails in an epoch; None if it does not."""
        known = self.records[record]
        return (known.reason or "failed") if epoch == known.failed_at else None

    @cached_property
    def _recipes(self) -> RecordedRecipes:
        """Found when it is needed: it takes half a second for some hundred records."""
        return RecordedRecipes(self.space, [record.params for record in self.records], self.final)


@dataclass(frozen=True)
class Step:
    """The moment from which on another trial, or another value of the same, is the best.

    The best trial, or incumbent, is the one whose latest value is highest, the earliest of equals; one
    that failed is none.
    """

    seconds: float  # since the beginning, on the virtual clock
    epochs: int  # that all workers together had finished by then
    record: int  # index of the recorded recipe that the trial trains
    value: float  # its latest


@dataclass(frozen=True)
class Replay:
    """What a policy found in recorded curves."""

    steps: tuple[Step, ...]  # in order
    epochs: int
    seconds: float
    trials: int
    suggestion_seconds: tuple[float, ...]  # real time that each suggestion took

    def incumbent(self, epochs: float) -> int | None:
        """The incumbent's record after so many epochs; None before the first."""
        place = bisect_right(self.steps, epochs, key=lambda step: step.epochs)
        return self.steps[place - 1].record if place else None

    def first_with(self, value: float) -> Step | None:
        """The first moment at which any trial reached `value`."""
        return next((step for step in self.steps if step.value >= value), None)


def replay(
    policy: Policy, curves: Curves, workers: int, budget_epochs: int, until: float = math.inf
) -> Replay:
    """Let `policy` search in recorded curves, as fast as it can think.

    Epochs finish in the order of virtual time, each after the seconds that were recorded for it, so a
    replay is deterministic if the policy is.

    Args:
        workers: trials that run at the same time, at least 1.
        budget_epochs: finished epochs, of all trials together, after which it ends.
        until: a value with which it ends sooner.
    """
    running = _Running(policy, curves)
    idle = workers
    while running.epochs < budget_epochs and running.best < until:
        while idle and running.start_one():
            idle -= 1
        if not running.queue:
            break  # nothing runs and nothing is proposed
        if not running.finish_one():
            idle += 1
    return Replay(
        tuple(running.steps),
        running.epochs,
        running.now,
        len(running.record_of),
        tuple(running.suggestion_seconds),
    )


class _Running:
    """The trials that run, ordered by when their epoch will have finished."""

    def __init__(self, policy: Policy, curves: Curves) -> None:
        self.policy = policy
        self.curves = curves
        self.queue: list[tuple[float, int, int]] = []  # when, in which order begun, trial
        self.record_of: dict[int, int] = {}
        self.reached: dict[int, int] = {}  # a trial's last finished epoch
        self.latest: dict[int, float] = {}  # a trial's value after it
        self.now = 0.0
        self.epochs = 0
        self.steps: list[Step] = []
        self.suggestion_seconds: list[float] = []
        self._begun = 0

    @property
    def best(self) -> float:
        """The incumbent's latest value."""
        return self.steps[-1].value if self.steps else -math.inf

    def start_one(self) -> bool:
        """Ask the policy for a trial; whether there was one."""
        clock = time.perf_counter()
        try:
            suggestion = self.policy.next()
        except SearchError:
            return False
        self.suggestion_seconds.append(time.perf_counter() - clock)
        trial = suggestion.trial_id
        if not suggestion.resumes:
            self.record_of[trial], self.reached[trial] = self.curves.nearest(suggestion.params), 0
        self._begin_epoch(trial)
        return True

    def finish_one(self) -> bool:
        """Report the epoch that finishes next; whether its trial goes on."""
        self.now, _, trial = heapq.heappop(self.queue)
        self.epochs += 1
        self.reached[trial] += 1
        index, epoch = self.record_of[trial], self.reached[trial]
        if (reason := self.curves.failure(index, epoch)) is not None:
            self.latest.pop(trial, None)
            self._note_incumbent()
            self.policy.fail(trial, epoch, reason)
            return False
        self.latest[trial] = self.curves.value(index, epoch)
        self._note_incumbent()
        decision = self.policy.report(trial, epoch, self.latest[trial])
        goes_on = decision == "continue" and epoch < self.curves.epochs
        if goes_on:
            self._begin_epoch(trial)
        return goes_on

    def _note_incumbent(self) -> None:
        if self.latest:
            trial = max(self.latest, key=lambda trial: (self.latest[trial], -trial))
            best = (self.record_of[trial], self.latest[trial])
            if not self.steps or best != (self.steps[-1].record, self.steps[-1].value):
                self.steps.append(Step(self.now, self.epochs, *best))

    def _begin_epoch(self, trial: int) -> None:
        seconds = float(self.curves.seconds[self.record_of[trial], self.reached[trial]])
        heapq.heappush(self.queue, (self.now + seconds, self._begun, trial))
        self._begun += 1


def _record_of(trial: Trial, space: SearchSpace) -> Record | None:
    params = space.params_of(Recipe.from_flat(trial.params)) if trial.baseline else trial.params
    if params is None:
        return None
    values = [result.value for result in trial.results]
    seconds = [result.metrics["epoch_seconds"] for result in trial.results]
    return Record(params, values, seconds, trial.failed_at, trial.reason)


def _rows(rows: Iterable[Sequence[float]], epochs: int) -> Floats:
    return np.array([[*row, *[math.nan] * (epochs - len(row))] for row in rows])


def _filled(seconds: Floats) -> Floats:
    return np.where(np.isnan(seconds), np.nanmean(seconds), seconds)
