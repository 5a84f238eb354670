"""Recipes to begin with, chosen from recorded learning curves.

    python -m tests.benchmarks.policy.warm_starts results/curves-resnet-*.json.gz --count 5

prints them as the `[[warm_start]]` tables of a space file. What they are worth on data that did not choose
them: choose from the tables of other data, and replay with `--warm-starts FILE`.

Greedy forward selection, as Feurer et al. 2022 ("Auto-Sklearn 2.0", JMLR 23, section 3.1) build a portfolio:
the next recipe is the one that lowers the mean over tasks of the regret of the best chosen so far the most. A
table gives several tasks, each a model of its curves (smooth.py) fitted on another bootstrap sample of its
recipes, so that a recipe which one lucky accuracy recommends does not win.
"""

from __future__ import annotations

import argparse
import tomllib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tests.benchmarks.policy.record import curves_of, read_table
from tests.benchmarks.policy.smooth import REFERENCES, CurveModel
from tunekit.recipe import Value
from tunekit.space import Params, SearchSpace
from tunekit.tuning.encoding import SpaceEncoding
from tunekit.tuning.replay import Curves, Floats

COUNT = 5
_MODELS = 6  # of each table


def warm_starts(tables: Sequence[Path], count: int = COUNT, models: int = _MODELS) -> tuple[Params, ...]:
    """So many recipes of the tables, the best one first.

    Args:
        tables: at least one, all of the same keys.
        count: at least 1.
        models: of each table, at least 1.
    """
    recorded = [curves_of(read_table(table)) for table in tables]
    encoding = SpaceEncoding(recorded[0].space)
    candidates = [_rounded(record.params) for curves in recorded for record in curves.records]
    rows = np.array([encoding.encode(params) for params in candidates])
    regrets = np.array([of_model for curves in recorded for of_model in _regrets(curves, rows, models)])
    chosen: list[Params] = []
    best = np.full(len(regrets), np.inf)
    for _ in range(count):
        place = int(np.minimum(best[:, None], regrets).mean(axis=0).argmin())
        best = np.minimum(best, regrets[:, place])
        chosen.append(candidates[place])
    return tuple(chosen)


def read_warm_starts(file: Path | None) -> tuple[Params, ...]:
    """Of a TOML file; none without one."""
    return tuple(tomllib.loads(file.read_text(encoding="utf-8"))["warm_start"]) if file else ()


def _space(table: Path) -> SearchSpace:
    return curves_of(read_table(table)).space


def _regrets(curves: Curves, rows: Floats, models: int) -> list[Floats]:
    """Of encoded recipes, by each model of a table; 0: the best of 1,500 random recipes, 1: their median."""
    rng = np.random.default_rng(0)
    found = []
    for _ in range(models):
        drawn = [
            curves.records[place] for place in rng.integers(len(curves.records), size=len(curves.records))
        ]
        model = CurveModel(Curves(curves.space, curves.epochs, drawn))
        references = model.curves(model.encoding.sample(rng, REFERENCES))[:, -1]
        best, middle = references.max(), np.median(references)
        found.append((best - model.curves(rows)[:, -1]) / (best - middle))
    return found


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
    default = _space(arguments.tables[0]).default_params()
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
