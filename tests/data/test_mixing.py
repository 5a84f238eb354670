"""Mixup and cutmix against loops over images and pixels; what they draw, by its distribution."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Generator, Tensor

from tunekit.data.mixing import Kept, boxes, either, kept_by_cutmix, kept_by_mixup, mix

CLASSES = 10


def draws(seed: int = 7) -> Generator:
    return Generator().manual_seed(seed)


def mixup(alpha: float = 0.4) -> Kept:
    return lambda images, generator: kept_by_mixup(images, alpha, generator)


def cutmix(alpha: float = 1.0) -> Kept:
    return lambda images, generator: kept_by_cutmix(images, alpha, generator)


WAYS = [mixup(), cutmix(), either(mixup(), cutmix())]


def batch(n: int, channels: int = 3, size: tuple[int, int] = (8, 11)) -> tuple[Tensor, Tensor]:
    images = torch.randn(n, channels, *size, generator=draws(0))
    labels = torch.randint(CLASSES, (n,), generator=draws(1))
    return images, labels


def numbered(n: int) -> tuple[Tensor, Tensor]:
    """Images whose pixels all are their number, and labels that are it too."""
    return torch.arange(float(n))[:, None, None, None].expand(-1, 3, 16, 16), torch.arange(n)


@pytest.mark.parametrize("kept", WAYS)
@pytest.mark.parametrize(("n", "channels"), [(30, 3), (7, 1), (1, 3)])
def test_mix_equals_a_loop(kept: Kept, n: int, channels: int) -> None:
    images, labels = batch(n, channels)
    generator = draws()
    partners = torch.randperm(n, generator=generator).tolist()
    maps = kept(images, generator).expand(n, 1, 8, 11)
    expected_images, expected_targets = images.clone(), torch.zeros(n, CLASSES)
    for number, partner in enumerate(partners):
        for y in range(8):
            for x in range(11):
                own = maps[number, 0, y, x]
                expected_images[number, :, y, x] = (
                    own * images[number, :, y, x] + (1 - own) * images[partner, :, y, x]
                )
        share = sum(maps[number, 0].flatten().tolist()) / (8 * 11)
        expected_targets[number, labels[number]] += share
        expected_targets[number, labels[partner]] += 1 - share
    mixed, targets = mix(images, labels, CLASSES, kept, draws())
    torch.testing.assert_close(mixed, expected_images)
    torch.testing.assert_close(targets, expected_targets)


@pytest.mark.parametrize("kept", WAYS)
@pytest.mark.parametrize("channels", [1, 3])
def test_targets_are_probabilities_and_images_channels_last(kept: Kept, channels: int) -> None:
    images, labels = batch(40, channels)
    before = images.clone()
    mixed, targets = mix(images, labels, CLASSES, kept, draws())
    assert mixed.shape == images.shape
    assert mixed.is_contiguous(memory_format=torch.channels_last)
    assert (mixed.dtype, targets.dtype, targets.shape) == (torch.float32, torch.float32, (40, CLASSES))
    assert targets.min() >= 0
    torch.testing.assert_close(targets.sum(1), torch.ones(40))
    assert torch.equal(images, before)


@pytest.mark.parametrize("kept", WAYS)
def test_targets_say_what_is_in_the_image(kept: Kept) -> None:
    images, labels = numbered(50)
    mixed, targets = mix(images, labels, 50, kept, draws())
    torch.testing.assert_close(targets @ torch.arange(50.0), mixed.mean((1, 2, 3)))


def test_mixup_keeps_the_same_share_of_each_pixel() -> None:
    mixed, _ = mix(*numbered(50), 50, mixup(), draws())
    assert (mixed.flatten(1).std(1) < 1e-4).all()


def test_cutmix_keeps_all_but_one_box() -> None:
    images, labels = numbered(50)
    mixed, _ = mix(images, labels, 50, cutmix(), draws())
    for number, image in enumerate(mixed[:, 0]):
        foreign = image != number
        rows, columns = foreign.any(1), foreign.any(0)
        assert len(image[foreign].unique()) <= 1
        assert torch.equal(foreign, rows[:, None] & columns[None, :])
        for line in (rows, columns):
            assert len(line.nonzero()) in (0, int(line.nonzero().max() - line.nonzero().min()) + 1)


@pytest.mark.parametrize("kept", WAYS)
def test_each_image_has_its_own_draw(kept: Kept) -> None:
    maps = kept(torch.zeros(200, 3, 32, 32), draws()).expand(-1, 1, 32, 32)
    assert len(torch.unique(maps.flatten(1), dim=0)) > 150


@pytest.mark.parametrize("alpha", [0.2, 1.0, 5.0])
def test_shares_are_beta_distributed(alpha: float) -> None:
    shares = kept_by_mixup(torch.zeros(4000, 1, 1, 1), alpha, draws())
    assert float(shares.mean()) == pytest.approx(0.5, abs=0.02)
    assert float(shares.var()) == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.06)


def test_the_area_that_cutmix_keeps() -> None:
    kept = kept_by_cutmix(torch.zeros(4000, 1, 32, 32), 1.0, draws())
    assert float(kept.mean()) == pytest.approx(0.69, abs=0.02)  # 1/2, but for what the border clips


@pytest.mark.parametrize("alpha", [1e-6, 10.0])
@pytest.mark.parametrize("way", [mixup, cutmix])
def test_extreme_alpha_stays_finite(alpha: float, way: Callable[[float], Kept]) -> None:
    images, labels = batch(50)
    mixed, targets = mix(images, labels, CLASSES, way(alpha), draws())
    assert mixed.isfinite().all()
    assert targets.isfinite().all()


@pytest.mark.parametrize("kept", [mixup(0), cutmix(0), either(mixup(0), cutmix(0))])
def test_alpha_0_mixes_nothing(kept: Kept) -> None:
    images, labels = batch(20)
    mixed, targets = mix(images, labels, CLASSES, kept, draws())
    assert torch.equal(mixed, images)
    assert torch.equal(targets.argmax(1), labels)
    assert targets.max(1).values.eq(1).all()


def test_either_draws_each_way_for_half_of_the_images() -> None:
    def constant(value: float) -> Kept:
        return lambda images, _: torch.full((len(images), 1, 1, 1), value)

    maps = either(constant(0.0), constant(1.0))(torch.zeros(1000, 3, 4, 4), draws())
    assert float(maps.mean()) == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize("kept", WAYS)
def test_a_batch_follows_from_the_generator(kept: Kept) -> None:
    images, labels = batch(20)
    first, again, other = (mix(images, labels, CLASSES, kept, draws(seed)) for seed in (1, 1, 2))
    assert torch.equal(first[0], again[0])
    assert torch.equal(first[1], again[1])
    assert not torch.equal(first[0], other[0])


def test_boxes_equal_slices() -> None:
    corners = torch.tensor([[0, 0, 3, 2], [-2, 4, 5, 9], [5, 6, 0, 3], [7, 10, 1, 1]])
    inside = boxes(torch.zeros(4, 3, 8, 11), *corners.T)
    expected = torch.zeros(4, 1, 8, 11, dtype=torch.bool)
    for number, (top, left, height, width) in enumerate(corners.tolist()):
        expected[number, 0, max(top, 0) : max(top + height, 0), max(left, 0) : max(left + width, 0)] = True
    assert torch.equal(inside, expected)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("kept", WAYS)
def test_gpu_makes_the_same_draws(kept: Kept) -> None:
    images, labels = batch(20)
    expected = mix(images, labels, CLASSES, kept, draws())
    for there, here in zip(mix(images.cuda(), labels.cuda(), CLASSES, kept, draws()), expected, strict=True):
        torch.testing.assert_close(there.cpu(), here)
