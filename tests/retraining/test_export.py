"""Models as files: any number of images, the same probabilities, and no file that is not checked."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from click.testing import CliRunner, Result
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from tests.retraining.small_classifier import CLASSES, RECIPES, SHAPE, registered, small_classifier
from tunekit import cli
from tunekit.errors import TunekitError
from tunekit.models.ensemble import Ensemble, Tempered
from tunekit.retraining.export import FORMATS, export_model
from tunekit.retraining.model_source import ImageClassifier, load_model
from tunekit.tracking.model import Classifier, PixelsToProbabilities


def as_model(classifier: Classifier) -> ImageClassifier:
    return ImageClassifier(PixelsToProbabilities(classifier), CLASSES, SHAPE, RECIPES, "small")


def ensemble() -> ImageClassifier:
    members = [Tempered(small_classifier(seed).module, 2.0) for seed in range(2)]
    module = Ensemble(members, [2.0, 1.0])
    return as_model(Classifier(module, SHAPE, CLASSES, [0.3] * 3, [0.2] * 3))


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A results folder with one registered model."""
    folder = tmp_path_factory.mktemp("results")
    registered(folder)
    return folder


@pytest.fixture(scope="module", params=["built", "ensemble", "registered"])
def model(request: pytest.FixtureRequest, results: Path) -> ImageClassifier:
    if request.param == "registered":
        return load_model("tunekit-pets", results, None)
    return ensemble() if request.param == "ensemble" else as_model(small_classifier())


def images(count: int) -> np.ndarray:
    return np.random.default_rng(count).integers(0, 256, (count, *SHAPE), dtype=np.uint8)


def expected(model: ImageClassifier, count: int) -> np.ndarray:
    with torch.no_grad():
        found: np.ndarray = model.module(torch.from_numpy(images(count))).numpy()
    return found


@pytest.mark.parametrize("count", [1, 2, 9])
def test_onnx_runs_without_torch(model: ImageClassifier, tmp_path: Path, count: int) -> None:
    check = export_model(model, tmp_path / "m.onnx", "onnx")
    session = onnxruntime.InferenceSession(tmp_path / "m.onnx")
    (found,) = session.run(["probabilities"], {"images": images(count)})
    np.testing.assert_allclose(found, expected(model, count), atol=1e-5)
    assert found.dtype == np.float32
    assert 0 <= check.largest_difference < 1e-5
    assert check.spread > 0.1  # so the comparison could have failed
    about = session.get_modelmeta().custom_metadata_map
    assert json.loads(about["classes"]) == CLASSES
    assert [path.name for path in tmp_path.iterdir()] == ["m.onnx"]


@pytest.mark.parametrize("count", [1, 2, 9])
def test_torch_export_runs_without_tunekit(model: ImageClassifier, tmp_path: Path, count: int) -> None:
    export_model(model, tmp_path / "m.pt2", "torch-export")
    about = {"classes.json": "", "image_shape.json": "", "recipes.json": ""}
    exported = torch.export.load(tmp_path / "m.pt2", extra_files=about).module()
    found = exported(torch.from_numpy(images(count))).numpy()
    np.testing.assert_allclose(found, expected(model, count), atol=1e-5)
    assert {name: json.loads(text) for name, text in about.items()} == {
        "classes.json": CLASSES,
        "image_shape.json": list(SHAPE),
        "recipes.json": RECIPES,
    }


def test_a_state_dict_fits_the_network_it_came_from(tmp_path: Path) -> None:
    model = as_model(small_classifier())
    check = export_model(model, tmp_path / "m.safetensors", "state-dict")
    weights = load_file(tmp_path / "m.safetensors")
    assert all(name in ("mean", "std") or name.startswith("network.") for name in weights)
    other = PixelsToProbabilities(small_classifier(seed=5))
    other.load_state_dict(weights, strict=True)
    np.testing.assert_allclose(other(torch.from_numpy(images(4))), expected(model, 4), atol=1e-6)
    assert check.largest_difference == 0
    with safe_open(tmp_path / "m.safetensors", framework="pt") as file:
        about = {name: json.loads(text) for name, text in file.metadata().items()}
    assert about == {"classes": CLASSES, "image_shape": list(SHAPE), "recipes": RECIPES}


def test_a_registered_model_keeps_the_names_of_its_weights(results: Path, tmp_path: Path) -> None:
    export_model(load_model("tunekit-pets", results, None), tmp_path / "m.safetensors", "state-dict")
    assert (
        load_file(tmp_path / "m.safetensors").keys()
        == as_model(small_classifier()).module.state_dict().keys()
    )


class _Moody(nn.Module):
    """Says something else at each call, so that what is read back says something else too."""

    calls = 0

    def forward(self, images: Tensor) -> Tensor:
        _Moody.calls += 1
        return images.flatten(1)[:, :3] + 10.0 * nn.functional.one_hot(torch.tensor(_Moody.calls % 3), 3)


def test_a_file_that_says_something_else_is_not_left(tmp_path: Path) -> None:
    model = as_model(Classifier(_Moody(), SHAPE, CLASSES, [0.3] * 3, [0.2] * 3))
    (tmp_path / "m").write_text("the old one")
    with pytest.raises(TunekitError, match=r"small as state-dict differs from the model by .*: no file was"):
        export_model(model, tmp_path / "m", "state-dict")
    assert [path.name for path in tmp_path.iterdir()] == ["m"]
    assert (tmp_path / "m").read_text() == "the old one"


class _Undecided(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return images.flatten(1)[:, :3] if images.sum().item() > 0 else images


@pytest.mark.parametrize("format", ["onnx", "torch-export"])
def test_a_network_that_a_format_cannot_express_is_one_line(tmp_path: Path, format: str) -> None:
    model = as_model(Classifier(_Undecided(), SHAPE, CLASSES, [0.3] * 3, [0.2] * 3))
    with pytest.raises(TunekitError, match=rf"^cannot export small as {format}: .+") as caught:
        export_model(model, tmp_path / "m", format)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_without_the_onnx_packages_the_line_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxscript", None)  # what Python does for a package that is not there
    with pytest.raises(TunekitError, match=r"needs the package onnxscript: pip install 'tunekit\[onnx\]'"):
        export_model(as_model(small_classifier()), tmp_path / "m.onnx", "onnx")


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, results: Path) -> Callable[..., Result]:
    """Run `tunekit export ...` in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TUNEKIT_RESULTS_DIR", str(results))
    return lambda *arguments: CliRunner().invoke(cli.main, ("export", *arguments))


def test_the_command_offers_every_format() -> None:
    options = {option.name: option for option in cli.models.export.params}
    assert options["format_"].type.choices == tuple(FORMATS)  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("format", "file"),
    [
        ("onnx", "tunekit-pets-1.onnx"),
        ("torch-export", "tunekit-pets-1.pt2"),
        ("state-dict", "tunekit-pets-1.weights.safetensors"),
    ],
)
def test_the_file_is_named_after_model_and_format(
    run: Callable[..., Result], tmp_path: Path, format: str, file: str
) -> None:
    result = run("tunekit-pets", "--format", format)
    assert result.exit_code == 0, result.output
    assert [path.name for path in tmp_path.iterdir()] == [file]
    assert result.stdout.startswith(f"{file}: read back, it differs from the model by at most ")


def test_a_file_that_is_there_is_replaced_only_by_force(run: Callable[..., Result], tmp_path: Path) -> None:
    (tmp_path / "m.weights").write_text("mine")
    arguments = ("tunekit-pets", "--format", "state-dict", "--output", "m.weights")
    result = run(*arguments)
    assert (result.exit_code, result.stderr) == (1, "Error: m.weights exists: use --force to replace it\n")
    assert (tmp_path / "m.weights").read_text() == "mine"
    assert run(*arguments, "--force").exit_code == 0
    assert "mean" in load_file(tmp_path / "m.weights")


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("tunekit-pets",), 2, "Missing option '--format'"),
        (("tunekit-pets", "--format", "torchscript"), 2, "'torchscript' is not one of 'onnx'"),
        (("tunekit-pest", "--format", "onnx"), 1, "did you mean 'tunekit-pets'?"),
        (
            ("tunekit-pets", "--format", "state-dict", "--output", "/dev/null/m"),
            1,
            "cannot write /dev/null/m",
        ),
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
