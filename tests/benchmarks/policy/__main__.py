"""Replays tables of learning curves under every method and prints how they compare, in Markdown.

What is measured, and how to get Syne Tune: see tests/benchmarks/policy/__init__.py.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Mapping, Sequence
from itertools import groupby, product
from pathlib import Path

import numpy as np

from tests.benchmarks.policy.comparison import Outcome, Replays, markdown
from tests.benchmarks.policy.methods import METHODS, installed, method, method_name, suggestion_ms_after
from tests.benchmarks.policy.record import Table, read_table
from tests.benchmarks.policy.runs import (
    TRAININGS,
    WORKERS,
    Answers,
    Task,
    curves_for,
    key_of,
    outcome_of,
    remembered,
)
from tests.benchmarks.policy.smooth import REFERENCES
from tunekit.errors import SearchError
from tunekit.tuning.replay import Floats

TABLES = [Path(f"results/curves-resnet-{data}.json.gz") for data in ("digits", "mnist", "cifar10")]
DENSE_TABLES = [
    Path(f"results/curves-small-networks-{task}.json.gz") for task in ("photographs", "four-synthetic")
]
SMOOTH_TABLES = [
    Path(f"results/curves-small-networks-{task}.json.gz")
    for task in ("cifar", "hard", "mnist", "animal", "imb")
]

_REPLAYS = 20  # of each method in a family, if there are no --seeds
_LONG_HISTORY = 500  # trials


def main() -> None:
    """Replay what is not known yet, then print."""
    arguments = _arguments()
    families = _families(arguments.tables)
    tasks = {key_of(task): task for family in families for task in _tasks(family, arguments)}
    todo = {key: task for key, task in tasks.items() if installed(task.method)}
    known = remembered(outcome_of, todo, arguments.out, arguments.processes)
    for family in families:
        outcomes: dict[str, list[list[Outcome]]] = {}
        for name, path in product(arguments.methods, family):
            keys = [key for key, task in tasks.items() if (task.method, task.table) == (name, path)]
            outcomes.setdefault(name, []).append([known[key] for key in keys if key in known])
        _print(family, outcomes, arguments.answers)


def _families(tables: Sequence[Path]) -> list[list[Path]]:
    """Tables of as many epochs that follow each other: one budget, so one comparison."""
    return [list(family) for _, family in groupby(tables, key=lambda table: read_table(table)["epochs"])]


def _tasks(family: Sequence[Path], arguments: argparse.Namespace) -> list[Task]:
    seeds = range(arguments.seeds or math.ceil(_REPLAYS / len(family)))
    rows = product(family, arguments.methods, seeds)
    return [Task(*row, arguments.answers, arguments.warm_starts, arguments.prior) for row in rows]


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.policy")
    usual = [name for name, row in METHODS.items() if row.usual]
    others = ", ".join(name for name in METHODS if name not in usual)
    parser.add_argument(
        "--seeds",
        type=int,
        help=f"replays of each method and table (default: {_REPLAYS} over all tables of as many epochs)",
    )
    parser.add_argument(
        "--methods",
        nargs="+",
        type=method_name,
        default=usual,
        metavar="METHOD",
        help=f"default: {' '.join(usual)}; others: {others}, or any SAMPLER+SCHEDULER[@GRACE] of tunekit",
    )
    answers = parser.add_mutually_exclusive_group()
    for name, what in (
        ("smooth", "in smooth curves, fitted on the tables"),
        ("once", "each recorded recipe answers for one proposal alone, until all have"),
    ):
        answers.add_argument(f"--{name}", dest="answers", action="store_const", const=name, help=what)
    parser.set_defaults(answers="nearest")
    parser.add_argument(
        "--tables",
        nargs="+",
        type=Path,
        help="default: those of residual networks and the dense ones; smooth: all but these",
    )
    parser.add_argument(
        "--warm-starts", type=Path, metavar="FILE", help="that tunekit's rows try first; see warm_starts.py"
    )
    parser.add_argument("--prior", type=Path, metavar="FILE", help="that tunekit learns from; see prior.py")
    parser.add_argument("--processes", type=int, default=2, help="that replay (default: %(default)s)")
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("results/policy-benchmark.json"),
        help="what was replayed, so that an interrupted benchmark goes on (default: %(default)s)",
    )
    arguments = parser.parse_args()
    arguments.tables = arguments.tables or (
        [*SMOOTH_TABLES, *TABLES] if arguments.answers == "smooth" else [*TABLES, *DENSE_TABLES]
    )
    if mistake := _mistake(arguments.tables, arguments.methods):
        parser.error(mistake)
    return arguments


def _mistake(tables: Sequence[Path], names: Sequence[str]) -> str | None:
    """What is wrong with the arguments, in one line."""
    for table in tables:
        if not table.is_file():
            return f"{table} is not there: see tests/benchmarks/policy/__init__.py"
    for name in names:
        try:
            if method(name).library == "tunekit":
                method(name).make(curves_for(tables[0], "nearest"), 0)
        except SearchError as error:
            return f"{name}: {error}"
    return None


def _print(family: Sequence[Path], outcomes: Mapping[str, Replays], answers: Answers) -> None:
    curves = [curves_for(path, answers) for path in family]
    for path, of_table in zip(family, curves, strict=True):
        print(_conditions(read_table(path), of_table.final, answers))
    budget = TRAININGS * curves[0].epochs
    seeds = max(len(replays) for by_table in outcomes.values() for replays in by_table)
    print(
        f"\n{WORKERS} simulated workers, budget {TRAININGS} full trainings ({budget} epochs), {seeds} seeds"
        f"{' for each table' if len(family) > 1 else ''}. Normalised regret in %: mean and 95 % interval.\n"
    )
    print(markdown(outcomes, {name: method(name).title for name in outcomes}, budget) + "\n")
    if answers == "nearest":
        long = suggestion_ms_after(_LONG_HISTORY, curves[0])
        middle, high = np.percentile(long, (50, 95))
        words = f"median {middle:.0f} ms, 95th percentile {high:.0f} ms, at most {max(long):.0f} ms"
        print(f"A suggestion of tunekit with {_LONG_HISTORY} trials in the history: {words}.")


def _conditions(table: Table, final: Floats, answers: Answers) -> str:
    """What a table holds and what regret means there."""
    best, middle = float(final.max()), float(np.median(final))
    failed = sum("failed_at" in recipe for recipe in table["recipes"])
    references = f" of {REFERENCES} random recipes in the smooth curves" if answers == "smooth" else ""
    text = (
        f"- {table['dataset'].removesuffix('.')}: {len(table['recipes'])} random recipes "
        f"({failed} of which failed) x {table['epochs']} epochs, recorded on {table['hardware']}. "
        f"Last validation accuracy{references}: best {best:.4f}, median {middle:.4f}"
    )
    if answers == "smooth":
        return f"{text}."
    error = 100 * math.sqrt(best * (1 - best) / table["val_images"]) / (best - middle)
    return f"{text}; the standard error of the best recipe's accuracy is worth {error:.1f} % of regret."


if __name__ == "__main__":
    main()
