"""Records learning curves of small fully connected networks on five small data sets, one table for each.

    python -m tests.benchmarks.policy.small_networks DATA_DIR OUT --hardware "2 cores of ..."

DATA_DIR holds CIFAR-10 and MNIST as torchvision unpacks them; the tables are written to the folder OUT.
Hyperparameters, network, schedule and number of epochs are those of LCBench (Zimmer, Lindauer and Hutter
2021, "Auto-PyTorch Tabular", arXiv:2006.13799), with fewer units and fewer samples: 400 train, 900 judge.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import sklearn
import torch
import torchvision
from numpy.typing import NDArray
from sklearn.datasets import make_classification
from sklearn.decomposition import PCA
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from tests.benchmarks.policy.record import Table, write_table
from tunekit.recipe import Value

EPOCHS = 52
RECIPES = 200  # of each task
_TRAIN, _JUDGE = 400, 900  # samples

SPACE = """\
[space]
batch_size = { low = 16, high = 512, log = true }
lr = { low = 1e-4, high = 0.1, log = true }
momentum = { low = 0.1, high = 0.99 }
weight_decay = { low = 1e-5, high = 0.1, log = true }
layers = { low = 1, high = 5 }
units = { low = 16, high = 256, log = true }
dropout = { low = 0.0, high = 1.0 }
"""

Samples = tuple[NDArray[Any], NDArray[Any]]  # (n, features) and (n,): the classes
Part = tuple[Tensor, Tensor]  # some samples and their classes


def _cifar(data_dir: Path) -> Samples:
    """Ten classes, 48 principal components."""
    images, labels = _cifar_images(data_dir, 0)
    return PCA(48, random_state=0).fit_transform(images), labels


def _animal(data_dir: Path) -> Samples:
    """Two classes: vehicles (1) or animals (0), 32 principal components."""
    images, labels = _cifar_images(data_dir, 1)
    return PCA(32, random_state=0).fit_transform(images), np.isin(labels, (0, 1, 8, 9)).astype(int)


def _mnist(data_dir: Path) -> Samples:
    """Ten classes, 32 principal components."""
    digits = torchvision.datasets.MNIST(data_dir)
    chosen = np.random.default_rng(0).choice(60_000, 2000, replace=False)
    images = digits.data.numpy()[chosen].reshape(2000, -1) / 255.0
    return PCA(32, random_state=0).fit_transform(images), digits.targets.numpy()[chosen]


def _hard(data_dir: Path) -> Samples:
    """Four classes of four clusters each; a tenth of the labels are drawn at random."""
    samples: Samples = make_classification(
        2000,
        30,
        n_informative=8,
        n_classes=4,
        n_clusters_per_class=4,
        flip_y=0.1,
        class_sep=0.8,
        random_state=1,
    )
    return samples


def _imb(data_dir: Path) -> Samples:
    """Six classes of two clusters each; in spite of its name they are balanced."""
    samples: Samples = make_classification(
        2000, 20, n_informative=12, n_classes=6, n_clusters_per_class=2, class_sep=1.2, random_state=2
    )
    return samples


TASKS: dict[str, Callable[[Path], Samples]] = {
    "cifar": _cifar,
    "hard": _hard,
    "mnist": _mnist,
    "animal": _animal,
    "imb": _imb,
}


def parts_of(samples: Samples, *counts: int) -> list[Part]:
    """Shuffled samples of mean 0 and standard deviation 1, in parts of so many."""
    values, classes = samples
    values = (values - values.mean(0)) / (values.std(0) + 1e-6)
    order = np.random.default_rng(0).permutation(len(values))[: sum(counts)]
    inputs, labels = torch.tensor(values[order]).float(), torch.tensor(classes[order]).long()
    return list(zip(torch.split(inputs, list(counts)), torch.split(labels, list(counts)), strict=True))


def random_recipe(rng: np.random.Generator) -> dict[str, Value]:
    """A recipe drawn from `SPACE`: log-uniform where a range is logarithmic."""

    def log_uniform(low: float, high: float) -> float:
        return float(np.exp(rng.uniform(np.log(low), np.log(high))))

    return {
        "batch_size": round(log_uniform(16, 512)),
        "lr": log_uniform(1e-4, 0.1),
        "momentum": float(rng.uniform(0.1, 0.99)),
        "weight_decay": log_uniform(1e-5, 0.1),
        "layers": int(rng.integers(1, 6)),
        "units": round(log_uniform(16, 256)),
        "dropout": float(rng.uniform(0, 1)),
    }


def network_of(recipe: Mapping[str, Any], features: int, classes: int) -> nn.Sequential:
    """Layers that narrow from `units` to the number of classes, and drop less the later they are."""
    layers = recipe["layers"]
    modules: list[nn.Module] = []
    for place in range(layers):
        units = max(round(recipe["units"] + (classes - recipe["units"]) * place / layers), classes)
        dropout = nn.Dropout(min(0.95, recipe["dropout"] * (1 - place / layers)))
        modules += [nn.Linear(features, units), nn.BatchNorm1d(units), nn.ReLU(), dropout]
        features = units
    return nn.Sequential(*modules, nn.Linear(features, classes))


class Training:
    """A recipe in training with SGD and cosine annealing, an epoch at a time.

    Trainings may take turns: each goes on with random numbers of its own.
    """

    def __init__(self, recipe: Mapping[str, Any], train: Part, classes: int, seed: int) -> None:
        """
        Args:
            recipe: of `SPACE`.
            train: the samples that it learns from.
            classes: how many there are.
            seed: of the weights, of the order of the samples and of dropout.
        """
        torch.manual_seed(seed)
        self._recipe, self._train = recipe, train
        self._network = network_of(recipe, train[0].shape[1], classes)
        weights, lr, momentum = self._network.parameters(), recipe["lr"], recipe["momentum"]
        decay = recipe["weight_decay"]
        self._optimizer = torch.optim.SGD(weights, lr, momentum, weight_decay=decay, fused=True)
        self._random = torch.get_rng_state()
        self.epoch = 0

    def train_epoch(self) -> None:
        """Train for one more epoch."""
        torch.set_rng_state(self._random)
        annealed = 0.5 * (1 + np.cos(np.pi * self.epoch / EPOCHS))
        self._optimizer.param_groups[0]["lr"] = self._recipe["lr"] * annealed
        self._network.train()
        inputs, labels = self._train
        for batch in torch.split(torch.randperm(len(inputs)), self._recipe["batch_size"]):
            if len(batch) > 1:  # batch norm needs two
                loss = cross_entropy(self._network(inputs[batch]), labels[batch])
                self._optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                self._optimizer.step()
        self._random = torch.get_rng_state()
        self.epoch += 1

    def accuracy(self, part: Part) -> float:
        """The share of samples whose class the network names."""
        inputs, labels = part
        self._network.eval()
        with torch.no_grad():
            return float((self._network(inputs).argmax(1) == labels).float().mean())


def trained(recipe: dict[str, Any], train: Part, judge: Part, seed: int) -> tuple[list[float], list[float]]:
    """Train in full: validation accuracy and seconds of every epoch."""
    training = Training(recipe, train, int(judge[1].max()) + 1, seed)
    accuracies, seconds = [], []
    for _ in range(EPOCHS):
        clock = time.perf_counter()
        training.train_epoch()
        accuracies.append(training.accuracy(judge))
        seconds.append(time.perf_counter() - clock)
    return accuracies, seconds


def recorded(task: str, data_dir: Path, count: int = RECIPES) -> list[dict[str, Any]]:
    """Random recipes of a task, trained in full, as a table has them.

    Each epoch's seconds are the mean of the recipe's epochs.
    """
    train, judge = parts_of(TASKS[task](data_dir), _TRAIN, _JUDGE)
    rng = np.random.default_rng(seed_of(task))
    recipes = []
    for seed in range(count):
        params = random_recipe(rng)
        accuracies, seconds = trained(params, train, judge, seed)
        values = [round(accuracy, 4) for accuracy in accuracies]
        recipes.append(
            {"params": params, "values": values, "seconds": [round(float(np.mean(seconds)), 5)] * EPOCHS}
        )
    return recipes


def table_of(task: str, recipes: list[dict[str, Any]], hardware: str) -> Table:
    """The table of a task, with the conditions under which it was recorded."""
    conditions = {
        "what": "validation accuracy of every epoch of random recipes, each trained in full; mean seconds "
        "of an epoch; by tests/benchmarks/policy/small_networks.py",
        "dataset": described(task, TASKS[task]),
        "seed": seed_of(task),
        "train_images": _TRAIN,
        "val_images": _JUDGE,
    }
    return with_conditions(conditions, recipes, hardware)


def with_conditions(conditions: dict[str, Any], recipes: list[dict[str, Any]], hardware: str) -> Table:
    """A table of such recipes; the conditions that all tables of small networks share are added."""
    return {
        **conditions,
        "epochs": EPOCHS,
        "sampler": "random",
        "versions": {library.__name__: library.__version__ for library in (torch, torchvision, sklearn, np)},
        "hardware": hardware,
        "fixed": {},
        "space": SPACE,
        "recipes": recipes,
    }


def described(task: str, samples: Callable[[Path], Samples]) -> str:
    """A task's name, and what its samples are."""
    return f"small networks, {task}: {' '.join((samples.__doc__ or '').split())}"


def _cifar_images(data_dir: Path, seed: int) -> Samples:
    cifar = torchvision.datasets.CIFAR10(data_dir)
    chosen = np.random.default_rng(seed).choice(50_000, 2400, replace=False)
    return cifar.data[chosen].reshape(2400, -1) / 255.0, np.array(cifar.targets)[chosen]


def seed_of(task: str) -> int:
    """Of a task's recipes."""
    return sum(map(ord, task))


def record_tables(description: str, tasks: Iterable[str], table: Callable[[str, Path, str], Table]) -> None:
    """The command that records a table of each task.

    Args:
        description: of the command.
        tasks: their names.
        table: of a task, the folder of data sets, and the hardware in words.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("data_dir", type=Path, help="where torchvision finds CIFAR10 and MNIST")
    parser.add_argument("out", type=Path, help="folder of the tables")
    parser.add_argument("--hardware", required=True, help="what it ran on, in words")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    for task in tasks:
        recorded_table = table(task, arguments.data_dir, arguments.hardware)
        write_table(recorded_table, arguments.out / f"curves-small-networks-{task}.json.gz")
        print(f"Recorded {task}", file=sys.stderr)


def main() -> None:
    """Record every task."""

    def table(task: str, data_dir: Path, hardware: str) -> Table:
        return table_of(task, recorded(task, data_dir), hardware)

    record_tables((__doc__ or "").splitlines()[0], TASKS, table)


if __name__ == "__main__":
    main()
