"""A trial on a worker: trains, saves, goes on. No Ray: tests step it in their own process."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import asdict
from typing import Any

from tunekit.data.pack import Pack
from tunekit.data.split import Split
from tunekit.errors import OutOfMemoryFailure, RecipeError, RecipeFailure, StorageError, TunekitError
from tunekit.paths import FULL
from tunekit.recipe import Recipe
from tunekit.training.build import build_training
from tunekit.training.checkpoint import load_checkpoint, save_best, save_checkpoint
from tunekit.training.device import pick_device, set_threads
from tunekit.training.loop import EpochResult, Training
from tunekit.training.memory import memory_failures, release_memory
from tunekit.tuning.assignment import Assignment
from tunekit.tuning.node_files import node_files


class TrialRun:
    """A trial on a worker: goes on from its checkpoint, saves after each epoch, gives one result a step.

    The training is built in the first step: a network that cannot be built is a result too. When one that
    was built runs out of memory and the assignment says "retry", it is built again with twice as many
    micro-batches, from its last checkpoint.
    """

    def __init__(self, assignment: Assignment) -> None:
        self._assignment = assignment
        self._files = node_files(assignment)
        self._epoch = assignment.reported
        self._results = self._run()

    def step(self) -> dict[str, Any]:
        """The next epoch's result as a dict, or `{"failure": reason, "epoch": n}` if the recipe cannot be
        trained, or `{"problem": reason}` if its checkpoint cannot be written.
        """
        try:
            result = next(self._results)
        except (RecipeFailure, RecipeError) as failure:
            return {"failure": str(failure), "epoch": self._epoch + 1}
        except StorageError as error:
            return {"problem": str(error)}
        except OSError as error:
            if error.errno not in FULL:
                raise
            file = error.filename or self._files.own.folder
            return {"problem": f"{file} cannot be written: {error.strerror}"}
        self._epoch = result.epoch
        return asdict(result)

    def close(self) -> None:
        """The trial ends here, or goes on elsewhere; no step may follow."""
        self._results.close()
        self._files.close()

    def _run(self) -> Generator[EpochResult]:
        pack = self._files.pack()
        micro_batches = 1
        while micro_batches:
            micro_batches = yield from self._train(pack, micro_batches)
            release_memory()

    def _train(self, pack: Pack, micro_batches: int) -> Generator[EpochResult, None, int]:
        """Train as far as memory allows; returns with how many micro-batches to go on, or 0 at the end."""
        training = self._build(pack, micro_batches)
        try:
            # Epochs that were trained and saved but whose result a crash kept from the driver.
            yield from training.results[self._epoch :]
            for result in training.run():
                self._save(training, pack)
                yield result
        except OutOfMemoryFailure as failure:
            if self._assignment.on_oom == "fail":
                raise
            if not training.can_take_less_memory:
                smallest = f"even with micro-batches of {training.images_at_once} images"
                raise OutOfMemoryFailure(f"{failure}, {smallest}") from None
            return 2 * training.micro_batches
        return 0

    @memory_failures("while it was saved")
    def _save(self, training: Training, pack: Pack) -> None:
        own = self._files.own
        if self._assignment.keep_last or training.results[-1] is best_result(training):
            save_best(own.best, training.judged, _description(training, pack))
            self._files.wrote(own.best)
        save_checkpoint(own.last, training.state())
        self._files.wrote(own.last)

    @memory_failures("while the training was built")
    def _build(self, pack: Pack, micro_batches: int) -> Training:
        assignment = self._assignment
        set_threads(assignment.cpus)
        training = build_training(
            Recipe.from_flat(assignment.recipe),
            pack,
            Split.load(self._files.split()),
            assignment.epochs,
            assignment.seed,
            pick_device(assignment.gpus),
            self._files.weights(),
            micro_batches,
        )
        state = self._last_state()
        if state is not None:
            training.load_state(state)
        return training

    def _last_state(self) -> dict[str, Any] | None:
        """None if there is none, or a damaged one: then the same seed gives the same epochs once more, and
        the history passes over those that it has.
        """
        file = self._files.state()
        try:
            with memory_failures():
                return load_checkpoint(file)
        except TunekitError:
            return None


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
