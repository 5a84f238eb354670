"""Which recipe is best, and whether that is more than noise: by validation accuracy alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
    known = {one.name: one.behind for one in others if one.behind and one.behind.seeds >= 2}
    ahead = [name for name, behind in known.items() if behind.beyond_noise]
    close = [name for name in known if name not in ahead]
    unknown = [one.name for one in others if one.name not in known]
    sentences = []
    if winner.name == default and known:
        sentences.append("The default recipe was not beaten.")
    elif default in known:
        sentences.append(_against_default(winner.name, known[default]))
    if rivals := [name for name in close if name != default]:
        sentences.append(f"{winner.name} is within noise of {_listed(rivals)}.")
    if behind := [name for name in ahead if name != default]:
        whom = "all other recipes" if len(ahead) == len(others) else _listed(behind)
        sentences.append(f"{winner.name} is ahead of {whom} by more than noise.")
    if unknown:
        question = f"whether {winner.name} is better than {_listed(unknown)}"
        sentences.append(f"Nobody can tell {question}: that takes two seeds of each.")
    return sentences


def _against_default(winner: str, default: Difference) -> str:
    interval = default.interval
    words = f"{default.mean:.4f} (95 %: {interval.low:+.4f} to {interval.high:+.4f})"
    if default.beyond_noise:
        return f"{winner} beats the default recipe by {words}."
    return f"{winner} is within noise of the default recipe: it is ahead by {words}."


def _listed(names: Sequence[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    *most, last = names
    return f"{', '.join(most)} and {last}" if most else last
