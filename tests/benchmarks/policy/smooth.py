"""Smooth learning curves of any recipe of a space, predicted from those of a table.

Between recorded recipes `Curves` jumps from one neighbour to the next; here a small neural network, fitted on
the table, predicts the whole curve, so that a better recipe than the recorded ones can be found. Benchmarks
that do the same: YAHPO Gym (Pfisterer et al. 2022, arXiv:2109.03670).
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path

import numpy as np
from sklearn.decomposition import PCA
from sklearn.neural_network import MLPRegressor

from tests.benchmarks.policy.record import curves_of, read_table
from tunekit.recipe import Value
from tunekit.space import SearchSpace
from tunekit.tuning.encoding import Rows, SpaceEncoding
from tunekit.tuning.replay import Curves, Floats, Record

REFERENCES = 1500  # random recipes against which a search is measured
_COMPONENTS = 10  # principal components of the curves
_STEPS = 800  # of the network's training
# Of the decays and rates tried on small networks, these rank recipes best that are left out (rank correlation
# 0.73 to 0.91, see cross_validation.py), as far as they still follow those that are not (0.94 to 0.97).
_DECAY, _RATE = 0.1, 1e-3
_MARGIN = 0.01  # keeps the logits of accuracies of 0 and 1 finite


class CurveModel:
    """A network from a recipe to the principal components of its curve, in logits; no noise.

    The same table gives the same model; it is fitted in about a second.
    """

    def __init__(self, recorded: Curves) -> None:
        """
        Args:
            recorded: recipes trained in full; one that failed has the worst last value from there on.
        """
        self.space, self.epochs = recorded.space, recorded.epochs
        self.encoding = SpaceEncoding(recorded.space)
        values = np.where(np.isnan(recorded.values), recorded.final.min(), recorded.values)
        self._axes = PCA(_COMPONENTS, svd_solver="full").fit(logits(values))
        components = self._axes.transform(logits(values))
        # Components count by their spread, the first one by 1.
        spread = np.sqrt(components.std(axis=0))
        self._unit = spread * spread[0]
        self._network = MLPRegressor(
            hidden_layer_sizes=(96, 96),
            activation="tanh",
            alpha=_DECAY,
            learning_rate_init=_RATE,
            random_state=0,
        )
        rows = np.array([self.encoding.encode(record.params) for record in recorded.records])
        for _ in range(_STEPS):
            self._network.partial_fit(network_inputs(self.space, rows), components / self._unit)

    def curves(self, rows: Rows) -> Floats:
        """Validation accuracies, shape (recipes, epochs), of encoded recipes."""
        components = self._network.predict(network_inputs(self.space, rows)) * self._unit
        return accuracies(self._axes.inverse_transform(components))


def logits(values: Floats) -> Floats:
    """Of accuracies; finite for 0 and 1 too."""
    return np.asarray(np.log((values + _MARGIN) / (1 + _MARGIN - values)))


def accuracies(of_logits: Floats) -> Floats:
    """What has these `logits`."""
    return np.asarray((1 + 2 * _MARGIN) / (1 + np.exp(-of_logits)) - _MARGIN)


def network_inputs(space: SearchSpace, rows: Rows) -> Floats:
    """Of a range one column from -1 to 1, of a key with choices one for each of them; 0 if inactive."""
    columns = []
    for key, column in zip(space.parameters.values(), rows.T, strict=True):
        if key.choices:
            columns += [(column == choice).astype(float) for choice in range(len(key.choices))]
        else:
            columns.append(np.nan_to_num(2 * column - 1))
    return np.column_stack(columns)


class SmoothCurves(Curves):
    """The curves of 1,500 random recipes, to which `nearest` adds the very recipe that is asked for.

    Every epoch takes one second.
    """

    def __init__(self, model: CurveModel) -> None:
        self._model = model
        rows = model.encoding.sample(np.random.default_rng(99), REFERENCES)
        recipes = [model.encoding.decode(row) for row in rows]
        # Encoded again, because decoding rounds what is a whole number.
        curves = model.curves(np.array([model.encoding.encode(recipe) for recipe in recipes]))
        super().__init__(model.space, model.epochs, map(self._record, recipes, curves))

    def nearest(self, params: Mapping[str, Value]) -> int:
        """The index of the new record of `params`."""
        curve = self._model.curves(self._model.encoding.encode(params)[None])
        self.records = (*self.records, self._record(params, curve[0]))
        self.values = np.concatenate((self.values, curve))
        self.seconds = np.concatenate((self.seconds, np.ones_like(curve)))
        self.final = self.values[:, -1]
        return len(self.records) - 1

    @staticmethod
    def _record(params: Mapping[str, Value], curve: Floats) -> Record:
        return Record(params, curve.tolist(), [1.0] * len(curve))


@cache
def model_of(table: Path) -> CurveModel:
    """The model of a table, fitted once in a process."""
    return CurveModel(curves_of(read_table(table)))
