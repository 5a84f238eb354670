"""Every recipe of the catalogue trains: rows that differ in numbers alone are trained once."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from tunekit.baselines import Baseline, all_baselines
from tunekit.data.pack import Content, Pack, Part, ensure_pack
from tunekit.data.split import Split
from tunekit.models.build import published_parts
from tunekit.models.first_weights import FirstWeights
from tunekit.recipe import Recipe
from tunekit.training.build import build_training

pytestmark = pytest.mark.slow

SHAPES = {"mnist": (28, 28, 1), "cifar10": (32, 32, 3), "cifar100": (32, 32, 3)}
SPLIT = Split(np.arange(2), np.arange(2, 3), seed=0, fraction=0.2, limit=None)


def distinct_rows() -> list[Baseline]:
    """One baseline for each way through the code."""
    found: dict[tuple[str, Recipe], Baseline] = {}
    for baseline in all_baselines():
        recipe = Recipe.from_flat(baseline.recipe)
        rates = dataclasses.replace(recipe.optim, lr=0.1, momentum=0.9, weight_decay=0.0)
        found.setdefault((baseline.dataset, dataclasses.replace(recipe, optim=rates)), baseline)
    return list(found.values())


@pytest.fixture(scope="module")
def packs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Pack]:
    """Four images shaped like those of each data set."""
    rng = np.random.default_rng(0)
    made = {}
    for name, shape in SHAPES.items():
        part = Part.of(rng.integers(256, size=(4, *shape), dtype=np.uint8), np.array([0, 1, 0, 1]))
        classes = tuple(str(number) for number in range(100 if name == "cifar100" else 10))
        content = Content(name, classes, shape, part, part, "random numbers", "")
        made[name] = ensure_pack(tmp_path_factory.mktemp("packs") / name, lambda content=content: content)  # type: ignore[misc]
    return made


def published_weights(recipe: Recipe, file: Path) -> Path:
    """Random numbers in the form in which a library's weights reach a trial."""
    body = published_parts(recipe, (224, 224, 3), 2, small_stem=False).body
    FirstWeights(body.state_dict(), recipe.model.name, "before_act", False, "a test").write(file)
    return file


@pytest.mark.parametrize("baseline", distinct_rows(), ids=lambda baseline: baseline.name)
def test_a_known_recipe_trains_a_step(baseline: Baseline, packs: dict[str, Pack], tmp_path: Path) -> None:
    recipe = dataclasses.replace(Recipe.from_flat(baseline.recipe), batch_size=2)
    random = recipe.init == "random"
    weights = None if random else published_weights(recipe, tmp_path / "first.safetensors")
    training = build_training(recipe, packs[baseline.dataset], SPLIT, 1, 0, torch.device("cpu"), weights)
    before = {name: value.clone() for name, value in training.model.head.state_dict().items()}
    result = next(training.run())
    assert math.isfinite(result.train_loss)
    assert 0 < result.trainable_parameters <= sum(p.numel() for p in training.model.parameters())
    after = training.model.head.state_dict()
    assert any(not torch.equal(value, after[name]) for name, value in before.items())
