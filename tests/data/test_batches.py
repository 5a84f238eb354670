from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from tunekit.data import batches as batches_module
from tunekit.data.augment import Augment, build_augment
from tunekit.data.batches import Batches
from tunekit.recipe import AUGMENTATIONS, AugmentRecipe

CPU = torch.device("cpu")
MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)
IMAGES = np.random.default_rng(0).integers(0, 256, (100, 10, 12, 3), dtype=np.uint8)
NUMBERS = np.arange(100)  # as labels they tell which image is which
INDICES = np.random.default_rng(1).permutation(100)[:50]


def batches(
    batch_size: int | None = 16,
    indices: Sequence[int] | np.ndarray[tuple[int], np.dtype[np.int64]] = INDICES,
    augment: Augment | None = None,
    device: torch.device = CPU,
) -> Batches:
    chosen = np.asarray(indices, dtype=np.int64)
    return Batches(IMAGES, NUMBERS, chosen, MEAN, STD, batch_size, device, augment)


def together(pairs: Iterable[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    images, labels = zip(*pairs, strict=True)
    return torch.cat(images), torch.cat(labels)


def normalised(numbers: Tensor) -> Tensor:
    pixels = (IMAGES[numbers.numpy()] / 255 - MEAN) / STD
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).float()


def test_epoch_gives_each_image_once_normalised() -> None:
    images, labels = together(batches(batch_size=10).epoch(seed=1))
    assert sorted(labels.tolist()) == sorted(INDICES)
    torch.testing.assert_close(images, normalised(labels))


def test_in_order_gives_all_in_the_order_of_the_indices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches_module, "_EVALUATED_PIXELS", 10 * 12 * 7)
    parts = list(batches(batch_size=None).in_order())
    assert [len(labels) for _, labels in parts] == [7] * 7 + [1]
    images, labels = together(parts)
    assert labels.tolist() == INDICES.tolist()
    torch.testing.assert_close(images, normalised(labels))


@pytest.mark.parametrize("channels", [1, 3])
def test_batches_are_float32_channels_last(channels: int) -> None:
    augment = build_augment(AugmentRecipe(policy="flip+shift_crop+cutout"), 10, 100)
    loaded = Batches(
        IMAGES[..., :channels], NUMBERS, INDICES, MEAN[:channels], STD[:channels], 16, CPU, augment
    )
    for images, labels in loaded.epoch(seed=1):
        assert images.shape == (16, channels, 10, 12)
        assert images.dtype == torch.float32
        assert images.is_contiguous(memory_format=torch.channels_last)
        assert labels.dtype == torch.int64


@pytest.mark.parametrize(
    ("batch_size", "steps", "images"), [(16, 3, 48), (50, 1, 50), (51, 1, 50), (1, 50, 50), (None, 1, 50)]
)
def test_incomplete_last_batch_is_left_out_unless_alone(
    batch_size: int | None, steps: int, images: int
) -> None:
    loaded = batches(batch_size)
    assert (loaded.steps, len(loaded)) == (steps, images)
    if batch_size is not None:
        sizes = [len(labels) for _, labels in loaded.epoch(seed=1)]
        assert (len(sizes), sum(sizes)) == (steps, images)


def test_an_epoch_follows_from_its_seed_alone() -> None:
    augment = build_augment(AugmentRecipe(policy="flip+shift_crop+cutout"), 10, 100)
    first = batches(augment=augment)
    expected = together(first.epoch(seed=3))
    other = together(first.epoch(seed=4))
    torch.manual_seed(99)
    again = together(batches(augment=augment).epoch(seed=3))
    assert all(torch.equal(*pair) for pair in zip(expected, again, strict=True))
    assert not torch.equal(expected[1], other[1])


@pytest.mark.parametrize("channels", [1, 3])
def test_an_epoch_with_every_augmentation(channels: int) -> None:
    augment = build_augment(AugmentRecipe(policy="+".join(AUGMENTATIONS)), 10, 100)
    loaded = Batches(
        IMAGES[..., :channels], NUMBERS, INDICES, MEAN[:channels], STD[:channels], 16, CPU, augment
    )
    for images, targets in loaded.epoch(seed=1):
        assert images.shape == (16, channels, 10, 12)
        assert images.is_contiguous(memory_format=torch.channels_last)
        assert (images.dtype, targets.dtype, targets.shape) == (torch.float32, torch.float32, (16, 100))
        torch.testing.assert_close(targets.sum(1), torch.ones(16))
    first, again = together(loaded.epoch(seed=3)), together(loaded.epoch(seed=3))
    assert all(torch.equal(*pair) for pair in zip(first, again, strict=True))


def test_mixed_images_and_targets_belong_together() -> None:
    augment = build_augment(AugmentRecipe(policy="mixup"), 10, 100)
    plain = torch.split(together(batches().epoch(seed=3))[1], 16)
    for labels, (images, targets) in zip(plain, batches(augment=augment).epoch(seed=3), strict=True):
        expected = targets[:, labels] @ normalised(labels).flatten(1)
        torch.testing.assert_close(images.flatten(1), expected, atol=1e-4, rtol=1e-4)


def test_order_does_not_depend_on_augmentation() -> None:
    augment = build_augment(AugmentRecipe(policy="flip+cutout"), 10, 100)
    plain, changed = together(batches().epoch(seed=3)), together(batches(augment=augment).epoch(seed=3))
    assert torch.equal(plain[1], changed[1])
    assert not torch.equal(plain[0], changed[0])


def test_cutout_blanks_with_the_mean() -> None:
    augment = build_augment(AugmentRecipe(policy="cutout", cutout=0.5), 10, 100)
    images, _ = together(batches(augment=augment).epoch(seed=3))
    blank = (images == 0).all(1).flatten(1).sum(1)
    assert blank.min() >= 3 * 3  # clipped in a corner
    assert blank.max() == 5 * 5


def test_evaluation_and_training_are_not_mixed_up() -> None:
    with pytest.raises(AssertionError, match="evaluation"):
        next(batches(batch_size=None).epoch(seed=1))
    with pytest.raises(AssertionError, match="evaluation"):
        next(batches(batch_size=16).in_order())


def test_constant_channel_stays_finite() -> None:
    black = np.zeros((4, 8, 8, 1), dtype=np.uint8)
    loaded = Batches(black, NUMBERS, np.arange(4), [0.0], [0.0], None, CPU)
    assert (together(loaded.in_order())[0] == 0).all()


def test_memory_map_is_not_written_to(tmp_path: Path) -> None:
    np.save(tmp_path / "images.npy", IMAGES)
    mapped = np.load(tmp_path / "images.npy", mmap_mode="c")
    augment = build_augment(AugmentRecipe(policy="flip+shift_crop+cutout"), 10, 100)
    loaded = Batches(mapped, NUMBERS, INDICES, MEAN, STD, 16, CPU, augment)
    together(loaded.epoch(seed=1))
    assert np.array_equal(mapped, IMAGES)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("fits", [True, False])
def test_gpu_gives_the_same_batches(monkeypatch: pytest.MonkeyPatch, fits: bool) -> None:
    monkeypatch.setattr(batches_module, "_fits", lambda *_: fits)
    monkeypatch.setattr(batches_module, "_COPIED_AT_ONCE", 7 * 360)
    cuda = torch.device("cuda", 0)
    augment = build_augment(AugmentRecipe(policy="flip+shift_crop+cutout"), 10, 100)
    images, labels = together(batches(device=cuda, augment=augment).epoch(seed=3))
    assert images.is_cuda
    expected_images, expected_labels = together(batches(augment=augment).epoch(seed=3))
    assert torch.equal(labels.cpu(), expected_labels)
    torch.testing.assert_close(images.cpu(), expected_images)
    images, _ = together(batches(batch_size=None, device=cuda).in_order())
    torch.testing.assert_close(images.cpu(), normalised(torch.from_numpy(INDICES)))
