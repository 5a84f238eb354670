"""What is found wrong with a search's space or budget, and how much evidence advice needs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from tunekit.recipe import Value

ERROR = 0.05  # the chance of any false advice about ranges, and again about failed trials
FEW = 12  # trials; of fewer nothing is said but that they are few


@dataclass(frozen=True)
class Change:
    """What advice would change of one key; None leaves an end as it is."""

    low: float | int | None = None
    high: float | int | None = None
    without: tuple[Value, ...] = ()  # choices to be left out


@dataclass(frozen=True)
class Finding:
    """One sentence or two about a search."""

    kind: str  # at_bound, narrow, infeasible, failures, best_region, trials, curves
    key: str | None
    severity: Literal["advice", "note"]
    text: str
    change: Change | None = None  # of advice about one key
