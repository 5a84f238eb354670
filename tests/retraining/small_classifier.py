"""A random network that is sure of what it says, alone or registered in an MLflow database."""

from collections.abc import Sequence
from pathlib import Path

import torch
from mlflow import MlflowClient
from torch import nn

from tunekit.recipe import Value
from tunekit.tracking.client import open_client
from tunekit.tracking.model import Classifier, log_model
from tunekit.tracking.registry import register

CLASSES = ["cat", "dog", "bird"]
SHAPE = (6, 10, 3)  # not square, so that a swapped height and width shows
RECIPES: list[dict[str, Value]] = [{"model.name": "resnet8", "optim.lr": 0.1}]


def small_classifier(
    seed: int = 0, shape: tuple[int, int, int] = SHAPE, classes: Sequence[str] = CLASSES
) -> Classifier:
    """Batch norm, dropout, and logits far apart."""
    torch.manual_seed(seed)
    channels = shape[2]
    head = nn.Linear(4 * shape[0] * shape[1], len(classes))
    with torch.no_grad():
        head.weight.mul_(5)
    network = nn.Sequential(
        nn.Conv2d(channels, 4, 3, padding=1),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Flatten(),
        nn.Dropout(0.5),
        head,
    )
    return Classifier(network.eval(), shape, list(classes), [0.3] * channels, [0.2] * channels, RECIPES)


def new_run(folder: Path) -> tuple[MlflowClient, str]:
    """A client of a new database in `folder`, and the id of a run in it."""
    client = open_client(f"sqlite:///{folder}/mlflow.db")
    experiment = client.create_experiment("models", (folder / "artifacts").as_uri())
    return client, client.create_run(experiment).info.run_id


def registered(folder: Path, name: str = "tunekit-pets") -> tuple[MlflowClient, Classifier]:
    """A database in `folder` (as a results folder has) in which a small network is version 1 of `name`."""
    client, run_id = new_run(folder)
    classifier = small_classifier()
    uri = log_model(client, run_id, classifier, name)
    register(client, name, uri, run_id, {"classes": ", ".join(CLASSES)}, "Pets.")
    return client, classifier
