"""Several networks as one: whose probabilities to average, and how much each counts."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tunekit.retraining.metrics import LEAST_PROBABILITY

_LEAST_GAIN = 1e-9  # nats; less is rounding


def choose_weights(
    probabilities: NDArray[np.floating], labels: NDArray[np.integer], rounds: int = 50
) -> NDArray[np.float64]:
    """Weights of a mean of probabilities that has a low cross-entropy.

    Begins with the best single network; each round adds the one, chosen before or not, that lowers it most,
    until none does. Of networks that are equally good the first counts.

    Args:
        probabilities: (M, N, K), of M networks for the same images, on which none was trained.
        labels: (N,) integers, 0 to K - 1.
        rounds: the most networks to add, at least 0.
    Returns:
        (M,), at least 0, summing to 1; multiples of 1 / (1 + networks added).
    Source: Caruana et al. 2004, "Ensemble selection from libraries of models", ICML, section 2.
    """
    # Nothing but the probability of the true class enters the cross-entropy.
    own = probabilities[:, np.arange(len(labels)), labels].astype(np.float64)
    counts = np.zeros(len(own), np.int64)
    total, loss = np.zeros(len(labels)), np.inf
    for size in range(1, rounds + 2):
        losses = -np.log(np.maximum((total + own) / size, LEAST_PROBABILITY)).mean(1)
        best = int(losses.argmin())
        if losses[best] >= loss - _LEAST_GAIN:
            break
        total, loss = total + own[best], losses[best]
        counts[best] += 1
    weights: NDArray[np.float64] = counts / counts.sum()
    return weights
