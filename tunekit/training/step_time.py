"""The time of one training step, on random images."""

from __future__ import annotations

import dataclasses
import time

import torch

from tunekit.models.build import build_model
from tunekit.models.catalog import check_model
from tunekit.recipe import Recipe
from tunekit.training.device import gains_from_bf16, pick_device, set_threads
from tunekit.training.loss import training_loss
from tunekit.training.memory import memory_failures


@memory_failures()
def seconds_per_step(
    recipe: Recipe,
    batch_size: int,
    image_shape: tuple[int, int, int],
    classes: int,
    cpus: float,
    gpus: float | None,
) -> float:
    """Seconds of forward and backward of the second step (the first one also prepares kernels).

    Args:
        recipe: its network is measured with random weights, whatever its `init`, and nothing frozen.
        batch_size: images in the step.
        image_shape: (H, W, C).
        classes: number of outputs.
        cpus: threads to use.
        gpus: 0 for the CPU; None for a GPU if there is one.
    Raises:
        RecipeError: if there is no such network for these images.
        OutOfMemoryFailure: if the device's memory is too small.
    """
    recipe = dataclasses.replace(recipe, init="random")
    check_model(recipe, image_shape)
    set_threads(cpus)
    device = pick_device(1 if gpus is None else gpus)
    height, width, channels = image_shape
    network = build_model(recipe, image_shape, classes).train()
    network = network.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    images = torch.rand(batch_size, channels, height, width, device=device)
    images = images.contiguous(memory_format=torch.channels_last)
    labels = torch.zeros(batch_size, dtype=torch.int64, device=device)
    for _ in range(2):
        started = time.perf_counter()
        with torch.autocast(device.type, torch.bfloat16, enabled=gains_from_bf16(device)):
            loss = training_loss(network(images), labels, aux_weight=recipe.loss.aux_weight)
        loss.backward()  # type: ignore[no-untyped-call]
        loss.item()
    return time.perf_counter() - started
