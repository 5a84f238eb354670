"""The network of a best trial, built again from its file alone and exported."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import mlflow.pytorch
import numpy as np
import pytest
import torch

from tunekit.models.build import build_model
from tunekit.models.network import Network
from tunekit.models.pretrained import fetch_weights
from tunekit.recipe import Recipe
from tunekit.tracking.client import open_client
from tunekit.tracking.model import PixelsToProbabilities, log_model
from tunekit.training.checkpoint import save_best
from tunekit.tuning.winner import load_winner

SHAPE = (8, 8, 1)
CLASSES = ["cat", "dog", "bird"]
RECIPES: dict[str, dict[str, Any]] = {
    "norm_after_act": {"model.name": "resnet8", "model.bn_placement": "after_act"},
    "resized": {"model.name": "resnet8", "input.size": 12},
    "auxiliary_heads": {"model.name": "googlenet", "model.bn_placement": "after_act"},
}


def save(file: Path, recipe: Recipe, network: Network) -> None:
    description = {
        "recipe": recipe.to_flat(),
        "epoch": 1,
        "val_accuracy": 0.5,
        "classes": CLASSES,
        "image_shape": list(SHAPE),
        "mean": [0.3],
        "std": [0.2],
    }
    save_best(file, network, description)


def probabilities(network: Network, images: torch.Tensor) -> torch.Tensor:
    normalised = (images.permute(0, 3, 1, 2) / 255 - 0.3) / 0.2
    with torch.no_grad():
        found: torch.Tensor = torch.softmax(network.eval()(normalised), 1)
    return found


@pytest.fixture
def images() -> torch.Tensor:
    pixels = np.random.default_rng(0).integers(0, 256, (3, *SHAPE), dtype=np.uint8)
    return torch.from_numpy(pixels)


@pytest.mark.parametrize("keys", RECIPES.values(), ids=RECIPES)
def test_it_says_what_the_trained_network_said(
    keys: dict[str, Any], images: torch.Tensor, tmp_path: Path
) -> None:
    recipe = Recipe.from_flat(keys)
    trained = build_model(recipe, SHAPE, len(CLASSES))
    save(tmp_path / "best.safetensors", recipe, trained)
    winner = load_winner(tmp_path / "best.safetensors")
    assert not winner.module.training
    torch.testing.assert_close(PixelsToProbabilities(winner)(images), probabilities(trained, images))


def test_weights_that_began_as_others_keep_their_stem(images: torch.Tensor, tmp_path: Path) -> None:
    # Published weights have the published stem, where a new network for small images has another.
    small = Recipe.from_flat({"model.name": "resnet18"})
    published = build_model(small, (224, 224, 1), 10)
    torch.save(published.body.state_dict(), tmp_path / "published.pt")
    recipe = replace(small, init=f"file:{tmp_path / 'published.pt'}")
    fetch_weights(recipe, None, tmp_path / "first.safetensors")
    trained = build_model(recipe, SHAPE, len(CLASSES), tmp_path / "first.safetensors")
    save(tmp_path / "best.safetensors", recipe, trained)
    for gone in ("published.pt", "first.safetensors"):
        (tmp_path / gone).unlink()
    winner = load_winner(tmp_path / "best.safetensors")
    torch.testing.assert_close(PixelsToProbabilities(winner)(images), probabilities(trained, images))


@pytest.mark.slow
@pytest.mark.parametrize("keys", RECIPES.values(), ids=RECIPES)
def test_it_can_be_exported(keys: dict[str, Any], images: torch.Tensor, tmp_path: Path) -> None:
    recipe = Recipe.from_flat(keys)
    trained = build_model(recipe, SHAPE, len(CLASSES))
    save(tmp_path / "best.safetensors", recipe, trained)
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    client = open_client(uri)
    experiment = client.create_experiment("models", (tmp_path / "artifacts").as_uri())
    run_id = client.create_run(experiment).info.run_id
    model_uri = log_model(client, run_id, load_winner(tmp_path / "best.safetensors"), "best")
    mlflow.set_tracking_uri(uri)
    exported = mlflow.pytorch.load_model(model_uri)
    for size in (1, 3):
        found = exported(images[:size])
        torch.testing.assert_close(found, probabilities(trained, images[:size]), rtol=1e-4, atol=1e-6)
