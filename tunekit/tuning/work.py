"""Trials that are to be trained, whoever wants them: what a search and a retraining have in common."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from tunekit.recipe import Recipe
from tunekit.tuning.assignment import Assignment
from tunekit.tuning.estimate import Estimate
from tunekit.tuning.progress import Watched
from tunekit.tuning.ray_session import Resources
from tunekit.tuning.trial_policy import Suggestion, TrialPolicy


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
