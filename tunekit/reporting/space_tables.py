"""Search spaces, recipe keys and data sets as plain rows and as tables."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from rich.table import Table

from tunekit.paths import shipped_spaces
from tunekit.recipe import RECIPE_KEYS
from tunekit.space import Baseline, SearchSpace, load_space

Row = dict[str, Any]


def space_rows() -> list[Row]:
    """One row a shipped space."""
    loaded = {name: load_space(path) for name, path in shipped_spaces().items()}
    return [
        {
            "space": name,
            "keys": len(space.parameters),
            "baselines": len(space.baselines),
            "description": space.description,
        }
        for name, space in loaded.items()
    ]


def space_table(rows: list[Row]) -> Table:
    """`space_rows` for a terminal."""
    return _table(rows, "space", "keys", "baselines", "description")


def parameter_rows(space: SearchSpace) -> list[Row]:
    """One row a key that varies or is fixed."""
    varied = [{"key": p.name, "values": p.text(), "role": p.role} for p in space.parameters.values()]
    return varied + [{"key": k, "values": str(v), "role": "fixed"} for k, v in space.fixed.items()]


def parameter_table(rows: list[Row]) -> Table:
    """`parameter_rows` for a terminal."""
    return _table(rows, "key", "values", "role")


def baseline_table(baselines: Sequence[Baseline]) -> Table:
    """Known recipes and what their sources report, for a terminal."""
    rows = [
        {
            "baseline": b.name,
            "dataset": b.dataset,
            "epochs": b.epochs or "-",
            "reported accuracy %": b.reported_accuracy if b.reported_accuracy is not None else "-",
            "source": b.source,
        }
        for b in baselines
    ]
    return _table(rows, "baseline", "dataset", "reported accuracy %", "epochs", "source")


def space_dict(space: SearchSpace) -> Row:
    """A space as plain values, for JSON."""
    return {
        "description": space.description,
        "fixed": dict(space.fixed),
        "space": {name: _parameter_dict(parameter) for name, parameter in space.parameters.items()},
        "baseline": [dataclasses.asdict(baseline) for baseline in space.baselines],
    }


def recipe_key_rows() -> list[Row]:
    """One row a recipe key."""
    return [
        {
            "key": key.name,
            "default": key.default,
            "rule": key.rule.text(),
            "unit": key.rule.unit,
            "meaning": key.rule.doc,
        }
        for key in RECIPE_KEYS.values()
    ]


def recipe_key_table(rows: list[Row]) -> Table:
    """`recipe_key_rows` for a terminal."""
    return _table(rows, "key", "default", "rule", "unit", "meaning")


def dataset_table(rows: list[Row]) -> Table:
    """Data sets known by name and their state, for a terminal."""
    shown = [
        {
            "dataset": row["name"],
            "description": row["description"],
            "classes": row["classes"],
            "training": f"{row['train_images']:,}",
            "test": f"{row['test_images']:,}",
            "shape": "x".join(map(str, row["shape"])),
            "state": row["state"],
        }
        for row in rows
    ]
    return _table(shown, "dataset", "classes", "training", "test", "shape", "state", "description")


def _parameter_dict(parameter: Any) -> Row:
    fields = dataclasses.asdict(parameter)
    fields.pop("name")
    return {name: value for name, value in fields.items() if value not in (None, (), {}, False)}


def _table(rows: Sequence[Row], *columns: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for index, column in enumerate(columns):
        table.add_column(column, no_wrap=index == 0)
    for row in rows:
        table.add_row(*(str(row[column]) for column in columns))
    return table
