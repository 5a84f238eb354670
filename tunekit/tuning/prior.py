"""What recorded trainings on other data have to say: the prior that a search space may bring along.

`prior = "my.prior.json.gz"` in a space file names a file beside it, or a shipped one. Gzipped JSON:

    {"searches": [{"dataset": "digits", "conditions": "718 images train ...", "epochs": [3, 27], "trials": [
        {"params": {"optim.lr": 0.1, ...}, "values": [0.91, 0.97]}, ...]}, ...]}

`values` are validation accuracies after these `epochs`; a recipe that failed on the way has fewer.
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tunekit.errors import SpaceError
from tunekit.paths import find_prior
from tunekit.recipe import Recipe
from tunekit.space import Params, SearchSpace
from tunekit.tuning.evidence import EarlierSearch, Evidence, Observation


def read_prior(folder: Path, space: SearchSpace) -> list[EarlierSearch]:
    """The searches of a space's prior, as far as the space can propose their recipes.

    Args:
        folder: where the space's file lies.
        space: what varies; a recipe that has another value for a key that is fixed says nothing.
    Returns:
        A search for each data set that has something to say; none if the space brings no prior.
    Raises:
        SpaceError: naming the file, if it cannot be read or breaks a rule.
    """
    if not space.prior:
        return []
    file = find_prior(folder, space.prior)
    text = _text(file)
    try:
        searches = _field(_mapping(json.loads(text)), "searches", list)
        found = [_search(_mapping(search), space) for search in searches]
    except (ValueError, RecursionError) as error:  # also of a recipe, and of what is no JSON
        raise SpaceError(f"{file}: is not a prior: {error}") from None
    return [search for search in found if search.evidence.at(search.evidence.epochs[0])]


def searches_in_words(searches: Sequence[EarlierSearch]) -> str:
    """`400 trials of digits, 300 of mnist`; an empty text if there are none."""
    if not searches:
        return ""
    counts = [len(search.evidence.trials) for search in searches]
    first = f"{counts[0]:,} trial{'s' if counts[0] != 1 else ''} of {searches[0].name}"
    others = [f"{count:,} of {search.name}" for count, search in zip(counts[1:], searches[1:], strict=True)]
    return ", ".join([first, *others])


def _text(file: Path) -> bytes:
    try:
        return gzip.decompress(file.read_bytes())
    except OSError as error:  # gzip's own says more in words than in `strerror`
        raise SpaceError(f"{file}: cannot be read ({error.strerror or error})") from None
    except (EOFError, zlib.error) as error:
        raise SpaceError(f"{file}: is damaged ({error})") from None


def _search(search: Mapping[str, Any], space: SearchSpace) -> EarlierSearch:
    epochs = _field(search, "epochs", list)
    whole = all(type(epoch) is int and epoch > 0 for epoch in epochs)
    if not epochs or not whole or sorted(set(epochs)) != epochs:
        raise SpaceError(f"epochs must be whole numbers that rise, but are {epochs!r}")
    trials = [_observation(_mapping(trial), epochs, space) for trial in _field(search, "trials", list)]
    known = tuple(trial for trial in trials if trial is not None)
    return EarlierSearch(_field(search, "dataset", str), (), Evidence(known, tuple(epochs)))


def _observation(trial: Mapping[str, Any], epochs: Sequence[int], space: SearchSpace) -> Observation | None:
    """None if the space cannot propose the recipe."""
    given = _field(trial, "params", dict)
    recipe = Recipe.from_flat(given)
    values = _field(trial, "values", list)
    if len(values) > len(epochs) or not all(_is_accuracy(value) for value in values):
        raise SpaceError(f"values must be accuracies from 0 to 1, at most {len(epochs)}, but are {values!r}")
    if any(space.fixed.get(name, value) != value for name, value in given.items()):
        return None
    params: Params | None = space.params_of(recipe)
    failed = [float("-inf")] * (len(values) < len(epochs))
    return params if params is None else Observation(params, dict(zip(epochs, values + failed, strict=False)))


def _is_accuracy(value: object) -> bool:
    return type(value) in (int, float) and 0 <= value <= 1  # type: ignore[operator]


def _mapping(value: object) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise SpaceError(f"a table is wanted, but {str(value)[:40]!r} came")
    return value


def _field(table: Mapping[str, Any], name: str, kind: type) -> Any:
    value = table.get(name)
    if not isinstance(value, kind):
        raise SpaceError(f"{name} must be a {kind.__name__}, but is {str(value)[:40]!r}")
    return value
