"""From the history of a search without early stopping to a compressed table of learning curves, and back.

    python -m tests.benchmarks.policy.record SEARCH_FOLDER TABLE.json.gz --hardware "2 cores of ..."

A table is JSON: what was recorded and how, the space's own text, and for each recipe its keys, the
validation accuracy of every epoch, the seconds of every epoch, and where and why it failed.
"""

from __future__ import annotations

import argparse
import gzip
import json
import tomllib
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tunekit.history import History
from tunekit.paths import SearchPaths, atomic_write
from tunekit.space import SearchSpace, load_space
from tunekit.tuning.replay import Curves, Record, records_of
from tunekit.tuning.settings import SearchSettings

Table = Mapping[str, Any]


def table_of(paths: SearchPaths, hardware: str) -> Table:
    """The trials of a search that are known to their end, with the conditions under which they ran.

    Without its default recipe: the recipes of a table are random draws.
    """
    settings = SearchSettings.load(paths)
    space = load_space(paths.space).with_fixed(settings.fixed)
    default = space.default_params()
    known = records_of(History.read(paths.history), space, settings.epochs)
    records = [record for record in known if record.params != default]
    conditions = (
        "dataset",
        "epochs",
        "seed",
        "sampler",
        "train_images",
        "val_images",
        "data_digest",
        "versions",
    )
    return {
        "what": "validation accuracy and seconds of every epoch of random recipes, each trained in full",
        **{name: getattr(settings, name) for name in conditions},
        "hardware": hardware,
        "fixed": dict(settings.fixed),
        "space": paths.space.read_text(encoding="utf-8"),
        "recipes": [_rounded(record) for record in records],
    }


def write_table(table: Table, path: Path) -> None:
    """Write a table; the same table gives the same bytes."""
    recipes = ",\n".join(json.dumps(recipe) for recipe in table["recipes"])
    head = json.dumps({name: value for name, value in table.items() if name != "recipes"}, indent=1)
    text = f'{head[:-2]},\n "recipes": [\n{recipes}\n]\n}}\n'
    with atomic_write(path) as temporary:
        temporary.write_bytes(gzip.compress(text.encode(), compresslevel=9, mtime=0))


def read_table(path: Path) -> Table:
    """Read a table."""
    table: Table = json.loads(gzip.decompress(path.read_bytes()))
    return table


def curves_of(table: Table) -> Curves:
    """The curves of a table."""
    spec = tomllib.loads(table["space"])
    # Without the baselines that it names: the catalogue of today may not have them.
    space = SearchSpace.from_dict({name: spec[name] for name in ("fixed", "space") if name in spec})
    records = [Record(**recipe) for recipe in table["recipes"]]
    return Curves(space.with_fixed(table["fixed"]), table["epochs"], records)


def _rounded(record: Record) -> dict[str, Any]:
    fields = asdict(record)
    fields["values"] = [round(value, 4) for value in record.values]
    fields["seconds"] = [round(seconds, 3) for seconds in record.seconds]
    return {name: value for name, value in fields.items() if value is not None}


def main() -> None:
    """Convert one search."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("search", type=Path, help="folder of a search")
    parser.add_argument("table", type=Path, help="the .json.gz to write")
    parser.add_argument("--hardware", required=True, help="what it ran on, in words")
    arguments = parser.parse_args()
    table = table_of(SearchPaths(arguments.search.resolve()), arguments.hardware)
    write_table(table, arguments.table)
    failed = sum("failed_at" in recipe for recipe in table["recipes"])
    size = arguments.table.stat().st_size / 1024
    print(f"{arguments.table}: {len(table['recipes'])} recipes, {failed} of them failed, {size:.0f} KiB")


if __name__ == "__main__":
    main()
