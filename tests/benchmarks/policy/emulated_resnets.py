"""Trainings of the space `resnet`, emulated: what answers in seconds where live_resnets.py takes minutes.

Curves of any recipe, with the noise of a training, learned from random recipes and from what searches of
live_resnets.py tried: the value at each of five epochs follows from the recipe and the values before it, by
a small network, and noise is half of what the network missed in recipes that were left out, about as much as
recipes differ by that are trained again. Smooth curves (smooth.py) have no noise, and know random recipes
alone.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import MLPRegressor
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from tests.benchmarks.policy.record import curves_of, read_table
from tests.benchmarks.policy.smooth import accuracies, logits, network_inputs
from tests.benchmarks.policy.trained_on_demand import TrainedOnDemand
from tunekit.recipe import Value
from tunekit.space import SearchSpace
from tunekit.tuning.encoding import Rows, SpaceEncoding
from tunekit.tuning.replay import Floats
from tunekit.tuning.samplers import suggest_random

_KNOWN = (1, 3, 9, 16, 27)  # epochs that are predicted; between them curves are straight in log epochs
_FOLDS = 3
_ALIKE = 40  # predictions on either side, of whose misses one is drawn
_MOST = 1.5  # logits that are missed
# Of what is missed, the part that is chance and not the recipe: 21 recipes trained three times each differed
# at the five epochs by 0.21, 0.26, 0.16, 0.16 and 0.09 logits; with this share by 0.16, 0.21, 0.20, 0.19 and
# 0.19.
_CHANCE = 0.5
_REFERENCES = 40  # random recipes by which regret is measured

Courses = Sequence[tuple[Mapping[str, Value], Sequence[float]]]
"""Recipes, and their values as far as they trained."""


class EmulatedCurves(TrainedOnDemand):
    """Trainings that are emulated."""

    def __init__(self, dataset: str, seed: int) -> None:
        """
        Args:
            dataset: of which there is a table, and one of what was searched.
            seed: of all trainings.
        """
        self._emulator = emulator_of(dataset)
        super().__init__(self._emulator.space, _KNOWN[-1], seed)
        self._values: list[Floats] = []

    def _begin(self, params: Mapping[str, Value], rng: np.random.Generator) -> None:
        self._values.append(self._emulator.curve(params, rng))

    def value(self, record: int, epoch: int) -> float:
        """Validation accuracy after the epoch."""
        return float(self._values[record][epoch - 1])

    def references(self, seed: int) -> list[dict[str, Value]]:
        """Random recipes, by which regret is measured."""
        return [suggest_random(self.space, seed + number) for number in range(_REFERENCES)]

    def test_accuracy(self, record: int) -> float:
        """The last value, without noise."""
        return float(self._emulator.curve(self.records[record].params, None)[-1])


class Emulator:
    """What was learned from courses."""

    def __init__(self, space: SearchSpace, courses: Courses) -> None:
        """
        Args:
            space: of the recipes.
            courses: at least some hundreds, of which many came to the last epoch.
        """
        self.space = space
        self._encoding = SpaceEncoding(space)
        rows = self._encoding.encode_all([params for params, _ in courses])
        inputs = network_inputs(space, rows)
        self._steps = [
            _Step(*_examples(inputs, courses, _KNOWN[:place], epoch)) for place, epoch in enumerate(_KNOWN)
        ]

    @property
    def correlations(self) -> list[float]:
        """Of what was predicted for recipes that were left out, at each epoch, with their values."""
        return [step.correlation for step in self._steps]

    def curve(self, params: Mapping[str, Value], noise: np.random.Generator | None) -> Floats:
        """Validation accuracy of every epoch, shape (epochs,); without noise if there is None."""
        recipe = network_inputs(self.space, self._encoding.encode_all([params]))[0]
        known: list[float] = []
        for step in self._steps:
            known.append(step.predict(np.append(recipe, known), noise))
        epochs = np.log(np.arange(1, _KNOWN[-1] + 1))
        return accuracies(np.interp(epochs, np.log(_KNOWN), known))


class _Step:
    """From the recipe and its values at earlier epochs to that at the next, in logits."""

    def __init__(self, inputs: Rows, targets: Floats) -> None:
        fold = np.random.default_rng(0).integers(_FOLDS, size=len(targets))
        predicted = np.empty(len(targets))
        for left_out in range(_FOLDS):
            model = _fitted(inputs[fold != left_out], targets[fold != left_out])
            predicted[fold == left_out] = model.predict(inputs[fold == left_out])
        self.correlation = float(np.corrcoef(predicted, targets)[0, 1])
        order = np.argsort(predicted)
        self._predicted, self._missed = predicted[order], (targets - predicted)[order]
        self._model = _fitted(inputs, targets)

    def predict(self, row: Rows, noise: np.random.Generator | None) -> float:
        mean = float(self._model.predict(row[None])[0])
        if noise is None:
            return mean
        place = int(np.searchsorted(self._predicted, mean))
        alike = self._missed[max(place - _ALIKE, 0) : place + _ALIKE]
        return mean + _CHANCE * float(np.clip(noise.choice(alike), -_MOST, _MOST))


def _fitted(inputs: Rows, targets: Floats) -> Pipeline:
    network = MLPRegressor(
        hidden_layer_sizes=(96, 96), alpha=1.0, learning_rate_init=2e-3, max_iter=60, random_state=0
    )
    with warnings.catch_warnings():
        # So many passes are what ranks left-out recipes best; twice as many bring nothing.
        warnings.simplefilter("ignore", ConvergenceWarning)
        return make_pipeline(StandardScaler(), network).fit(inputs, targets)


def _examples(inputs: Rows, courses: Courses, before: tuple[int, ...], epoch: int) -> tuple[Rows, Floats]:
    """Of those that came to the epoch: their inputs and values before it, and their value there."""
    came = [place for place, (_, values) in enumerate(courses) if len(values) >= epoch]
    values = logits(np.array([[courses[place][1][e - 1] for e in (*before, epoch)] for place in came]))
    return np.hstack([inputs[came], values[:, :-1]]), values[:, -1]


def learned_from(dataset: str) -> tuple[Path, Path]:
    """Two tables: random recipes trained in full, and those that were searched, as far as they trained."""
    folder = Path("results")
    return folder / f"curves-resnet-{dataset}.json.gz", folder / f"curves-resnet-{dataset}-searched.json.gz"


@cache
def emulator_of(dataset: str) -> Emulator:
    """Learned in ten seconds, once in a process."""
    at_random, searched = map(read_table, learned_from(dataset))
    recorded = curves_of(at_random)
    courses = [(record.params, list(record.values)) for record in recorded.records]
    courses += [(recipe["params"], recipe["values"]) for recipe in searched["recipes"]]
    return Emulator(recorded.space, courses)
