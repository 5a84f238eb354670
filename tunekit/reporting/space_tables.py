"""Search spaces, recipe keys and data sets as plain rows and as tables."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from rich.table import Table

from tunekit.baselines import Baseline
from tunekit.paths import shipped_spaces
from tunekit.recipe import RECIPE_KEYS, Recipe
from tunekit.space import SearchSpace, load_space

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
    """Known recipes and what their sources report, for a terminal; `space_dict` names the sources too."""
    rows = [
        {
            "baseline": b.name,
            "dataset": b.dataset,
            "epochs": b.epochs or "-",
            "reported %": b.reported_accuracy if b.reported_accuracy is not None else "-",
            "recipe": _in_short(Recipe.from_flat(b.recipe)),
        }
        for b in baselines
    ]
    return _table(rows, "baseline", "dataset", "epochs", "reported %", "recipe")


def warm_start_table(space: SearchSpace) -> Table:
    """What a search in the space tries after its default recipe, for a terminal."""
    recipes = [space.recipe(params) for params in space.warm_start_params()]
    return _table(
        [{"warm start": f"{_in_short(recipe)}, batch {recipe.batch_size}"} for recipe in recipes],
        "warm start",
    )


def _in_short(recipe: Recipe) -> str:
    """What tells known recipes apart, defaults left out: `vgg16 bn=after_act, sgd lr=0.001 momentum=0`."""
    default = Recipe()
    network = [recipe.model.name]
    for word, value, usual in (
        ("bn", recipe.model.bn_placement, default.model.bn_placement),
        ("init", recipe.init, default.init),
        ("freeze", recipe.freeze.policy, default.freeze.policy),
        ("size", recipe.input.size, default.input.size),
    ):
        network += [f"{word}={value}"] if value != usual else []
    steps = f"{recipe.optim.name} lr={recipe.optim.lr:g}"
    if recipe.optim.name == "sgd" and recipe.optim.momentum != default.optim.momentum:
        steps += f" momentum={recipe.optim.momentum:g}"
    augmented = [recipe.augment.policy] if recipe.augment.policy != "none" else []
    return ", ".join([" ".join(network), steps, *augmented])


def space_dict(space: SearchSpace) -> Row:
    """A space as plain values, for JSON."""
    return {
        "description": space.description,
        "fixed": dict(space.fixed),
        "space": {name: _parameter_dict(parameter) for name, parameter in space.parameters.items()},
        "prior": space.prior or None,
        "warm_start": [dict(params) for params in space.warm_start_params()],
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
