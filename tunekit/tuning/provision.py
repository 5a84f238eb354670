"""The networks that a search can ask for, made sure of before any trial: sizes, placements, first weights."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from pathlib import Path

from tunekit.errors import SearchError
from tunekit.history import History
from tunekit.models.catalog import check_model
from tunekit.paths import SearchPaths, find_search
from tunekit.recipe import Recipe
from tunekit.space import SearchSpace

# The keys that decide whether a network can be built, and from which weights.
_NETWORK_KEYS = (
    "init",
    "model.name",
    "model.bn_placement",
    "model.conv_bias",
    "model.depth",
    "model.width",
    "input.size",
    "freeze.policy",
    "freeze.stages",
)


class Provision:
    """First weights of a new search's networks, gathered in a folder that the search then takes over."""

    def __init__(self, folder: Path, results_dir: Path, image_shape: tuple[int, int, int]) -> None:
        """
        Args:
            folder: where the weights are put, one file for each kind of network.
            results_dir: where the searches lie that `init = "search:NAME"` names.
            image_shape: (H, W, C) of the images.
        """
        self._folder = folder
        self._results_dir = results_dir
        self._image_shape = image_shape

    def provide(self, recipe: Recipe) -> None:
        """Make sure that the network of `recipe` can be built on these images, from its first weights.

        Raises:
            TunekitError: in one line, if it cannot.
        """
        check_model(recipe, self._image_shape)
        if recipe.init == "random":
            return
        from tunekit.models.pretrained import check_fits, fetch_weights  # imports torch

        file = self._folder / f"{weights_key(recipe)}.safetensors"
        if not file.exists():
            fetch_weights(recipe, self._source(recipe.init), file)
        check_fits(recipe, self._image_shape, file)

    def _source(self, init: str) -> Path | None:
        kind, _, name = init.partition(":")
        return _best_weights(self._results_dir, name) if kind == "search" else None


def weights_key(recipe: Recipe) -> str:
    """A plain word for the first weights of a recipe: recipes that share it begin with the same file."""
    kind = f"{recipe.init} {recipe.model.name} {recipe.model.bn_placement == 'none'}"
    name = re.sub(r"[^A-Za-z0-9]+", "-", recipe.model.name)
    return f"{name}-{hashlib.sha256(kind.encode()).hexdigest()[:12]}"


def first_weights_file(paths: SearchPaths, recipe: Recipe) -> str | None:
    """Where a search keeps the first weights of `recipe`; None if they are random."""
    return None if recipe.init == "random" else str(paths.first_weights(weights_key(recipe)))


def reachable_networks(space: SearchSpace) -> Iterator[Recipe]:
    """A recipe for each kind of network that the space can propose."""
    for values in space.combinations(*_NETWORK_KEYS):
        yield Recipe.from_flat({**space.fixed, **values})


def _best_weights(results_dir: Path, name: str) -> Path:
    paths = find_search(results_dir, name)
    best = History.read(paths.history).best()
    if best is None or not paths.trial(best.id).best.is_file():
        raise SearchError(f"init: search {name} has no weights yet")
    return paths.trial(best.id).best
