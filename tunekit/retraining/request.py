"""What a person wants of a retraining, and how the same wish is known again."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass

from tunekit.errors import SearchError
from tunekit.retraining.candidates import Candidate
from tunekit.tuning.assignment import GpuShare
from tunekit.tuning.settings import check_wanted


@dataclass(frozen=True)
class Request:
    """The options of `tunekit retrain-best`."""

    top_k: int = 3
    seeds: int = 5
    epochs: int | None = None  # of each training; None for the search's, or a baseline's own
    refit: bool = False  # train the winner again on training and validation images
    ensemble: bool = False  # hand over an ensemble of all that was trained
    calibrate: bool = False  # scale the network's temperature on the validation images
    cpus_per_trial: float | None = None  # None for the search's
    gpus_per_trial: GpuShare | None = None

    def check(self) -> None:
        """Check what no other room checks.

        Raises:
            SearchError: naming the option, its rule and what came.
        """
        for option, value, high in (
            ("--top-k", self.top_k, 1000),
            ("--seeds", self.seeds, 1000),
            ("--epochs", 1 if self.epochs is None else self.epochs, 10**6),
        ):
            if not 1 <= value <= high:
                raise SearchError(f"{option} must be 1 to {high:,}, but got {value}")
        check_wanted(self.cpus_per_trial, self.gpus_per_trial)
        for option, given in (("--ensemble", self.ensemble), ("--calibrate", self.calibrate)):
            if given and self.refit:
                raise SearchError(
                    f"{option} needs validation images to choose by: not with --refit-on train+val"
                )

    def key(self, candidates: Sequence[Candidate]) -> str:
        """16 hex digits: the same for requests that lead to the same networks."""
        trained = [[candidate.recipe.to_flat(), candidate.epochs] for candidate in candidates]
        # Sorted, because a search that went on may rank the same recipes otherwise.
        recipes = sorted(json.dumps(recipe, sort_keys=True) for recipe in trained)
        wish = [recipes, self.seeds, self.refit, self.ensemble, self.calibrate]
        return hashlib.sha256(json.dumps(wish).encode()).hexdigest()[:16]
