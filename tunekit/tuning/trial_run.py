"""A trial on a worker: trains, saves, goes on. No Ray: tests step it in their own process."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from tunekit.data.pack import Pack
from tunekit.data.split import Split
from tunekit.errors import RecipeFailure
from tunekit.paths import TrialPaths
from tunekit.recipe import Recipe
from tunekit.training.build import build_training
from tunekit.training.checkpoint import load_checkpoint, save_best, save_checkpoint
from tunekit.training.device import pick_device, set_threads
from tunekit.training.loop import EpochResult, Training
from tunekit.tuning.assignment import Assignment


class TrialRun:
    """A trial on a worker: goes on from its checkpoint, saves after each epoch, gives one result a step."""

    def __init__(self, assignment: Assignment) -> None:
        set_threads(assignment.cpus)
        self._paths = TrialPaths(Path(assignment.folder))
        self._pack = Pack.open(Path(assignment.pack))
        self._reported = assignment.reported
        self._training = build_training(
            Recipe.from_flat(assignment.recipe),
            self._pack,
            Split.load(Path(assignment.split)),
            assignment.epochs,
            assignment.seed,
            pick_device(assignment.gpus),
        )
        state = load_checkpoint(self._paths.last)
        if state is not None:
            self._training.load_state(state)
        self._results = self._run()

    def step(self) -> dict[str, Any]:
        """The next epoch's result as a dict, or `{"failure": reason, "epoch": n}`."""
        try:
            return asdict(next(self._results))
        except RecipeFailure as failure:
            return {"failure": str(failure), "epoch": self._training.epoch + 1}

    def _run(self) -> Iterator[EpochResult]:
        # Epochs that were trained and saved but whose result a crash kept from the driver.
        yield from self._training.results[self._reported :]
        for result in self._training.run():
            if result is best_result(self._training):
                self._save_best(result)
            save_checkpoint(self._paths.last, self._training.state())
            yield result

    def _save_best(self, result: EpochResult) -> None:
        description = {
            "recipe": self._training.recipe.to_flat(),
            "epoch": result.epoch,
            "val_accuracy": result.val_accuracy,
            "classes": list(self._pack.classes),
            "image_shape": list(self._pack.shape),
            "mean": list(self._pack.mean),
            "std": list(self._pack.std),
        }
        save_best(self._paths.best, self._training.model, description)


def best_result(training: Training) -> EpochResult:
    """The first epoch with the highest validation accuracy."""
    return max(training.results, key=lambda result: (result.val_accuracy, -result.epoch))


def release_memory() -> None:
    """Give back what the last trial of this process held, on the GPU too."""
    gc.collect()
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torch.cuda.empty_cache()
