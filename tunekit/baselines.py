"""Known recipes with a reported result: the catalogue that comes with tunekit, and a user's own.

[[baseline]]
name = "B-mnist-vgg16-lr0.01"
like = "B-mnist-vgg16"            # an earlier one of the file: what is not said here is as it says
reported_accuracy = 98.9
recipe = { "optim.lr" = 0.01 }
"""

from __future__ import annotations

import dataclasses
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache
from typing import Any

from tunekit.errors import SpaceError, nearest
from tunekit.paths import baseline_catalogue
from tunekit.recipe import Value

_MOST_EPOCHS = 10**6

_FIELDS: dict[str, tuple[str, tuple[type, ...]]] = {
    "name": ("string", (str,)),
    "like": ("string", (str,)),
    "recipe": ("table", (dict,)),
    "dataset": ("string", (str,)),
    "reported_accuracy": ("number", (float, int)),
    "epochs": ("whole number", (int,)),
    "source": ("string", (str,)),
}


@dataclass(frozen=True)
class Baseline:
    """A known recipe with a reported result."""

    name: str
    recipe: Mapping[str, Value]
    dataset: str = ""
    reported_accuracy: float | None = None  # in %, on the test set, as the source reports it
    epochs: int | None = None
    source: str = ""


@cache
def all_baselines() -> tuple[Baseline, ...]:
    """Every baseline of the catalogue, in its order."""
    path = baseline_catalogue()
    return read_baselines(tomllib.loads(path.read_text(encoding="utf-8"))["baseline"], path.name)


def find_baseline(name: str) -> Baseline:
    """The baseline of the catalogue called `name`.

    Raises:
        SpaceError: if there is none; the message names the nearest.
    """
    by_name = {baseline.name: baseline for baseline in all_baselines()}
    if name not in by_name:
        raise SpaceError(f"no baseline called {name!r}{nearest(name, by_name)}")
    return by_name[name]


def matching_baselines(pattern: str) -> list[Baseline]:
    """Those of the catalogue whose name fits `pattern` (`B-mnist-vgg*`), in its order.

    Raises:
        SpaceError: if none does; the message names the nearest.
    """
    found = [baseline for baseline in all_baselines() if fnmatchcase(baseline.name, pattern)]
    return found or [find_baseline(pattern)]


def read_baselines(tables: Any, source: str) -> tuple[Baseline, ...]:
    """The `[[baseline]]` tables of a file. Whether a recipe's keys are recipe keys is not checked.

    Args:
        tables: as `tomllib` gives them.
        source: where they came from, for error messages.
    Raises:
        SpaceError: naming source, baseline and rule.
    """
    if not isinstance(tables, list | tuple):
        raise SpaceError(f"{source}: baseline: must be written as [[baseline]], but got {tables!r}")
    read: dict[str, Baseline] = {}
    for table in tables:
        if not isinstance(table, Mapping) or not isinstance(table.get("name"), str):
            raise SpaceError(f"{source}: baseline: needs a name, but got {table!r}")
        try:
            read[table["name"]] = _read(table, read)
        except SpaceError as error:
            raise SpaceError(f"{source}: baseline {table['name']}: {error}") from None
    return tuple(read.values())


def _read(table: Mapping[str, Any], earlier: Mapping[str, Baseline]) -> Baseline:
    _check_fields(table)
    if table["name"] in earlier:
        raise SpaceError("the name is taken by an earlier one")
    if "like" not in table:
        if "recipe" not in table:
            raise SpaceError('needs recipe = { "key" = value, ... }')
        return Baseline(**table)
    if table["like"] not in earlier:
        raise SpaceError(f"like: no earlier baseline {table['like']!r}{nearest(table['like'], earlier)}")
    model = earlier[table["like"]]
    own = {name: value for name, value in table.items() if name != "like"}
    recipe = {**model.recipe, **table.get("recipe", {})}
    # What was measured for one recipe says nothing about another.
    return dataclasses.replace(model, **{"reported_accuracy": None, **own, "recipe": recipe})


def _check_fields(table: Mapping[str, Any]) -> None:
    for name, value in table.items():
        if name not in _FIELDS:
            raise SpaceError(f"unknown field {name!r}{nearest(name, _FIELDS)}")
        kind, types = _FIELDS[name]
        if type(value) not in types:
            raise SpaceError(f"{name} must be a {kind}, but got {value!r}")
    if not (table["name"] and table["name"].isprintable()):
        raise SpaceError("the name must be words that can be printed")
    if not 0 <= table.get("reported_accuracy", 0) <= 100:  # also NaN
        raise SpaceError(f"reported_accuracy must be 0 to 100 (%), but got {table['reported_accuracy']}")
    if not 1 <= table.get("epochs", 1) <= _MOST_EPOCHS:
        raise SpaceError(f"epochs must be 1 to {_MOST_EPOCHS:,}, but got {table['epochs']}")
