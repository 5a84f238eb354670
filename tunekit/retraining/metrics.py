"""What a network's answers are worth: classes, confusions, calibration. Plain arrays, no torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax

Array = NDArray[np.floating]
Labels = NDArray[np.integer]

LEAST_PROBABILITY = (
    1e-12  # a smaller one counts as this, so that one sure mistake does not make a mean infinite
)
_TEMPERATURES = (0.05, 20.0)
_LEAST_GAIN = 1e-9  # nats; less is rounding


@dataclass(frozen=True)
class ClassScore:
    """How one class fared; all scores 0 to 1, and 0 where there was nothing to score."""

    name: str
    precision: float  # of the images that were given this class, the share that are of it
    recall: float  # of the images of this class, the share that were given it
    f1: float  # the harmonic mean of both
    support: int  # images of this class


@dataclass(frozen=True)
class ReliabilityBin:
    """The images whose confidence lies in (low, high]."""

    low: float
    high: float
    confidence: float  # mean over the images, 0 to 1
    accuracy: float  # 0 to 1
    images: int  # at least 1


def confusion_matrix(labels: Labels, predicted: Labels, classes: int) -> NDArray[np.int64]:
    """How often each true class (row) was given each class (column).

    Args:
        labels: (N,) integers, 0 to `classes` - 1.
        predicted: (N,), likewise.
        classes: how many classes there are, whether they occur or not.
    Returns:
        (classes, classes) counts that sum to N.
    """
    cells = labels.astype(np.int64) * classes + predicted
    return np.bincount(cells, minlength=classes**2).astype(np.int64).reshape(classes, classes)


def class_scores(labels: Labels, predicted: Labels, classes: Sequence[str]) -> list[ClassScore]:
    """Precision, recall and F1 of each class, in the order of `classes`.

    Args:
        labels: (N,) integers, positions in `classes`.
        predicted: (N,), likewise.
        classes: the names of all classes.
    """
    matrix = confusion_matrix(labels, predicted, len(classes))
    right, given, support = matrix.diagonal(), matrix.sum(0), matrix.sum(1)
    return [
        ClassScore(
            name,
            _share(right[k], given[k]),
            _share(right[k], support[k]),
            _share(2 * right[k], given[k] + support[k]),
            int(support[k]),
        )
        for k, name in enumerate(classes)
    ]


def reliability_bins(probabilities: Array, labels: Labels, bins: int = 15) -> list[ReliabilityBin]:
    """Accuracy against confidence, in bins of equal width over the probability of the predicted class.

    Args:
        probabilities: (N, K), 0 to 1, rows that sum to 1.
        labels: (N,) integers, 0 to K - 1.
        bins: how many, at least 1.
    Returns:
        The bins that hold images, from low to high confidence.
    Source: Guo et al. 2017, arXiv:1706.04599, section 2.
    """
    confidence = probabilities.max(1).astype(np.float64)
    right = probabilities.argmax(1) == labels
    edges = np.linspace(0, 1, bins + 1)
    # The inner edges alone, so that a float32 probability just above 1 falls into the last bin.
    place = np.searchsorted(edges[1:-1], confidence, side="left")
    return [
        ReliabilityBin(
            float(edges[k]),
            float(edges[k + 1]),
            float(confidence[place == k].mean()),
            float(right[place == k].mean()),
            int((place == k).sum()),
        )
        for k in np.unique(place)
    ]


def calibration_error(bins: Sequence[ReliabilityBin]) -> float:
    """The expected calibration error: the mean gap of accuracy and confidence over images, 0 to 1.

    Args:
        bins: of `reliability_bins`, at least one.
    Source: Guo et al. 2017, arXiv:1706.04599, equation 3.
    """
    images = sum(part.images for part in bins)
    return sum(part.images * abs(part.accuracy - part.confidence) for part in bins) / images


def fit_temperature(logits: Array, labels: Labels) -> float:
    """The temperature that minimises the mean cross-entropy, which leaves every prediction as it is.

    Args:
        logits: (N, K), finite, of images that the network was not trained on.
        labels: (N,) integers, 0 to K - 1.
    Returns:
        0.05 to 20; above 1 for a network that is surer than it is right. 1 if no other is better.
        Where nothing is wrong a lower one is always better, and says little.
    Source: Guo et al. 2017, arXiv:1706.04599, section 4.2.
    """
    scores = logits.astype(np.float64)
    rows = np.arange(len(labels))

    def loss(log_temperature: float) -> float:
        return -float(log_softmax(scores / np.exp(log_temperature), axis=1)[rows, labels].mean())

    found = minimize_scalar(loss, bounds=np.log(_TEMPERATURES), method="bounded")
    if loss(0.0) - found.fun < _LEAST_GAIN:
        return 1.0
    return float(np.clip(np.exp(found.x), *_TEMPERATURES))


def softmax(logits: Array, temperature: float = 1.0) -> NDArray[np.float64]:
    """Probabilities of scores.

    Args:
        logits: (N, K), finite.
        temperature: above 0; a larger one makes the network less sure.
    Returns:
        (N, K), rows that sum to 1.
    """
    probabilities: NDArray[np.float64] = np.exp(log_softmax(logits.astype(np.float64) / temperature, axis=1))
    return probabilities


def cross_entropy(probabilities: Array, labels: Labels) -> float:
    """The mean negative log probability of the true class, in nats, at most 27.6.

    Args:
        probabilities: (N, K), 0 to 1.
        labels: (N,) integers, 0 to K - 1.
    """
    own = probabilities[np.arange(len(labels)), labels].astype(np.float64)
    return float(-np.log(np.maximum(own, LEAST_PROBABILITY)).mean())


def _share(part: np.int64, whole: np.int64) -> float:
    return float(part / whole) if whole else 0.0
