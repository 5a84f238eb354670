"""Trials that are to be trained, whoever wants them: what a search and a retraining have in common."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from tunekit.history import History
from tunekit.recipe import Recipe
from tunekit.tuning.assignment import Assignment
from tunekit.tuning.estimate import Estimate
from tunekit.tuning.policy import Suggestion
from tunekit.tuning.progress import Watched
from tunekit.tuning.ray_session import Resources
from tunekit.tuning.schedulers import Decision


class TrialPolicy(Protocol):
    """Says what to train next and how it goes on; `SearchPolicy` documents the methods."""

    @property
    def history(self) -> History: ...
    def has_next(self, samples: int) -> bool: ...
    def has_ended(self, samples: int) -> bool: ...
    def next(self, samples: int) -> Suggestion: ...
    def report(
        self,
        trial_id: int,
        epoch: int,
        value: float,
        metrics: Mapping[str, float] | None = None,
        worker: str | None = None,
    ) -> Decision: ...
    def fail(self, trial_id: int, epoch: int, reason: str) -> None: ...
    def lose(self, trial_id: int, reason: str) -> None: ...
    def interrupt(self, trial_id: int) -> None: ...


class Work(Watched, Protocol):
    """What `train_on_ray` is given."""

    @property
    def policy(self) -> TrialPolicy:
        """Decides."""

    def measured(self) -> Sequence[Recipe]:
        """The recipes whose step is timed for the estimate; each is taken to be as likely."""

    def assignment(self, suggestion: Suggestion, resources: Resources) -> Assignment:
        """What a worker needs."""

    def plan(self, resources: Resources) -> str:
        """What will be done, on one line."""

    def estimate(self, seconds_per_image: list[float], resources: Resources) -> Estimate:
        """How long what is left will take."""
