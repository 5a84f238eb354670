"""RandAugment, TrivialAugment and AutoAugment: each image its own operations, a whole batch at a time.

A batch is sorted by operation, each operation runs once on the images that drew it, and the images
go back to their places. What is drawn is drawn on the CPU, so nothing waits for the device. Names,
ranges and results are those of torchvision, whose import costs seconds: load this module late.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Generator, Tensor
from torchvision.transforms.v2 import functional as vision

from tunekit.data.geometry import rotate, shear_x, shear_y, translate_x, translate_y


class Operation(NamedTuple):
    """A change to images (n, C, H, W) uint8, with a strength for each (n,) float32 on their device."""

    apply: Callable[[Tensor, Tensor], Tensor]
    strongest: float = 0.0  # strength at full magnitude; at magnitude 0 it is 0 and nothing changes
    signed: bool = False  # the strength is negated with probability 1/2


def rand_augment(images: Tensor, operations: int, magnitude: int, generator: Generator) -> Tensor:
    """Change each image by several operations of the same magnitude.

    Args:
        images: (N, C, H, W) uint8, with 1 or 3 channels.
        operations: how many, one after the other.
        magnitude: 0 to 30; at 0 only AutoContrast and Equalize, which have no magnitude, change images.
        generator: on the CPU.
    Returns:
        (N, C, H, W), same dtype and device, channels_last.
    Source: Cubuk et al. 2020, arXiv:1909.13719.
    """
    level = torch.full((len(images),), magnitude / _BINS)
    for _ in range(operations):
        choice = torch.randint(len(STANDARD), (len(images),), generator=generator)
        images = _changed(images, STANDARD, choice, level, generator)
    return images


def trivial_augment(images: Tensor, share: float, generator: Generator) -> Tensor:
    """Change images by one operation of any magnitude, in wide ranges.

    Args:
        images: (N, C, H, W) uint8, with 1 or 3 channels.
        share: probability that an image draws an operation (which may be Identity).
        generator: on the CPU.
    Returns:
        (N, C, H, W), same dtype and device, channels_last.
    Source: Mueller & Hutter 2021, arXiv:2103.10158.
    """
    n = len(images)
    choice = torch.randint(len(WIDE), (n,), generator=generator)
    choice[torch.rand(n, generator=generator) >= share] = _IDENTITY
    level = torch.randint(_BINS + 1, (n,), generator=generator) / _BINS
    return _changed(images, WIDE, choice, level, generator)


def auto_augment(images: Tensor, share: float, generator: Generator) -> Tensor:
    """Change images by one of the 25 pairs of operations found for CIFAR-10.

    Args:
        images: (N, C, H, W) uint8, with 1 or 3 channels.
        share: probability that an image draws a pair (whose operations have their own probabilities).
        generator: on the CPU.
    Returns:
        (N, C, H, W), same dtype and device, channels_last.
    Source: Cubuk et al. 2019, arXiv:1805.09501, table 7.
    """
    n = len(images)
    numbers = {name: number for number, name in enumerate(_WITH_INVERT)}
    steps = [[(numbers[name], chance, level) for name, chance, level in pair] for pair in CIFAR10_POLICY]
    drawn = torch.randint(len(steps), (n,), generator=generator)
    left_alone = torch.rand(n, generator=generator) >= share
    for number, chance, level in torch.tensor(steps)[drawn].permute(1, 2, 0):
        skipped = left_alone | (torch.rand(n, generator=generator) >= chance)
        choice = number.long().masked_fill(skipped, _IDENTITY)
        images = _changed(images, _WITH_INVERT, choice, level / 9, generator)
    return images


def apply_each(images: Tensor, operations: Sequence[Operation], choice: Tensor, strength: Tensor) -> Tensor:
    """Change each image by the operation that it drew.

    Args:
        images: (N, C, H, W) uint8, with 1 or 3 channels.
        operations: what `choice` counts.
        choice: (N,) int64, on the CPU.
        strength: (N,) float32, on the CPU, in the unit of the chosen operation.
    Returns:
        (N, C, H, W), same dtype and device, channels_last.
    """
    order = choice.argsort()
    places, back = torch.stack([order, order.argsort()]).to(images.device, non_blocking=True)
    strengths = strength[order].to(images.device, non_blocking=True)
    sizes = choice.bincount(minlength=len(operations)).tolist()
    groups = torch.split(images.permute(0, 2, 3, 1).index_select(0, places), sizes)
    parts = zip(operations, groups, torch.split(strengths, sizes), strict=True)
    done = [
        operation.apply(group.permute(0, 3, 1, 2), its_own).permute(0, 2, 3, 1)
        for operation, group, its_own in parts
        if len(group)
    ]
    return torch.cat(done).index_select(0, back).permute(0, 3, 1, 2)


def _changed(
    images: Tensor, operations: Mapping[str, Operation], choice: Tensor, level: Tensor, generator: Generator
) -> Tensor:
    """Each image changed at its level of 0 to 1, in a random direction where there are two."""
    table = list(operations.values())
    strongest = torch.tensor([operation.strongest for operation in table])[choice]
    signed = torch.tensor([operation.signed for operation in table])[choice]
    negated = signed & (torch.rand(len(images), generator=generator) < 0.5)
    return apply_each(images, table, choice, torch.where(negated, -strongest, strongest) * level)


def _brightness(images: Tensor, strength: Tensor) -> Tensor:
    return _blended(images, images.new_zeros((), dtype=torch.float32), strength)


def _color(images: Tensor, strength: Tensor) -> Tensor:
    return _blended(images, vision.rgb_to_grayscale(images).float(), strength)


def _contrast(images: Tensor, strength: Tensor) -> Tensor:
    grey = vision.rgb_to_grayscale(images).float()
    return _blended(images, grey.mean((1, 2, 3), keepdim=True), strength)


def _sharpness(images: Tensor, strength: Tensor) -> Tensor:
    """Away from or towards the image smoothed by a kernel of 1/13, in the middle 5/13, but for its border."""
    # torchvision's adjust_sharpness copies the kernel to the device and waits for it.
    smooth = images.float()
    inner = smooth[..., 1:-1, 1:-1]
    rows = smooth[..., :-2, :] + smooth[..., 1:-1, :] + smooth[..., 2:, :]
    squares = rows[..., :-2] + rows[..., 1:-1] + rows[..., 2:]
    inner.copy_(((squares + 4 * inner) / 13).round_())
    return _blended(images, smooth, strength)


def _blended(images: Tensor, other: Tensor, strength: Tensor) -> Tensor:
    """From `other` at strength -1 over the images themselves at 0 to beyond them, within 0..255."""
    factor = 1 + _for_images(strength)
    return torch.lerp(other, images.float(), factor).clamp_(0, 255).to(torch.uint8)


def _posterize(images: Tensor, bits: Tensor) -> Tensor:
    """Clear the lowest bits of each value."""
    cleared = _for_images(bits.round().to(torch.uint8))
    return (images >> cleared) << cleared


def _solarize(images: Tensor, share: Tensor) -> Tensor:
    """Invert values in the upper `share` of 256 levels (of 256, so that 0 inverts none, as in the papers)."""
    return torch.where(images >= 256 * (1 - _for_images(share)), ~images, images)


def _autocontrast(images: Tensor, _: Tensor) -> Tensor:
    stretched: Tensor = vision.autocontrast(images.contiguous())  # 3x faster than in channels_last
    return stretched


def _for_images(values: Tensor) -> Tensor:
    """(N,) to (N, 1, 1, 1)."""
    return values[:, None, None, None]


_BINS = 30  # the largest magnitude

# The ranges of RandAugment and AutoAugment.
STANDARD: Mapping[str, Operation] = {
    "Identity": Operation(lambda images, _: images),
    "ShearX": Operation(shear_x, 0.3, signed=True),
    "ShearY": Operation(shear_y, 0.3, signed=True),
    "TranslateX": Operation(
        lambda images, part: translate_x(images, part * images.shape[3]), 150 / 331, True
    ),
    "TranslateY": Operation(
        lambda images, part: translate_y(images, part * images.shape[2]), 150 / 331, True
    ),
    "Rotate": Operation(rotate, 30, signed=True),
    "Brightness": Operation(_brightness, 0.9, signed=True),
    "Color": Operation(_color, 0.9, signed=True),
    "Contrast": Operation(_contrast, 0.9, signed=True),
    "Sharpness": Operation(_sharpness, 0.9, signed=True),
    "Posterize": Operation(_posterize, 4),
    "Solarize": Operation(_solarize, 1),
    "AutoContrast": Operation(_autocontrast),
    "Equalize": Operation(lambda images, _: vision.equalize(images)),
}
_IDENTITY = list(STANDARD).index("Identity")

# Those of TrivialAugment; its translations are in pixels whatever the size of the images.
WIDE: Mapping[str, Operation] = {
    **STANDARD,
    "ShearX": Operation(shear_x, 0.99, signed=True),
    "ShearY": Operation(shear_y, 0.99, signed=True),
    "TranslateX": Operation(translate_x, 32, signed=True),
    "TranslateY": Operation(translate_y, 32, signed=True),
    "Rotate": Operation(rotate, 135, signed=True),
    "Brightness": Operation(_brightness, 0.99, signed=True),
    "Color": Operation(_color, 0.99, signed=True),
    "Contrast": Operation(_contrast, 0.99, signed=True),
    "Sharpness": Operation(_sharpness, 0.99, signed=True),
    "Posterize": Operation(_posterize, 6),
}
_WITH_INVERT: Mapping[str, Operation] = {**STANDARD, "Invert": Operation(lambda images, _: ~images)}

# Pairs of (operation, its probability, its magnitude of 0 to 9).
Step = tuple[str, float, int]
CIFAR10_POLICY: tuple[tuple[Step, Step], ...] = (
    (("Invert", 0.1, 0), ("Contrast", 0.2, 6)),
    (("Rotate", 0.7, 2), ("TranslateX", 0.3, 9)),
    (("Sharpness", 0.8, 1), ("Sharpness", 0.9, 3)),
    (("ShearY", 0.5, 8), ("TranslateY", 0.7, 9)),
    (("AutoContrast", 0.5, 0), ("Equalize", 0.9, 0)),
    (("ShearY", 0.2, 7), ("Posterize", 0.3, 7)),
    (("Color", 0.4, 3), ("Brightness", 0.6, 7)),
    (("Sharpness", 0.3, 9), ("Brightness", 0.7, 9)),
    (("Equalize", 0.6, 0), ("Equalize", 0.5, 0)),
    (("Contrast", 0.6, 7), ("Sharpness", 0.6, 5)),
    (("Color", 0.7, 7), ("TranslateX", 0.5, 8)),
    (("Equalize", 0.3, 0), ("AutoContrast", 0.4, 0)),
    (("TranslateY", 0.4, 3), ("Sharpness", 0.2, 6)),
    (("Brightness", 0.9, 6), ("Color", 0.2, 8)),
    (("Solarize", 0.5, 2), ("Invert", 0.0, 0)),
    (("Equalize", 0.2, 0), ("AutoContrast", 0.6, 0)),
    (("Equalize", 0.2, 0), ("Equalize", 0.6, 0)),
    (("Color", 0.9, 9), ("Equalize", 0.6, 0)),
    (("AutoContrast", 0.8, 0), ("Solarize", 0.2, 8)),
    (("Brightness", 0.1, 3), ("Color", 0.7, 0)),
    (("Solarize", 0.4, 5), ("AutoContrast", 0.9, 0)),
    (("TranslateY", 0.9, 9), ("TranslateY", 0.7, 9)),
    (("AutoContrast", 0.9, 0), ("Solarize", 0.8, 3)),
    (("Equalize", 0.8, 0), ("Invert", 0.1, 0)),
    (("TranslateY", 0.7, 9), ("AutoContrast", 0.9, 0)),
)
