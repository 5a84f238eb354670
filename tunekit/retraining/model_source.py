"""From what a user calls a model to a network that takes pixels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from tunekit.errors import TrackingError, TunekitError
from tunekit.recipe import Value
from tunekit.tracking.client import open_client
from tunekit.tracking.model import PixelsToProbabilities
from tunekit.tracking.registry import find_model, load_logged
from tunekit.tracking.server import check_reachable, sqlite_file
from tunekit.tracking.server import tracking_uri as resolve_uri
from tunekit.tuning.winner import load_winner


@dataclass(frozen=True)
class ImageClassifier:
    """A network that takes images as they are, and what it says about them."""

    module: nn.Module  # images (N, H, W, C), uint8, to probabilities (N, classes), float32, on the CPU
    classes: list[str]
    image_shape: tuple[int, int, int]  # H, W, C
    recipes: Sequence[Mapping[str, Value]]  # flat, of each network in it, the best first
    name: str  # a word that suits a file name


def load_model(source: str, results_dir: Path, tracking_uri: str | None) -> ImageClassifier:
    """The model that a user means.

    Args:
        source: a `.safetensors` file of best weights, or what `registry.find_model` takes.
        results_dir: where searches lie, and MLflow's database if no other place is named.
        tracking_uri: of MLflow; None is what `tracking.server.tracking_uri` makes of it.
    Raises:
        TunekitError: if there is none, or it cannot be read or reached.
    """
    if source.endswith(".safetensors"):
        return _from_file(Path(source))
    return _from_registry(source, resolve_uri(results_dir, tracking_uri))


def _from_file(file: Path) -> ImageClassifier:
    if not file.is_file():
        raise TunekitError(f"no file {file}")
    winner = load_winner(file)
    module = PixelsToProbabilities(winner)
    return ImageClassifier(module, winner.classes, winner.image_shape, winner.recipes, file.stem)


def _from_registry(source: str, uri: str) -> ImageClassifier:
    check_reachable(uri)
    # Opening a database makes it, and asking for a model should leave nothing behind.
    if uri.startswith("sqlite:") and not sqlite_file(uri).exists():
        raise TrackingError(
            f"no model {source!r}: nothing is recorded in {sqlite_file(uri)} yet "
            "(a .safetensors file, or --results-dir or --tracking-uri of where it is)"
        )
    client = open_client(uri)
    found = find_model(client, source)
    model = load_logged(client, found)
    name = found.removeprefix("models:/").replace("/", "-")
    return ImageClassifier(model.module, model.classes, model.image_shape, model.recipes, name)
