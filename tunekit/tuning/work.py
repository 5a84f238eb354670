"""Trials that are to be trained, whoever wants them: what a search and a retraining have in common."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from tunekit.history import Trial
from tunekit.recipe import Recipe
from tunekit.tuning.assignment import Assignment
from tunekit.tuning.estimate import DiskNeed, Estimate
from tunekit.tuning.progress import Watched
from tunekit.tuning.resources import Resources
from tunekit.tuning.trial_policy import Suggestion, TrialPolicy


class Work(Watched, Protocol):
    """What `train_on_ray` is given."""

    @property
    def policy(self) -> TrialPolicy:
        """Decides."""

    def measured(self) -> Sequence[Recipe]:
        """The recipes whose step is timed for the estimate; each is taken to be as likely."""

    def heaviest(self) -> Sequence[Recipe]:
        """The recipes that may take most memory: one for each network."""

    def assignment(self, suggestion: Suggestion, resources: Resources) -> Assignment:
        """What a worker needs."""

    def problem(self, trial: Trial) -> str | None:
        """Is shown each trial that got an epoch further or ended; says in a line if going on is of no use."""

    def idle(self) -> None:
        """Is told, any number of times, that nothing more can begin while the last trials train."""

    def plan(self, resources: Resources) -> str:
        """What will be done, on one line."""

    @property
    def disk_budget(self) -> int | None:
        """Bytes that checkpoints may take; None for as many as there are."""

    def disk_need(self, weights: list[int], resources: Resources) -> DiskNeed:
        """Bytes that checkpoints will take, from those of each network's weights."""

    def estimate(self, seconds_per_image: list[float], resources: Resources) -> Estimate:
        """How long what is left will take."""
