"""Each batched change against a loop over images that makes the same draws."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Generator, Tensor
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as vision

from tunekit.data.augment import build_augment, cutout, flip, random_erasing, rotation, shift_crop
from tunekit.data.mixing import kept_by_cutmix, kept_by_mixup, mix
from tunekit.errors import DataError
from tunekit.recipe import AUGMENTATIONS, AugmentRecipe

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


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("degrees", [15.0, 180.0])
def test_rotation_equals_torchvision_on_each_image(shape: tuple[int, ...], degrees: float) -> None:
    batch = images(shape)
    angles = degrees * (2 * torch.rand(shape[0], generator=draws()) - 1)
    expected = [
        vision.rotate(image, angle, v2.InterpolationMode.BILINEAR)
        for image, angle in zip(batch, angles.tolist(), strict=True)
    ]
    difference = rotation(batch, degrees, draws()).int() - torch.stack(expected).int()
    assert difference.abs().max() <= 1
    assert (difference != 0).float().mean() < 0.01


def erased_boxes(images: Tensor) -> list[tuple[int, int]]:
    """Height and width of what is blank in each image of ones; fails where that is no box."""
    sizes = []
    for image in images:
        blank = (image == 0).all(0)
        rows, columns = blank.any(1), blank.any(0)
        assert torch.equal(blank, rows[:, None] & columns[None, :])
        sizes.append((int(rows.sum()), int(columns.sum())))
    return sizes


@pytest.mark.parametrize("shape", [(300, 3, 32, 32), (300, 1, 28, 40)])
def test_random_erasing_keeps_to_its_ranges(shape: tuple[int, ...]) -> None:
    height, width = shape[2:]
    sizes = erased_boxes(random_erasing(torch.ones(shape), 1.0, draws()))
    assert len(set(sizes)) > 100
    for tall, wide in sizes:
        # Sides are rounded to whole pixels.
        assert 0.02 * height * width <= (tall + 0.5) * (wide + 0.5)
        assert (tall - 0.5) * (wide - 0.5) <= 0.33 * height * width
        assert (tall + 0.5) / (wide - 0.5) >= 0.3
        assert (tall - 0.5) / (wide + 0.5) <= 3.3


def test_random_erasing_is_distributed_as_that_of_torchvision() -> None:
    ours = random_erasing(torch.ones(2000, 1, 24, 32), 0.5, draws())
    torch.manual_seed(1)
    erase = v2.RandomErasing(0.5)
    theirs = torch.stack([erase(image) for image in torch.ones(2000, 1, 24, 32)])
    changed = [float((batch == 0).flatten(1).any(1).float().mean()) for batch in (ours, theirs)]
    assert changed[0] == pytest.approx(0.5, abs=0.03)
    assert changed[1] == pytest.approx(0.5, abs=0.03)
    # How often each row and each column is blank: 24 + 32 figures.
    for axis in (2, 3):
        rates = [(batch == 0).float().mean((0, 1, axis)) for batch in (ours, theirs)]
        assert (rates[0] - rates[1]).abs().max() < 0.02


def test_random_erasing_leaves_images_alone_where_no_box_fits() -> None:
    batch = torch.ones(20, 3, 1, 1)
    assert torch.equal(random_erasing(batch, 1.0, draws()), batch)


def test_each_image_has_its_own_draw() -> None:
    same = images((1, 3, 16, 16), torch.float32).expand(200, -1, -1, -1)
    for changed, least in (
        (flip(same, draws()), 2),
        (shift_crop(same, 2, draws()), 20),
        (cutout(same, 4, draws()), 100),
        (rotation(same, 20, draws()), 190),
        (random_erasing(same, 1.0, draws()), 150),
    ):
        assert len(torch.unique(changed.flatten(1), dim=0)) >= least


@pytest.mark.parametrize("nhwc", [True, False])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_changes_keep_dtype_and_are_channels_last(dtype: torch.dtype, nhwc: bool) -> None:
    batch = images((8, 3, 12, 10), dtype, nhwc)
    before = batch.clone()
    for changed in (
        flip(batch, draws()),
        shift_crop(batch, 2, draws()),
        rotation(batch, 20, draws()),
        cutout(batch, 3, draws()),
        random_erasing(batch, 0.5, draws()),
    ):
        assert changed.dtype == dtype
        assert changed.shape == batch.shape
        assert changed.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(batch, before)


def test_strength_0_changes_nothing_and_draws_nothing() -> None:
    batch, generator = images((8, 3, 12, 12)), draws()
    assert cutout(shift_crop(batch, 0, generator), 0, generator) is batch
    assert random_erasing(rotation(batch, 0, generator), 0, generator) is batch
    assert torch.equal(generator.get_state(), draws().get_state())


@pytest.mark.parametrize("shift", [-1, 8, 9])
def test_shift_out_of_range(shift: int) -> None:
    with pytest.raises(
        DataError, match=f"shift must be 0 to 7 pixels for images of 8 pixels, but got {shift}"
    ):
        shift_crop(images((2, 3, 12, 8)), shift, draws())


def test_recipe_strengths_are_fractions_of_the_side() -> None:
    recipe = AugmentRecipe(policy="flip+shift_crop+cutout", shift=0.125, cutout=0.25)
    augment = build_augment(recipe, side=32, classes=10)
    batch, generator = images((16, 3, 32, 32)), draws()
    expected = shift_crop(flip(batch, generator), 4, generator)
    again = draws()
    for change in augment.raw:
        batch = change(batch, again)
    assert torch.equal(batch, expected)
    (blank,) = augment.normalised
    assert torch.equal(blank(batch, again), cutout(expected, 8, generator))


def test_recipe_strengths_of_the_others() -> None:
    recipe = AugmentRecipe(
        policy="rotation+randaugment+trivialaugment+autoaugment+random_erasing",
        rotation=30,
        randaugment=20,
        randaugment_ops=3,
        trivialaugment=0.5,
        autoaugment=0.4,
        random_erasing=0.3,
    )
    from tunekit.data.auto_augment import auto_augment, rand_augment, trivial_augment

    augment = build_augment(recipe, side=16, classes=10)
    batch, generator, again = images((16, 3, 16, 16)), draws(), draws()
    expected = rotation(batch, 30, generator)
    expected = rand_augment(expected, 3, 20, generator)
    expected = trivial_augment(expected, 0.5, generator)
    expected = auto_augment(expected, 0.4, generator)
    for change in augment.raw:
        batch = change(batch, again)
    assert torch.equal(batch, expected)
    (blank,) = augment.normalised
    ones = torch.ones(16, 3, 16, 16)
    assert torch.equal(blank(ones, again), random_erasing(ones, 0.3, generator))


@pytest.mark.parametrize(("policy", "kept"), [("mixup", kept_by_mixup), ("cutmix", kept_by_cutmix)])
def test_recipe_strengths_of_mixing(policy: str, kept: Callable[[Tensor, float, Generator], Tensor]) -> None:
    batch, labels = torch.randn(12, 3, 8, 8, generator=draws()), torch.arange(12) % 5
    augment = build_augment(AugmentRecipe(policy=policy, mixup=0.7, cutmix=0.7), side=8, classes=5)
    assert augment.mix is not None
    expected = mix(batch, labels, 5, lambda some, generator: kept(some, 0.7, generator), draws())
    for got, want in zip(augment.mix(batch, labels, draws()), expected, strict=True):
        assert torch.equal(got, want)


def test_mixup_and_cutmix_together_change_images_in_both_ways() -> None:
    augment = build_augment(AugmentRecipe(policy="mixup+cutmix"), side=8, classes=200)
    assert augment.mix is not None
    numbers = torch.arange(200)
    mixed, _ = augment.mix(numbers[:, None, None, None].expand(-1, 1, 8, 8).float(), numbers, draws())
    whole = mixed == mixed.round()
    cut = whole.flatten(1).all(1) & (mixed.flatten(1).std(1) > 0)
    blended = ~whole.flatten(1).any(1)
    assert 50 < int(cut.sum()) < 120
    assert 50 < int(blended.sum()) < 120


@pytest.mark.parametrize(
    ("policy", "raw", "normalised", "mixes"),
    [
        ("none", 0, 0, False),
        ("flip", 1, 0, False),
        ("cutout", 0, 1, False),
        ("flip+cutout+mixup", 1, 1, True),
        ("+".join(AUGMENTATIONS), 6, 2, True),
    ],
)
def test_policy_names_what_is_done(policy: str, raw: int, normalised: int, mixes: bool) -> None:
    augment = build_augment(AugmentRecipe(policy=policy), side=8, classes=10)
    assert (len(augment.raw), len(augment.normalised)) == (raw, normalised)
    assert (augment.mix is not None) == mixes


@pytest.mark.parametrize("policy", AUGMENTATIONS)
def test_nothing_waits_for_the_device(policy: str) -> None:
    """On the meta device there are no values that one could wait for, only shapes."""
    augment = build_augment(AugmentRecipe(policy=policy), side=16, classes=10)
    pixels = images((8, 3, 16, 16)).to("meta")
    for change in (*augment.raw, *augment.normalised):
        assert change(pixels, draws()).shape == pixels.shape
    if augment.mix:
        mixed, targets = augment.mix(pixels.float(), torch.zeros(8, dtype=torch.int64).to("meta"), draws())
        assert (mixed.shape, targets.shape) == (pixels.shape, (8, 10))


def test_only_the_policies_load_torchvision() -> None:
    """Loading it takes seconds, in each process that trains."""
    program = """
import sys
from tunekit.data.augment import build_augment
from tunekit.recipe import AUGMENTATIONS, AugmentRecipe
light = "+".join(name for name in AUGMENTATIONS if not name.endswith("augment"))
build_augment(AugmentRecipe(policy=light), side=8, classes=10)
assert "torchvision" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", program], check=True)
