"""The best trial's network, ready to be used."""

from __future__ import annotations

from pathlib import Path

from tunekit.models.build import build_model
from tunekit.recipe import Recipe
from tunekit.tracking.model import Classifier
from tunekit.training.checkpoint import load_best


def load_winner(file: Path) -> Classifier:
    """The network in a file of best weights, with its classes and preprocessing.

    Raises:
        TunekitError: if the file is absent or damaged.
    """
    best = load_best(file)
    model = build_model(Recipe.from_flat(best.recipe).model, best.image_shape, len(best.classes))
    model.load_state_dict(best.weights)
    return Classifier(model, best.image_shape, best.classes, best.mean, best.std)
