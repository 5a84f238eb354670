"""Curves without a table: every recipe that is proposed is trained anew, as far as it is asked for."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping

import numpy as np

from tunekit.recipe import Value
from tunekit.space import SearchSpace
from tunekit.tuning.replay import Curves, Record


class TrainedOnDemand(Curves, ABC):
    """Every proposal is a training of its own, also that of a recipe which was proposed before.

    Every epoch takes one simulated second.
    """

    def __init__(self, space: SearchSpace, epochs: int, seed: int) -> None:
        """
        Args:
            space: of the recipes.
            epochs: of a full training.
            seed: of all trainings.
        """
        self.space, self.epochs = space, epochs
        self.records: tuple[Record, ...] = ()
        self.seconds = np.ones((0, epochs))
        self._seed = seed

    def nearest(self, params: Mapping[str, Value]) -> int:
        """The index of a new training of `params`."""
        place = len(self.records)
        self.records = (*self.records, Record(params, (), ()))
        self.seconds = np.ones((place + 1, self.epochs))
        self._begin(params, np.random.default_rng((self._seed, place)))
        return place

    @abstractmethod
    def _begin(self, params: Mapping[str, Value], rng: np.random.Generator) -> None:
        """Prepare the next training, whose chance is `rng`."""

    @abstractmethod
    def references(self, seed: int) -> list[dict[str, Value]]:
        """Random recipes, by which regret is measured."""

    @abstractmethod
    def test_accuracy(self, record: int) -> float:
        """After the last epoch, on what no method sees."""
