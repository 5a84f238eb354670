"""Small networks as trainings leave them on disk, and judges of made-up images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tunekit.models.build import build_model
from tunekit.paths import RetrainingPaths, SearchPaths
from tunekit.recipe import Recipe
from tunekit.retraining.candidates import Candidate
from tunekit.retraining.judging import JudgedRecipe
from tunekit.retraining.networks import Judge, Logits
from tunekit.training.checkpoint import save_best

CLASSES = ["cat", "dog", "bird"]
SHAPE = (8, 8, 1)
MEAN, STD = 0.3, 0.2

_RANDOM = np.random.default_rng(0)
_BRIGHTNESS = _RANDOM.integers(0, 156, (30, 1, 1, 1))  # noise alone looks the same to a random network
IMAGES = (_BRIGHTNESS + _RANDOM.integers(0, 100, (30, *SHAPE))).astype(np.uint8)
LABELS = _RANDOM.integers(0, 3, 30)


def retraining(folder: Path, networks: int) -> RetrainingPaths:
    """The files of a retraining whose trainings 0, 1, ... left random networks, each another."""
    paths = SearchPaths(folder / "mine").retraining
    for training in range(networks):
        save_network(paths.trial(training).best, seed=training)
    return paths


def save_network(file: Path, seed: int) -> None:
    """A random network that tells images apart."""
    torch.manual_seed(seed)
    recipe = Recipe.from_flat({"model.name": "resnet8", "optim.lr": (seed + 1) / 100})
    network = build_model(recipe, SHAPE, len(CLASSES)).eval()
    with torch.no_grad():
        weight, bias = network.head.parameters()
        weight.mul_(40)
        bias.sub_(network(normalised(IMAGES)).mean(0))  # so that it names every class
    description = {
        "recipe": recipe.to_flat(),
        "epoch": 1,
        "val_accuracy": 0.5,
        "classes": CLASSES,
        "image_shape": list(SHAPE),
        "mean": [MEAN],
        "std": [STD],
    }
    save_best(file, network, description)


def normalised(images: NDArray[np.uint8]) -> Tensor:
    """(N, H, W, C) pixels as the (N, C, H, W) float32 that a network takes."""
    return (torch.from_numpy(images).permute(0, 3, 1, 2) / 255 - MEAN) / STD


def judge_of(labels: Sequence[int]) -> Judge:
    """A judge of so many images, which are all black: for logits that are made up."""
    return Judge(np.zeros((len(labels), 1, 1, 1), np.uint8), np.array(labels, np.int64))


def answers(said: Sequence[int], sure: float = 4.0) -> Logits:
    """(N, 3) float32 logits that name the class `said` of each image, `sure` above the others."""
    logits: NDArray[np.float32] = sure * np.eye(3, dtype=np.float32)[list(said)]
    return logits


def judged(name: str, ids: Sequence[int], logits: Sequence[Logits], judge: Judge) -> JudgedRecipe:
    """A recipe whose trainings gave these logits."""
    right = np.stack([judge.right(one) for one in logits])
    return JudgedRecipe(Candidate(name, Recipe(), {}, 1), list(ids), list(logits), right, [])
