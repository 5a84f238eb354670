"""Each batched change against a loop over images that makes the same draws."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Generator, Tensor

from tunekit.data.augment import build_augment, cutout, flip, shift_crop
from tunekit.errors import DataError
from tunekit.recipe import AugmentRecipe

SHAPES = [(64, 3, 12, 12), (64, 1, 8, 8), (33, 3, 9, 14), (1, 3, 32, 32)]


def images(shape: tuple[int, ...], dtype: torch.dtype = torch.uint8, nhwc: bool = True) -> Tensor:
    pixels = torch.randint(0, 256, shape, generator=Generator().manual_seed(0)).to(dtype)
    return pixels.contiguous(memory_format=torch.channels_last) if nhwc else pixels


def draws(seed: int = 7) -> Generator:
    return Generator().manual_seed(seed)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_flip_equals_a_loop(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    batch = images(shape, dtype)
    mirrored = torch.randint(2, (shape[0],), generator=draws()).tolist()
    expected = [
        np.flip(image, 2) if flag else image for image, flag in zip(batch.numpy(), mirrored, strict=True)
    ]
    assert np.array_equal(flip(batch, draws()).numpy(), np.stack(expected))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("shift", [1, 4, 7])
def test_shift_crop_equals_padding_and_cropping(shape: tuple[int, ...], shift: int) -> None:
    batch = images(shape)
    offsets = torch.randint(-shift, shift + 1, (2, shape[0], 1), generator=draws()).squeeze(2).T.tolist()
    expected = []
    for image, (dy, dx) in zip(batch.numpy(), offsets, strict=True):
        padded = np.pad(image, ((0, 0), (shift, shift), (shift, shift)), mode="reflect")
        top, left = shift + dy, shift + dx
        expected.append(padded[:, top : top + shape[2], left : left + shape[3]])
    assert np.array_equal(shift_crop(batch, shift, draws()).numpy(), np.stack(expected))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("size", [1, 3, 4, 30])
def test_cutout_equals_a_loop(shape: tuple[int, ...], size: int) -> None:
    batch = images(shape, torch.float32)
    generator = draws()
    y, x = (torch.randint(side, (shape[0],), generator=generator).tolist() for side in shape[2:])
    expected = batch.numpy().copy()
    for image, centre_y, centre_x in zip(expected, y, x, strict=True):
        top, left = centre_y - size // 2, centre_x - size // 2
        image[:, max(top, 0) : max(top + size, 0), max(left, 0) : max(left + size, 0)] = -1
    assert np.array_equal(cutout(batch, size, draws(), fill=-1).numpy(), expected)


def test_each_image_has_its_own_draw() -> None:
    same = images((1, 3, 16, 16), torch.float32).expand(200, -1, -1, -1)
    for changed, least in (
        (flip(same, draws()), 2),
        (shift_crop(same, 2, draws()), 20),
        (cutout(same, 4, draws()), 100),
    ):
        assert len(torch.unique(changed.flatten(1), dim=0)) >= least


@pytest.mark.parametrize("nhwc", [True, False])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_changes_keep_dtype_and_are_channels_last(dtype: torch.dtype, nhwc: bool) -> None:
    batch = images((8, 3, 12, 10), dtype, nhwc)
    before = batch.clone()
    for changed in (flip(batch, draws()), shift_crop(batch, 2, draws()), cutout(batch, 3, draws())):
        assert changed.dtype == dtype
        assert changed.shape == batch.shape
        assert changed.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(batch, before)


def test_strength_0_changes_nothing_and_draws_nothing() -> None:
    batch, generator = images((8, 3, 12, 12)), draws()
    assert cutout(shift_crop(batch, 0, generator), 0, generator) is batch
    assert torch.equal(generator.get_state(), draws().get_state())


@pytest.mark.parametrize("shift", [-1, 8, 9])
def test_shift_out_of_range(shift: int) -> None:
    with pytest.raises(
        DataError, match=f"shift must be 0 to 7 pixels for images of 8 pixels, but got {shift}"
    ):
        shift_crop(images((2, 3, 12, 8)), shift, draws())


def test_recipe_strengths_are_fractions_of_the_side() -> None:
    recipe = AugmentRecipe(policy="flip+shift_crop+cutout", shift=0.125, cutout=0.25)
    augment = build_augment(recipe, side=32)
    batch, generator = images((16, 3, 32, 32)), draws()
    expected = shift_crop(flip(batch, generator), 4, generator)
    again = draws()
    for change in augment.raw:
        batch = change(batch, again)
    assert torch.equal(batch, expected)
    (blank,) = augment.normalised
    assert torch.equal(blank(batch, again), cutout(expected, 8, generator))


@pytest.mark.parametrize(
    ("policy", "raw", "normalised"), [("none", 0, 0), ("flip", 1, 0), ("cutout", 0, 1), ("flip+cutout", 1, 1)]
)
def test_policy_names_what_is_done(policy: str, raw: int, normalised: int) -> None:
    augment = build_augment(AugmentRecipe(policy=policy), side=8)
    assert (len(augment.raw), len(augment.normalised)) == (raw, normalised)
