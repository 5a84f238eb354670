"""Normalised batches on a device, straight from packed uint8 arrays."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Generator, Tensor

from tunekit.data.augment import Augment

_COPIED_AT_ONCE = 2**28  # bytes; bounds the main memory that filling a device takes
_EVALUATED_PIXELS = 2**20  # in a batch without gradients: 1024 images of 32 x 32


class Batches:
    """Images of one part of a split: shuffled for training, or in order for evaluation.

    Images come as float32 (B, C, H, W) in channels_last memory, labels as int64 (B,); where augmentation
    mixes images, targets are float32 probabilities (B, classes) instead. On a GPU the images live on the
    device if they take less than a quarter of its free memory; else they are gathered on the CPU. An
    epoch follows from its seed alone, wherever the images live and whatever the device.
    """

    def __init__(
        self,
        images: NDArray[np.uint8],
        labels: NDArray[np.int64],
        indices: NDArray[np.int64],
        mean: Sequence[float],
        std: Sequence[float],
        batch_size: int | None,
        device: torch.device,
        augment: Augment | None = None,
    ) -> None:
        """
        Args:
            images: (N, H, W, C) uint8, usually memory-mapped; never written to.
            labels: (N,) int64.
            indices: (n,) int64, which of the images to use.
            mean, std: one for each channel, in units of 0 to 1.
            batch_size: of training; None for images that are only evaluated.
            device: where the batches are.
            augment: changes to training images.
        """
        assert len(indices) > 0
        self._images = len(indices)
        self._batch_size = batch_size
        self._device = device
        self._augment = augment or Augment()
        # A constant channel has no spread: it becomes 0 and not infinite.
        spread = torch.tensor(std, dtype=torch.float64).clamp(min=1 / 255)
        height, width = images.shape[1:3]
        self._scale = _as_image(1 / (255 * spread), height, width, device)
        self._offset = _as_image(-torch.tensor(mean, dtype=torch.float64) / spread, height, width, device)
        self._evaluated = evaluated_at_once(height, width)
        on_device = device.type == "cpu" or _fits(images, len(indices), device)
        store = device if on_device else torch.device("cpu")
        self._labels = torch.from_numpy(labels[indices]).to(store)
        if store.type == "cpu":
            self._pixels, self._rows = torch.from_numpy(images), torch.from_numpy(indices)
        else:
            self._pixels = _copied(images, indices, device)
            self._rows = torch.arange(len(indices), device=device)

    @property
    def steps(self) -> int:
        """Training batches in an epoch."""
        return max(1, self._images // self._batch_size) if self._batch_size else 1

    @property
    def most_parts(self) -> int:
        """The images of a large batch for evaluation."""
        return min(self._evaluated, self._images)

    def __len__(self) -> int:
        """The images of an epoch (an incomplete last batch is left out); without a batch size, all."""
        if self._batch_size is None:
            return self._images
        return min(self._images, self.steps * self._batch_size)

    def epoch(self, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Shuffled and augmented batches; an incomplete last batch is left out unless it is the only one."""
        assert self._batch_size is not None, "these batches are for evaluation only"
        shuffling = Generator().manual_seed(seed)
        order = torch.randperm(self._images, generator=shuffling)
        augmenting = Generator().manual_seed(int(torch.randint(2**62, (1,), generator=shuffling)))
        for places in torch.split(order[: len(self)].to(self._rows.device), self._batch_size):
            yield self._augmented(*self._gather(places), augmenting)

    def in_order(self, parts: int = 1) -> Iterator[tuple[Tensor, Tensor]]:
        """All images once, in the order of `indices`, not augmented, in large batches or in parts of such.

        Args:
            parts: 1 to `most_parts`.
        """
        assert self._batch_size is None, (
            "evaluation takes batches with batch_size=None: len() is then all images"
        )
        at_once = -(-self.most_parts // parts)
        for places in torch.split(torch.arange(self._images, device=self._rows.device), at_once):
            images, labels = self._gather(places)
            yield self._normalise(images), labels

    def _augmented(self, images: Tensor, labels: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
        """uint8 images and labels as an epoch gives them: changed and normalised."""
        for change in self._augment.raw:
            images = change(images, generator)
        images = self._normalise(images)
        for change in self._augment.normalised:
            images = change(images, generator)
        return self._augment.mix(images, labels, generator) if self._augment.mix else (images, labels)

    def _gather(self, places: Tensor) -> tuple[Tensor, Tensor]:
        """uint8 images (B, C, H, W) and their labels, on the device."""
        images = self._pixels.index_select(0, self._rows[places])
        labels = self._labels[places]
        if images.device.type != self._device.type:
            images = images.pin_memory().to(self._device, non_blocking=True)
            labels = labels.pin_memory().to(self._device, non_blocking=True)
        return images.permute(0, 3, 1, 2), labels

    def _normalise(self, images: Tensor) -> Tensor:
        return images.to(torch.float32).mul_(self._scale).add_(self._offset)


def evaluated_at_once(height: int, width: int) -> int:
    """Images of this size in a large batch for evaluation."""
    return max(1, _EVALUATED_PIXELS // (height * width))


def _as_image(values: Tensor, height: int, width: int, device: torch.device) -> Tensor:
    """(C,) to (1, C, H, W) in channels_last: broadcasting over whole images is 5x faster than over pixels."""
    image = values.to(torch.float32).view(1, -1, 1, 1).expand(1, -1, height, width)
    return image.to(device).contiguous(memory_format=torch.channels_last)


def _fits(images: NDArray[np.uint8], count: int, device: torch.device) -> bool:
    free, _ = torch.cuda.mem_get_info(device)
    return images[:1].nbytes * count < free / 4


def _copied(images: NDArray[np.uint8], indices: NDArray[np.int64], device: torch.device) -> Tensor:
    """The chosen images on the device, copied a few at a time."""
    pixels = torch.empty((len(indices), *images.shape[1:]), dtype=torch.uint8, device=device)
    step = max(1, _COPIED_AT_ONCE // images[:1].nbytes)
    for start in range(0, len(indices), step):
        chosen = torch.from_numpy(images[indices[start : start + step]])
        pixels[start : start + step] = chosen.to(device)
    return pixels
