"""Random changes to training images: batched, on the device, each image its own draw.

Images are (N, C, H, W); the work is done in their channels_last memory, where rows of pixels are
contiguous and moving them is copying rows. The numbers that images draw are few: they are drawn on
the CPU and copied, so that nothing waits for the device and every device sees the same draws.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from tunekit.data.geometry import rotate
from tunekit.data.mixing import Kept, boxes, either, kept_by_cutmix, kept_by_mixup, mix
from tunekit.errors import DataError
from tunekit.recipe import AugmentRecipe

Change = Callable[[Tensor, Generator], Tensor]
Mix = Callable[[Tensor, Tensor, Generator], tuple[Tensor, Tensor]]

_ERASED_SHARES = (0.02, 0.33)  # of the area of an image
_ERASED_ASPECTS = (0.3, 3.3)  # height by width
_ERASING_TRIES = 10


@dataclass(frozen=True)
class Augment:
    """Changes to a batch, in order: those on raw pixels, those on normalised ones, and mixing.

    Attributes:
        raw: on uint8, where moving pixels is cheapest and colours have a range.
        normalised: on float32, where blanking is writing the mean, 0.
        mix: images float32 and labels (N,) int64 to images and targets (N, classes) float32.
    """

    raw: tuple[Change, ...] = ()
    normalised: tuple[Change, ...] = ()
    mix: Mix | None = None


def build_augment(recipe: AugmentRecipe, side: int, classes: int) -> Augment:
    """The changes that a recipe asks for.

    Args:
        recipe: `augment.*` of the recipe; its shift and cutout are fractions of `side`.
        side: the shorter side of the images in pixels.
        classes: how many classes there are.
    Raises:
        DataError: if the shift reaches `side`.
    """
    names = recipe.policy.split("+")
    shift, size = round(recipe.shift * side), round(recipe.cutout * side)
    _check_shift(shift, side)
    moves: dict[str, Change] = {
        "flip": flip,
        "shift_crop": lambda images, generator: shift_crop(images, shift, generator),
        "rotation": lambda images, generator: rotation(images, recipe.rotation, generator),
    }
    blanks: dict[str, Change] = {
        "cutout": lambda images, generator: cutout(images, size, generator),
        "random_erasing": lambda images, generator: random_erasing(images, recipe.random_erasing, generator),
    }
    raw = _named(names, moves) + _build_policies(recipe, names)
    return Augment(raw, _named(names, blanks), _build_mix(recipe, names, classes))


def _named(names: Collection[str], changes: Mapping[str, Change]) -> tuple[Change, ...]:
    return tuple(change for name, change in changes.items() if name in names)


def _build_policies(recipe: AugmentRecipe, names: Collection[str]) -> tuple[Change, ...]:
    if not {"randaugment", "trivialaugment", "autoaugment"} & set(names):
        return ()
    from tunekit.data import auto_augment as policies  # loads torchvision, which takes seconds

    changes: dict[str, Change] = {
        "randaugment": lambda images, generator: policies.rand_augment(
            images, recipe.randaugment_ops, recipe.randaugment, generator
        ),
        "trivialaugment": lambda images, generator: policies.trivial_augment(
            images, recipe.trivialaugment, generator
        ),
        "autoaugment": lambda images, generator: policies.auto_augment(images, recipe.autoaugment, generator),
    }
    return _named(names, changes)


def _build_mix(recipe: AugmentRecipe, names: Collection[str], classes: int) -> Mix | None:
    ways: dict[str, Kept] = {
        "mixup": lambda images, generator: kept_by_mixup(images, recipe.mixup, generator),
        "cutmix": lambda images, generator: kept_by_cutmix(images, recipe.cutmix, generator),
    }
    chosen = [kept for name, kept in ways.items() if name in names]
    if not chosen:
        return None
    kept = chosen[0] if len(chosen) == 1 else either(*chosen)
    return lambda images, labels, generator: mix(images, labels, classes, kept, generator)


def flip(images: Tensor, generator: Generator) -> Tensor:
    """Mirror each image left to right with probability 1/2.

    Args:
        images: (N, C, H, W), any dtype.
        generator: on the CPU.
    Returns:
        (N, C, H, W), same dtype and device, channels_last.
    """
    pixels = images.permute(0, 2, 3, 1)
    mirrored = torch.randint(2, (len(images),), generator=generator)
    # Choosing whole images from both versions is 4x faster than `where` on each pixel.
    both = torch.cat([pixels, pixels.flip(2)])
    rows = torch.arange(len(images)) + len(images) * mirrored
    return both.index_select(0, rows.to(images.device, non_blocking=True)).permute(0, 3, 1, 2)


def shift_crop(images: Tensor, shift: int, generator: Generator) -> Tensor:
    """Shift each image by up to `shift` pixels along each axis, reflecting at the border.

    Args:
        images: (N, C, H, W), any dtype.
        shift: largest shift in pixels; 0 returns `images` unchanged.
        generator: on the CPU.
    Returns:
        (N, C, H, W), same dtype and device, channels_last.
    Raises:
        DataError: if `shift` is not below the shorter side.
    Source: He et al. 2016, arXiv:1512.03385, section 4.2 (padding by 4 and cropping, there with zeros).
    """
    n, channels, height, width = images.shape
    _check_shift(shift, min(height, width))
    if shift == 0:
        return images
    drawn = torch.randint(-shift, shift + 1, (2, n, 1), generator=generator)
    dy, dx = drawn.to(images.device, non_blocking=True).unbind()
    flat = images.permute(0, 2, 3, 1).reshape(n * height, width * channels)
    first = height * torch.arange(n, device=images.device)[:, None]
    rows = flat.index_select(0, (first + _reflected(dy, height)).flatten())
    columns = _reflected(dx, width)[:, :, None] * channels
    values = (columns + torch.arange(channels, device=images.device)).reshape(n, 1, width * channels)
    moved = rows.view(n, height, width * channels).gather(2, values.expand(-1, height, -1))
    return moved.view(n, height, width, channels).permute(0, 3, 1, 2)


def rotation(images: Tensor, degrees: float, generator: Generator) -> Tensor:
    """Turn each image by up to `degrees` either way, bilinear; corners that come into view are black.

    Args:
        images: (N, C, H, W), uint8 or float32.
        degrees: largest angle; 0 returns `images` unchanged.
        generator: on the CPU.
    Returns:
        (N, C, H, W), same dtype and device, channels_last.
    """
    if degrees == 0:
        return images
    angles = degrees * (2 * torch.rand(len(images), generator=generator) - 1)
    return rotate(images, angles.to(images.device, non_blocking=True), "bilinear")


def cutout(images: Tensor, size: int, generator: Generator, fill: float = 0.0) -> Tensor:
    """Blank a square of each image, centred anywhere in it and clipped at its border.

    Args:
        images: (N, C, H, W), any dtype.
        size: side of the square in pixels; 0 returns `images` unchanged.
        generator: on the CPU.
        fill: the new value; 0 is the mean of normalised images.
    Returns:
        (N, C, H, W), same dtype and device, channels_last.
    Source: DeVries & Taylor 2017, arXiv:1708.04552.
    """
    if size == 0:
        return images
    n, channels, height, width = images.shape
    device = images.device
    centre_y = torch.randint(height, (n, 1), generator=generator).to(device, non_blocking=True)
    centre_x = torch.randint(width, (n, 1), generator=generator).to(device, non_blocking=True)
    # The centre lies inside, so clamping what sticks out repeats pixels that are blanked anyway.
    offsets = torch.arange(size, device=device) - size // 2
    y = (centre_y + offsets).clamp(0, height - 1)
    x = (centre_x + offsets).clamp(0, width - 1)
    rows = height * torch.arange(n, device=device)[:, None] + y
    places = rows[:, :, None] * width + x[:, None, :]
    pixels = images.permute(0, 2, 3, 1).clone(memory_format=torch.contiguous_format)
    pixels.view(-1, channels).index_fill_(0, places.flatten(), fill)
    return pixels.permute(0, 3, 1, 2)


def random_erasing(images: Tensor, share: float, generator: Generator) -> Tensor:
    """Blank a box of some images: 2 to 33 % of the area, 0.3 to 3.3 times as high as wide, all inside.

    Args:
        images: (N, C, H, W), normalised; boxes become 0, the mean.
        share: probability that an image is changed; 0 returns `images` unchanged.
        generator: on the CPU.
    Returns:
        (N, C, H, W), same dtype and device, channels_last. An image in which ten boxes in a row do not fit
        stays as it is.
    Source: Zhong et al. 2020, arXiv:1708.04896 (there filled with noise), with torchvision's ranges.
    """
    if share == 0:
        return images
    n, _, height, width = images.shape
    box_height, box_width = _erased_sizes(n, height, width, generator)
    erased = torch.rand(n, generator=generator) < share
    top, left = (
        (torch.rand(n, generator=generator) * (side - size + 1)).floor()
        for side, size in ((height, box_height), (width, box_width))
    )
    blank = boxes(images, top, left, box_height * erased, box_width)
    return images.masked_fill(blank, 0).contiguous(memory_format=torch.channels_last)


def _erased_sizes(n: int, height: int, width: int, generator: Generator) -> Tensor:
    """Heights and widths of boxes, (2, n), whole float32 numbers; the first that fits, or 0."""
    shares = torch.empty(_ERASING_TRIES, n).uniform_(*_ERASED_SHARES, generator=generator)
    low, high = (math.log(aspect) for aspect in _ERASED_ASPECTS)
    aspects = torch.empty(_ERASING_TRIES, n).uniform_(low, high, generator=generator).exp()
    areas = height * width * shares
    sizes = torch.stack([(areas * aspects).sqrt(), (areas / aspects).sqrt()]).round_()
    fits = (sizes[0] < height) & (sizes[1] < width)
    first = fits.int().argmax(0).expand(2, 1, n)
    return sizes.gather(1, first)[:, 0] * fits.any(0)


def _check_shift(shift: int, side: int) -> None:
    if not 0 <= shift < side:
        raise DataError(f"shift must be 0 to {side - 1} pixels for images of {side} pixels, but got {shift}")


def _reflected(shift: Tensor, side: int) -> Tensor:
    """Which pixel each position shows after a shift: (N, 1) to (N, side), the edge not repeated."""
    position = (torch.arange(side, device=shift.device) + shift).abs()
    return (side - 1) - ((side - 1) - position).abs()
