"""The learning rate over a training, as a factor of its peak. Plain numbers."""

from __future__ import annotations

import math

_ONE_CYCLE_RISE = 0.3  # share of the training in which the rate rises
_ONE_CYCLE_START = 1 / 25
_ONE_CYCLE_END = 1e-4 / 25
_STEPS_AT = (0.5, 0.75)


def lr_factor(name: str, progress: float, warmup: float) -> float:
    """The learning rate at `progress`, divided by its peak.

    Args:
        name: one of `tunekit.recipe.SCHEDULES`.
        progress: share of all optimizer steps that are done, 0 to 1.
        warmup: share of the training in which the rate rises linearly from 0; `one_cycle` has a
            rise of its own and ignores it.
    Returns:
        0 to 1.
    Source: cosine: Loshchilov & Hutter 2017, arXiv:1608.03983, eq. 5, one period. step: He et al.
        2016, arXiv:1512.03385, section 4.2 (a tenth at 50 % and at 75 %). one_cycle: Smith &
        Topin 2018, arXiv:1708.07120, with the constants of torch's OneCycleLR.
    """
    if name == "one_cycle":
        return _one_cycle(progress)
    if progress < warmup:
        return progress / warmup
    after = (progress - warmup) / (1 - warmup)
    if name == "cosine":
        return _cosine(1.0, 0.0, after)
    if name == "step":
        return float(0.1 ** sum(after >= at for at in _STEPS_AT))
    assert name == "constant", name
    return 1.0


def _one_cycle(progress: float) -> float:
    if progress < _ONE_CYCLE_RISE:
        return _cosine(_ONE_CYCLE_START, 1.0, progress / _ONE_CYCLE_RISE)
    return _cosine(1.0, _ONE_CYCLE_END, (progress - _ONE_CYCLE_RISE) / (1 - _ONE_CYCLE_RISE))


def _cosine(start: float, end: float, share: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * share)) / 2
