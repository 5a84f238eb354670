"""The trial as Ray Tune sees it."""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING, Any

from ray.tune import Trainable

from tunekit.tuning.assignment import Assignment

if TYPE_CHECKING:
    from tunekit.tuning.trial_run import TrialRun


class RecipeTrainable(Trainable):  # type: ignore[misc]
    """One `TrialRun` at a time, one epoch a step; a reused process holds nothing of the trial before.

    The run is built in the first step and not in `setup` or `reset_config`: there Ray would count an
    error as the failure of a whole actor, and after a reset not even retry it. Torch is imported there
    too: the driver, which needs this class to hand it to Ray, starts seconds sooner without it.
    """

    def setup(self, config: dict[str, Any]) -> None:
        self._assignment = Assignment(**config)
        self._run: TrialRun | None = None

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        from tunekit.training.memory import release_memory

        self.cleanup()
        release_memory()
        gc.freeze()  # what is left are libraries: to look through them would take 0.2 s each time
        self.setup(new_config)
        return True

    def step(self) -> dict[str, Any]:
        from tunekit.tuning.trial_run import TrialRun

        if self._run is None:
            self._run = TrialRun(self._assignment)
        return self._run.step()

    def cleanup(self) -> None:
        if self._run is not None:
            self._run.close()
        self._run = None
