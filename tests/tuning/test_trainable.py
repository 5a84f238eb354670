"""The class that Ray Tune runs, built and stepped in this process: no cluster."""

import gc
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import ray

from tests.tuning.test_trial_run import TIMES
from tunekit.data.pack import Pack
from tunekit.data.split import Split
from tunekit.recipe import Recipe
from tunekit.training.loop import Training
from tunekit.tuning.assignment import Assignment
from tunekit.tuning.trainable import RecipeTrainable


@pytest.fixture(autouse=True)
def _garbage_is_collected_behind_each_test() -> Iterator[None]:
    """A worker freezes what outlives a trial; here that is pytest's."""
    yield
    gc.unfreeze()


@pytest.fixture(autouse=True)
def _ray_results_in_a_temporary_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("ray.tune.trainable.trainable.DEFAULT_STORAGE_PATH", str(tmp_path / "ray"))


@pytest.fixture
def assignments(digits: Pack, digits_split: Split, tmp_path: Path) -> list[Assignment]:
    digits_split.save(tmp_path / "split.npz")
    recipes: list[dict[str, Any]] = [
        {"model.name": "resnet8", "optim.name": "adam", "optim.lr": 0.01, "augment.policy": "shift_crop"},
        {"model.name": "resnet8", "optim.name": "sgd", "model.bn_placement": "after_act"},
    ]
    return [
        Assignment(
            trial_id=index,
            recipe=Recipe.from_flat({"batch_size": 32, **keys}).to_flat(),
            seed=index,
            epochs=3,
            reported=0,
            pack=str(digits.folder),
            split=str(tmp_path / "split.npz"),
            folder=str(tmp_path / f"trial{index}"),
        )
        for index, keys in enumerate(recipes)
    ]


def curve(trainable: RecipeTrainable) -> list[tuple[float, ...]]:
    names = ("epoch", "train_loss", "val_loss", "val_accuracy", "learning_rate")
    assert not set(names) & set(TIMES)
    results = [trainable.train() for _ in range(3)]
    return [tuple(result[name] for name in names) for result in results]


def test_a_reused_process_gives_the_same_results_as_a_fresh_one(
    assignments: list[Assignment], tmp_path: Path
) -> None:
    reused = RecipeTrainable(config=asdict(assignments[0]))
    curve(reused)
    assert reused.reset(asdict(assignments[1]))
    fresh = RecipeTrainable(config=asdict(replace(assignments[1], folder=str(tmp_path / "fresh"))))
    assert curve(reused) == curve(fresh)
    assert not ray.is_initialized()


def test_a_reset_leaves_nothing_of_the_trial_before(assignments: list[Assignment]) -> None:
    trainable = RecipeTrainable(config=asdict(assignments[0]))
    curve(trainable)
    assert trainable.reset(asdict(assignments[1]))
    gc.unfreeze()
    assert not [thing for thing in gc.get_objects() if type(thing) is Training]


def test_an_error_comes_from_the_step_and_never_from_the_reset(assignments: list[Assignment]) -> None:
    trainable = RecipeTrainable(config=asdict(assignments[0]))
    curve(trainable)
    assert trainable.reset(asdict(replace(assignments[1], pack="/nowhere")))
    with pytest.raises(ValueError, match="no packed data set"):
        trainable.train()
    assert trainable.reset(asdict(assignments[1]))
    assert trainable.train()["epoch"] == 1
