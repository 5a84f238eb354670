"""What every policy does with trials, whatever it decides: results are recorded once, failures end one."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from tunekit.history import Event, History, Trial
from tunekit.space import Params
from tunekit.tuning.schedulers import Decision


@dataclass(frozen=True)
class Suggestion:
    """A trial to run: a new one, or one that goes on from its last checkpoint."""

    trial_id: int
    params: Params
    resumes: bool = False


class TrialPolicy(ABC):
    """Says what to train next and how it goes on. The history is its only memory."""

    def __init__(self, history: History, to_resume: Iterable[int]) -> None:
        """
        Args:
            history: what happened before; events are appended to it.
            to_resume: trials in it that go on before anything else.
        """
        self.history = history
        self._to_resume = deque(to_resume)
        self._to_stop: dict[int, str] = {}  # trials in training that are to end, and why

    @abstractmethod
    def has_next(self, samples: int) -> bool:
        """Whether there is a trial to run now, in a search of `samples` trials."""

    @abstractmethod
    def has_ended(self, samples: int) -> bool:
        """Whether no trial runs and none can follow."""

    @abstractmethod
    def next(self, samples: int) -> Suggestion:
        """The trial to run next; an interrupted one first."""

    @abstractmethod
    def _decide(self, trial: Trial, epoch: int, value: float) -> tuple[Decision, Event | None]:
        """How a trial goes on after an epoch that is not recorded yet, and the event that says so."""

    def report(
        self,
        trial_id: int,
        epoch: int,
        value: float,
        metrics: Mapping[str, float] | None = None,
        worker: str | None = None,
    ) -> Decision:
        """Record one finished epoch and decide how the trial goes on.

        Args:
            trial_id: from `next`.
            epoch: 1 is the first. An epoch that the history has already (trained again after a
                crash) changes nothing.
            value: larger is better; a value that is not finite fails the trial.
            metrics: kept in the history beside the value.
            worker: who trained the epoch, likewise.
        Returns:
            `stop` at the last epoch, on failure and when the policy says so; `pause` if the trial may go
            on later, as a suggestion of `next`; else `continue`.
        """
        trial = self.history.trials[trial_id]
        if epoch <= trial.epoch:
            return "continue"
        if not math.isfinite(value):
            self.fail(trial_id, epoch, f"diverged: value is {value}")
            return "stop"
        result = Event("result", trial_id, epoch=epoch, value=value, metrics=metrics, worker=worker)
        decision, end = self._decide(trial, epoch, value)
        if trial_id in self._to_stop and decision != "stop":
            decision, end = "stop", Event("stop", trial_id, epoch=epoch, reason=self._to_stop.pop(trial_id))
        # Together, so that a crash never leaves a result whose decision nobody knows.
        self.history.append(result, *([end] if end else []))
        return decision

    def fail(self, trial_id: int, epoch: int, reason: str) -> None:
        """The recipe cannot be trained: it counts as the worst at its rung, and the sampler learns."""
        self.history.append(Event("fail", trial_id, epoch=epoch, reason=reason))

    def lose(self, trial_id: int, reason: str) -> None:
        """The machine failed the trial for good: nobody holds it against the recipe."""
        self.history.append(Event("lose", trial_id, reason=reason))

    def interrupt(self, trial_id: int) -> None:
        """The machine failed the trial once: it is suggested again and goes on from its checkpoint."""
        if trial_id in self._to_stop:
            epoch = self.history.trials[trial_id].epoch
            self.history.append(Event("stop", trial_id, epoch=epoch, reason=self._to_stop.pop(trial_id)))
        else:
            self._to_resume.append(trial_id)

    def in_training(self, trial_id: int) -> bool:
        """Whether a worker trains the trial now; one that waits to go on is not."""
        return self.history.trials[trial_id].unfinished and trial_id not in self._to_resume

    def stop_early(self, trial_id: int, reason: str) -> None:
        """A person ends a trial that has not ended: after the epoch that it is in, or now if it waits.

        Nothing is held against its recipe: it keeps the values that it has.
        """
        if self.in_training(trial_id):
            self._to_stop[trial_id] = reason
            return
        if trial_id in self._to_resume:
            self._to_resume.remove(trial_id)
        epoch = self.history.trials[trial_id].epoch
        self.history.append(Event("stop", trial_id, epoch=epoch, reason=reason))

    def _resume(self, trial_id: int) -> Suggestion:
        self.history.append(Event("resume", trial_id))
        return Suggestion(trial_id, dict(self.history.trials[trial_id].params), resumes=True)
