"""Images a second of the training core, beside a plain DataLoader loop and beside a bare loop.

All train the same network with the same optimizer and batch size on one thread (or one GPU). The plain loop
has torchvision's transforms of the same augmentation and float32; a second one adds autocast, for who
knows of it. The bare loop (`bare_loop.py`) has no augmentation: it is the limit.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader, Subset
from torchvision import datasets, transforms

from tests.benchmarks.speed.bare_loop import BareLoop, Task, plain_network
from tests.benchmarks.speed.figures import Part, wait_until_idle
from tunekit.data.datasets import open_dataset
from tunekit.data.pack import Pack
from tunekit.data.split import Split, make_split
from tunekit.recipe import Recipe, Value
from tunekit.training.build import build_training
from tunekit.training.device import gains_from_bf16, pick_device
from tunekit.training.loop import Training
from tunekit.training.optimizer import build_optimizer

_MODELS = ("resnet8", "resnet20", "resnet18")
_IMAGES = 2560  # of CIFAR-10; resnet18 trains on a quarter of them


def measure(data: Path, runs: int) -> Part:
    """Each loop in turn, `runs` times."""
    part = Part(
        "Training core",
        f"CIFAR-10, {_IMAGES:,} images (resnet18: {_IMAGES // 4}), batch 128, SGD with momentum, flip + "
        "shift_crop, training steps alone, one thread; all loops in turn in one process.",
    )
    if not wait_until_idle():
        part.notes.append("The machine was not idle: throw these figures away.")
    torch.set_num_threads(1)
    pack = open_dataset("cifar10", data)
    for model in _MODELS:
        _compare(part, pack, data, model, runs)
    return part


def _compare(part: Part, pack: Pack, data: Path, model: str, runs: int) -> None:
    recipe: dict[str, Value] = {
        **Recipe().to_flat(),
        "model.name": model,
        "augment.policy": "flip+shift_crop",
    }
    limit = _IMAGES // 4 if model == "resnet18" else _IMAGES
    with tempfile.TemporaryDirectory() as folder:
        split = make_split(pack.train()[1], 0.2, 0, limit * 5 // 4)
        split.save(Path(folder) / "split.npz")
        loops: dict[str, Callable[[], object]] = {
            "tunekit": _ours(recipe, pack, split),
            "bare loop": BareLoop(Task(recipe, str(pack.folder), f"{folder}/split.npz")).train_epoch,
            "DataLoader loop": _Plain(recipe, data, split, pack, bf16=False).train_epoch,
            "DataLoader loop with autocast": _Plain(recipe, data, split, pack, bf16=True).train_epoch,
        }
        speeds = {name: [] for name in loops}  # type: dict[str, list[float]]
        for run in range(runs + 1):
            for name, loop in loops.items():
                clock = time.perf_counter()
                loop()
                if run:  # the first one prepares kernels
                    speeds[name].append(len(split.train) / (time.perf_counter() - clock))
    medians = {name: part.add(f"{model}, {name}", "images/s", found).median for name, found in speeds.items()}
    part.compare(f"{model}: share of the bare loop", medians["tunekit"] / medians["bare loop"], 0.9)
    part.compare(f"{model}: beside DataLoader", medians["tunekit"] / medians["DataLoader loop"], 1.5)
    with_autocast = medians["DataLoader loop with autocast"]
    part.compare(f"{model}: beside DataLoader with autocast", medians["tunekit"] / with_autocast)


def _ours(recipe: dict[str, Value], pack: Pack, split: Split) -> Callable[[], object]:
    """One epoch of tunekit's training steps, without validation."""
    training = build_training(Recipe.from_flat(recipe), pack, split, 10_000, 0, pick_device(1))
    epochs = _epochs(training)
    return lambda: next(epochs)


def _epochs(training: Training) -> Iterator[object]:
    for epoch in range(1, 10_000):
        yield training._train_epoch(epoch)


class _Plain:
    """Torchvision's data set and transforms in a DataLoader, as its documentation has it."""

    def __init__(self, recipe: dict[str, Value], data: Path, split: Split, pack: Pack, bf16: bool) -> None:
        changes = [transforms.RandomHorizontalFlip(), transforms.RandomCrop(32, 4, padding_mode="reflect")]
        to_tensor = [transforms.ToTensor(), transforms.Normalize(pack.mean, pack.std)]
        images = datasets.CIFAR10(str(data), transform=transforms.Compose([*changes, *to_tensor]))
        chosen = Subset(images, split.train.tolist())
        self._batches: DataLoader[Any] = DataLoader(chosen, batch_size=128, shuffle=True, drop_last=True)
        self._device = pick_device(1)
        self._net = plain_network(recipe, pack.shape, len(pack.classes)).to(self._device)
        self._optimizer = build_optimizer(Recipe.from_flat(recipe).optim, self._net)
        self._loss = nn.CrossEntropyLoss()
        self._bf16 = bf16 and gains_from_bf16(self._device)

    def train_epoch(self) -> None:
        self._net.train()
        for images, labels in self._batches:
            images, labels = images.to(self._device), labels.to(self._device)
            self._optimizer.zero_grad()
            with torch.autocast(self._device.type, torch.bfloat16, enabled=self._bf16):
                loss = self._loss(self._net(images), labels)
            loss.backward()
            self._optimizer.step()
