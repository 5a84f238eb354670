"""A Gaussian process on rows of a search space: plain numbers, made for a few hundred of them.

Matern 5/2 with a length scale for each parameter; two different choices are at distance 1. Length scales
and noise are the most probable under priors that suit many dimensions: Hvarfner et al. 2024,
"Vanilla Bayesian optimization performs great in high dimensions", arXiv:2402.02229, section 4.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve, solve_triangular
from scipy.optimize import minimize

Array = NDArray[np.float64]

_SQRT5 = 5**0.5
_JITTER = 1e-6
_LOG_NOISE = (
    -4.0,
    1.5,
)  # prior of the log noise variance: mean and standard deviation; the signal has variance 1
_LOG_SCALE_SPREAD = 1.0  # standard deviation of the prior of a log length scale
_ITERATIONS = 40


@dataclass(frozen=True)
class Hyperparameters:
    """Inverse squared length scales, shape (parameters,), and the noise variance; the function's is 1."""

    weights: Array
    noise: float


def fit_hyperparameters(rows: Array, targets: Array, choice: NDArray[np.bool_]) -> Hyperparameters:
    """The most probable hyperparameters.

    Args:
        rows: shape (n, parameters), without NaN.
        targets: shape (n,), mean 0 and variance 1.
        choice: shape (parameters,), whether a parameter is a choice and not a range.
    """
    keys = rows.shape[1]
    objective = _Objective(_squared_distances(rows, choice), targets)
    start = np.append(np.full(keys, objective.log_scale), _LOG_NOISE[0])
    found = minimize(
        objective,
        start,
        jac=True,
        method="L-BFGS-B",
        bounds=[(-3.0, 4.0)] * keys + [(-9.0, 1.0)],
        options={"maxiter": _ITERATIONS},
    ).x
    return Hyperparameters(np.exp(-2 * found[:keys]), float(np.exp(found[keys])))


class GaussianProcess:
    """The posterior after `targets` were seen at `rows`."""

    def __init__(
        self, rows: Array, targets: Array, choice: NDArray[np.bool_], hyperparameters: Hyperparameters
    ) -> None:
        """The arguments are those of `fit_hyperparameters`, and what it returns."""
        self._rows = rows
        self._targets = targets
        self._choice = choice
        self._hyper = hyperparameters
        self._last = rows.max(axis=0)
        self._columns = self._scaled(rows)
        self._norms = np.square(self._columns).sum(axis=1)
        covariance = self._kernel(rows)
        covariance[np.diag_indices(len(rows))] += hyperparameters.noise + _JITTER
        self._factor = cho_factor(covariance, lower=True)
        self._solved = cho_solve(self._factor, targets)

    def mean(self, rows: Array) -> Array:
        """Posterior mean, shape (n,)."""
        return np.asarray(self._kernel(rows) @ self._solved)

    def mean_and_variance(self, rows: Array) -> tuple[Array, Array]:
        """Posterior mean and variance of the noiseless function, each of shape (n,)."""
        across = self._kernel(rows)
        half = solve_triangular(self._factor[0], across.T, lower=True, check_finite=False)
        return across @ self._solved, np.maximum(1.0 - np.square(half).sum(axis=0), 1e-9)

    def closeness(self, rows: Array) -> Array:
        """Correlation with the nearest of the seen rows, 0 to 1, shape (n,)."""
        return np.asarray(self._kernel(rows).max(axis=1))

    def believing(self, rows: Array) -> GaussianProcess:
        """The posterior as if at `rows` just the mean had been seen: it stays, its doubt goes.

        Source: the kriging believer of Ginsbourger et al. 2010, section 3.3.
        """
        targets = np.append(self._targets, self.mean(rows))
        return GaussianProcess(np.vstack([self._rows, rows]), targets, self._choice, self._hyper)

    def _kernel(self, rows: Array) -> Array:
        """Correlations with the seen rows, shape (n, seen)."""
        columns = self._scaled(rows)
        squared = columns @ self._columns.T
        squared *= -2
        squared += np.square(columns).sum(axis=1)[:, None]
        squared += self._norms
        return _matern(squared)

    def _scaled(self, rows: Array) -> Array:
        """Columns whose plain squared distance to those of the seen rows is the weighted one.

        Of a choice there is one for each value up to the last that was seen, and one for all others.
        """
        weights, ranges = self._hyper.weights, ~self._choice
        columns = [rows[:, ranges] * np.sqrt(weights[ranges])]
        for key in np.flatnonzero(self._choice):
            values = np.minimum(rows[:, key, None], self._last[key] + 1)
            columns.append((values == np.arange(-1.0, self._last[key] + 2)) * np.sqrt(weights[key] / 2))
        return np.hstack(columns)


class _Objective:
    """Negative log posterior of log length scales and log noise, with its gradient.

    Covariances are symmetric, so one half of them is computed.
    """

    def __init__(self, distances: Array, targets: Array) -> None:
        self._pairs = np.tril_indices(len(targets), -1)
        self._distances = distances[:, *self._pairs]  # (parameters, pairs)
        self._targets = targets
        self.log_scale = 0.3 + np.log(len(distances)) / 2  # mean of the prior: sqrt(parameters), times 1.35

    def __call__(self, logs: Array) -> tuple[float, Array]:
        scales, noise = logs[:-1], np.exp(logs[-1])
        weights = np.exp(-2 * scales)
        squared = weights @ self._distances
        root = np.sqrt(squared)
        decay = np.exp(-_SQRT5 * root)
        falling = (1 + _SQRT5 * root) * decay
        covariance = np.diag(np.full(len(self._targets), 1 + noise + _JITTER))
        covariance[self._pairs] = falling + 5 / 3 * squared * decay
        factor = cho_factor(covariance, lower=True)
        inverse = cho_solve(factor, np.eye(len(covariance)))
        solved = inverse @ self._targets
        pull = solved[self._pairs[0]] * solved[self._pairs[1]] - inverse[self._pairs]
        by_scale = -5 / 3 * weights * (self._distances @ (falling * pull))
        off_scale = (scales - self.log_scale) / _LOG_SCALE_SPREAD
        off_noise = (logs[-1] - _LOG_NOISE[0]) / _LOG_NOISE[1]
        value = 0.5 * self._targets @ solved + np.log(np.diag(factor[0])).sum()
        value += 0.5 * np.square(off_scale).sum() + 0.5 * off_noise**2
        own_pull = np.square(solved).sum() - np.trace(inverse)
        by_noise = -0.5 * own_pull * noise + off_noise / _LOG_NOISE[1]
        return float(value), np.append(by_scale + off_scale / _LOG_SCALE_SPREAD, by_noise)


def _squared_distances(rows: Array, choice: NDArray[np.bool_]) -> Array:
    """Shape (parameters, n, n)."""
    columns = rows.T
    difference = columns[:, :, None] - columns[:, None, :]
    different: Array = np.where(choice[:, None, None], difference != 0, np.square(difference))
    return different


def _matern(squared: Array) -> Array:
    """Matern 5/2 of squared scaled distances, which it overwrites: in place it takes half of the time."""
    distance = np.sqrt(np.maximum(squared, 0.0, out=squared), out=squared)
    distance *= _SQRT5
    correlation = distance / 3
    correlation += 1
    correlation *= distance
    correlation += 1
    correlation *= np.exp(np.negative(distance, out=distance), out=distance)
    return correlation
