"""A rehearsal trains as a trial would, on made-up images, and as long as is asked."""

import time
from typing import Any

import pytest

from tunekit.errors import RecipeError
from tunekit.recipe import Recipe
from tunekit.training.rehearsal import Rehearsal, start_anew


def rehearsal(keys: dict[str, Any], train_images: int = 60, val_images: int = 20) -> Rehearsal:
    recipe = Recipe.from_flat({"model.name": "resnet8", "batch_size": 16, **keys})
    return Rehearsal(recipe, (8, 8, 1), 10, train_images, val_images, cpus=1)


@pytest.mark.parametrize(
    "keys",
    [
        {"optim.lr": 10.0, "optim.name": "rmsprop"},  # as a trial it would diverge
        {"augment.policy": "flip+shift_crop+mixup", "ema.decay": 0.9, "optim.name": "lamb"},
        {"freeze.policy": "gradual", "init": "pretrained", "schedule.name": "plateau"},
        {"batch_size": 4096, "input.size": 16},
    ],
)
def test_every_recipe_can_be_rehearsed(keys: dict[str, Any]) -> None:
    run = rehearsal(keys)
    assert run.bytes_taken() > 0
    started = time.monotonic()
    assert run.images_per_second(0.2) > 0
    assert time.monotonic() - started >= 0.2
    start_anew()


def test_a_network_that_these_images_are_too_small_for_is_refused() -> None:
    with pytest.raises(RecipeError):
        rehearsal({"model.name": "lenet5"})
