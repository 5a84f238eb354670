"""Which of the recorded recipes is most like another one: keys count as far as results depend on them.

Where all keys count alike (Gower 1971), the nearest of 300 recipes of 18 keys says little of a recipe: most
keys by which they differ hardly matter. So distances are those of a Gaussian process that was fitted to
the results, with a length scale for each key (Rasmussen and Williams 2006, section 5.1).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from tunekit.space import Params, SearchSpace
from tunekit.tuning.encoding import Rows, SpaceEncoding, without_nan
from tunekit.tuning.gaussian_process import Array, fit_hyperparameters

_FITTED_ON = 400  # recipes at most: what a fit costs grows with their cube
_FOLDS = 5


class RecordedRecipes:
    """Recipes whose results are known."""

    def __init__(self, space: SearchSpace, recipes: Sequence[Params], results: Array) -> None:
        """
        Args:
            space: of the recipes.
            recipes: at least one.
            results: shape (n,), finite; their order alone counts.
        """
        self._encoding = SpaceEncoding(space)
        self._rows = self._row(recipes)
        self._results = results
        self._weights = _weights(self._rows, results, self._encoding.choice)

    def by_likeness(self, params: Params) -> NDArray[np.intp]:
        """The places of all recipes, shape (n,): that most like `params` first, the lowest of equals."""
        return self._distances(self._row([params])[0], self._rows, self._weights).argsort(kind="stable")

    def rank_correlation(self) -> float:
        """How well the nearest recipe tells the result of one that is not there, -1 to 1; 0 if all are equal.

        Spearman's, of each recipe's result with that of the nearest one, in five parts: each is predicted
        by the others, which alone say how much keys count.
        """
        part = np.random.default_rng(0).permutation(len(self._rows)) % _FOLDS
        told = np.empty(len(self._rows))
        for here in (part == number for number in range(_FOLDS)):
            others, results = self._rows[~here], self._results[~here]
            weights = _weights(others, results, self._encoding.choice)
            told[here] = [results[self._distances(row, others, weights).argmin()] for row in self._rows[here]]
        ranks, told_ranks = _ranks(self._results), _ranks(told)
        if not ranks.std() * told_ranks.std():
            return 0.0
        return float(np.corrcoef(ranks, told_ranks)[0, 1])

    def _row(self, recipes: Sequence[Params]) -> Rows:
        return without_nan(self._encoding.encode_all(recipes), self._encoding.choice)

    def _distances(self, row: Array, known: Rows, weights: Array) -> Array:
        """To each row of `known`, shape (n,)."""
        return np.asarray(np.where(self._encoding.choice, known != row, np.square(known - row)) @ weights)


def _weights(rows: Rows, results: Array, choice: NDArray[np.bool_]) -> Array:
    """Of each key's squared distance, shape (parameters,)."""
    even = np.unique(np.linspace(0, len(rows) - 1, min(len(rows), _FITTED_ON)).astype(int))
    scores = ndtri(_ranks(results[even]))  # normally distributed, whatever the results are
    if not scores.std():
        return np.ones(rows.shape[1])
    return fit_hyperparameters(rows[even], scores / scores.std(), choice).weights


def _ranks(values: Array) -> Array:
    """From above 0 to below 1, means of equals."""
    ordered = np.sort(values)
    below, up_to = (np.searchsorted(ordered, values, side) for side in ("left", "right"))
    return np.asarray((below + up_to) / 2 / len(values))
