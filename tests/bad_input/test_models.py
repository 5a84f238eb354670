"""Weights, models and databases of others: read without running anything, or refused in one line."""

from __future__ import annotations

import json
import pickle
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from tests.bad_input.foreign import Payload
from tests.bad_input.refusal import USAGE, Refusal
from tests.retraining.saved_networks import save_network
from tests.search_on_disk import lay_down_search
from tunekit.errors import TunekitError
from tunekit.models.first_weights import FirstWeights
from tunekit.recipe import Recipe

SEARCH = ("search", "digits", "--space", "resnet")
Damage = Callable[[Path], object]

DESCRIPTION = {
    "recipe": Recipe.from_flat({"model.name": "resnet8"}).to_flat(),
    "epoch": 1,
    "val_accuracy": 0.5,
    "classes": ["cat", "dog", "bird"],
    "image_shape": [8, 8, 1],
    "mean": [0.3],
    "std": [0.2],
}


@pytest.fixture(scope="module")
def tensors(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Tensor]:
    """Of a resnet8 for grey images of 8 x 8 pixels in 3 classes."""
    file = tmp_path_factory.mktemp("network") / "best.safetensors"
    save_network(file, seed=0)
    return load_file(file)


def described(**changes: object) -> dict[str, str]:
    return {name: json.dumps(value) for name, value in {**DESCRIPTION, **changes}.items()}


def recipe(**changes: object) -> dict[str, object]:
    return {**DESCRIPTION["recipe"], **{key.replace("__", "."): value for key, value in changes.items()}}  # type: ignore[dict-item]


UNREADABLE = {
    "empty": (b"", "no weights that can be read"),
    "text": (b"words" * 99, "no weights that can be read"),
    "a head too long": ((2**63).to_bytes(8, "little") + b"{}", "no weights that can be read"),
    "a head that is no JSON": (b"\x04\0\0\0\0\0\0\0{{{{", "no weights that can be read"),
    "an archive": (b"PK\x03\x04" + bytes(99), "no weights that can be read"),
}

MISFITS = {
    "nothing beside": (None, "no weights that can be read"),
    "no JSON beside": ({**described(), "classes": "{"}, "no weights that can be read"),
    "lists in lists beside": ({**described(), "classes": "[" * 100_000}, "no weights that can be read"),
    "an unknown field": (described(colour="red"), "'colour'"),
    "no classes": (described(classes=[]), "classes must be names"),
    "classes of numbers": (described(classes=[1, 2, 3]), "classes must be names"),
    "fewer classes": (described(classes=["cat"]), "its weights are not those of the recipe beside them"),
    "a shape of 2": (described(image_shape=[8, 8]), "image_shape must be 3 whole numbers"),
    "a shape of words": (described(image_shape=["a", 8, 1]), "image_shape must be 3 whole numbers"),
    "a shape without end": (described(image_shape=[10**9, 10**9, 1]), "must be 3 whole numbers of 1 to 4096"),
    "a shape of 0": (described(image_shape=[0, 8, 1]), "image_shape must be 3 whole numbers"),
    "other channels": (described(image_shape=[8, 8, 3]), "mean and std must be a number for each channel"),
    "a mean of NaN": (described(mean=[float("nan")]), "mean and std must be a number"),
    "a recipe of words": (described(recipe="resnet8"), "recipe must be keys and values"),
    "an unknown key": (described(recipe=recipe(optim__lrr=1)), "did you mean 'optim.lr'?"),
    "a value out of range": (described(recipe=recipe(optim__lr=99.0)), "optim.lr must be 1e-07 to 10"),
    "another architecture": (
        described(recipe=recipe(model__name="vgg11")),
        "its weights are not those of the recipe beside them (Error(s) in loading state_dict",
    ),
}


@pytest.mark.parametrize("name", UNREADABLE)
def test_a_file_that_holds_no_weights(name: str, refused: Refusal, tmp_path: Path) -> None:
    content, words = UNREADABLE[name]
    (tmp_path / "best.safetensors").write_bytes(content)
    refused(["predict", "best.safetensors", "x.png"], ["best.safetensors: ", words])
    refused(["export", "best.safetensors", "--format", "state-dict"], ["best.safetensors: ", words])
    refused([*SEARCH, "--set", "init=file:best.safetensors"], ["best.safetensors: ", words])


@pytest.mark.parametrize("name", MISFITS)
def test_weights_that_are_not_what_stands_beside_them(
    name: str, refused: Refusal, tmp_path: Path, tensors: dict[str, Tensor]
) -> None:
    metadata, words = MISFITS[name]
    save_file(tensors, tmp_path / "best.safetensors", metadata)
    refused(["predict", "best.safetensors", "x.png"], words)
    refused(["export", "best.safetensors", "--format", "state-dict"], words)


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_a_pickle_among_weights_does_not_run(suffix: str, refused: Refusal, tmp_path: Path) -> None:
    file = tmp_path / f"weights{suffix}"
    torch.save({"body.weight": Payload(tmp_path / "ran")}, file)
    refused([*SEARCH, "--set", f"init=file:{file.name}"], f"{file.name}: no weights that can be read")
    file.write_bytes(pickle.dumps(Payload(tmp_path / "ran")))
    refused([*SEARCH, "--set", f"init=file:{file.name}"], f"{file.name}: no weights that can be read")
    if suffix == ".safetensors":
        refused(["predict", file.name, "x.png"], f"{file.name}: no weights that can be read")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ([1, 2, 3], "must hold a state dict, names and tensors"),
        ({"a": 1}, "must hold a state dict, names and tensors"),
        (3, "must hold a state dict"),
        ({"state_dict": {"model": 3}}, "must hold a state dict"),
        ({}, "must be"),
        ({"conv.weight": torch.zeros(3)}, "must be"),
        ({"": torch.zeros(())}, "must be"),
    ],
    ids=str,
)
def test_a_torch_file_without_the_networks_weights(
    content: object, words: str, refused: Refusal, tmp_path: Path
) -> None:
    torch.save(content, tmp_path / "weights.pt")
    (tmp_path / "one.toml").write_text(
        '[fixed]\n"model.name" = "resnet8"\n[space]\n"optim.lr" = { low = 0.1, high = 1.0 }\n'
    )
    refused(["search", "digits", "--space", "one.toml", "--set", "init=file:weights.pt"], words)


@pytest.mark.parametrize(
    "metadata",
    [
        {"recipe": "{"},
        {"recipe": "3"},
        {"recipe": "{}"},
        {"recipe": '["model.name"]'},
        {"recipe": "[" * 100_000},
    ],
    ids=lambda metadata: metadata["recipe"][:20],
)
def test_first_weights_with_a_damaged_recipe_beside(
    metadata: dict[str, str], refused: Refusal, tmp_path: Path, tensors: dict[str, Tensor]
) -> None:
    save_file(tensors, tmp_path / "weights.safetensors", metadata)
    words = "weights.safetensors: what stands beside the weights cannot be read"
    refused([*SEARCH, "--set", "init=file:weights.safetensors"], words)


@pytest.mark.parametrize("metadata", [None, {"model": "{"}, {"model": '"x"'}, {"colour": "1"}], ids=str)
def test_kept_first_weights_that_are_damaged(
    metadata: dict[str, str] | None, tmp_path: Path, tensors: dict[str, Tensor]
) -> None:
    save_file(tensors, tmp_path / "first.safetensors", metadata)
    with pytest.raises(TunekitError, match=r"first\.safetensors: not the first weights of a search"):
        FirstWeights.read(tmp_path / "first.safetensors")


def test_weights_of_a_search_that_has_none_or_damaged_ones(refused: Refusal, tmp_path: Path) -> None:
    paths = lay_down_search(tmp_path / "results", "mine")
    refused([*SEARCH, "--set", "init=search:mine"], "init: search mine has no weights yet")
    paths.trial(1).best.parent.mkdir(parents=True)
    paths.trial(1).best.write_bytes(b"words")
    refused([*SEARCH, "--set", "init=search:mine"], "best.safetensors: no weights that can be read")


def test_an_export_replaces_nothing_unasked(
    refused: Refusal, tmp_path: Path, tensors: dict[str, Tensor]
) -> None:
    save_file(tensors, tmp_path / "best.safetensors", described())
    (tmp_path / "there.pt").write_text("mine")
    (tmp_path / "folder").mkdir()
    command = ["export", "best.safetensors", "--format", "state-dict", "--output"]
    refused([*command, "there.pt"], "there.pt exists: use --force to replace it")
    refused([*command, "best.safetensors", "--force"], "best.safetensors is the model itself")
    refused([*command, "there.pt/below.pt"], "cannot write there.pt/below.pt: ")
    refused([*command, "a" * 300], "File name too long")
    refused([*command, "folder"], "File 'folder' is a directory", USAGE)


# ---- MLflow's database


def version(number: str) -> Damage:
    def make(file: Path) -> None:
        with closing(sqlite3.connect(file)) as database, database:
            database.execute("CREATE TABLE alembic_version (version_num VARCHAR(32))")
            database.execute("INSERT INTO alembic_version VALUES (?)", [number])

    return make


def torn(file: Path) -> None:
    version("x")(file)
    content = file.read_bytes()
    file.write_bytes(content[:100] + b"\xa5" * (len(content) - 100))


DATABASES: dict[str, tuple[Damage, str]] = {
    "text": (lambda file: file.write_text("words " * 999), "mlflow.db is not an SQLite database"),
    "binary": (lambda file: file.write_bytes(bytes(range(256))), "mlflow.db is not an SQLite database"),
    "a folder": (lambda file: file.mkdir(), "mlflow.db is not an SQLite database"),
    "a head alone": (
        lambda file: file.write_bytes(b"SQLite format 3\0" + bytes(99)),
        "mlflow.db is damaged (",
    ),
    "torn": (torn, "mlflow.db is damaged ("),
    "of a newer MLflow": (version("ffffffffffff"), "has the tables of a newer MLflow (ffffffffffff;"),
    "of an older MLflow": (version("451aebb31d03"), "has the tables of an older MLflow (451aebb31d03;"),
    "with escape codes": (version("\x1b[2J"), r"has the tables of a newer MLflow (\x1b[2J;"),
}


@pytest.mark.parametrize("name", DATABASES)
@pytest.mark.parametrize("command", ["search", "predict", "export", "ui"])
def test_a_database_that_is_none_of_the_installed_mlflow(
    command: str, name: str, refused: Refusal, tmp_path: Path
) -> None:
    damage, words = DATABASES[name]
    (tmp_path / "results").mkdir()
    damage(tmp_path / "results" / "mlflow.db")
    commands = {
        "search": list(SEARCH),
        "predict": ["predict", "tunekit-digits", "x.png"],
        "export": ["export", "tunekit-digits", "--format", "onnx"],
        "ui": ["ui"],
    }
    refused(commands[command], words)
