"""Records tables of 2,000 random recipes of small networks, as many as LCBench has of a data set.

    python -m tests.benchmarks.policy.dense DATA_DIR OUT --hardware "2 cores of ..."

Among so many recipes of 7 keys the nearest recorded one has something to say of any other. Networks, space
and epochs are those of small_networks.py, the tasks two of live.py; 400 samples train, 2,000 judge. A table
takes half an hour beside other work. Every epoch counts as one second.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from tests.benchmarks.policy import live
from tests.benchmarks.policy.record import Table
from tests.benchmarks.policy.small_networks import (
    EPOCHS,
    described,
    parts_of,
    random_recipe,
    record_tables,
    seed_of,
    trained,
    with_conditions,
)

TASKS = ("photographs", "four-synthetic")
RECIPES = 2000
_TRAIN, _JUDGE = 400, 2000  # samples


def recorded(task: str, data_dir: Path, count: int = RECIPES) -> list[dict[str, Any]]:
    """Random recipes of a task, trained in full, as a table has them."""
    train, judge = parts_of(live.TASKS[task](data_dir), _TRAIN, _JUDGE)
    rng = np.random.default_rng((seed_of(task), 77, 0))
    recipes = []
    for _ in range(count):
        params = random_recipe(rng)
        accuracies, _ = trained(params, train, judge, int(rng.integers(2**31)))
        values = [round(accuracy, 4) for accuracy in accuracies]
        recipes.append({"params": params, "values": values, "seconds": [1.0] * EPOCHS})
    return recipes


def dense_table(task: str, recipes: list[dict[str, Any]], hardware: str) -> Table:
    """The table of a task, with the conditions under which it was recorded."""
    conditions = {
        "what": "validation accuracy of every epoch of random recipes, each trained in full; an epoch counts "
        "as one second; by tests/benchmarks/policy/dense.py",
        "dataset": described(task, live.TASKS[task]),
        "seed": seed_of(task),
        "train_images": _TRAIN,
        "val_images": _JUDGE,
    }
    return with_conditions(conditions, recipes, hardware)


def main() -> None:
    """Record both."""

    def table(task: str, data_dir: Path, hardware: str) -> Table:
        return dense_table(task, recorded(task, data_dir), hardware)

    record_tables((__doc__ or "").splitlines()[0], TASKS, table)


if __name__ == "__main__":
    main()
