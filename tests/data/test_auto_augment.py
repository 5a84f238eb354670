"""Each operation, and whole batches of them, against torchvision on one image after the other."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import pytest
import torch
from torch import Generator, Tensor
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as vision

from tunekit.data.auto_augment import (
    CIFAR10_POLICY,
    STANDARD,
    WIDE,
    Operation,
    apply_each,
    auto_augment,
    rand_augment,
    trivial_augment,
)

SHAPES = [(6, 3, 24, 24), (6, 1, 20, 29), (1, 3, 32, 22)]  # Equalize needs 255 pixels
INVERT = Operation(lambda images, _: ~images)
Reference = Callable[[Tensor, float], Tensor]


def images(shape: tuple[int, ...], seed: int = 0) -> Tensor:
    """Smooth and not of full contrast, as photographs are."""
    rough = 40 + 170 * torch.rand(shape[0], shape[1], 4, 5, generator=Generator().manual_seed(seed))
    pixels = torch.nn.functional.interpolate(rough, shape[2:], mode="bicubic").clamp(0, 255)
    return pixels.to(torch.uint8).contiguous(memory_format=torch.channels_last)


def draws(seed: int = 7) -> Generator:
    return Generator().manual_seed(seed)


def sheared(image: Tensor, x: float, y: float) -> Tensor:
    degrees = [math.degrees(math.atan(slope)) for slope in (x, y)]
    return vision.affine(image, 0.0, [0, 0], 1.0, degrees, center=[0, 0])  # type: ignore[no-any-return]


def moved(image: Tensor, x: float, y: float) -> Tensor:
    return vision.affine(image, 0.0, [int(x), int(y)], 1.0, [0.0, 0.0])  # type: ignore[no-any-return]


def solarized(image: Tensor, share: float) -> Tensor:
    threshold = 256 * (1 - share)  # torchvision refuses one that no value reaches
    return vision.solarize(image, threshold) if threshold <= 255 else image


REFERENCES: dict[str, Reference] = {
    "Identity": lambda image, _: image,
    "ShearX": lambda image, slope: sheared(image, slope, 0),
    "ShearY": lambda image, slope: sheared(image, 0, slope),
    "Rotate": lambda image, degrees: vision.rotate(image, degrees),
    "Brightness": lambda image, strength: vision.adjust_brightness(image, 1 + strength),
    "Color": lambda image, strength: vision.adjust_saturation(image, 1 + strength),
    "Contrast": lambda image, strength: vision.adjust_contrast(image, 1 + strength),
    "Sharpness": lambda image, strength: vision.adjust_sharpness(image, 1 + strength),
    "Posterize": lambda image, bits: vision.posterize(image, 8 - round(bits)),
    "Solarize": solarized,
    "AutoContrast": lambda image, _: vision.autocontrast(image),
    "Equalize": lambda image, _: vision.equalize(image),
    "Invert": lambda image, _: vision.invert(image),
}
OF_STANDARD: dict[str, Reference] = REFERENCES | {
    "TranslateX": lambda image, part: moved(image, part * image.shape[2], 0),
    "TranslateY": lambda image, part: moved(image, 0, part * image.shape[1]),
}
OF_WIDE: dict[str, Reference] = REFERENCES | {
    "TranslateX": lambda image, pixels: moved(image, pixels, 0),
    "TranslateY": lambda image, pixels: moved(image, 0, pixels),
}
SPACES = {
    "standard": ({**STANDARD, "Invert": INVERT}, OF_STANDARD),
    "wide": ({**WIDE, "Invert": INVERT}, OF_WIDE),
}


def assert_same_pictures(changed: Tensor, expected: Tensor) -> None:
    """Colours round to the next value, and a pixel in 50 may come from the one beside it."""
    difference = (changed.int() - expected.int()).abs()
    assert changed.dtype == expected.dtype == torch.uint8
    assert (difference > 1).float().mean() <= 0.02


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("space", "name"), [(space, name) for space in SPACES for name in SPACES[space][1]])
def test_operation_equals_torchvision_on_each_image(space: str, name: str, shape: tuple[int, ...]) -> None:
    operations, references = SPACES[space]
    operation, reference = operations[name], references[name]
    batch = images(shape)
    strengths = operation.strongest * torch.linspace(-1 if operation.signed else 0, 1, len(batch))
    changed = operation.apply(batch, strengths)
    expected = [reference(image, strength) for image, strength in zip(batch, strengths.tolist(), strict=True)]
    assert_same_pictures(changed, torch.stack(expected))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", [name for name in STANDARD if name not in ("AutoContrast", "Equalize")])
def test_magnitude_0_changes_nothing(name: str, shape: tuple[int, ...]) -> None:
    batch = torch.randint(0, 256, shape, dtype=torch.uint8, generator=draws())
    assert torch.equal(STANDARD[name].apply(batch, torch.zeros(len(batch))), batch)


@pytest.mark.parametrize("channels", [1, 3])
def test_each_image_gets_its_own_operation_and_strength(channels: int) -> None:
    batch = images((60, channels, 20, 18))
    choice = torch.randint(len(WIDE), (60,), generator=draws())
    strongest = torch.tensor([operation.strongest for operation in WIDE.values()])[choice]
    strength = strongest * torch.rand(60, generator=draws(1))
    changed = apply_each(batch, list(WIDE.values()), choice, strength)
    names = [list(WIDE)[number] for number in choice.tolist()]
    expected = [
        OF_WIDE[name](image, part) for name, image, part in zip(names, batch, strength.tolist(), strict=True)
    ]
    assert_same_pictures(changed, torch.stack(expected))
    assert changed.is_contiguous(memory_format=torch.channels_last)


def seen_with(changed: Tensor, expected: Iterable[Tensor]) -> Tensor:
    """Which of the expected pictures each changed one is, (N,); fails if one is none of them."""
    pictures = torch.stack(list(expected))
    nearest = torch.cdist(changed.flatten(1).float(), pictures.flatten(1).float()).argmin(1)
    far = (changed.int() - pictures[nearest].int()).abs() > 1
    assert far.float().mean((1, 2, 3)).max() <= 0.02
    return nearest


def test_rand_augment_draws_operations_evenly_at_one_magnitude() -> None:
    image = images((1, 3, 20, 20))
    outcomes = [
        (name, OF_STANDARD[name](image[0], sign * operation.strongest * 12 / 30))
        for name, operation in STANDARD.items()
        for sign in ((-1, 1) if operation.signed else (1,))
    ]
    changed = rand_augment(image.expand(1400, -1, -1, -1), 1, 12, draws())
    seen = seen_with(changed, (picture for _, picture in outcomes)).tolist()
    for name in STANDARD:
        assert 60 < sum(outcomes[number][0] == name for number in seen) < 145  # 100 expected
    for number, (name, _) in enumerate(outcomes):
        assert seen.count(number) > (25 if STANDARD[name].signed else 60)


def test_rand_augment_chains_operations() -> None:
    batch = images((20, 3, 20, 20))
    generator = draws()
    twice = rand_augment(rand_augment(batch, 1, 9, generator), 1, 9, generator)
    assert torch.equal(rand_augment(batch, 2, 9, draws()), twice)


def test_trivial_augment_draws_all_magnitudes_in_wide_ranges() -> None:
    image = images((1, 3, 20, 20))
    outcomes = [
        (name, OF_WIDE[name](image[0], sign * operation.strongest * magnitude / 30))
        for name, operation in WIDE.items()
        for magnitude in range(31)
        for sign in ((-1, 1) if operation.signed else (1,))
    ]
    changed = trivial_augment(image.expand(500, -1, -1, -1), 1.0, draws())
    seen = torch.unique(seen_with(changed, (picture for _, picture in outcomes)))
    assert {outcomes[number][0] for number in seen.tolist()} == set(WIDE)
    assert len(seen) > 150


def test_auto_augment_applies_a_pair_of_the_policy() -> None:
    image = images((1, 3, 20, 20))

    def outcomes(picture: Tensor, name: str, level: int) -> list[Tensor]:
        operation = {**STANDARD, "Invert": INVERT}[name]
        signs = (-1, 1) if operation.signed else (1,)
        return [
            picture,
            *(OF_STANDARD[name](picture, sign * operation.strongest * level / 9) for sign in signs),
        ]

    expected = [
        last
        for (first_name, _, first_level), (name, _, level) in CIFAR10_POLICY
        for first in outcomes(image[0], first_name, first_level)
        for last in outcomes(first, name, level)
    ]
    changed = auto_augment(image.expand(300, -1, -1, -1), 1.0, draws())
    # Equalize makes a difference of 1 larger, so a few pictures are a little off.
    far = (changed.int()[:, None] - torch.stack(expected).int()).abs().float().mean((2, 3, 4)).min(1).values
    assert (far < 0.5).float().mean() > 0.97
    assert far.max() < 4


def test_the_policy_is_that_of_torchvision() -> None:
    policy = v2.AutoAugment(v2.AutoAugmentPolicy.CIFAR10)._get_policies(v2.AutoAugmentPolicy.CIFAR10)
    assert tuple(
        tuple((name, chance, level or 0) for name, chance, level in pair) for pair in policy
    ) == tuple(CIFAR10_POLICY)


@pytest.mark.parametrize("change", [trivial_augment, auto_augment])
def test_share_of_changed_images(change: Callable[[Tensor, float, Generator], Tensor]) -> None:
    batch = images((1000, 1, 6, 6))
    assert torch.equal(change(batch, 0.0, draws()), batch)
    changed = [(change(batch, share, draws()) != batch).any(3).any(2).any(1) for share in (0.5, 1.0)]
    half, whole = (int(flags.sum()) for flags in changed)
    assert 0.4 < half / whole < 0.6


CHANGES: list[Callable[[Tensor, Generator], Tensor]] = [
    lambda batch, generator: rand_augment(batch, 2, 15, generator),
    lambda batch, generator: trivial_augment(batch, 1.0, generator),
    lambda batch, generator: auto_augment(batch, 1.0, generator),
]


@pytest.mark.parametrize("change", CHANGES)
def test_a_batch_follows_from_the_generator(change: Callable[[Tensor, Generator], Tensor]) -> None:
    batch = images((40, 3, 20, 20))
    before = batch.clone()
    assert torch.equal(change(batch, draws(3)), change(batch, draws(3)))
    assert not torch.equal(change(batch, draws(3)), change(batch, draws(4)))
    assert torch.equal(batch, before)


@pytest.mark.parametrize("change", CHANGES)
def test_each_image_has_its_own_draw(change: Callable[[Tensor, Generator], Tensor]) -> None:
    same = images((1, 3, 20, 20)).expand(200, -1, -1, -1)
    assert len(torch.unique(change(same, draws()).flatten(1), dim=0)) > 25


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [(1, 1), (2, 5), (9, 2), (13, 8)])
def test_any_size_and_memory(
    change: Callable[[Tensor, Generator], Tensor], channels: int, size: tuple[int, int]
) -> None:
    batch = torch.randint(0, 256, (30, channels, *size), dtype=torch.uint8, generator=draws())
    changed = change(batch, draws())
    assert changed.shape == batch.shape
    assert changed.dtype == torch.uint8
    assert changed.is_contiguous(memory_format=torch.channels_last)
    assert change(batch[:1], draws()).shape == (1, channels, *size)
    again = change(batch.contiguous(memory_format=torch.channels_last), draws())
    assert torch.equal(changed, again)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("change", CHANGES)
def test_gpu_makes_the_same_draws(change: Callable[[Tensor, Generator], Tensor]) -> None:
    batch = images((40, 3, 20, 20))
    assert_same_pictures(change(batch.cuda(), draws()).cpu(), change(batch, draws()))
