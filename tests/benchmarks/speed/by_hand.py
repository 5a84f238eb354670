"""What a user would write by hand: Ray's documented PyTorch recipe, on the same data, model and recipes.

The shape of Ray Tune's own examples: a function trainable, torchvision's data set and transforms in a
DataLoader, OptunaSearch, ASHAScheduler, MLflowLoggerCallback, a checkpoint every epoch. Nothing is made
slower than the documentation makes it, and nothing faster. Run as a program; prints epochs and seconds.

    python -m tests.benchmarks.speed.by_hand '{"data": ..., "samples": 12, ...}'
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from ray import tune
from ray.air.integrations.mlflow import MLflowLoggerCallback
from ray.tune.schedulers import ASHAScheduler
from ray.tune.search.optuna import OptunaSearch
from torch import nn
from torch.utils.data import DataLoader, Subset
from torchvision import datasets, transforms

from tests.benchmarks.speed.bare_loop import plain_network


def train(config: dict[str, Any], task: dict[str, Any]) -> None:
    """A trial."""
    to_tensor = [transforms.ToTensor(), transforms.Normalize(task["mean"], task["std"])]
    augment = [transforms.RandomCrop(28, padding=4)] if task["augment"] else []
    train_set = datasets.MNIST(task["data"], transform=transforms.Compose([*augment, *to_tensor]))
    val_set = datasets.MNIST(task["data"], transform=transforms.Compose(to_tensor))
    train_loader = DataLoader(
        Subset(train_set, task["train"]), batch_size=task["batch_size"], shuffle=True, drop_last=True
    )
    val_loader = DataLoader(Subset(val_set, task["validation"]), batch_size=1000)
    net = plain_network(task["recipe"], (28, 28, 1), 10)
    loss_function = nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(
        net.parameters(), lr=config["lr"], momentum=0.9, weight_decay=config["weight_decay"]
    )
    for epoch in range(task["epochs"]):
        net.train()
        for images, labels in train_loader:
            optimizer.zero_grad()
            loss = loss_function(net(images), labels)
            loss.backward()
            optimizer.step()
        net.eval()
        right = 0
        with torch.no_grad():
            for images, labels in val_loader:
                right += int((net(images).argmax(1) == labels).sum())
        with tempfile.TemporaryDirectory() as folder:
            torch.save(
                {"epoch": epoch, "model": net.state_dict(), "optimizer": optimizer.state_dict()},
                Path(folder) / "checkpoint.pt",
            )
            tune.report(
                {"val_accuracy": right / len(task["validation"]), "loss": float(loss)},
                checkpoint=tune.Checkpoint.from_directory(folder),
            )


def main(task: dict[str, Any]) -> None:
    """The whole search."""
    tuner = tune.Tuner(
        tune.with_resources(tune.with_parameters(train, task=task), {"cpu": 1}),
        param_space={
            "lr": tune.loguniform(1e-3, 0.3),
            "weight_decay": tune.loguniform(1e-5, 1e-2),
        },
        tune_config=tune.TuneConfig(
            metric="val_accuracy",
            mode="max",
            search_alg=OptunaSearch(),
            scheduler=ASHAScheduler(max_t=task["epochs"], grace_period=3, reduction_factor=3),
            num_samples=task["samples"],
            max_concurrent_trials=task["at_once"],  # without it Optuna's trials start one after the other
        ),
        run_config=tune.RunConfig(
            name="by-hand",
            storage_path=str(Path(task["results"]).resolve()),
            callbacks=[
                MLflowLoggerCallback(
                    tracking_uri=f"sqlite:///{Path(task['results']).resolve()}/mlflow.db",
                    experiment_name="by-hand",
                )
            ],
        ),
    )
    results = tuner.fit()
    epochs = sum(result.metrics["training_iteration"] for result in results if result.metrics)
    best = results.get_best_result().metrics
    print(json.dumps({"epochs": epochs, "best": best["val_accuracy"] if best else None}))


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_text()))
