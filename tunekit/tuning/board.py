"""Where the trials of a search stand, kept up to date event by event: what schedulers decide from.

Nothing here takes longer the more trials have ended, but for a logarithm, and `Rung.compared`, which lists
them.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence

from sortedcontainers import SortedList

from tunekit.history import Event, Trial

_TELLING = 3  # epochs that are no longer equal by chance


class Rung:
    """The trials that have come to one epoch of comparison, and those of them that wait there."""

    def __init__(self) -> None:
        self._values: dict[int, float] = {}
        self._first_with: dict[bytes, int] = {}  # the trial that first came here with a learning curve
        self._ranked = SortedList()  # (-value, trial): best first, the earliest of equals; no copies
        self._waiting = SortedList()  # likewise
        self._passed_by = 0  # trials that ended before they came here, or as copies

    @property
    def values(self) -> Mapping[int, float]:
        """Of every trial that came here, wherever it is now, by trial; -inf for a recipe that failed on
        its way."""
        return self._values

    @property
    def compared(self) -> dict[int, float]:
        """Of the values, those that others are compared with: not of copies."""
        return {trial: -negative for negative, trial in self._ranked}

    def arrive(self, trial: int, value: float, curve: bytes | None = None) -> None:
        """Take the value of a trial; a second one replaces the first.

        Args:
            curve: all that was seen of it up to here; a trial that has the one of an earlier trial is a copy.
        """
        if trial in self._values:
            self._ranked.discard((-self._values[trial], trial))
        self._values[trial] = value
        if curve is None or self._first_with.setdefault(curve, trial) == trial:
            self._ranked.add((-value, trial))

    def is_copy(self, trial: int, curve: bytes | None) -> bool:
        """Whether another trial came here before with just this learning curve."""
        return curve is not None and self._first_with.get(curve, trial) != trial

    def wait(self, trial: int) -> None:
        """The trial pauses here, if it came here and is no copy."""
        key = (-self._values.get(trial, math.inf), trial)
        if key in self._ranked:
            self._waiting.add(key)

    def leave(self, trial: int) -> None:
        """The trial goes on or ends."""
        if trial in self._values:
            self._waiting.discard((-self._values[trial], trial))

    def end(self, trial: int) -> None:
        """The trial trains no more, anywhere."""
        self.leave(trial)
        self._passed_by += (-self._values.get(trial, math.inf), trial) not in self._ranked

    def promotable(self, factor: int) -> int | None:
        """The best waiting trial among the top floor(n / factor) of all n; the earliest of equals."""
        if self._waiting and self._ranked.index(self._waiting[0]) < len(self._ranked) // factor:
            return int(self._waiting[0][1])
        return None

    def would_be_promotable(self, trial: int, value: float, factor: int) -> bool:
        """Whether it would be this trial's turn if it waited here with this value."""
        if self._waiting and self._waiting[0] < (-value, trial):
            return False
        place: int = self._ranked.bisect_left((-value, trial))
        return place < (len(self._ranked) + 1) // factor

    def hopeless(self, trials: int, factor: int) -> list[int]:
        """The waiting trials, worst first, that are behind the last place to be promoted even if all of
        `trials` that can still come here do."""
        places = (trials - self._passed_by) // factor
        found = []
        for key in reversed(self._waiting):
            if self._ranked.index(key) < places:
                break
            found.append(int(key[1]))
        return found


class Board:
    """Every rung of a search; repeats of recipes stay out of it."""

    def __init__(
        self,
        rungs: Sequence[int],
        rungs_of: Callable[[int], Sequence[int]],
        worth: Callable[[Trial, int, float], float],
    ) -> None:
        """
        Args:
            rungs: epochs of comparison below the last one, rising.
            rungs_of: those of them at which one trial is compared.
            worth: what a trial's value at a rung counts there.
        """
        self.worth = worth
        self.trials: dict[int, Trial] = {}
        self._rungs = {epoch: Rung() for epoch in rungs}
        self._rungs_of = rungs_of

    def rung(self, epoch: int) -> Rung:
        """The rung at `epoch`, which must be one."""
        return self._rungs[epoch]

    def is_copy(self, trial: Trial, epoch: int, value: float) -> bool:
        """Whether the trial, with this value at a rung, trains just as another one that came there before.

        It teaches nothing, and would take the place of a trial that does. Where recorded curves are replayed
        many recipes are given the same one; of trainings with seeds of their own no two are alike.
        """
        return self._rungs[epoch].is_copy(trial.id, _curve(trial, epoch, value))

    def others(self, trial: Trial) -> Iterator[Trial]:
        """Every trial but this one."""
        return (other for other in self.trials.values() if other is not trial)

    def see(self, event: Event, trial: Trial) -> None:
        """Take an event of a trial that is no repeat, in the order of the history."""
        self.trials[trial.id] = trial
        if event.kind == "result":
            assert event.epoch is not None and event.value is not None
            if event.epoch in self._rungs:
                worth = self.worth(trial, event.epoch, event.value)
                curve = _curve(trial, event.epoch, event.value)
                self._rungs[event.epoch].arrive(trial.id, worth, curve)
        elif event.kind == "pause":
            if event.epoch in self._rungs:
                self._rungs[event.epoch].wait(trial.id)
        elif event.kind == "resume":
            for rung in self._rungs.values():
                rung.leave(trial.id)
        elif event.kind != "suggest":
            self._end(event, trial.id)

    def _end(self, event: Event, trial: int) -> None:
        if event.kind == "fail":
            failed_at = event.epoch or 0
            missed = next((rung for rung in self._rungs_of(trial) if rung >= failed_at), None)
            if missed is not None:
                self._rungs[missed].arrive(trial, -math.inf)
        for rung in self._rungs.values():
            rung.end(trial)


def _curve(trial: Trial, epoch: int, value: float) -> bytes | None:
    """All that is known of a trial with `value` at `epoch`, to the last digit; None if that is too little.

    Accuracies are fractions of some hundred images: a few of them can be equal by chance, losses can not.
    """
    before = [result for result in trial.results if result.epoch < epoch]
    if len(before) + 1 < _TELLING:
        return None
    losses = [result.metrics.get("val_loss", 0.0) for result in before]
    return array("d", [*losses, *(result.value for result in before), value]).tobytes()
