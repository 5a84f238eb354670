"""The winner as an MLflow model: loaded by a process that has no tunekit."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from mlflow import MlflowClient
from mlflow.entities import Run
from torch import nn

from tunekit.tracking.client import open_client
from tunekit.tracking.model import Classifier, PixelsToProbabilities, log_model

SHAPE = (8, 8, 1)
CLASSES = ["cat", "dog", "bird"]

LOAD_AND_PREDICT = """
import sys
sys.modules["tunekit"] = None
import numpy, torch, mlflow
uri, model_uri, file = sys.argv[1:]
mlflow.set_tracking_uri(uri)
as_function = mlflow.pyfunc.load_model(model_uri)
as_module = mlflow.pytorch.load_model(model_uri)
images = numpy.load(file)["images"]
found = {}
for size in (1, 7):
    found[f"function{size}"] = as_function.predict(images[:size])
    found[f"module{size}"] = as_module(torch.from_numpy(images[:size])).numpy()
numpy.savez(file, classes=as_function.metadata.metadata["classes"], **found)
"""


class Logged(NamedTuple):
    uri: str
    client: MlflowClient
    run: Run  # as it was before
    classifier: Classifier
    model_uri: str


@pytest.fixture(scope="module")
def logged(tmp_path_factory: pytest.TempPathFactory) -> Logged:
    """A small network in training mode, logged on a run that ended KILLED."""
    folder = tmp_path_factory.mktemp("model")
    uri = f"sqlite:///{folder}/mlflow.db"
    client = open_client(uri)
    experiment = client.create_experiment("models", (folder / "artifacts").as_uri())
    run_id = client.create_run(experiment, start_time=1000).info.run_id
    client.set_terminated(run_id, "KILLED", end_time=2000)
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Dropout(0.5),
        nn.Linear(4, len(CLASSES)),
    )
    classifier = Classifier(network, SHAPE, CLASSES, [0.3], [0.2])
    run = client.get_run(run_id)
    return Logged(uri, client, run, classifier, log_model(client, run_id, classifier, "first.search/1"))


def test_it_loads_without_tunekit_and_takes_any_batch_size(logged: Logged, tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (7, *SHAPE), dtype=np.uint8)
    file = tmp_path / "found.npz"
    np.savez(file, images=images)
    command = [sys.executable, "-c", LOAD_AND_PREDICT, logged.uri, logged.model_uri, str(file)]
    done = subprocess.run(command, cwd="/", capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = np.load(file)
    for size in (1, 7):
        expected = PixelsToProbabilities(logged.classifier)(torch.from_numpy(images[:size])).numpy()
        for loaded in ("function", "module"):
            probabilities = found[f"{loaded}{size}"]
            assert probabilities.dtype == np.float32
            np.testing.assert_allclose(probabilities, expected, atol=1e-5)
    assert list(found["classes"]) == CLASSES


def test_the_run_stays_as_it_was(logged: Logged) -> None:
    after = logged.client.get_run(logged.run.info.run_id)
    assert dict(after.info) == dict(logged.run.info)
    assert after.outputs is not None
    assert [f"models:/{output.model_id}" for output in after.outputs.model_outputs] == [logged.model_uri]


def test_the_network_stays_as_it_was(logged: Logged) -> None:
    module = logged.classifier.module
    assert module.training
    assert all(weight.requires_grad for weight in module.parameters())


def test_the_model_is_no_pickle_and_says_what_it_needs(logged: Logged) -> None:
    model = logged.client.get_logged_model(logged.model_uri.removeprefix("models:/"))
    assert (model.name, str(model.status)) == ("first-search-1", "READY")
    folder = Path(model.artifact_location.removeprefix("file://"))
    assert [file.name for file in (folder / "data").iterdir()] == ["model.pt2"]
    needed = (folder / "requirements.txt").read_text().split()
    assert sorted(line.partition("==")[0] for line in needed) == ["mlflow", "numpy", "torch"]


def test_a_model_that_cannot_be_exported_is_marked_as_failed(logged: Logged) -> None:
    class Undecided(nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return images.flatten(1)[:, :3] if images.sum().item() > 0 else images

    broken = Classifier(Undecided(), SHAPE, CLASSES, [0.3], [0.2])
    with pytest.raises(Exception, match=r"."):
        log_model(logged.client, logged.run.info.run_id, broken, "broken")
    models = logged.client.search_logged_models([logged.run.info.experiment_id])
    assert {model.name: str(model.status) for model in models}["broken"] == "FAILED"
