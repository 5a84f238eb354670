"""Models on the shelf: registering, the best one, what a user calls them, and loading without trust."""

from __future__ import annotations

import contextlib
import io
import json
import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from mlflow import MlflowClient

from tests.retraining.small_classifier import CLASSES, RECIPES, SHAPE, new_run, small_classifier
from tunekit.errors import TrackingError
from tunekit.tracking.archive import load_exported
from tunekit.tracking.model import PixelsToProbabilities, log_model
from tunekit.tracking.registry import find_model, load_logged, promote, register, registered_name

NAME = "tunekit-pets"


class Shelf(NamedTuple):
    """A database with a run and two logged models; every test registers under a name of its own."""

    client: MlflowClient
    run_id: str
    uris: list[str]


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Shelf:
    client, run_id = new_run(tmp_path_factory.mktemp("shelf"))
    example = np.random.default_rng(0).integers(0, 256, (3, *SHAPE), dtype=np.uint8)
    uris = [
        log_model(client, run_id, small_classifier(seed), "pets", metadata={"seed": seed}, example=example)
        for seed in range(2)
    ]
    return Shelf(client, run_id, uris)


def put(shelf: Shelf, name: str, which: int = 0, tags: dict[str, str] | None = None) -> int:
    """Register one of the models."""
    return register(shelf.client, name, shelf.uris[which], shelf.run_id, tags or {}, "Cats, dogs and birds.")


def best_of(shelf: Shelf, name: str) -> int:
    return int(shelf.client.get_model_version_by_alias(name, "best").version)


@pytest.mark.parametrize(
    ("dataset", "name"),
    [
        ("digits", "tunekit-digits"),
        ("fashion-mnist", "tunekit-fashion-mnist"),
        ("/home/ann/my photos: 2026/", "tunekit-my-photos-2026"),
        ("photos/été", "tunekit-t"),
        ("/", "tunekit-images"),
        ("..", "tunekit-images"),
    ],
)
def test_the_name_comes_from_the_data_set(dataset: str, name: str) -> None:
    assert registered_name(dataset) == name


def test_a_registered_model_says_what_it_is(shelf: Shelf) -> None:
    assert put(shelf, "says", tags={"classes": "cat, dog, bird", "test_accuracy": "0.5"}) == 1
    model = shelf.client.get_registered_model("says")
    assert (model.description, model.tags) == ("Cats, dogs and birds.", {"classes": "cat, dog, bird"})
    version = shelf.client.get_model_version("says", "1")
    assert (version.status, version.run_id) == ("READY", shelf.run_id)
    assert version.tags == {"classes": "cat, dog, bird", "test_accuracy": "0.5"}


def test_registering_the_same_model_again_finds_its_version(shelf: Shelf) -> None:
    assert [put(shelf, "again", which) for which in (0, 1, 0, 1)] == [1, 2, 1, 2]
    assert len(shelf.client.search_model_versions("name = 'again'")) == 2


SCORE = {"test_accuracy": "0.9805", "test_digest": "abc", "test_images": "359"}


def test_the_first_version_is_the_best(shelf: Shelf) -> None:
    put(shelf, "first", 0, SCORE)
    outcome = promote(shelf.client, "first", 1)
    assert (outcome.promoted, outcome.reason) == (True, "no version was best before")
    assert promote(shelf.client, "first", 1).promoted
    assert best_of(shelf, "first") == 1


@pytest.mark.parametrize(
    ("name", "changed", "promoted", "reason"),
    [
        (
            "b",
            {"test_accuracy": "0.9861"},
            True,
            "0.9861 beats version 1 with 0.9805 on the same 359 test images",
        ),
        ("e", {}, False, "version 1 has 0.9805 on the same test images"),
        ("w", {"test_accuracy": "0.9"}, False, "version 1 has 0.9805 on the same test images"),
        (
            "o",
            {"test_accuracy": "1.0", "test_digest": "other"},
            False,
            "version 1 was tested on other images",
        ),
    ],
    ids=["better", "equal", "worse", "other images"],
)
def test_only_a_better_one_on_the_same_images_takes_its_place(
    shelf: Shelf, name: str, changed: dict[str, str], promoted: bool, reason: str
) -> None:
    put(shelf, name, 0, SCORE)
    promote(shelf.client, name, 1)
    put(shelf, name, 1, {**SCORE, **changed})
    outcome = promote(shelf.client, name, 2)
    assert (outcome.promoted, outcome.reason) == (promoted, reason)
    assert best_of(shelf, name) == (2 if promoted else 1)


def test_a_holder_without_a_score_keeps_its_place(shelf: Shelf) -> None:
    put(shelf, "by-hand", 0)
    shelf.client.set_registered_model_alias("by-hand", "best", "1")
    put(shelf, "by-hand", 1, SCORE)
    assert not promote(shelf.client, "by-hand", 2).promoted


@pytest.fixture(scope="module")
def pets(shelf: Shelf) -> Shelf:
    """Two versions; the first is the best, the second is called `new`."""
    put(shelf, NAME, 0, SCORE)
    promote(shelf.client, NAME, 1)
    put(shelf, NAME, 1)
    shelf.client.set_registered_model_alias(NAME, "new", "2")
    return shelf


@pytest.mark.parametrize(
    ("name", "version"),
    [("", 1), ("@best", 1), ("@new", 2), ("/1", 1), ("/2", 2), ("/02", 2)],
)
def test_what_a_user_says_finds_one_version(pets: Shelf, name: str, version: int) -> None:
    for prefix in ("", "models:/"):
        assert find_model(pets.client, f"{prefix}{NAME}{name}") == f"models:/{NAME}/{version}"


def test_without_a_best_one_the_latest_is_meant(shelf: Shelf) -> None:
    for which in range(2):
        put(shelf, "plain", which)
    assert find_model(shelf.client, "plain") == "models:/plain/2"


def test_a_logged_model_needs_no_name(shelf: Shelf) -> None:
    assert find_model(shelf.client, shelf.uris[0]) == shelf.uris[0]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("tunekit-pet", r"no registered model called 'tunekit-pet' in .* \(did you mean 'tunekit-pets'\?\)"),
        (f"{NAME}/7", r"no version '7' of tunekit-pets \(the latest is 2\)"),
        (f"{NAME}/two", r"no version 'two' of tunekit-pets"),
        (f"{NAME}/1/2", r"no version '1/2' of tunekit-pets"),
        (f"{NAME}@nwe", r"no version of tunekit-pets is called 'nwe' \(did you mean 'new'\?\)"),
        ("models:/m-" + "0" * 32, r"no model models:/m-0000"),
        ("", r"no registered model called ''"),
        ("a:b", r"no registered model called 'a:b'"),
    ],
)
def test_what_is_not_there_is_named_with_what_is(pets: Shelf, name: str, message: str) -> None:
    with pytest.raises(TrackingError, match=message):
        find_model(pets.client, name)


def test_a_loaded_model_says_what_the_logged_one_said(pets: Shelf) -> None:
    images = torch.from_numpy(np.random.default_rng(1).integers(0, 256, (5, *SHAPE), dtype=np.uint8))
    for uri in (f"models:/{NAME}/2", pets.uris[1]):
        loaded = load_logged(pets.client, uri)
        for size in (1, 5):
            expected = PixelsToProbabilities(small_classifier(1))(images[:size])
            torch.testing.assert_close(loaded.module(images[:size]), expected)
        assert (loaded.classes, loaded.image_shape, loaded.recipes) == (CLASSES, SHAPE, RECIPES)
        np.testing.assert_allclose([loaded.mean, loaded.std], [[0.3] * 3, [0.2] * 3])


def test_what_was_said_about_a_model_lies_beside_it(shelf: Shelf) -> None:
    location = shelf.client.get_logged_model(shelf.uris[1].removeprefix("models:/")).artifact_location
    text = (Path(location.removeprefix("file://")) / "MLmodel").read_text()
    assert "seed: 1" in text
    assert "model.name: resnet8" in text


def test_a_pickled_network_is_refused(tmp_path: Path) -> None:
    import mlflow.pytorch
    from mlflow.models import Model

    client, run_id = new_run(tmp_path)
    model = client.create_logged_model(client.get_run(run_id).info.experiment_id, source_run_id=run_id)
    mlflow.pytorch.save_model(
        torch.nn.Linear(2, 2),
        str(tmp_path / "saved"),
        mlflow_model=Model(model_id=model.model_id),
        pip_requirements=["torch"],
        serialization_format="pickle",
    )
    client.log_model_artifacts(model.model_id, str(tmp_path / "saved"))
    with pytest.raises(TrackingError, match=r"is not a model of tunekit: it has .* and no data/model\.pt2"):
        load_logged(client, f"models:/{model.model_id}")


# A foreign file. Each change below makes one that, loaded by torch alone, makes the folder `marker`.


class _Makes:
    """Unpickling it makes a folder."""

    def __init__(self, marker: Path) -> None:
        self._marker = str(marker)

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (self._marker,)


def _source(marker: Path) -> str:
    return f"__import__('os').mkdir({str(marker)!r})"


def _pickled_example(records: dict[str, bytes], marker: Path) -> None:
    buffer = io.BytesIO()
    torch.save((_Makes(marker),), buffer)
    records["data/sample_inputs/model.pt"] = buffer.getvalue()


def _pickled_weight(records: dict[str, bytes], marker: Path) -> None:
    config = json.loads(records["data/weights/model_weights_config.json"])
    next(iter(config["config"].values()))["use_pickle"] = True
    records["data/weights/model_weights_config.json"] = json.dumps(config).encode()
    buffer = io.BytesIO()
    torch.save(_Makes(marker), buffer)
    records["data/weights/weight_0"] = buffer.getvalue()


def _pickled_constant(records: dict[str, bytes], marker: Path) -> None:
    entry = {"path_name": "opaque_obj_0", "is_param": False, "use_pickle": True, "tensor_meta": None}
    records["data/constants/model_constants_config.json"] = json.dumps({"config": {"x": entry}}).encode()
    records["data/constants/opaque_obj_0"] = pickle.dumps(_Makes(marker))


def _graph(change: Callable[[dict[str, Any], str], None]) -> Callable[[dict[str, bytes], Path], None]:
    def changed(records: dict[str, bytes], marker: Path) -> None:
        graph = json.loads(records["models/model.json"])
        change(graph, _source(marker))
        records["models/model.json"] = json.dumps(graph).encode()

    return changed


@_graph
def _size(graph: dict[str, Any], source: str) -> None:
    for tensor in graph["graph_module"]["graph"]["tensor_values"].values():
        for size in tensor["sizes"]:
            if "as_expr" in size:
                size["as_expr"]["expr_str"] = source


@_graph
def _guard(graph: dict[str, Any], source: str) -> None:
    graph["guards_code"] = [source]


@_graph
def _name_of_the_input(graph: dict[str, Any], source: str) -> None:
    words = "+".join(f"chr({ord(letter)})" for letter in source)
    renamed = json.loads(json.dumps(graph).replace('"images"', f'"images=eval({words})"'))
    graph.clear()
    graph.update(renamed)


CHANGES = {
    "example": _pickled_example,
    "weight": _pickled_weight,
    "constant": _pickled_constant,
    "size": _size,
    "guard": _guard,
    "name": _name_of_the_input,
}


def _rewritten(file: Path, change: Callable[[dict[str, bytes], Path], None], marker: Path) -> None:
    with zipfile.ZipFile(file) as archive:
        records = {name.partition("/")[2]: archive.read(name) for name in archive.namelist()}
    change(records, marker)
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in records.items():
            archive.writestr(f"archive/{name}", content)


@pytest.fixture
def exported(tmp_path: Path) -> Path:
    module = PixelsToProbabilities(small_classifier())
    example = torch.zeros(2, *SHAPE, dtype=torch.uint8)
    program = torch.export.export(module, (example,), dynamic_shapes=[{0: torch.export.Dim.AUTO}])
    torch.export.save(program, tmp_path / "model.pt2")
    return tmp_path / "model.pt2"


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_nothing_in_a_foreign_file_runs(
    change: Callable[[dict[str, bytes], Path], None], exported: Path, tmp_path: Path
) -> None:
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    original = exported.read_bytes()
    _rewritten(exported, change, ours)
    if change is _pickled_example:
        load_exported(exported)  # it is good without its example, which is left out
    else:
        with pytest.raises(ValueError, match=r"model\.pt2"):
            load_exported(exported)
    assert not ours.exists()
    # The file would have done it: loaded without the check, it does.
    exported.write_bytes(original)
    _rewritten(exported, change, theirs)
    _load_without_check(exported)
    assert theirs.exists()


def _load_without_check(file: Path) -> None:
    with contextlib.suppress(Exception):  # it fails after it ran
        torch.export.load(file).module()(torch.zeros(3, *SHAPE, dtype=torch.uint8))


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut off", b"not a zip file"])
def test_a_damaged_file_is_one_clear_error(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "model.pt2").write_bytes(content)
    with pytest.raises(ValueError, match=r"^model\.pt2: "):
        load_exported(tmp_path / "model.pt2")


def test_operators_that_touch_files_are_refused(exported: Path, tmp_path: Path) -> None:
    @_graph
    def writes(graph: dict[str, Any], _source: str) -> None:
        graph["graph_module"]["graph"]["nodes"][0]["target"] = "torch.ops.aten.from_file.default"

    _rewritten(exported, writes, tmp_path / "marker")
    with pytest.raises(ValueError, match=r"'torch\.ops\.aten\.from_file\.default' does not belong"):
        load_exported(exported)
