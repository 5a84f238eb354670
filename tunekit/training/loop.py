"""The epoch loop: a generator of epoch results. Who iterates decides when to stop."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_

from tunekit.data.batches import Batches
from tunekit.errors import OutOfMemoryFailure
from tunekit.models.freezing import freeze, trainable_parameters
from tunekit.models.network import Network
from tunekit.recipe import Recipe
from tunekit.training.device import gains_from_bf16
from tunekit.training.divergence import DivergenceWatch, check_epoch
from tunekit.training.loss import number_right, training_loss
from tunekit.training.memory import memory_failures, release_memory, unspoiled
from tunekit.training.micro_batches import smallest_part, split_batch
from tunekit.training.optimizer import build_optimizer, set_learning_rate
from tunekit.training.schedule import count_plateaus, lr_factor
from tunekit.training.weight_average import build_average


@dataclass(frozen=True)
class EpochResult:
    """What one epoch gave. Losses are mean cross-entropy a image, accuracies 0 to 1."""

    epoch: int  # 1 is the first
    train_loss: float  # with label smoothing, augmentation and auxiliary heads, as it was minimised
    train_accuracy: float  # of mixed images: how often the larger share was guessed
    val_loss: float  # plain cross-entropy
    val_accuracy: float
    learning_rate: float  # of the epoch's last step, in the head
    epoch_seconds: float  # training and validation
    images_per_second: float  # of training alone
    trainable_parameters: int  # those that this epoch could change
    micro_batches: int  # parts of a batch that were in memory one after the other


class Training:
    """One recipe being trained: all its state, and the generator that advances it.

    The same recipe, data, epochs and seed give the same weights, bit for bit on a CPU, whether or
    not the training was interrupted between two epochs and whatever else runs in the process.

    Attributes:
        micro_batches: into how many parts each batch is divided to take less memory; `micro_batches.py`
            says what that changes.
    """

    def __init__(
        self,
        recipe: Recipe,
        model: Network,
        train: Batches,
        validation: Batches,
        classes: int,
        epochs: int,
        seed: int,
        device: torch.device,
        micro_batches: int = 1,
    ) -> None:
        """
        Args:
            recipe: optimizer, schedule, loss, freezing and average of the weights follow from it.
            model: moved to `device`.
            train, validation: batches on `device`.
            classes: the network's outputs.
            epochs: the number of epochs that the schedule spans.
            seed: order of the images, their augmentation and dropout follow from it.
            device: where to train.
            micro_batches: a power of 2 for which each part has an image at least.
        """
        assert micro_batches & (micro_batches - 1) == 0, micro_batches
        self.recipe = recipe
        self.epochs = epochs
        self.seed = seed
        self.device = device
        self.model: Network = model.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.results: list[EpochResult] = []
        self._train = train
        self._validation = validation
        self.micro_batches = micro_batches
        self._validation_parts = 1
        self._bf16 = gains_from_bf16(device)
        self._optimizer = build_optimizer(recipe.optim, self.model)
        self._average = build_average(self.model, recipe.ema.decay) if recipe.ema.decay > 0 else None
        self._rng = _first_rng_state(seed, device)
        self._divergence = DivergenceWatch(classes, train.steps, epochs)

    @property
    def epoch(self) -> int:
        """The number of finished epochs."""
        return len(self.results)

    @property
    def judged(self) -> nn.Module:
        """The network that is validated and kept: the average of the weights if the recipe has one."""
        return self._average.module if self._average else self.model

    @property
    def images_at_once(self) -> int:
        """The images of the largest part of a batch."""
        return -(-self._batch // self.micro_batches)

    @property
    def can_take_less_memory(self) -> bool:
        """Whether a batch can be divided into twice as many parts."""
        return self._batch // (2 * self.micro_batches) >= smallest_part(self.model)

    def run(self) -> Iterator[EpochResult]:
        """Train epoch by epoch until the last; nothing is trained until the result is asked for.

        Raises:
            RecipeError: if the network cannot be frozen as the recipe says.
            DivergedError: as soon as the training is seen to be beyond hope (`DivergenceWatch`).
            OutOfMemoryFailure: if the device's memory is too small. This training cannot go on then; a new
                one with more micro-batches can, from the last `state()`.
        """
        while self.epoch < self.epochs:
            with memory_failures(), self._own_rng():
                result = unspoiled(self._next_epoch)
            self.results.append(result)
            yield result

    def state(self) -> dict[str, Any]:
        """Tensors and plain values from which `load_state` goes on as if nothing had happened."""
        return {
            "model": self.model.state_dict(),
            "average": self._average.state_dict() if self._average else None,
            "optimizer": self._optimizer.state_dict(),
            "rng": self._rng,
            "divergence": self._divergence.state(),
            "micro_batches": self.micro_batches,
            "validation_parts": self._validation_parts,
            "results": [asdict(result) for result in self.results],
        }

    @memory_failures("while its checkpoint was loaded")
    def load_state(self, state: dict[str, Any]) -> None:
        """Take over a `state()` of a training of the same recipe, data, epochs and seed.

        Where the two differ in the number of micro-batches, the larger one stays.
        """
        self.model.load_state_dict(state["model"])
        self._optimizer.load_state_dict(state["optimizer"])
        if self._average:
            self._average.load_state_dict(state["average"])
        self._rng = state["rng"]
        self._divergence.load_state(state["divergence"])
        self.micro_batches = max(self.micro_batches, state["micro_batches"])
        self._validation_parts = state["validation_parts"]
        self.results = [EpochResult(**result) for result in state["results"]]

    def _next_epoch(self) -> EpochResult:
        epoch = self.epoch + 1
        started = time.perf_counter()
        train_loss, train_accuracy = self._train_epoch(epoch)
        trained = time.perf_counter()
        val_loss, val_accuracy = self._validate()
        check_epoch(epoch, train_loss, val_loss)
        return EpochResult(
            epoch=epoch,
            train_loss=train_loss,
            train_accuracy=train_accuracy,
            val_loss=val_loss,
            val_accuracy=val_accuracy,
            learning_rate=self.recipe.optim.lr * self._lr_factor(epoch * self._train.steps - 1),
            epoch_seconds=time.perf_counter() - started,
            images_per_second=len(self._train) / (trained - started),
            trainable_parameters=trainable_parameters(self.model),
            micro_batches=self.micro_batches,
        )

    def _train_epoch(self, epoch: int) -> tuple[float, float]:
        """Mean loss and accuracy; waits for the device only at checks and at the end."""
        self.model.train()
        freeze(self.model, self.recipe.freeze, epoch)
        totals = torch.zeros(2, device=self.device)
        batches = self._train.epoch(_epoch_seed(self.seed, epoch))
        for step, (images, targets) in enumerate(batches, start=(epoch - 1) * self._train.steps):
            self._optimizer.zero_grad()
            loss, right = self._add_gradient(images, targets)
            self._divergence.see(step, loss, self.model.parameters())
            self._update(step)
            totals += torch.stack([loss * len(images), right])
        return _means(totals, len(self._train))

    def _add_gradient(self, images: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """That of the batch's mean loss, part by part; returns the loss and how many guesses are right."""
        smoothing, aux_weight = self.recipe.loss.label_smoothing, self.recipe.loss.aux_weight
        losses, rights = [], []
        for part, its_targets, share in split_batch(images, targets, self.micro_batches):
            with self._autocast():
                outputs = self.model(part)
                loss = training_loss(outputs, its_targets, smoothing, aux_weight)
            if share < 1:
                loss = loss * share
            loss.backward()  # type: ignore[no-untyped-call]
            losses.append(loss.detach())
            rights.append(number_right(outputs, its_targets))
        return sum(losses[1:], losses[0]), sum(rights[1:], rights[0])

    def _update(self, step: int) -> None:
        """Move the weights, and their average, along the gradients."""
        if self.recipe.optim.clip_norm > 0:
            clip_grad_norm_(self.model.parameters(), self.recipe.optim.clip_norm)
        set_learning_rate(self._optimizer, self._lr_factor(step))
        self._optimizer.step()
        if self._average:
            self._average.update_parameters(self.model)

    def _lr_factor(self, step: int) -> float:
        """The learning rate of a step (0 is the first of all) as a factor of its peak."""
        schedule = self.recipe.schedule
        # The middle of the step: the first and the last one would waste themselves on a rate of 0.
        progress = (step + 0.5) / (self.epochs * self._train.steps)
        plateaus = count_plateaus([result.val_loss for result in self.results], schedule.patience)
        return lr_factor(schedule.name, progress, schedule.warmup, schedule.decay, plateaus)

    def _validate(self) -> tuple[float, float]:
        """Mean loss and accuracy. How many images are judged at once is no choice of the recipe's: fewer if
        memory is too small."""
        while True:
            try:
                with memory_failures():
                    return unspoiled(self._judge)
            except OutOfMemoryFailure:
                if self._validation_parts >= self._validation.most_parts:
                    raise
            release_memory()
            self._validation_parts *= 2

    @torch.no_grad()
    def _judge(self) -> tuple[float, float]:
        network = self.judged.eval()
        totals = torch.zeros(2, device=self.device)
        for images, targets in self._validation.in_order(self._validation_parts):
            with self._autocast():
                logits = network(images)
            loss = training_loss(logits, targets) * len(images)
            totals += torch.stack([loss, number_right(logits, targets)])
        return _means(totals, len(self._validation))

    @property
    def _batch(self) -> int:
        """The images of each batch."""
        return len(self._train) // self._train.steps

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
