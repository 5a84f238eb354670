"""Which recipe is best, and whether that is more than noise: by validation accuracy alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tunekit.retraining.statistics import Difference, Interval, accuracy_interval, difference

Right = NDArray[np.bool_]  # (seeds, images): whether each seed's network was right about each image


@dataclass(frozen=True)
class Standing:
    """How one recipe did on the validation images."""

    name: str
    accuracies: tuple[float, ...]  # a seed each; 0 for one that failed before its first epoch ended
    mean: float
    interval: Interval  # 95 %, for other seeds and other images
    behind: Difference | None  # what it lacks on the winner; None for the winner


def standings(right: Mapping[str, Right]) -> list[Standing]:
    """Recipes by mean accuracy over seeds, best first; of equal ones, in the order given.

    Args:
        right: for each recipe, on the same images in the same order.
    """
    ordered = sorted(right, key=lambda name: -float(right[name].mean()))
    winner = right[ordered[0]]
    return [
        Standing(
            name=name,
            accuracies=tuple(right[name].mean(1).tolist()),
            mean=float(right[name].mean()),
            interval=accuracy_interval(right[name]),
            behind=None if name == ordered[0] else difference(winner, right[name]),
        )
        for name in ordered
    ]


def verdicts(ordered: list[Standing], default: str | None) -> list[str]:
    """What the standings say, a sentence each: the winner against the default recipe and all others.

    Args:
        ordered: from `standings`.
        default: the name of the default recipe, if it took part.
    """
    winner, *others = ordered
    if not others:
        return []
    if any(standing.behind and standing.behind.seeds < 2 for standing in others):
        return [f"With one seed a recipe, nobody can tell whether {winner.name} is better than the others."]
    sentences = []
    close = [standing.name for standing in others if not _clearly_behind(standing)]
    if winner.name == default:
        sentences.append("The default recipe was not beaten.")
    elif default is not None:
        sentences.append(_against_default(next(one for one in others if one.name == default)))
    rivals = [name for name in close if name != default]
    if rivals:
        sentences.append(f"{winner.name} is within noise of {' and '.join(rivals)}.")
    elif len(others) > (default is not None and winner.name != default):
        sentences.append(f"{winner.name} is ahead of all other recipes by more than noise.")
    return sentences


def _clearly_behind(standing: Standing) -> bool:
    return standing.behind is not None and standing.behind.beyond_noise


def _against_default(default: Standing) -> str:
    assert default.behind is not None
    gain, interval = default.behind.mean, default.behind.interval
    words = f"{gain:.4f} (95 %: {interval.low:+.4f} to {interval.high:+.4f})"
    if default.behind.beyond_noise:
        return f"The winner beats the default recipe ({default.name}) by {words}."
    return f"The winner is within noise of the default recipe ({default.name}): it is ahead by {words}."
