"""The epoch loop: it learns, it repeats bit for bit, it goes on as if nothing had happened."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tunekit.data.pack import Pack
from tunekit.data.split import Split
from tunekit.errors import DivergedError, OutOfMemoryFailure, TunekitError
from tunekit.recipe import Recipe
from tunekit.training.build import build_training
from tunekit.training.checkpoint import load_best, load_checkpoint, save_best, save_checkpoint
from tunekit.training.loop import EpochResult, Training

CPU = torch.device("cpu")
RECIPES: dict[str, dict[str, Any]] = {
    "sgd": {"optim.nesterov": True, "augment.policy": "flip+shift_crop+cutout", "schedule.name": "one_cycle"},
    "adamw": {"optim.name": "adamw", "optim.lr": 3e-3, "schedule.name": "step", "schedule.warmup": 0.2},
    "no_norm": {"model.bn_placement": "none", "optim.name": "adam", "optim.lr": 1e-3},
}


def training(
    digits: Pack, split: Split, seed: int = 0, epochs: int = 3, keys: dict[str, Any] | None = None
) -> Training:
    recipe = Recipe.from_flat({"model.name": "resnet8", "batch_size": 32, **(keys or {})})
    return build_training(recipe, digits, split, epochs, seed, CPU)


def weights(run: Training) -> dict[str, Tensor]:
    return dict(run.model.state_dict())


def same_weights(a: Training, b: Training) -> bool:
    return all(torch.equal(value, weights(b)[name]) for name, value in weights(a).items())


def without_times(results: list[EpochResult]) -> list[tuple[float, ...]]:
    names = ("epoch", "train_loss", "train_accuracy", "val_loss", "val_accuracy", "learning_rate")
    return [tuple(getattr(result, name) for name in names) for result in results]


def test_it_learns_digits(digits: Pack, digits_split: Split) -> None:
    run = training(digits, digits_split, epochs=8, keys={"optim.name": "adamw", "optim.lr": 1e-2})
    results = list(run.run())
    assert [result.epoch for result in results] == list(range(1, 9))
    assert results[-1].val_accuracy > 0.85
    assert results[-1].train_loss < results[0].train_loss / 2
    assert results[0].images_per_second > 0


@pytest.mark.parametrize("keys", RECIPES.values(), ids=RECIPES)
def test_the_same_seed_gives_the_same_weights(
    digits: Pack, digits_split: Split, keys: dict[str, Any]
) -> None:
    first, second = (training(digits, digits_split, keys=keys) for _ in range(2))
    assert without_times(list(first.run())) == without_times(list(second.run()))
    assert same_weights(first, second)
    other = training(digits, digits_split, seed=1, keys=keys)
    assert not same_weights(first, other)


@pytest.mark.parametrize("keys", RECIPES.values(), ids=RECIPES)
def test_resuming_equals_no_interruption(
    digits: Pack, digits_split: Split, keys: dict[str, Any], tmp_path: Path
) -> None:
    straight = training(digits, digits_split, epochs=4, keys=keys)
    list(straight.run())

    before = training(digits, digits_split, epochs=4, keys=keys)
    run = before.run()
    next(run), next(run)
    save_checkpoint(tmp_path / "last.pt", before.state())
    state = load_checkpoint(tmp_path / "last.pt")
    assert state is not None
    after = training(digits, digits_split, epochs=4, keys=keys)
    after.load_state(state)
    assert [result.epoch for result in after.run()] == [3, 4]

    assert same_weights(straight, after)
    assert without_times(straight.results) == without_times(after.results)


def test_what_else_runs_in_the_process_changes_nothing(digits: Pack, digits_split: Split) -> None:
    alone = training(digits, digits_split)
    list(alone.run())
    torch.manual_seed(123)
    first, second = training(digits, digits_split), training(digits, digits_split, seed=5)
    for _ in zip(first.run(), second.run(), strict=True):
        torch.rand(3)
    assert same_weights(alone, first)


def test_training_leaves_the_global_generator_alone(digits: Pack, digits_split: Split) -> None:
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    list(training(digits, digits_split, epochs=1).run())
    assert torch.equal(torch.rand(3), expected)


def test_a_loss_that_is_not_finite_is_a_failure_of_the_recipe(digits: Pack, digits_split: Split) -> None:
    run = training(digits, digits_split, keys={"optim.lr": 10.0, "model.bn_placement": "none"})
    with torch.no_grad():
        next(iter(run.model.parameters())).fill_(float("nan"))
    with pytest.raises(DivergedError, match="training loss is nan in epoch 1"):
        next(run.run())


def test_out_of_memory_is_a_failure_of_the_recipe(digits: Pack, digits_split: Split) -> None:
    run = training(digits, digits_split)

    class Greedy(torch.nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return torch.empty(2**50, 10)

    run.model = Greedy()
    with pytest.raises(OutOfMemoryFailure, match="out of memory"):
        next(run.run())


def test_best_weights_carry_all_that_is_needed_to_use_them(
    digits: Pack, digits_split: Split, tmp_path: Path
) -> None:
    run = training(digits, digits_split)
    description = {
        "recipe": run.recipe.to_flat(),
        "epoch": 2,
        "val_accuracy": 0.5,
        "classes": list(digits.classes),
        "image_shape": list(digits.shape),
        "mean": list(digits.mean),
        "std": list(digits.std),
    }
    save_best(tmp_path / "best.safetensors", run.model, description)
    best = load_best(tmp_path / "best.safetensors")
    assert Recipe.from_flat(best.recipe) == run.recipe
    assert best.image_shape == (8, 8, 1)
    assert all(torch.equal(value, weights(run)[name]) for name, value in best.weights.items())


def test_damaged_or_foreign_checkpoints_are_refused(tmp_path: Path) -> None:
    assert load_checkpoint(tmp_path / "none.pt") is None
    file = tmp_path / "last.pt"
    file.write_bytes(b"not a checkpoint")
    with pytest.raises(TunekitError, match="is not a checkpoint"):
        load_checkpoint(file)
    torch.save({"format": 1, "path": tmp_path}, file)  # a Path object needs pickle to run code
    with pytest.raises(TunekitError, match="is not a checkpoint"):
        load_checkpoint(file)
    with pytest.raises(TunekitError, match="no weights"):
        load_best(file)
