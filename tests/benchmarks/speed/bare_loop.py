"""The floor: the same network trained by nothing but torch, on tensors that are ready.

No augmentation, no checkpoint, no report; the precision, the memory format and the optimizer of tunekit's
own loop, and its validation at the end of each epoch, without which there is nothing to choose by.
"""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Mapping
from dataclasses import dataclass
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import cross_entropy

from tunekit.data.pack import Pack
from tunekit.data.split import Split
from tunekit.models.build import build_model
from tunekit.models.network import Network
from tunekit.recipe import Recipe
from tunekit.training.device import gains_from_bf16, pick_device
from tunekit.training.optimizer import build_optimizer

_EVALUATED = 1024  # images at a time


@dataclass(frozen=True)
class Task:
    """What to train."""

    recipe: Mapping[str, Any]  # flat
    pack: str
    split: str


def plain_network(recipe: Mapping[str, Any], shape: tuple[int, int, int], classes: int) -> Network:
    """The network of a flat recipe with random weights."""
    return build_model(Recipe.from_flat(recipe), shape, classes)


class BareLoop:
    """A network and everything that its training needs, in memory."""

    def __init__(self, task: Task) -> None:
        pack, split = Pack.open(Path(task.pack)), Split.load(Path(task.split))
        self.device = pick_device(1)
        self.recipe = Recipe.from_flat(task.recipe)
        images, labels = pack.train()
        self.train = _tensors(images, labels, split.train, pack, self.device)
        self.validation = _tensors(images, labels, split.validation, pack, self.device)
        torch.manual_seed(0)
        self.model = plain_network(task.recipe, pack.shape, len(pack.classes))
        self.model.to(device=self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.optimizer = build_optimizer(self.recipe.optim, self.model)
        self.bf16 = gains_from_bf16(self.device)

    def train_epoch(self) -> float:
        """Mean loss."""
        self.model.train()
        images, labels = self.train
        size = self.recipe.batch_size
        steps = len(images) // size
        total = torch.zeros((), device=self.device)
        order = torch.randperm(len(images), device=self.device)[: steps * size]
        for places in torch.split(order, size):
            self.optimizer.zero_grad()
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
                loss = cross_entropy(self.model(images[places]), labels[places])
            loss.backward()  # type: ignore[no-untyped-call]
            self.optimizer.step()
            total += loss.detach()
        return float(total) / steps

    @torch.no_grad()
    def validate(self) -> float:
        """Accuracy."""
        self.model.eval()
        images, labels = self.validation
        right = torch.zeros((), device=self.device)
        parts = torch.split(images, _EVALUATED), torch.split(labels, _EVALUATED)
        for part, wanted in zip(*parts, strict=True):
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
                right += (self.model(part).argmax(1) == wanted).sum()
        return float(right) / len(labels)


def seconds_per_epoch(task: Task, processes: int, epochs: int) -> float:
    """Of so many bare loops at the same time with a thread each: wall seconds an epoch of one of them."""
    context = multiprocessing.get_context("spawn")
    ready = context.Barrier(processes)
    with context.Manager() as shared:
        found = shared.list()
        workers = [context.Process(target=_work, args=(task, epochs, ready, found)) for _ in range(processes)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        assert len(found) == processes, "a bare loop failed"
        return float(max(found))


def _work(task: Task, epochs: int, ready: Barrier, found: Any) -> None:
    torch.set_num_threads(1)
    loop = BareLoop(task)
    loop.train_epoch()  # kernels are prepared
    ready.wait()
    started = time.perf_counter()
    for _ in range(epochs):
        loop.train_epoch()
        loop.validate()
    found.append((time.perf_counter() - started) / epochs)


def _tensors(
    images: NDArray[np.uint8],
    labels: NDArray[np.int64],
    chosen: NDArray[np.int64],
    pack: Pack,
    device: torch.device,
) -> tuple[Tensor, Tensor]:
    """(n, C, H, W) float32 in channels_last, normalised, and (n,) labels."""
    pixels = torch.from_numpy(images[chosen]).permute(0, 3, 1, 2).to(device, torch.float32)
    mean, std = (torch.tensor(values, device=device).view(1, -1, 1, 1) for values in (pack.mean, pack.std))
    scaled = ((pixels / 255 - mean) / std).contiguous(memory_format=torch.channels_last)
    return scaled, torch.from_numpy(labels[chosen]).to(device)
