"""The best trial's network, ready to be used."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from tempfile import TemporaryDirectory

from tunekit.errors import TunekitError
from tunekit.models.build import build_model
from tunekit.models.network import Network
from tunekit.models.pretrained import fetch_weights
from tunekit.recipe import Recipe
from tunekit.tracking.model import Classifier
from tunekit.training.checkpoint import BestWeights, load_best


def load_winner(file: Path) -> Classifier:
    """The network in a file of best weights, in evaluation mode, with its classes and preprocessing.

    Raises:
        TunekitError: if the file is absent, damaged or of another network than it says.
    """
    best = load_best(file)
    network = _build(file, best)
    try:
        network.load_state_dict(best.weights)
    except RuntimeError as error:  # torch's, with a line for each tensor that does not fit
        reason = " ".join(str(error).split())
        raise TunekitError(
            f"{file}: its weights are not those of the recipe beside them ({reason})"
        ) from None
    return Classifier(network.eval(), best.image_shape, best.classes, best.mean, best.std, [best.recipe])


def _build(file: Path, best: BestWeights) -> Network:
    recipe = Recipe.from_flat(best.recipe)
    if recipe.init == "random":
        return build_model(recipe, best.image_shape, len(best.classes))
    # First weights decide on the stem, and may be gone by now; the weights in the file have the same stem.
    recipe = dataclasses.replace(recipe, init=f"file:{file}")
    with TemporaryDirectory() as folder:
        weights = Path(folder) / "first.safetensors"
        fetch_weights(recipe, None, weights)
        return build_model(recipe, best.image_shape, len(best.classes), weights)
