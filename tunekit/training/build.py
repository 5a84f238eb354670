"""From recipe and data to a training that is ready to run."""

from __future__ import annotations

from pathlib import Path

import torch

from tunekit.data.augment import build_augment
from tunekit.data.batches import Batches
from tunekit.data.pack import Pack
from tunekit.data.split import Split
from tunekit.models.build import build_model
from tunekit.models.catalog import check_model
from tunekit.recipe import Recipe
from tunekit.training.loop import Training
from tunekit.training.memory import memory_failures

# Trials get consecutive seeds; weights must not follow the random numbers of another trial's data.
_WEIGHTS_STREAM = 0x7E17


@memory_failures("while the training was built")
def build_training(
    recipe: Recipe,
    pack: Pack,
    split: Split,
    epochs: int,
    seed: int,
    device: torch.device,
    weights: Path | None = None,
    micro_batches: int = 1,
) -> Training:
    """A training of `recipe` on the train part of `split`, judged on its validation part.

    Args:
        recipe: the whole configuration.
        pack: the data set; its test part is not opened.
        split: indices into the pack's training images.
        epochs: the number of epochs that the schedule spans.
        seed: weights, order, augmentation and dropout follow from it.
        device: where to train.
        weights: file of the network's first weights; None for random ones.
        micro_batches: parts of a batch that are in memory one after the other, a power of 2.
    Raises:
        RecipeError: if there is no such network for these images.
        OutOfMemoryFailure: if the device's memory is too small.
    """
    check_model(recipe, pack.shape)
    images, labels = pack.train()
    augment = build_augment(recipe.augment, min(pack.shape[:2]), len(pack.classes))
    train = Batches(
        images, labels, split.train, pack.mean, pack.std, recipe.batch_size, device, augment=augment
    )
    validation = Batches(images, labels, split.validation, pack.mean, pack.std, None, device)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed ^ _WEIGHTS_STREAM)
        model = build_model(recipe, pack.shape, len(pack.classes), weights)
    classes = len(pack.classes)
    return Training(recipe, model, train, validation, classes, epochs, seed, device, micro_batches)
