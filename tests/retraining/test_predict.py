"""Naming images in files, by a function and by the command line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from PIL import Image

from tests.retraining.small_classifier import CLASSES, RECIPES, SHAPE, registered, small_classifier
from tunekit import cli
from tunekit.errors import TunekitError
from tunekit.models.build import build_model
from tunekit.recipe import Recipe
from tunekit.retraining.model_source import ImageClassifier, load_model
from tunekit.retraining.predict import Prediction, predict
from tunekit.tracking.model import PixelsToProbabilities
from tunekit.training.checkpoint import save_best


@pytest.fixture
def model() -> ImageClassifier:
    module = PixelsToProbabilities(small_classifier())
    return ImageClassifier(module, CLASSES, SHAPE, RECIPES, "small")


def save_image(path: Path, seed: int) -> Path:
    """An image of exactly the model's shape, so that reading it changes nothing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels(seed)).save(path)
    return path


def pixels(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, SHAPE, dtype=np.uint8)


def probabilities(seed: int) -> list[float]:
    module = PixelsToProbabilities(small_classifier())
    found: list[float] = module(torch.from_numpy(pixels(seed)[None]))[0].tolist()
    return found


@pytest.mark.parametrize("batch", [1, 2, 64])
def test_images_keep_their_order_in_batches_of_any_size(
    model: ImageClassifier, tmp_path: Path, batch: int
) -> None:
    paths = [save_image(tmp_path / f"{seed}.png", seed) for seed in (3, 1, 2)]
    found = list(predict(model, paths, batch))
    assert [prediction.image for prediction in found] == paths
    for prediction, seed in zip(found, (3, 1, 2), strict=True):
        expected = sorted(probabilities(seed), reverse=True)
        np.testing.assert_allclose([p for _, p in prediction.classes], expected, rtol=1e-5)
        assert prediction.classes[0][0] == CLASSES[int(np.argmax(probabilities(seed)))]
        assert sorted(name for name, _ in prediction.classes) == sorted(CLASSES)


def test_folders_are_searched(model: ImageClassifier, tmp_path: Path) -> None:
    first = save_image(tmp_path / "z.png", 0)
    inside = [save_image(tmp_path / "folder" / name, 1) for name in ("a/1.png", "b.png")]
    save_image(tmp_path / "folder" / ".hidden" / "1.png", 1)
    found = list(predict(model, [first, tmp_path / "folder"]))
    assert [prediction.image for prediction in found] == [first, *inside]


def test_what_cannot_be_read_is_said_in_its_place(model: ImageClassifier, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no image")
    good = save_image(tmp_path / "good.png", 0)
    found = list(predict(model, [broken, tmp_path / "empty", good, tmp_path / "absent.png"]))
    assert [bool(prediction.problem) for prediction in found] == [True, True, False, True]
    assert found[0] == Prediction(
        broken, [], f"cannot read image {broken}: it is not a JPEG, PNG or WebP image"
    )
    assert found[1].problem == f"folder {tmp_path / 'empty'} has no images (JPEG, PNG or WebP)"
    assert "absent.png" in found[3].problem


def save_winner(file: Path) -> Path:
    recipe = Recipe.from_flat({"model.name": "resnet8"})
    description = {
        "recipe": recipe.to_flat(),
        "epoch": 1,
        "val_accuracy": 0.5,
        "classes": CLASSES,
        "image_shape": [8, 8, 3],
        "mean": [0.3] * 3,
        "std": [0.2] * 3,
    }
    save_best(file, build_model(recipe, (8, 8, 3), len(CLASSES)), description)
    return file


def test_the_weights_of_a_search_are_a_model(tmp_path: Path) -> None:
    model = load_model(str(save_winner(tmp_path / "best.safetensors")), tmp_path, None)
    assert (model.name, model.classes, model.image_shape) == ("best", CLASSES, (8, 8, 3))
    assert model.recipes[0]["model.name"] == "resnet8"
    (prediction,) = predict(model, [save_image(tmp_path / "1.png", 0)])
    assert sum(probability for _, probability in prediction.classes) == pytest.approx(1, abs=1e-5)


def test_a_model_that_is_not_there_leaves_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(TunekitError, match="no model 'tunekit-pets': nothing is recorded in"):
        load_model("tunekit-pets", tmp_path / "results", None)
    with pytest.raises(TunekitError, match=r"no file .*absent\.safetensors"):
        load_model(str(tmp_path / "absent.safetensors"), tmp_path, None)
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A results folder with one registered model."""
    folder = tmp_path_factory.mktemp("results")
    registered(folder)
    return folder


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, results: Path) -> Callable[..., Result]:
    """Run `tunekit predict ...` in a folder with a good and a broken image."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TUNEKIT_RESULTS_DIR", str(results))
    save_image(tmp_path / "good[1].png", 0)
    (tmp_path / "broken.png").write_bytes(b"no image")
    return lambda *arguments: CliRunner().invoke(cli.main, ("predict", *arguments))


def test_json_names_the_most_probable_classes_first(run: Callable[..., Result]) -> None:
    result = run("tunekit-pets", "good[1].png", "--json", "--top", "2")
    assert (result.exit_code, result.stderr) == (0, "")
    (row,) = json.loads(result.stdout)
    expected = sorted(zip(probabilities(0), CLASSES, strict=True), reverse=True)[:2]
    assert row["image"] == "good[1].png"
    assert [found["class"] for found in row["predictions"]] == [name for _, name in expected]
    found = [named["probability"] for named in row["predictions"]]
    np.testing.assert_allclose(found, [probability for probability, _ in expected], atol=1e-5)


def test_the_table_has_image_class_and_probability(run: Callable[..., Result]) -> None:
    result = run("tunekit-pets/1", "good[1].png")
    assert result.exit_code == 0
    assert "good[1].png" in result.stdout
    assert all(name in result.stdout for name in CLASSES)
    assert f"{max(probabilities(0)):.4f}" in result.stdout


def test_an_unreadable_image_is_one_line_and_the_others_are_named(run: Callable[..., Result]) -> None:
    result = run("tunekit-pets", "broken.png", "good[1].png", "--json")
    assert result.exit_code == 1
    assert result.stderr == ("Error: cannot read image broken.png: it is not a JPEG, PNG or WebP image\n")
    assert [row["image"] for row in json.loads(result.stdout)] == ["good[1].png"]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("tunekit-pets",), 2, "Missing argument 'IMAGE...'"),
        (("tunekit-pets", "good[1].png", "--top", "0"), 2, "'--top'"),
        (("tunekit-pest", "good[1].png"), 1, "did you mean 'tunekit-pets'?"),
        (("tunekit-pets/9", "good[1].png"), 1, "no version '9' of tunekit-pets (the latest is 1)"),
        (("absent.safetensors", "good[1].png"), 1, "no file absent.safetensors"),
        (("tunekit-pets", "good[1].png", "--tracking-uri", "http://127.0.0.1:9"), 1, "does not answer"),
    ],
)
def test_a_mistake_is_one_clear_line(
    run: Callable[..., Result], arguments: tuple[str, ...], code: int, message: str
) -> None:
    result = run(*arguments)
    assert result.exit_code == code
    assert message in result.stderr
    if code == 1:
        assert result.stderr.count("\n") == 1
