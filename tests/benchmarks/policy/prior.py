"""From recorded curves to the prior of a space: what each recipe had at three of its epochs.

    python -m tests.benchmarks.policy.prior search_spaces/resnet.prior.json.gz results/curves-resnet-*.json.gz

The tables come in the order in which they teach: of two that disagree the later one is believed.
"""

from __future__ import annotations

import argparse
import gzip
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.benchmarks.policy.record import Table, read_table
from tunekit.paths import atomic_write

EPOCHS = (3, 9, 27)  # those at which a search of 27 epochs compares


def prior_of(tables: Sequence[Path]) -> dict[str, Any]:
    """A prior, as tunekit/tuning/prior.py describes it, of tables of 27 epochs or more."""
    return {"searches": [_search(read_table(table)) for table in tables]}


def _search(table: Table) -> dict[str, Any]:
    side = table["fixed"].get("input.size")
    conditions = (
        f"{table['train_images']} images train, {table['val_images']} judge"
        f"{f', seen at {side} px' if side else ''}; {table['epochs']} epochs; {table['hardware']}"
    )
    trials = [
        {"params": recipe["params"], "values": [v for e, v in enumerate(recipe["values"], 1) if e in EPOCHS]}
        for recipe in table["recipes"]
    ]
    return {"dataset": table["dataset"], "conditions": conditions, "epochs": EPOCHS, "trials": trials}


def main() -> None:
    """Write a prior; the same tables give the same bytes."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("prior", type=Path, help="the .prior.json.gz to write")
    parser.add_argument("tables", type=Path, nargs="+")
    arguments = parser.parse_args()
    text = json.dumps(prior_of(arguments.tables))
    with atomic_write(arguments.prior) as temporary:
        temporary.write_bytes(gzip.compress(text.encode(), compresslevel=9, mtime=0))


if __name__ == "__main__":
    main()
