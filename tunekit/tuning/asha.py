"""When to stop a trial: successive halving without waiting. Plain numbers.

Source: Li et al. 2020, ASHA, arXiv:1810.05934, section 3; the stopping rule and its cutoff as in
Ray Tune's `AsyncHyperBandScheduler`, so that results compare.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def rung_epochs(max_epochs: int, grace_period: int, reduction_factor: int) -> tuple[int, ...]:
    """The epochs at which trials are compared: grace, grace * factor, ... below `max_epochs`."""
    rungs = []
    epoch = grace_period
    while epoch < max_epochs:
        rungs.append(epoch)
        epoch *= reduction_factor
    return tuple(rungs)


def survives(value: float, earlier: Sequence[float], reduction_factor: int) -> bool:
    """Whether a trial goes on at a rung.

    Args:
        value: its value there, larger is better.
        earlier: the values that others had there before it; -inf for a recipe that failed on its way.
        reduction_factor: about one in so many goes on.
    Returns:
        True if `value` reaches the (1 - 1/factor) quantile of `earlier`, or is the first.
    """
    if not earlier:
        return True
    # A quantile between -inf and a number is not a number: failures count as the worst that was seen.
    worst = min([v for v in earlier if v > -np.inf], default=value)
    finite = np.maximum(earlier, min(worst, value))
    return bool(value >= np.quantile(finite, 1 - 1 / reduction_factor))
