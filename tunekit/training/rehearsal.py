"""A training on made-up images: what a trial takes of a device, and how fast it trains beside others."""

from __future__ import annotations

import dataclasses
import resource
import time

import numpy as np
import torch

from tunekit.data.augment import build_augment
from tunekit.data.batches import Batches, evaluated_at_once
from tunekit.models.build import build_model
from tunekit.models.catalog import check_model
from tunekit.recipe import FreezeRecipe, Recipe, ScheduleRecipe
from tunekit.training.device import pick_device, set_threads
from tunekit.training.loop import Training
from tunekit.training.memory import memory_failures, release_memory

_EPOCHS = 10**6  # more than anybody waits for
_STEPS = 4  # of an epoch, at least
_LEARNING_RATE = 1e-7  # labels are drawn by lot: there is nothing to learn, and much to diverge from


class Rehearsal:
    """A trial of a recipe as it would train, for as long as is asked: its network, optimizer, precision,
    augmentation and batches, in short epochs of made-up images with as large a share that validates.
    """

    @memory_failures()
    def __init__(
        self,
        recipe: Recipe,
        image_shape: tuple[int, int, int],
        classes: int,
        train_images: int,
        val_images: int,
        cpus: float,
    ) -> None:
        """
        Args:
            recipe: trained with random first weights; stages that it would free later are free at once.
            image_shape: (H, W, C).
            classes: number of outputs.
            train_images, val_images: of a trial; as many are made up as its largest batches take.
            cpus: threads to use.
        Raises:
            RecipeError: if there is no such network for these images.
            OutOfMemoryFailure: if the device's memory is too small.
        """
        recipe = _rehearsed(recipe)
        check_model(recipe, image_shape)
        set_threads(cpus)
        self._device = pick_device(1)
        rng, augment = np.random.default_rng(0), build_augment(recipe.augment, min(image_shape[:2]), classes)
        validating = min(val_images, evaluated_at_once(*image_shape[:2]))
        training = max(train_images * validating // val_images, _STEPS * recipe.batch_size)
        training = min(train_images, training)
        images = rng.integers(0, 256, (training + validating, *image_shape), dtype=np.uint8)
        labels = rng.integers(0, classes, len(images))
        mean = std = [0.5] * image_shape[2]
        places = np.split(np.arange(len(images)), [training])
        train = Batches(images, labels, places[0], mean, std, recipe.batch_size, self._device, augment)
        validation = Batches(images, labels, places[1], mean, std, None, self._device)
        model = build_model(recipe, image_shape, classes)
        self._images = len(train)
        self._epochs = Training(recipe, model, train, validation, classes, _EPOCHS, 0, self._device).run()

    def bytes_taken(self) -> int:
        """Train an epoch; the most memory that this process took of its GPU so far. It counts as its own
        what other processes hold there. Without a GPU, the most that it took of the machine.

        Raises:
            RecipeFailure: if the recipe cannot be trained.
        """
        next(self._epochs)
        if self._device.type == "cpu":
            return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        free, total = torch.cuda.mem_get_info(self._device)
        held, most = torch.cuda.memory_reserved(self._device), torch.cuda.max_memory_reserved(self._device)
        return total - free + most - held

    def images_per_second(self, seconds: float) -> float:
        """Train whole epochs for at least so long; training images a second, validation included.

        Raises:
            RecipeFailure: if the recipe cannot be trained.
        """
        started, images = time.perf_counter(), 0
        while time.perf_counter() - started < seconds:
            next(self._epochs)
            images += self._images
        return images / (time.perf_counter() - started)


def gpu_bytes() -> int | None:
    """The memory of the smallest GPU that this process sees; None if it sees none."""
    gpus = range(torch.cuda.device_count())
    return min((torch.cuda.get_device_properties(gpu).total_memory for gpu in gpus), default=None)


def start_anew() -> None:
    """Give back the memory of a rehearsal that is over, so that the next one's `bytes_taken` is its own."""
    release_memory()
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torch.cuda.reset_peak_memory_stats()


def _rehearsed(recipe: Recipe) -> Recipe:
    freeze = FreezeRecipe() if recipe.freeze.policy == "gradual" else recipe.freeze
    optim = dataclasses.replace(recipe.optim, lr=_LEARNING_RATE)
    schedule = ScheduleRecipe(name="constant")
    return dataclasses.replace(recipe, init="random", freeze=freeze, optim=optim, schedule=schedule)
