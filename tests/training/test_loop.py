"""The epoch loop: it learns, it repeats bit for bit, it goes on as if nothing had happened."""

import itertools
from dataclasses import astuple, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tunekit.data.pack import Pack
from tunekit.data.split import Split, make_split
from tunekit.errors import DivergedError, OutOfMemoryFailure, RecipeError, TunekitError
from tunekit.recipe import Recipe
from tunekit.training.build import build_training
from tunekit.training.checkpoint import load_best, load_checkpoint, save_best, save_checkpoint
from tunekit.training.loop import EpochResult, Training
from tunekit.training.memory import memory_failures
from tunekit.training.schedule import count_plateaus

CPU = torch.device("cpu")
RECIPES: dict[str, dict[str, Any]] = {
    "sgd": {"optim.nesterov": True, "augment.policy": "flip+shift_crop+cutout", "schedule.name": "one_cycle"},
    "adamw": {"optim.name": "adamw", "optim.lr": 3e-3, "schedule.name": "step", "schedule.warmup": 0.2},
    "no_norm": {"model.bn_placement": "none", "optim.name": "adam", "optim.lr": 1e-3},
    "rmsprop": {
        "optim.name": "rmsprop",
        "optim.lr": 0.03,
        "optim.clip_norm": 1.0,
        "schedule.name": "plateau",
        "schedule.patience": 1,
    },
    "lamb": {
        "optim.name": "lamb",
        "optim.lr": 0.01,
        "optim.layer_decay": 0.5,
        "optim.decay_norms_and_biases": False,
        "schedule.name": "wsd",
        "ema.decay": 0.9,
    },
    "gradual_in_one_group": {"freeze.policy": "gradual", "model.name": "resnet8"},
    "gradual": {"freeze.policy": "gradual", "optim.layer_decay": 0.5, "ema.decay": 0.9},
    "mixed": {"augment.policy": "mixup+cutmix", "loss.label_smoothing": 0.1, "model.dropout": 0.3},
    "googlenet": {"model.name": "googlenet", "optim.lr": 0.01, "batch_size": 64},
}


@pytest.fixture
def few(digits: Pack) -> Split:
    """Three batches of 32 and a few to validate: enough for what only has to repeat."""
    return make_split(digits.train()[1], fraction=0.2, seed=0, limit=120)


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
    return [astuple(replace(result, epoch_seconds=0, images_per_second=0)) for result in results]


def test_it_learns_digits(digits: Pack, digits_split: Split) -> None:
    run = training(digits, digits_split, epochs=8, keys={"optim.name": "adamw", "optim.lr": 1e-2})
    results = list(run.run())
    assert [result.epoch for result in results] == list(range(1, 9))
    assert results[-1].val_accuracy > 0.85
    assert results[-1].train_loss < results[0].train_loss / 2
    assert results[0].images_per_second > 0


@pytest.mark.parametrize("keys", RECIPES.values(), ids=RECIPES)
def test_the_same_seed_gives_the_same_weights(digits: Pack, few: Split, keys: dict[str, Any]) -> None:
    first, second = (training(digits, few, epochs=2, keys=keys) for _ in range(2))
    assert without_times(list(first.run())) == without_times(list(second.run()))
    assert same_weights(first, second)
    other = training(digits, few, seed=1, keys=keys)
    assert not same_weights(first, other)


@pytest.mark.parametrize("keys", RECIPES.values(), ids=RECIPES)
def test_resuming_equals_no_interruption(
    digits: Pack, few: Split, keys: dict[str, Any], tmp_path: Path
) -> None:
    straight = training(digits, few, epochs=5, keys=keys)
    list(straight.run())

    before = training(digits, few, epochs=5, keys=keys)
    run = before.run()
    next(run), next(run), next(run)
    save_checkpoint(tmp_path / "last.pt", before.state())
    state = load_checkpoint(tmp_path / "last.pt")
    assert state is not None
    after = training(digits, few, epochs=5, keys=keys)
    after.load_state(state)
    assert [result.epoch for result in after.run()] == [4, 5]

    assert same_weights(straight, after)
    judged = after.judged.state_dict()
    assert all(torch.equal(value, judged[name]) for name, value in straight.judged.state_dict().items())
    assert without_times(straight.results) == without_times(after.results)
    assert straight.state()["divergence"] == after.state()["divergence"]


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


def test_a_loss_that_is_not_finite_ends_the_training_before_the_epoch_does(
    digits: Pack, digits_split: Split
) -> None:
    # Each step multiplies the weights by 1 - 10 * 0.5, whatever the images.
    keys = {"optim.lr": 10.0, "optim.momentum": 0.95, "optim.weight_decay": 0.5}
    run = training(digits, digits_split, keys={**keys, "batch_size": 8})
    steps: list[None] = []
    run.model.register_forward_hook(lambda *_: steps.append(None))
    with pytest.raises(DivergedError, match=r"training loss is nan at step \d+, epoch 1"):
        next(run.run())
    assert len(steps) < digits_split.train.size // 8


def test_weights_that_the_last_step_spoils_are_a_failure_of_the_recipe(digits: Pack, few: Split) -> None:
    run = training(digits, few)

    @torch.no_grad()
    def spoil(model: torch.nn.Module, _images: object) -> None:
        if not model.training:
            next(iter(model.parameters())).fill_(float("nan"))

    run.model.register_forward_pre_hook(spoil)
    with pytest.raises(DivergedError, match="validation loss is nan in epoch 1"):
        next(run.run())
    assert run.results == []


def test_out_of_memory_is_a_failure_of_the_recipe(digits: Pack, few: Split) -> None:
    run = training(digits, few)

    class Greedy(torch.nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return torch.empty(2**50, 10)

    run.model.body = Greedy()
    run.model.stage_of = {}
    with pytest.raises(OutOfMemoryFailure, match="out of memory"):
        next(run.run())


def test_out_of_memory_is_the_same_failure_wherever_it_happens() -> None:
    with pytest.raises(OutOfMemoryFailure, match="out of memory"), memory_failures():
        torch.empty(2**50)


def test_a_network_that_cannot_see_the_images_is_refused(digits: Pack, few: Split) -> None:
    with pytest.raises(RecipeError, match="lenet5 needs images of at least 12 px"):
        training(digits, few, keys={"model.name": "lenet5"})


def test_a_plateau_takes_a_tenth(digits: Pack, few: Split) -> None:
    keys = {"schedule.name": "plateau", "schedule.patience": 1, "optim.lr": 1e-7}
    run = training(digits, few, epochs=8, keys=keys)
    list(run.run())
    losses = [result.val_loss for result in run.results]
    expected = [1e-7 * 0.1 ** count_plateaus(losses[:epoch], 1) for epoch in range(8)]
    assert [result.learning_rate for result in run.results] == pytest.approx(expected)
    assert run.results[-1].learning_rate < run.results[0].learning_rate  # there was one


def test_clipping_bounds_the_step(digits: Pack, few: Split) -> None:
    keys = {"optim.momentum": 0.0, "optim.weight_decay": 0.0, "schedule.name": "constant"}
    for clip_norm, bound in ((0.5, 0.05), (0.0, None)):
        run = training(digits, few, epochs=1, keys={**keys, "optim.clip_norm": clip_norm, "batch_size": 1000})
        before = [parameter.detach().clone() for parameter in run.model.parameters()]
        next(run.run())
        moved = [now - old for now, old in zip(run.model.parameters(), before, strict=True)]
        norm = torch.linalg.vector_norm(torch.cat([change.flatten() for change in moved])).item()
        assert norm == pytest.approx(bound, rel=1e-3) if bound else norm > 0.06


def test_the_average_of_the_weights_is_judged_and_kept(digits: Pack, few: Split, tmp_path: Path) -> None:
    plain, averaged = (training(digits, few, keys={"ema.decay": decay}) for decay in (0.0, 0.99))
    list(plain.run()), list(averaged.run())
    assert plain.judged is plain.model
    assert same_weights(plain, averaged)
    assert [result.train_loss for result in plain.results] == [r.train_loss for r in averaged.results]
    assert plain.results[-1].val_loss != averaged.results[-1].val_loss
    judged = averaged.judged.state_dict()
    assert list(judged) == list(weights(averaged))
    assert not torch.equal(judged["head.1.weight"], weights(averaged)["head.1.weight"])


def test_gradual_freezing_frees_a_stage_an_epoch(digits: Pack, few: Split) -> None:
    keys = {"freeze.policy": "gradual", "freeze.every": 1, "ema.decay": 0.5, "optim.name": "adamw"}
    run = training(digits, few, epochs=6, keys=keys)
    stages = run.model.stages
    first = {name: value.clone() for name, value in weights(run).items()}
    moved_after = [
        {name for name, value in run.judged.state_dict().items() if not torch.equal(value, first[name])}
        for _ in run.run()
    ]
    assert moved_after[0] == {"head.1.weight", "head.1.bias"}
    assert all(a < b for a, b in itertools.pairwise(moved_after[: stages + 1]))
    counts = [result.trainable_parameters for result in run.results]
    assert counts[0] == sum(parameter.numel() for parameter in run.model.head.parameters())
    assert counts[-1] == sum(parameter.numel() for parameter in run.model.parameters())


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
    torch.save({"format": 4, "path": tmp_path}, file)  # a Path object needs pickle to run code
    with pytest.raises(TunekitError, match="is not a checkpoint"):
        load_checkpoint(file)
    with pytest.raises(TunekitError, match="no weights"):
        load_best(file)
