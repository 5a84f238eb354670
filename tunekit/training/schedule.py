"""The learning rate over a training, as a factor of its peak. Plain numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence

_ONE_CYCLE_RISE = 0.3  # share of the training in which the rate rises
_ONE_CYCLE_START = 1 / 25
_ONE_CYCLE_END = 1e-4 / 25
_STEPS_AT = (0.5, 0.75)


def lr_factor(name: str, progress: float, warmup: float, decay: float = 0.0, plateaus: int = 0) -> float:
    """The learning rate at `progress`, divided by its peak.

    Args:
        name: one of `tunekit.recipe.SCHEDULES`.
        progress: share of all optimizer steps that are done, 0 to 1.
        warmup: share of the training in which the rate rises linearly from 0; `one_cycle` has a
            rise of its own and ignores it.
        decay: share of the training, at its end, in which `wsd` falls linearly to 0.
        plateaus: for `plateau`, what `count_plateaus` gives so far.
    Returns:
        0 to 1.
    Source: cosine: Loshchilov & Hutter 2017, arXiv:1608.03983, eq. 5, one period. step: He et al.
        2016, arXiv:1512.03385, section 4.2 (a tenth at 50 % and at 75 %). one_cycle: Smith &
        Topin 2018, arXiv:1708.07120, with the constants of torch's OneCycleLR. wsd (warm-up, stable,
        decay): Hu et al. 2024, arXiv:2404.06395, section 4. plateau: a tenth for each plateau.
    """
    if name == "one_cycle":
        return _one_cycle(progress)
    risen = progress / warmup if progress < warmup else 1.0
    since = max(0.0, (progress - warmup) / (1 - warmup))
    if name == "cosine":
        return min(risen, _cosine(1.0, 0.0, since))
    if name == "step":
        return min(risen, float(0.1 ** sum(since >= at for at in _STEPS_AT)))
    if name == "plateau":
        return min(risen, float(0.1**plateaus))
    if name == "wsd":
        return min(risen, (1 - progress) / decay if decay > 0 else 1.0)
    assert name == "constant", name
    return risen


def count_plateaus(val_losses: Sequence[float], patience: int) -> int:
    """How often more than `patience` epochs in a row did not go below the lowest loss before them.

    That is what torch's ReduceLROnPlateau with `threshold=0` counts, from the losses alone.

    Args:
        val_losses: of every epoch so far; one that is not a number is not lower.
        patience: epochs without a lower loss that are endured, counted anew after each plateau.
    """
    lowest, waited, plateaus = math.inf, 0, 0
    for loss in val_losses:
        waited = 0 if loss < lowest else waited + 1
        lowest = loss if loss < lowest else lowest
        if waited > patience:
            waited, plateaus = 0, plateaus + 1
    return plateaus


def _one_cycle(progress: float) -> float:
    if progress < _ONE_CYCLE_RISE:
        return _cosine(_ONE_CYCLE_START, 1.0, progress / _ONE_CYCLE_RISE)
    return _cosine(1.0, _ONE_CYCLE_END, (progress - _ONE_CYCLE_RISE) / (1 - _ONE_CYCLE_RISE))


def _cosine(start: float, end: float, share: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * share)) / 2
