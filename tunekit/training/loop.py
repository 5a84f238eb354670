"""The epoch loop: a generator of epoch results. Who iterates decides when to stop."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from tunekit.data.batches import Batches
from tunekit.errors import DivergedError, OutOfMemoryFailure
from tunekit.recipe import Recipe
from tunekit.training.device import gains_from_bf16
from tunekit.training.optimizer import build_optimizer, build_schedule


@dataclass(frozen=True)
class EpochResult:
    """What one epoch gave. Losses are mean cross-entropy a image, accuracies 0 to 1."""

    epoch: int  # 1 is the first
    train_loss: float  # with label smoothing and augmentation, as it was minimised
    train_accuracy: float
    val_loss: float  # plain cross-entropy
    val_accuracy: float
    learning_rate: float  # of the epoch's last step
    epoch_seconds: float  # training and validation
    images_per_second: float  # of training alone


class Training:
    """One recipe being trained: all its state, and the generator that advances it.

    The same recipe, data, epochs and seed give the same weights, bit for bit on a CPU, whether or
    not the training was interrupted between two epochs and whatever else runs in the process.
    """

    def __init__(
        self,
        recipe: Recipe,
        model: nn.Module,
        train: Batches,
        validation: Batches,
        epochs: int,
        seed: int,
        device: torch.device,
    ) -> None:
        """
        Args:
            recipe: optimizer, schedule and loss are built from it.
            model: images (N, C, H, W) to logits (N, classes); moved to `device`.
            train, validation: batches on `device`.
            epochs: the number of epochs that the schedule spans.
            seed: order of the images, their augmentation and dropout follow from it.
            device: where to train.
        """
        self.recipe = recipe
        self.epochs = epochs
        self.seed = seed
        self.device = device
        self.model = model.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.results: list[EpochResult] = []
        self._train = train
        self._validation = validation
        self._bf16 = gains_from_bf16(device)
        self._optimizer = build_optimizer(recipe.optim, self.model)
        self._schedule = build_schedule(recipe.schedule, self._optimizer, epochs * train.steps)
        self._rng = _first_rng_state(seed, device)

    @property
    def epoch(self) -> int:
        """The number of finished epochs."""
        return len(self.results)

    def run(self) -> Iterator[EpochResult]:
        """Train epoch by epoch until the last; nothing is trained until the result is asked for.

        Raises:
            DivergedError: if the mean training loss of an epoch is not finite.
            OutOfMemoryFailure: if the device's memory is too small.
        """
        while self.epoch < self.epochs:
            with _memory_failures(), self._own_rng():
                result = self._next_epoch()
            self.results.append(result)
            yield result

    def state(self) -> dict[str, Any]:
        """Tensors and plain values from which `load_state` goes on as if nothing had happened."""
        return {
            "model": self.model.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "schedule": self._schedule.state_dict(),
            "rng": self._rng,
            "results": [asdict(result) for result in self.results],
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Take over a `state()` of a training of the same recipe, data, epochs and seed."""
        self.model.load_state_dict(state["model"])
        self._optimizer.load_state_dict(state["optimizer"])
        self._schedule.load_state_dict(state["schedule"])
        self._rng = state["rng"]
        self.results = [EpochResult(**result) for result in state["results"]]

    def _next_epoch(self) -> EpochResult:
        epoch = self.epoch + 1
        started = time.perf_counter()
        train_loss, train_accuracy = self._train_epoch(epoch)
        trained = time.perf_counter()
        if not math.isfinite(train_loss):
            raise DivergedError(f"training loss is {train_loss} in epoch {epoch}")
        val_loss, val_accuracy = self._validate()
        return EpochResult(
            epoch=epoch,
            train_loss=train_loss,
            train_accuracy=train_accuracy,
            val_loss=val_loss,
            val_accuracy=val_accuracy,
            learning_rate=self._last_lr,
            epoch_seconds=time.perf_counter() - started,
            images_per_second=len(self._train) / (trained - started),
        )

    def _train_epoch(self, epoch: int) -> tuple[float, float]:
        """Mean loss and accuracy; the only synchronisation with the device is at the end."""
        self.model.train()
        totals = torch.zeros(2, device=self.device)
        for images, labels in self._train.epoch(_epoch_seed(self.seed, epoch)):
            with self._autocast():
                logits = self.model(images)
                loss = functional.cross_entropy(
                    logits.float(), labels, label_smoothing=self.recipe.loss.label_smoothing
                )
            self._optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            self._last_lr = float(self._schedule.get_last_lr()[0])
            self._optimizer.step()
            self._schedule.step()
            totals += _totals(loss.detach() * len(labels), logits, labels)
        return _means(totals, len(self._train))

    @torch.no_grad()
    def _validate(self) -> tuple[float, float]:
        self.model.eval()
        totals = torch.zeros(2, device=self.device)
        for images, labels in self._validation.in_order():
            with self._autocast():
                logits = self.model(images)
            loss = functional.cross_entropy(logits.float(), labels, reduction="sum")
            totals += _totals(loss, logits, labels)
        return _means(totals, len(self._validation))

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self._bf16)

    @contextmanager
    def _own_rng(self) -> Iterator[None]:
        """Torch's global generators hold this training's state inside the block, and only there."""
        cuda = self.device.type == "cuda"
        with torch.random.fork_rng(devices=[self.device] if cuda else []):
            torch.set_rng_state(self._rng["cpu"])
            if cuda:
                torch.cuda.set_rng_state(self._rng["cuda"], self.device)
            yield
            self._rng = _rng_state(self.device)


def _totals(loss_sum: Tensor, logits: Tensor, labels: Tensor) -> Tensor:
    """(summed loss, number right) as a float tensor of shape (2,) on the device."""
    return torch.stack([loss_sum, (logits.argmax(1) == labels).sum()])


def _means(totals: Tensor, images: int) -> tuple[float, float]:
    loss, right = totals.tolist()
    return loss / images, right / images


def _epoch_seed(seed: int, epoch: int) -> int:
    """A seed for one epoch's order and augmentation, so that no generator needs a checkpoint."""
    return (seed * 1_000_003 + epoch) % 2**63


def _rng_state(device: torch.device) -> dict[str, Tensor]:
    states = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(device)
    return states


def _first_rng_state(seed: int, device: torch.device) -> dict[str, Tensor]:
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        return _rng_state(device)


@contextmanager
def _memory_failures() -> Iterator[None]:
    """Out of memory is a result of the recipe, not a crash."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise OutOfMemoryFailure(f"out of GPU memory: {str(error).splitlines()[0]}") from None
    except RuntimeError as error:
        if "can't allocate memory" not in str(error):
            raise
        raise OutOfMemoryFailure("out of memory") from None
    except MemoryError:
        raise OutOfMemoryFailure("out of memory") from None
