"""Outcomes of replays as a table: regret over the budget, epochs to the stock combination's result, time."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tunekit.tuning.replay import Curves

Outcome = Mapping[str, Any]
"""One replay: `epochs` when the incumbent changed, its `regret` from then on, `trials`, `suggestion_ms`."""

_SHARES = (0.25, 0.5, 1.0)  # of the budget
_STOCK = "ray"
_HEAD = (
    "| method | regret at 25 % of the budget | 50 % | 100 % | epochs to the final result of Ray's defaults "
    "| trials | suggestion, median and 95th percentile |\n|---|---|---|---|---|---|---|"
)


def regret_of(curves: Curves, record: int) -> float:
    """Of a recipe's last value, in %: 0 is the best recipe of the table, 100 the median one."""
    best, middle = float(curves.final.max()), float(np.median(curves.final))
    return round(100 * (best - float(curves.final[record])) / (best - middle), 3)


def regret_at(outcome: Outcome, epochs: float) -> float:
    """Regret of the incumbent after so many epochs; before the first value, of the median recipe."""
    place = int(np.searchsorted(outcome["epochs"], epochs, side="right"))
    return float(outcome["regret"][place - 1]) if place else 100.0


def epochs_to(outcome: Outcome, regret: float) -> float:
    """Epochs from which on the incumbent was that good, to the end; infinite if it was not at the end."""
    reached = math.inf
    for epochs, value in zip(reversed(outcome["epochs"]), reversed(outcome["regret"]), strict=True):
        if value > regret:
            break
        reached = float(epochs)
    return reached


def interval(figures: Sequence[float]) -> tuple[float, float]:
    """A 95 % interval of the mean: percentiles of 2,000 bootstrap samples (Efron 1979)."""
    samples = np.random.default_rng(0).choice(np.asarray(figures), (2000, len(figures)))
    low, high = np.percentile(samples.mean(axis=1), (2.5, 97.5))
    return float(low), float(high)


def markdown(outcomes: Mapping[str, Sequence[Outcome]], titles: Mapping[str, str], budget: int) -> str:
    """A row a method.

    Args:
        outcomes: by method, one for each seed; none if its library is not installed.
        titles: of the methods.
        budget: in epochs.
    """
    stock = outcomes.get(_STOCK, ())
    target = float(np.mean([regret_at(outcome, budget) for outcome in stock])) if stock else None
    rows = [_row(titles[name], replays, budget, target) for name, replays in outcomes.items()]
    return "\n".join((_HEAD, *rows))


def _row(title: str, replays: Sequence[Outcome], budget: int, target: float | None) -> str:
    if not replays:
        return f"| {title} | not installed | | | | | |"
    cells = [_mean([regret_at(outcome, share * budget) for outcome in replays]) for share in _SHARES]
    cells.append(
        "" if target is None else _epochs([epochs_to(outcome, target) for outcome in replays], budget)
    )
    cells.append(f"{np.median([outcome['trials'] for outcome in replays]):.0f}")
    times = np.concatenate([outcome["suggestion_ms"] for outcome in replays])
    cells.append(f"{np.median(times):.1f} ms, {np.percentile(times, 95):.0f} ms")
    return f"| {title} | {' | '.join(cells)} |"


def _mean(figures: Sequence[float]) -> str:
    low, high = interval(figures)
    return f"{np.mean(figures):.1f} ({low:.1f} to {high:.1f})"


def _epochs(figures: Sequence[float], budget: int) -> str:
    """The median over seeds, and how many never got there."""
    middle, missed = float(np.median(figures)), sum(map(math.isinf, figures))
    words = f"{middle:.0f}" if math.isfinite(middle) else f"over {budget}"
    return f"{words} ({missed} of {len(figures)} never)" if missed else words
