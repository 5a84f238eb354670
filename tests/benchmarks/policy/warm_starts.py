"""Recipes to begin with, chosen from recorded learning curves.

    python -m tests.benchmarks.policy.warm_starts results/curves-resnet-*.json.gz --count 5

prints them as the `[[warm_start]]` tables of a space file. What they are worth on data that did not choose
them: choose from the tables of other data, and replay with `--warm-starts FILE`.

They are those with the lowest mean regret over the tables: a recipe has the accuracy that was recorded where
it was trained, and elsewhere that of the model of the table's curves (smooth.py). Portfolios whose members
complement each other (Feurer et al. 2022, "Auto-Sklearn 2.0", JMLR 23) need more data sets.
"""

from __future__ import annotations

import argparse
import tomllib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tests.benchmarks.policy.record import curves_of, read_table
from tests.benchmarks.policy.smooth import CurveModel, model_of
from tunekit.recipe import Value
from tunekit.space import Params
from tunekit.tuning.replay import Curves, Floats

COUNT = 5


def warm_starts(tables: Sequence[Path], count: int = COUNT) -> list[Params]:
    """So many recipes of the tables, the best one first.

    Args:
        tables: at least one, all of the same keys.
        count: at least 1.
    """
    recorded = [curves_of(read_table(table)) for table in tables]
    candidates = [record.params for curves in recorded for record in curves.records]
    own = np.repeat(np.arange(len(tables)), [len(curves.records) for curves in recorded])
    regrets = [
        _regrets(curves, model_of(table), candidates, own == place)
        for place, (table, curves) in enumerate(zip(tables, recorded, strict=True))
    ]
    order = np.mean(regrets, axis=0).argsort(kind="stable")
    return [_rounded(candidates[place]) for place in order[:count]]


def read_warm_starts(file: Path | None) -> tuple[Params, ...]:
    """Of a TOML file; none without one."""
    return tuple(tomllib.loads(file.read_text(encoding="utf-8"))["warm_start"]) if file else ()


def _regrets(curves: Curves, model: CurveModel, recipes: Sequence[Params], own: NDArray[np.bool_]) -> Floats:
    """Of recipes, those of the table itself (`own`) in its order; 0 is its best, 1 its median."""
    values = model.curves(np.array([model.encoding.encode(params) for params in recipes]))[:, -1]
    values[own] = curves.final
    best, middle = curves.final.max(), np.median(curves.final)
    return np.asarray((best - values) / (best - middle))


def _rounded(params: Params) -> dict[str, Value]:
    """As one would write it by hand: two digits."""
    return {
        name: float(f"{value:.2g}") if isinstance(value, float) else value for name, value in params.items()
    }


def main() -> None:
    """Print the recipes."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.policy.warm_starts")
    parser.add_argument("tables", nargs="+", type=Path)
    parser.add_argument("--count", type=int, default=COUNT, help="of recipes (default: %(default)s)")
    arguments = parser.parse_args()
    default = curves_of(read_table(arguments.tables[0])).space.default_params()
    for params in warm_starts(arguments.tables, arguments.count):
        print("\n[[warm_start]]")
        for name, value in _said(params, default):
            print(f'"{name}" = {_toml(value)}')


def _said(params: Params, default: Params) -> Sequence[tuple[str, Value]]:
    return [(name, value) for name, value in params.items() if default.get(name) != value]


def _toml(value: Value) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f'"{value}"' if isinstance(value, str) else str(value)


if __name__ == "__main__":
    main()
