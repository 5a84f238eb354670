"""Outcomes of replays as a table: regret over the budget, epochs to the stock combination's result, time."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tunekit.tuning.replay import Floats

Outcome = Mapping[str, Any]
"""One replay: `epochs` when the incumbent changed, its `regret` from then on, `trials`, `suggestion_ms`."""

Replays = Sequence[Sequence[Outcome]]
"""Of a method: for each table an outcome a seed."""

_SHARES = (0.25, 0.5, 1.0)  # of the budget
_STOCK = "ray"
_HEAD = (
    "| method | regret at 25 % of the budget | 50 % | 100 % | epochs to the final result of Ray's defaults "
    "| epochs until the mean regret is the final one of Ray's defaults | trials "
    "| suggestion, median and 95th percentile |\n|---|---|---|---|---|---|---|---|"
)


def regret_of(value: float, references: Floats) -> float:
    """Of a recipe's last value, in %: 0 is the best of the references, 100 their median."""
    best, middle = float(references.max()), float(np.median(references))
    return round(100 * (best - float(value)) / (best - middle), 3)


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


def epochs_of_means(
    replays: Sequence[Outcome], stock: Sequence[Outcome], budget: int
) -> tuple[float, float, float]:
    """Epochs after which the mean regret of `replays` first is as low as that of `stock` at the end.

    Args:
        replays: at least one.
        stock: as many, in the same order of tables and seeds.
        budget: in epochs.
    Returns:
        The epochs and a 95 % interval, percentiles of 2,000 bootstrap samples of the pairs (Efron 1979);
        infinite if that is not reached within the budget.
    """
    count = len(replays)
    courses = np.array([[regret_at(replay, epochs) for epochs in range(1, budget + 1)] for replay in replays])
    aims = np.array([regret_at(replay, budget) for replay in stock])
    samples = np.random.default_rng(0).multinomial(count, np.full(count, 1 / count), 2000)
    weights = np.vstack((np.ones(count), samples)) / count  # the first row: each replay once
    reached = weights @ courses <= (weights @ aims)[:, None] + 1e-9  # sums of equal figures may differ
    first = np.where(reached.any(axis=1), 1.0 + reached.argmax(axis=1), math.inf)
    low, high = np.percentile(first[1:], (2.5, 97.5), method="nearest")
    return float(first[0]), float(low), float(high)


def markdown(outcomes: Mapping[str, Replays], titles: Mapping[str, str], budget: int) -> str:
    """A row a method, over all tables.

    Args:
        outcomes: by method; no replays if its library is not installed.
        titles: of the methods.
        budget: in epochs.
    """
    stock = outcomes.get(_STOCK, ())
    counts = {name: sum(map(len, replays)) for name, replays in outcomes.items()}
    most = max(counts.values())
    rows = []
    for name, replays in outcomes.items():
        fewer = f" ({counts[name]} replays)" if 0 < counts[name] < most else ""
        rows.append(_row(titles[name] + fewer, replays, budget, stock))
    return "\n".join((_HEAD, *rows))


def _row(title: str, tables: Replays, budget: int, stock: Replays) -> str:
    replays = [outcome for outcomes in tables for outcome in outcomes]
    if not replays:
        return f"| {title} | not installed | | | | | | |"
    cells = [_mean([regret_at(outcome, share * budget) for outcome in replays]) for share in _SHARES]
    of_both = [pair for pair in zip(tables, stock, strict=False) if pair[1]]
    reached = [
        epochs_to(replay, _mean_regret(of_stock, budget)) for own, of_stock in of_both for replay in own
    ]
    cells.append(_epochs(reached, budget) if reached else "")
    # A replay is paired with one of the same table, so that a sample has as many of a table on both sides.
    pairs = [pair for both in of_both for pair in zip(*both, strict=False)]
    cells.append(_epochs_of_means(pairs, budget) if pairs else "")
    cells.append(f"{np.median([outcome['trials'] for outcome in replays]):.0f}")
    times = np.concatenate([outcome["suggestion_ms"] for outcome in replays])
    cells.append(f"{np.median(times):.1f} ms, {np.percentile(times, 95):.0f} ms")
    return f"| {title} | {' | '.join(cells)} |"


def _mean_regret(replays: Sequence[Outcome], epochs: int) -> float:
    return float(np.mean([regret_at(outcome, epochs) for outcome in replays]))


def _mean(figures: Sequence[float]) -> str:
    low, high = interval(figures)
    return f"{np.mean(figures):.1f} ({low:.1f} to {high:.1f})"


def _epochs(figures: Sequence[float], budget: int) -> str:
    """The median over replays, and how many never got there."""
    middle, missed = float(np.median(figures)), sum(map(math.isinf, figures))
    words = _within(middle, budget)
    return f"{words} ({missed} of {len(figures)} never)" if missed else words


def _epochs_of_means(pairs: Sequence[tuple[Outcome, Outcome]], budget: int) -> str:
    replays, stock = zip(*pairs, strict=True)
    first, low, high = (_within(figure, budget) for figure in epochs_of_means(replays, stock, budget))
    return f"{first} ({low} to {high})"


def _within(epochs: float, budget: int) -> str:
    return f"{epochs:.0f}" if math.isfinite(epochs) else f"over {budget}"
