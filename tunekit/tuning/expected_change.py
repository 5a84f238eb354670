"""What a trial is worth where trials are compared: its value, and how much better it is expected to become.

Recipes that augment, or large networks, begin slowly and end well: at an early epoch they lose against those
that will be worse. How recipes change from one epoch to another carries over between data sets, so earlier
searches that trained their trials in full, such as those of a space's prior, say what to expect. Where they
are wrong in this search they are believed less and less. Figures: results/README.md.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

import numpy as np

from tunekit.history import Event, Trial
from tunekit.space import Params, SearchSpace
from tunekit.tuning.encoding import SpaceEncoding
from tunekit.tuning.evidence import Evidence
from tunekit.tuning.rung_model import RungModel, Scale, slope, taught_by

_ENOUGH = 8  # values at an epoch that give it a scale
_RECENT = 300  # trials of an epoch that are looked at
_AS_LONG = 1.5  # the factor within which two numbers of epochs are about the same


class ExpectedChange:
    """Of one search, kept up to date event by event: every answer follows from the events before it."""

    def __init__(
        self,
        space: SearchSpace,
        searches: Sequence[Evidence],
        max_epochs: int,
        params_of: Callable[[Trial], Params | None],
    ) -> None:
        """
        Args:
            space: what varies.
            searches: that came before; those that did not train half of their trials in full say nothing.
            max_epochs: of a full training of this search.
            params_of: a trial's params in the space, None if it lies outside.
        """
        self._space, self._encoding = space, SpaceEncoding(space)
        self._searches = searches
        self._max_epochs = max_epochs
        self._params_of = params_of
        self._models: dict[int, list[RungModel]] = {}
        self._values: dict[int, deque[float]] = {}  # at an epoch, of the latest trials
        self._changes: dict[tuple[int, int], float] = {}  # of a trial, from an epoch on: what was expected
        self._pairs: dict[int, deque[tuple[float, float, float]]] = {}  # expected, value there and at the end

    def worth(self, trial: Trial, epoch: int, value: float) -> float:
        """The value that a trial has at an epoch, and what is expected to be added to it until the end.

        On the scale of the values there: a value that stands for what the trial will be among the others.
        """
        values = self._values.get(epoch, ())
        if len(values) < _ENOUGH or not (change := self._expected(trial, epoch)):
            return value
        scale = Scale.of(np.array(values))
        scaled = float(scale(np.array(value))) + self._belief(epoch) * change
        return scale.value(scaled)

    def see(self, event: Event, trial: Trial) -> None:
        """Take a result of a trial, in the order of the history."""
        if event.kind != "result" or not self._searches:
            return
        assert event.epoch is not None and event.value is not None
        self._values.setdefault(event.epoch, deque(maxlen=_RECENT)).append(event.value)
        if event.epoch != self._max_epochs:
            return
        for epoch in self._models:
            before, change = trial.value_at(epoch), self._expected(trial, epoch)
            if before is not None and change:
                pair = (change, before, event.value)
                self._pairs.setdefault(epoch, deque(maxlen=_RECENT)).append(pair)

    def _expected(self, trial: Trial, epoch: int) -> float:
        """From the epoch to the end, in widths of the scale there; 0 if nobody knows."""
        if epoch not in self._models:
            self._models[epoch] = self._taught(epoch)
        key = (trial.id, epoch)
        if key not in self._changes:
            params = self._params_of(trial) if self._models[epoch] else None
            self._changes[key] = 0.0 if params is None else self._mean_change(params, epoch)
        return self._changes[key]

    def _mean_change(self, params: Params, epoch: int) -> float:
        row = self._encoding.encode_all([params])
        return float(np.mean([model.change(row) for model in self._models[epoch]]))

    def _belief(self, epoch: int) -> float:
        """How much of what was expected came true in this search; 1 until much was seen, never negative."""
        pairs = self._pairs.get(epoch, ())
        if len(pairs) < _ENOUGH:
            return 1.0
        expected, before, at_the_end = np.array(pairs).T
        return slope(expected, Scale.of(at_the_end)(at_the_end) - Scale.of(before)(before))

    def _taught(self, epoch: int) -> list[RungModel]:
        """A model of each search that knows both ends, about."""
        models: list[RungModel] = []
        for search in self._searches:
            first, last = (_nearest(search.epochs, wanted) for wanted in (epoch, self._max_epochs))
            if first is not None and last is not None and search.in_full(first, last):
                model = taught_by(self._space, [Evidence(search.trials, (first, last))])
                models += [model] if model else []
        return models


def _nearest(epochs: Sequence[int], wanted: int) -> int | None:
    """The one of `epochs` that is about `wanted`; None if there is none."""
    near = [epoch for epoch in epochs if max(epoch, wanted) <= _AS_LONG * min(epoch, wanted)]
    return min(near, key=lambda epoch: abs(epoch - wanted), default=None)
