"""The Gaussian process against its formulas written out, on a few rows of plain numbers."""

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.optimize import approx_fprime

from tunekit.tuning.gaussian_process import (
    GaussianProcess,
    Hyperparameters,
    _Objective,
    _squared_distances,
    fit_hyperparameters,
)

Array = NDArray[np.float64]

CHOICE = np.array([False, False, True])
HYPER = Hyperparameters(np.array([4.0, 0.5, 1.5]), 0.05)


def rows(count: int, seed: int) -> Array:
    """Two ranges and a choice of three."""
    rng = np.random.default_rng(seed)
    return np.column_stack([rng.random((count, 2)), rng.integers(3, size=count).astype(float)])


def normalised(values: Array) -> Array:
    result: Array = (values - values.mean()) / values.std()
    return result


def correlation(a: Array, b: Array, weights: Array) -> float:
    """Matern 5/2 of two rows, as in Rasmussen and Williams 2006, equation 4.17."""
    difference = np.where(CHOICE, a != b, np.abs(a - b))
    r = np.sqrt(5 * (weights * difference**2).sum())
    return float((1 + r + r**2 / 3) * np.exp(-r))


def covariance(a: Array, b: Array, hyper: Hyperparameters = HYPER) -> Array:
    return np.array([[correlation(one, other, hyper.weights) for other in b] for one in a])


def test_mean_and_variance_are_those_of_the_textbook() -> None:
    seen, asked = rows(12, 0), rows(7, 1)
    targets = normalised(np.random.default_rng(2).standard_normal(12))
    process = GaussianProcess(seen, targets, CHOICE, HYPER)
    inverse = np.linalg.inv(covariance(seen, seen) + HYPER.noise * np.eye(12))
    across = covariance(asked, seen)
    mean, variance = process.mean_and_variance(asked)
    assert mean == pytest.approx(across @ inverse @ targets, abs=1e-4)
    assert variance == pytest.approx(1 - np.diag(across @ inverse @ across.T), abs=1e-4)
    assert process.mean(asked) == pytest.approx(mean)


def test_choices_that_were_not_seen_are_as_far_as_any_other_and_none_is_a_choice_too() -> None:
    seen, asked = rows(12, 0), rows(4, 1)
    seen[:4, 2], asked[:, 2] = -1.0, (-1.0, 2.0, 3.0, 9.0)  # -1: not active
    process = GaussianProcess(seen, normalised(seen[:, 0]), CHOICE, HYPER)
    assert process.closeness(asked) == pytest.approx(covariance(asked, seen).max(axis=1))


def test_far_from_everything_it_knows_nothing() -> None:
    process = GaussianProcess(rows(5, 0), np.arange(5.0), CHOICE, HYPER)
    mean, variance = process.mean_and_variance(np.array([[50.0, 50.0, 0.0]]))
    assert mean == pytest.approx([0.0], abs=1e-6)
    assert variance == pytest.approx([1.0])


def test_any_two_choices_are_equally_far_apart() -> None:
    seen, asked = rows(12, 0), rows(7, 1)
    targets = normalised(seen[:, 0] + (seen[:, 2] == 1))
    renamed = {0.0: 2.0, 1.0: 0.0, 2.0: 1.0}

    def predict(names: dict[float, float]) -> Array:
        a, b = (
            np.column_stack([r[:, :2], [names.get(choice, choice) for choice in r[:, 2]]])
            for r in (seen, asked)
        )
        hyper = fit_hyperparameters(a, targets, CHOICE)
        return np.concatenate(GaussianProcess(a, targets, CHOICE, hyper).mean_and_variance(b))

    assert predict(renamed) == pytest.approx(predict({}), rel=1e-6)


def test_the_gradient_of_the_fit_is_that_of_its_value() -> None:
    seen = rows(15, 0)
    seen[3] = seen[4]  # a recipe that was seen twice
    objective = _Objective(_squared_distances(seen, CHOICE), normalised(seen[:, 0] ** 2 + seen[:, 2]))
    for logs in (np.array([-0.5, 0.3, 1.0, -3.0]), np.array([1.0, -1.0, 0.0, -1.0])):
        numeric = approx_fprime(logs, lambda at: objective(at)[0], 1e-6)
        assert objective(logs)[1] == pytest.approx(numeric, rel=1e-3, abs=1e-3)


def test_the_fit_goes_down_from_where_it_starts_and_ends_in_a_valley() -> None:
    seen = rows(30, 0)
    noise = 0.3 * np.random.default_rng(1).standard_normal(30)
    targets = normalised(np.sin(4 * seen[:, 0]) + (seen[:, 2] == 2) + noise)
    objective = _Objective(_squared_distances(seen, CHOICE), targets)
    found = fit_hyperparameters(seen, targets, CHOICE)
    logs = np.append(-0.5 * np.log(found.weights), np.log(found.noise))
    best = objective(logs)[0]
    for step in 0.2 * np.vstack([np.eye(4), -np.eye(4)]):
        assert objective(logs + step)[0] > best


def test_a_key_that_decides_nothing_gets_a_longer_length_scale_and_noise_is_told_from_signal() -> None:
    seen = rows(60, 0)
    signal = np.sin(5 * seen[:, 0]) + (seen[:, 2] == 1)
    clean = fit_hyperparameters(seen, normalised(signal), CHOICE)
    noisy = fit_hyperparameters(
        seen, normalised(signal + np.random.default_rng(1).standard_normal(60)), CHOICE
    )
    assert clean.weights[0] > 10 * clean.weights[1]
    assert clean.weights[2] > 10 * clean.weights[1]
    assert clean.noise < 0.01 < 0.1 < noisy.noise


def test_a_belief_keeps_the_mean_and_takes_the_doubt() -> None:
    seen, asked = rows(12, 0), rows(7, 1)
    process = GaussianProcess(seen, normalised(seen[:, 0]), CHOICE, HYPER)
    believing = process.believing(asked[:2])
    mean, variance = process.mean_and_variance(asked)
    after, doubt = believing.mean_and_variance(asked)
    assert after == pytest.approx(mean, abs=1e-6)
    assert (doubt <= variance + 1e-9).all()
    assert (doubt[:2] < 0.6 * variance[:2]).all()
    assert (doubt[:2] < HYPER.noise).all()
