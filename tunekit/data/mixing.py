"""Mixup and cutmix: each image is mixed with a partner, and so is its target.

Both are one thing: a map of how much of itself an image keeps in each pixel. Draws are made on the
CPU and copied to the device, so that nothing waits for it.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Generator, Tensor
from torch.nn import functional

# Images (N, C, H, W) and a generator to what each image keeps, (N, 1, H, W) or (N, 1, 1, 1) in 0..1.
Kept = Callable[[Tensor, Generator], Tensor]


def mix(
    images: Tensor, labels: Tensor, classes: int, kept: Kept, generator: Generator
) -> tuple[Tensor, Tensor]:
    """Mix each image with a partner of the same batch, and the targets by the share that each has.

    Args:
        images: (N, C, H, W), float32.
        labels: (N,) int64, in 0..classes-1.
        classes: how many classes there are.
        kept: what each image keeps of itself.
        generator: on the CPU.
    Returns:
        images (N, C, H, W), same dtype and device, channels_last; targets (N, classes), float32
        probabilities.
    """
    partner = torch.randperm(len(images), generator=generator).to(images.device, non_blocking=True)
    own = kept(images, generator)
    targets = functional.one_hot(labels, classes).float()
    share = own.mean((1, 2, 3))[:, None]
    others = images.permute(0, 2, 3, 1).index_select(0, partner).permute(0, 3, 1, 2)
    return torch.lerp(others, images, own), torch.lerp(targets.index_select(0, partner), targets, share)


def kept_by_mixup(images: Tensor, alpha: float, generator: Generator) -> Tensor:
    """The same share of each pixel of an image, from Beta(alpha, alpha).

    Args:
        images: (N, C, H, W).
        alpha: at least 0; 0 keeps everything.
        generator: on the CPU.
    Returns:
        (N, 1, 1, 1) float32 in 0..1, on the device of `images`.
    Source: Zhang et al. 2018, arXiv:1710.09412, with a share for each image.
    """
    share = _beta(alpha, len(images), generator)
    return share.to(images.device, non_blocking=True)[:, None, None, None]


def kept_by_cutmix(images: Tensor, alpha: float, generator: Generator) -> Tensor:
    """Everything but one box, whose area is a share from Beta(alpha, alpha) before the border clips it.

    Args:
        images: (N, C, H, W).
        alpha: at least 0; 0 keeps everything.
        generator: on the CPU.
    Returns:
        (N, 1, H, W) float32, 0 or 1, on the device of `images`.
    Source: Yun et al. 2019, arXiv:1905.04899, with a box for each image.
    """
    n, _, height, width = images.shape
    side = (1 - _beta(alpha, n, generator)).sqrt()
    box_height, box_width = (side * height).floor(), (side * width).floor()
    top = torch.randint(height, (n,), generator=generator) - (box_height / 2).floor()
    left = torch.randint(width, (n,), generator=generator) - (box_width / 2).floor()
    return (~boxes(images, top, left, box_height, box_width)).float()


def either(first: Kept, second: Kept) -> Kept:
    """Each image draws one of two ways with probability 1/2."""

    def kept_by_either(images: Tensor, generator: Generator) -> Tensor:
        drawn = torch.randint(2, (len(images), 1, 1, 1), generator=generator, dtype=torch.bool)
        options = first(images, generator), second(images, generator)
        return torch.where(drawn.to(images.device, non_blocking=True), *options)

    return kept_by_either


def boxes(images: Tensor, top: Tensor, left: Tensor, height: Tensor, width: Tensor) -> Tensor:
    """Which pixels lie in the box of their image.

    Args:
        images: (N, C, H, W); only its shape and device matter.
        top, left, height, width: (N,) in pixels, on the CPU; a box may reach beyond the border.
    Returns:
        (N, 1, H, W) bool, on the device of `images`.
    """
    device = images.device
    edges = torch.stack([top, left, top + height, left + width]).to(device, non_blocking=True)
    first_y, first_x, end_y, end_x = edges[:, :, None].unbind()
    y, x = (torch.arange(side, device=device) for side in images.shape[-2:])
    rows, columns = (y >= first_y) & (y < end_y), (x >= first_x) & (x < end_x)
    return (rows[:, :, None] & columns[:, None, :])[:, None]


def _beta(alpha: float, n: int, generator: Generator) -> Tensor:
    """(N,) float32 draws from Beta(alpha, alpha); 1 where alpha is 0."""
    if alpha == 0:
        return torch.ones(n)
    seed = int(torch.randint(2**62, (1,), generator=generator))
    return torch.from_numpy(np.random.default_rng(seed).beta(alpha, alpha, n).astype(np.float32))
