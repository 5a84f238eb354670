"""A made-up space, and made-up values of its recipes: for tests that train nothing."""

import math
from collections.abc import Callable, Sequence

from tunekit.recipe import Value
from tunekit.space import Params, SearchSpace
from tunekit.tuning.evidence import Evidence, Observation
from tunekit.tuning.samplers import suggest_random

SPACE = SearchSpace.from_dict(
    {
        "space": {
            "x": {"low": 0.0, "high": 1.0},
            "y": {"low": 0.0, "high": 1.0},
            "kind": {"choices": ["a", "b"]},
            "z": {"low": 0.0, "high": 1.0, "when": {"kind": ["a"]}},
        }
    }
)


def number(params: Params, key: str) -> float:
    value = params.get(key, math.nan)
    assert not isinstance(value, str)
    return float(value)


def hill(x: float, y: float) -> Callable[[Params], float]:
    """Highest, 0, at (x, y)."""
    return lambda params: -((number(params, "x") - x) ** 2) - (number(params, "y") - y) ** 2


def drawn(count: int, seed: int, **fixed: Value) -> list[Params]:
    return [{**suggest_random(SPACE, 1000 * seed + number), **fixed} for number in range(count)]


def search(recipes: Sequence[Params], *rungs: tuple[int, int, Callable[[Params], float]]) -> Evidence:
    """The first so many recipes have a value at each rung: (epoch, how many, value)."""
    trials = [
        Observation(params, {epoch: value(params) for epoch, count, value in rungs if place < count})
        for place, params in enumerate(recipes)
    ]
    return Evidence(tuple(trials), tuple(epoch for epoch, _, _ in rungs))
