"""Trials of the space `resnet` that really train, on images of 8 px: what answers in searches of live.py.

Data sets, sizes and epochs are those of the tables of residual networks, but other images are drawn. 719
train, 2,000 judge every epoch, which is all that a method sees, and 5,000 others of the training part test
its incumbents. Training is tunekit's own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from tests.benchmarks.policy.record import curves_of, read_table
from tests.benchmarks.policy.trained_on_demand import TrainedOnDemand
from tunekit.data.batches import Batches
from tunekit.data.datasets import open_dataset
from tunekit.data.pack import Pack
from tunekit.data.split import Split, make_split
from tunekit.errors import RecipeError, RecipeFailure
from tunekit.recipe import Value
from tunekit.training.build import build_training
from tunekit.training.loop import Training
from tunekit.tuning.samplers import suggest_random

_REFERENCES = 40  # random recipes of each task, trained in full: regret is measured by them
_TRAIN, _JUDGE, _TEST = 719, 2000, 5000  # images
_SPLIT = 1000  # seed; the tables' splits have others


class ResnetCurves(TrainedOnDemand):
    """Trainings of residual networks."""

    def __init__(self, dataset: str, data_dir: Path, seed: int) -> None:
        """
        Args:
            dataset: of which there is a table.
            data_dir: where data sets lie and packs are kept.
            seed: of all trainings.
        """
        recorded = curves_of(read_table(Path(f"results/curves-resnet-{dataset}.json.gz")))
        super().__init__(recorded.space, recorded.epochs, seed)
        self._pack, self._split, self._unseen = _images(dataset, data_dir)
        self._trainings: list[_Course] = []

    def _begin(self, params: Mapping[str, Value], rng: np.random.Generator) -> None:
        recipe, seed = self.space.recipe(params), int(rng.integers(2**31))
        device = torch.device("cpu")
        training = build_training(recipe, self._pack, self._split, self.epochs, seed, device)
        self._trainings.append(_Course(training))

    def value(self, record: int, epoch: int) -> float:
        """Validation accuracy after the epoch."""
        return self._trainings[record].to(epoch)[epoch - 1]

    def failure(self, record: int, epoch: int) -> str | None:
        """Why the training failed in this epoch."""
        course = self._trainings[record]
        return None if len(course.to(epoch)) >= epoch else course.reason

    def references(self, seed: int) -> list[dict[str, Value]]:
        """Random recipes, by which regret is measured."""
        return [suggest_random(self.space, seed + number) for number in range(_REFERENCES)]

    def test_accuracy(self, record: int) -> float:
        """After the last epoch, up to which it is trained for that; 0 if it fails."""
        course = self._trainings[record]
        if len(course.to(self.epochs)) < self.epochs:
            return 0.0
        images, labels = self._pack.train()
        network = course.training.judged.eval()
        unseen = Batches(
            images, labels, self._unseen, self._pack.mean, self._pack.std, None, torch.device("cpu")
        )
        with torch.inference_mode():
            right = [(network(part).argmax(1) == classes).sum() for part, classes in unseen.in_order()]
        return int(sum(right)) / len(self._unseen)


class _Course:
    """A training as far as it was asked for."""

    def __init__(self, training: Training) -> None:
        self.training = training
        self.reason: str | None = None
        self._values: list[float] = []
        self._epochs: Iterator[float] = (result.val_accuracy for result in training.run())

    def to(self, epoch: int) -> list[float]:
        """Validation accuracies of at least so many epochs, fewer if it failed."""
        try:
            while len(self._values) < epoch and self.reason is None:
                self._values.append(next(self._epochs))
        except (RecipeError, RecipeFailure) as error:
            self.reason = str(error)
        return self._values


@cache
def _images(dataset: str, data_dir: Path) -> tuple[Pack, Split, NDArray[np.int64]]:
    """A data set, what trains and judges, and other images of its training part."""
    pack = open_dataset(dataset, data_dir)
    labels = pack.train()[1]
    split = make_split(labels, _JUDGE / (_TRAIN + _JUDGE), _SPLIT, _TRAIN + _JUDGE)
    used = np.concatenate((split.train, split.validation))
    others = np.setdiff1d(np.arange(len(labels)), used)
    return pack, split, np.random.default_rng(_SPLIT).choice(others, _TEST, replace=False)
