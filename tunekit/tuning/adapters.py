"""Ray Tune's Searcher and TrialScheduler as thin doors to one policy."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from ray.tune.experiment import Trial as RayTrial
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from tunekit.tuning.assignment import Assignment
from tunekit.tuning.trial_policy import Suggestion, TrialPolicy

_log = logging.getLogger(__name__)

_ATTEMPTS = 3  # how often a trial may be started when machines fail it


class TrialDesk:
    """Hands out the trials of one search and takes their results: what both adapters share."""

    def __init__(self, policy: TrialPolicy, samples: int, assign: Callable[[Suggestion], Assignment]) -> None:
        """
        Args:
            policy: decides.
            samples: trials in the whole search, baselines among them, repeats not.
            assign: turns a suggestion into what a worker needs.
        """
        self.policy = policy
        self._samples = samples
        self._assign = assign
        self._trial_of: dict[str, int] = {}  # Ray's id of an attempt to the trial's
        self._lost_attempts: Counter[int] = Counter()

    @property
    def finished(self) -> bool:
        """Whether every trial has ended."""
        return self.policy.has_ended(self._samples)

    def hand_out(self, ray_id: str) -> Assignment | None:
        """The next trial, or None while there is none: then running ones may still bring one about."""
        if not self.policy.has_next(self._samples):
            return None
        suggestion = self.policy.next(self._samples)
        self._trial_of[ray_id] = suggestion.trial_id
        return self._assign(suggestion)

    def take(self, ray_id: str, result: dict[str, Any]) -> bool:
        """Record a result; returns whether the trial goes on."""
        trial_id = self._trial_of[ray_id]
        if "failure" in result:
            self.policy.fail(trial_id, result["epoch"], result["failure"])
            return False
        metrics = {name: float(result[name]) for name in _METRICS}
        worker = f"{result['hostname']}:{result['pid']}" if "pid" in result else None
        decision = self.policy.report(trial_id, result["epoch"], result["val_accuracy"], metrics, worker)
        return decision == "continue"

    def attempt_lost(self, ray_id: str, reason: str) -> None:
        """A worker or its machine failed: hand the trial out again, or give it up."""
        trial_id = self._trial_of[ray_id]
        self._lost_attempts[trial_id] += 1
        _log.error("trial %d, attempt %d: %s", trial_id, self._lost_attempts[trial_id], reason)
        if self._lost_attempts[trial_id] < _ATTEMPTS:
            self.policy.interrupt(trial_id)
        else:
            self.policy.lose(trial_id, reason.strip().splitlines()[-1])


_METRICS = (
    "train_loss",
    "train_accuracy",
    "val_loss",
    "learning_rate",
    "epoch_seconds",
    "images_per_second",
    "trainable_parameters",
)


class _NotSaved:
    """Ray pickles searchers and schedulers into its snapshots; ours is the history: nothing goes there."""

    def __getstate__(self) -> dict[str, Any]:
        return {}


class PolicySearcher(_NotSaved, Searcher):  # type: ignore[misc]
    """Asks the desk for the next trial."""

    def __init__(self, desk: TrialDesk) -> None:
        super().__init__()
        self._desk = desk

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        if self._desk.finished:
            return str(Searcher.FINISHED)
        assignment = self._desk.hand_out(trial_id)
        return asdict(assignment) if assignment is not None else None

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Nothing: the scheduler hears of every end."""

    def save(self, checkpoint_path: str) -> None:
        """Nothing: see `_NotSaved`."""

    def restore(self, checkpoint_path: str) -> None:
        raise AssertionError("a search resumes from its history, never from Ray's snapshot")


class PolicyScheduler(_NotSaved, FIFOScheduler):  # type: ignore[misc]
    """Brings every result to the desk, and stops the trial when the policy says so.

    A trial that pauses is stopped too, so that its worker is free; it goes on as a new trial of Ray's.
    The only door for results: Ray tells the searcher nothing of the result that stops a trial.
    """

    def __init__(self, desk: TrialDesk) -> None:
        super().__init__()
        self._desk = desk

    def on_trial_result(self, tune_controller: Any, trial: RayTrial, result: dict[str, Any]) -> str:
        goes_on = self._desk.take(trial.trial_id, result)
        return str(TrialScheduler.CONTINUE if goes_on else TrialScheduler.STOP)

    def on_trial_error(self, tune_controller: Any, trial: RayTrial) -> None:
        self._desk.attempt_lost(trial.trial_id, str(trial.get_error()))
