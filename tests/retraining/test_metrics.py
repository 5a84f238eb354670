"""Scores, confusions and calibration against slow references."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.metrics import log_loss, precision_recall_fscore_support

from tunekit.retraining.metrics import (
    ClassScore,
    ReliabilityBin,
    calibration_error,
    class_scores,
    confusion_matrix,
    cross_entropy,
    fit_temperature,
    reliability_bins,
    softmax,
)

CLASSES = ["cat", "dog", "frog", "never seen", "never predicted"]


def answers() -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Labels without class 3, predictions without class 4."""
    rng = np.random.default_rng(0)
    return rng.choice([0, 1, 2, 4], 200), rng.integers(4, size=200)


def logits(n: int, sharpness: float) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Scores of 5 classes, and labels drawn from their probabilities; the scores are then sharpened."""
    rng = np.random.default_rng(1)
    honest = 2 * rng.standard_normal((n, 5))
    labels = np.array([rng.choice(5, p=row) for row in softmax(honest)])
    return sharpness * honest, labels


def test_confusion_matrix_counts_pairs() -> None:
    labels, predicted = answers()
    matrix = confusion_matrix(labels, predicted, 5)
    for true in range(5):
        for given in range(5):
            pairs = zip(labels, predicted, strict=True)
            assert matrix[true, given] == sum(pair == (true, given) for pair in pairs)


@pytest.mark.parametrize("dtype", [np.uint8, np.int32])
def test_confusion_matrix_of_many_classes_fits_small_integers(dtype: type[np.integer]) -> None:
    labels = np.arange(200).astype(dtype)
    assert (confusion_matrix(labels, labels, 200) == np.eye(200)).all()


def test_class_scores_are_those_of_sklearn() -> None:
    labels, predicted = answers()
    expected = precision_recall_fscore_support(labels, predicted, labels=range(5), zero_division=0)
    scores = class_scores(labels, predicted, CLASSES)
    assert [score.name for score in scores] == CLASSES
    for score, precision, recall, f1, support in zip(scores, *expected, strict=True):
        assert (score.precision, score.recall, score.f1) == pytest.approx((precision, recall, f1))
        assert score.support == support


def test_a_class_without_images_or_predictions_scores_0() -> None:
    never_seen, never_predicted = class_scores(*answers(), CLASSES)[3:]
    assert never_seen == ClassScore("never seen", 0.0, 0.0, 0.0, 0)
    assert (never_predicted.precision, never_predicted.recall, never_predicted.f1) == (0, 0, 0)
    assert never_predicted.support > 0


@pytest.mark.parametrize("bins", [1, 7, 15])
def test_reliability_bins_hold_the_images_of_their_confidence(bins: int) -> None:
    scores, labels = logits(300, 1.5)
    probabilities = softmax(scores)
    found = reliability_bins(probabilities, labels, bins)
    assert sum(part.images for part in found) == 300
    for part in found:
        inside = [
            (max(row), int(np.argmax(row)) == label)
            for row, label in zip(probabilities, labels, strict=True)
            if part.low < max(row) <= part.high
        ]
        assert part.high - part.low == pytest.approx(1 / bins)
        assert part.images == len(inside) > 0
        assert part.confidence == pytest.approx(sum(confidence for confidence, _ in inside) / len(inside))
        assert part.accuracy == pytest.approx(sum(right for _, right in inside) / len(inside))


def test_a_confidence_between_two_bins_is_in_the_lower_one() -> None:
    (only,) = reliability_bins(np.array([[0.5, 0.5]]), np.array([0]), 2)
    assert (only.low, only.high) == (0, 0.5)


def test_full_confidence_is_in_the_last_bin_even_if_rounding_made_it_more() -> None:
    probabilities = np.array([[1.0, 0.0], [0.0, 1.0000001]], np.float32)
    (only,) = reliability_bins(probabilities, np.array([0, 0]), 10)
    assert (only.low, only.high) == pytest.approx((0.9, 1.0))
    assert (only.accuracy, only.images) == (0.5, 2)


def test_calibration_error_is_the_gap_weighted_by_images() -> None:
    bins = [ReliabilityBin(0.4, 0.6, 0.5, 0.8, 10), ReliabilityBin(0.8, 1.0, 0.95, 0.85, 30)]
    assert calibration_error(bins) == pytest.approx((10 * 0.3 + 30 * 0.1) / 40)


def test_calibration_error_is_small_for_an_honest_network_and_large_for_a_boastful_one() -> None:
    honest, boastful = (
        calibration_error(reliability_bins(softmax(scores), labels))
        for scores, labels in (logits(4000, 1), logits(4000, 4))
    )
    assert honest < 0.03 < 0.1 < boastful


@pytest.mark.parametrize("sharpness", [0.5, 1.0, 3.0])
def test_the_temperature_undoes_a_scaling_of_the_scores(sharpness: float) -> None:
    assert fit_temperature(*logits(4000, sharpness)) == pytest.approx(sharpness, rel=0.05)


def test_no_other_temperature_has_a_lower_cross_entropy() -> None:
    scores, labels = logits(300, 2.5)
    best = cross_entropy(softmax(scores, fit_temperature(scores, labels)), labels)
    for temperature in np.geomspace(0.05, 20, 200):
        assert cross_entropy(softmax(scores, temperature), labels) >= best - 1e-9


def test_the_temperature_stays_within_bounds() -> None:
    right, wrong = np.array([[5.0, 0.0], [0.0, 5.0]]), np.array([1, 0])
    assert 0.05 <= fit_temperature(right, 1 - wrong) < 0.3
    assert fit_temperature(right, wrong) == pytest.approx(20, rel=0.01)


def test_a_network_that_is_right_and_sure_of_everything_keeps_its_temperature() -> None:
    assert fit_temperature(1000 * np.eye(3), np.arange(3)) == 1


def test_softmax_is_its_formula_and_survives_large_scores() -> None:
    scores = np.array([[1.0, 2.0, 4.0], [-3.0, 0.0, 0.5]])
    for temperature in (0.5, 1.0, 3.0):
        expected = [[math.exp(s / temperature) for s in row] for row in scores]
        assert softmax(scores, temperature) == pytest.approx(
            np.array([[value / sum(row) for value in row] for row in expected])
        )
    assert softmax(np.array([[1e4, 0.0]], np.float32)).tolist() == [[1.0, 0.0]]


def test_cross_entropy_is_that_of_sklearn() -> None:
    scores, labels = logits(200, 1.0)
    probabilities = softmax(scores)
    assert cross_entropy(probabilities, labels) == pytest.approx(
        log_loss(labels, probabilities, labels=range(5))
    )


def test_a_sure_mistake_costs_much_but_not_everything() -> None:
    loss = cross_entropy(np.array([[1.0, 0.0], [1.0, 0.0]], np.float32), np.array([0, 1]))
    assert 10 < loss < 20
