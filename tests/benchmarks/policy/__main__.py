"""Replays the table of learning curves under every method and prints how they compare, in Markdown.

What is measured, and how to get Syne Tune: see tests/benchmarks/policy/__init__.py.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from tests.benchmarks.policy.comparison import Outcome, markdown
from tests.benchmarks.policy.methods import METHODS, installed, method, suggestion_ms_after
from tests.benchmarks.policy.record import curves_of, read_table
from tests.benchmarks.policy.runs import TRAININGS, WORKERS, Task, key_of, replayed
from tunekit.errors import SearchError, nearest
from tunekit.paths import atomic_write

_LONG_HISTORY = 500  # trials


def main() -> None:
    """Replay what is not known yet, then print."""
    arguments = _arguments()
    every = [(arguments.table, name, seed) for name in arguments.methods for seed in range(arguments.seeds)]
    tasks: dict[str, Task] = {key_of(task): task for task in every}
    known = _known(arguments.out)
    todo = {key: task for key, task in tasks.items() if key not in known and installed(task[1])}
    for number, (key, outcome) in enumerate(replayed(todo), start=1):
        known = {**_known(arguments.out), key: outcome}  # another environment may write there too
        with atomic_write(arguments.out) as temporary:
            temporary.write_text(json.dumps(known))
        print(f"Replayed {number} of {len(todo)}: {tasks[key][1]}, seed {tasks[key][2]}", file=sys.stderr)
    outcomes: dict[str, list[Outcome]] = {name: [] for name in arguments.methods}
    for key, (_, name, _) in tasks.items():
        outcomes[name] += [known[key]] if key in known else []
    _print(arguments.table, outcomes)


def _known(out: Path) -> dict[str, Outcome]:
    return json.loads(out.read_text()) if out.is_file() else {}


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.policy")
    usual = [name for name, row in METHODS.items() if row.usual]
    others = ", ".join(name for name in METHODS if name not in usual)
    parser.add_argument("--seeds", type=int, default=20, help="replays of each method (default: 20)")
    parser.add_argument(
        "--methods",
        nargs="+",
        default=usual,
        metavar="METHOD",
        help=f"default: {' '.join(usual)}; others: {others}, or any SAMPLER+SCHEDULER[@GRACE] of tunekit",
    )
    parser.add_argument("--table", type=Path, default=Path("results/curves-resnet-digits.json.gz"))
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("results/policy-benchmark.json"),
        help="what was replayed, so that an interrupted benchmark goes on (default: %(default)s)",
    )
    arguments = parser.parse_args()
    if mistake := _mistake(arguments.table, arguments.methods):
        parser.error(mistake)
    return arguments


def _mistake(table: Path, names: Sequence[str]) -> str | None:
    """What is wrong with the arguments, in one line."""
    if not table.is_file():
        return f"{table} is not there: see tests/benchmarks/policy/__init__.py"
    for name in names:
        try:
            if method(name).library == "tunekit":
                method(name).make(curves_of(read_table(table)), 0)
        except KeyError:
            return f"no method {name!r}{nearest(name, METHODS)}"
        except SearchError as error:
            return f"{name}: {error}"
    return None


def _print(table: Path, outcomes: Mapping[str, list[Outcome]]) -> None:
    recorded = read_table(table)
    curves = curves_of(recorded)
    best, middle = float(curves.final.max()), float(np.median(curves.final))
    error = 100 * math.sqrt(best * (1 - best) / recorded["val_images"]) / (best - middle)
    failed = sum(record.failed_at is not None for record in curves.records)
    print(
        f"{len(curves.records)} random recipes ({failed} of which failed) x {curves.epochs} epochs on "
        f"{recorded['dataset']}, recorded on {recorded['hardware']}; last validation accuracy: best "
        f"{best:.4f}, median {middle:.4f}. {WORKERS} simulated workers, budget {TRAININGS} full trainings, "
        f"{max(map(len, outcomes.values()))} seeds. Normalised regret in %: mean and its 95 % interval; the "
        f"standard error of the best recipe's accuracy is worth {error:.1f} of it.\n"
    )
    titles = {name: method(name).title for name in outcomes}
    print(markdown(outcomes, titles, TRAININGS * curves.epochs))
    long = suggestion_ms_after(_LONG_HISTORY, curves)
    print(f"\nA suggestion of tunekit with {_LONG_HISTORY} trials in the history: median {long:.0f} ms.")


if __name__ == "__main__":
    main()
