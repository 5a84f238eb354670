"""How long a search will take, from one measured batch a network. Says so before the search begins."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch.nn import functional

from tunekit.models.build import build_model
from tunekit.recipe import ModelRecipe
from tunekit.training.device import gains_from_bf16, pick_device, set_threads

_BATCH = 32
_VALIDATION_COST = 1 / 3  # of a training step, an image: forward alone


@dataclass(frozen=True)
class Estimate:
    """Seconds of training alone; starting the workers comes on top."""

    at_most: float  # every trial trains all epochs
    expected: float  # with early stopping as the scheduler is built to do it


def seconds_per_image(
    model: str, image_shape: tuple[int, int, int], classes: int, cpus: float, gpus: float
) -> float:
    """Seconds of one training step divided by its images, measured on the second step of 32 random images.

    Args:
        model: `model.name` of a recipe.
        image_shape: (H, W, C).
        classes: number of outputs.
        cpus, gpus: what a trial is given.
    """
    set_threads(cpus)
    device = pick_device(gpus)
    height, width, channels = image_shape
    recipe = dataclasses.replace(ModelRecipe(), name=model)
    network = build_model(recipe, image_shape, classes).to(
        device=device,
        memory_format=torch.channels_last,  # type: ignore[call-overload]
    )
    images = torch.rand(_BATCH, channels, height, width, device=device)
    images = images.contiguous(memory_format=torch.channels_last)
    labels = torch.zeros(_BATCH, dtype=torch.int64, device=device)
    for _ in range(2):  # the first step also compiles kernels
        started = time.perf_counter()
        with torch.autocast(device.type, torch.bfloat16, enabled=gains_from_bf16(device)):
            loss = functional.cross_entropy(network(images).float(), labels)
        loss.backward()  # type: ignore[no-untyped-call]
        loss.item()
        seconds = time.perf_counter() - started
    return seconds / _BATCH


def estimate(
    per_image: Sequence[float],
    train_images: int,
    val_images: int,
    samples: int,
    epochs: int,
    slots: int,
    rungs: Sequence[int],
    reduction_factor: int,
) -> Estimate:
    """Add up a search.

    Args:
        per_image: seconds an image for each network of the space; each is taken to be as likely.
        train_images, val_images: images an epoch.
        samples: trials.
        epochs: of a full training.
        slots: trials at a time.
        rungs: epochs at which one trial in `reduction_factor` goes on; empty without early stopping.
        reduction_factor: see there.
    """
    images = train_images + val_images * _VALIDATION_COST
    epoch_seconds = sum(per_image) / len(per_image) * images
    share, done, expected_epochs = 1.0, 0, 0.0
    for rung in (*rungs, epochs):
        expected_epochs += share * (rung - done)
        share, done = share / reduction_factor, rung
    rounds = samples / min(slots, samples)
    return Estimate(
        at_most=rounds * epochs * epoch_seconds, expected=rounds * expected_epochs * epoch_seconds
    )
