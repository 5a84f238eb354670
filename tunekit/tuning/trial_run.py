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
from tunekit.errors import RecipeError, RecipeFailure
from tunekit.paths import TrialPaths
from tunekit.recipe import Recipe
from tunekit.training.build import build_training
from tunekit.training.checkpoint import load_checkpoint, save_best, save_checkpoint
from tunekit.training.device import pick_device, set_threads
from tunekit.training.loop import EpochResult, Training
from tunekit.tuning.assignment import Assignment


class TrialRun:
    """A trial on a worker: goes on from its checkpoint, saves after each epoch, gives one result a step.

    The training is built in the first step: a network that cannot be built is a result too.
    """

    def __init__(self, assignment: Assignment) -> None:
        self._assignment = assignment
        self._paths = TrialPaths(Path(assignment.folder))
        self._epoch = assignment.reported
        self._results = self._run()

    def step(self) -> dict[str, Any]:
        """The next epoch's result as a dict, or `{"failure": reason, "epoch": n}`."""
        try:
            result = next(self._results)
        except (RecipeFailure, RecipeError) as failure:
            return {"failure": str(failure), "epoch": self._epoch + 1}
        self._epoch = result.epoch
        return asdict(result)

    def _run(self) -> Iterator[EpochResult]:
        pack = Pack.open(Path(self._assignment.pack))
        training = self._build(pack)
        # Epochs that were trained and saved but whose result a crash kept from the driver.
        yield from training.results[self._assignment.reported :]
        for result in training.run():
            if self._assignment.keep_last or result is best_result(training):
                save_best(self._paths.best, training.judged, _description(training, pack))
            save_checkpoint(self._paths.last, training.state())
            yield result

    def _build(self, pack: Pack) -> Training:
        assignment = self._assignment
        set_threads(assignment.cpus)
        training = build_training(
            Recipe.from_flat(assignment.recipe),
            pack,
            Split.load(Path(assignment.split)),
            assignment.epochs,
            assignment.seed,
            pick_device(assignment.gpus),
            Path(assignment.weights) if assignment.weights else None,
        )
        state = load_checkpoint(self._paths.last)
        if state is not None:
            training.load_state(state)
        return training


def _description(training: Training, pack: Pack) -> dict[str, Any]:
    """What is saved with the weights of the last epoch."""
    result = training.results[-1]
    return {
        "recipe": training.recipe.to_flat(),
        "epoch": result.epoch,
        "val_accuracy": result.val_accuracy,
        "classes": list(pack.classes),
        "image_shape": list(pack.shape),
        "mean": list(pack.mean),
        "std": list(pack.std),
    }


def best_result(training: Training) -> EpochResult:
    """The first epoch with the highest validation accuracy."""
    return max(training.results, key=lambda result: (result.val_accuracy, -result.epoch))


def release_memory() -> None:
    """Give back what the last trial of this process held, on the GPU too."""
    gc.collect()
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torch.cuda.empty_cache()
