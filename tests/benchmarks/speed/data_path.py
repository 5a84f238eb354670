"""Packing a folder of 20,000 JPEGs, the first epoch from it, and the augmentation kernels.

Kernels stand beside torchvision's transforms of the same images one by one, and beside the bandwidth of
the memory: reading and writing each byte of the batch once is the least that a change of every pixel takes.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Generator, Tensor
from torchvision import datasets, transforms
from torchvision.transforms import v2

from tests.benchmarks.augmentation import one_by_one
from tests.benchmarks.speed.figures import Part, timed, wait_until_idle
from tunekit.data.augment import Augment, build_augment
from tunekit.data.datasets import open_dataset
from tunekit.data.folder import read_image
from tunekit.data.pack import Pack
from tunekit.data.split import make_split
from tunekit.recipe import AugmentRecipe, Recipe
from tunekit.training.build import build_training
from tunekit.training.device import pick_device

_IMAGES, _CLASSES, _SIDE = 20_000, 10, 96
_BATCH = (128, 3, 32, 32)
_KERNELS: dict[str, Callable[[Tensor], Tensor]] = {
    "flip": v2.RandomHorizontalFlip(),
    "shift_crop": v2.RandomCrop(32, padding=4, padding_mode="reflect"),
    "rotation": v2.RandomRotation(15, v2.InterpolationMode.BILINEAR),
    "trivialaugment": v2.TrivialAugmentWide(),
}


def measure(data: Path, runs: int) -> Part:
    """A folder is made of enlarged CIFAR-10 images."""
    part = Part(
        "Data path",
        f"{_IMAGES:,} JPEGs of {_SIDE}x{_SIDE} in {_CLASSES} class folders, packed at 64x64, both cores; "
        "kernels: batches of 128 x 3 x 32 x 32, one thread.",
    )
    if not wait_until_idle():
        part.notes.append("The machine was not idle: throw these figures away.")
    with tempfile.TemporaryDirectory() as temporary:
        photos = Path(temporary) / "photos"
        _write_photos(open_dataset("cifar10", data), photos)
        folders = [Path(temporary) / f"data{run}" for run in range(runs)]
        packing = [timed(partial(open_dataset, str(photos), folder)) for folder in folders]
        by_hand = timed(partial(_decode_one_by_one, photos)) * 10
        ours = part.add("packing 20,000 JPEGs", "s", packing)
        part.add("torchvision ImageFolder + Resize, the same images once (from 2,000)", "s", [by_hand])
        part.compare("packing, beside one epoch of ImageFolder", by_hand / ours.median)
        _large_photo(part, Path(temporary) / "large.jpg", runs)
        again = partial(open_dataset, str(photos), folders[0])
        part.add("opening the pack again", "s", [timed(again)])
        _first_epochs(part, again())
    _kernels(part, runs)
    return part


def _write_photos(pack: Pack, photos: Path) -> None:
    images, labels = pack.train()
    for place in range(_IMAGES):
        folder = photos / pack.classes[int(labels[place])]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(images[place]).resize((_SIDE, _SIDE)).save(folder / f"{place}.jpg", quality=90)


def _decode_one_by_one(photos: Path) -> None:
    change = transforms.Compose([transforms.Resize((64, 64)), transforms.ToTensor()])
    images = datasets.ImageFolder(str(photos), transform=change)
    for place in range(0, _IMAGES, 10):
        images[place]


def _large_photo(part: Part, path: Path, runs: int) -> None:
    """Of 12 megapixels, as a camera makes them."""
    noise = np.random.default_rng(0).integers(0, 256, (300, 400, 3), dtype=np.uint8)
    Image.fromarray(noise).resize((4000, 3000)).save(path, quality=90)
    change = transforms.Compose([transforms.Resize(224), transforms.CenterCrop(224)])
    ours = part.add(
        "a JPEG of 4000x3000, read at 224x224",
        "ms",
        [1000 * timed(lambda: read_image(path, 224, 224, 3)) for _ in range(runs)],
    )
    theirs = part.add(
        "torchvision, Resize + CenterCrop",
        "ms",
        [1000 * timed(lambda: change(Image.open(path).convert("RGB"))) for _ in range(runs)],
    )
    part.compare("reading a large photo, beside torchvision", theirs.median / ours.median)


def _first_epochs(part: Part, pack: Pack) -> None:
    """Of a network that is small beside its data."""
    torch.set_num_threads(1)
    split = make_split(pack.train()[1], 0.2, 0, 6400)
    recipe = Recipe.from_flat({"model.name": "resnet8", "augment.policy": "flip+shift_crop"})
    training = build_training(recipe, pack, split, 3, 0, pick_device(1))
    first, second, _ = (result.epoch_seconds for result in training.run())
    part.add("first epoch of 5,120 of them (resnet8)", "s", [first])
    part.add("second epoch", "s", [second])


def _kernels(part: Part, runs: int) -> None:
    torch.set_num_threads(1)
    batch, channels, height, width = _BATCH
    pixels = torch.from_numpy(
        np.random.default_rng(0).integers(0, 256, (batch, height, width, channels), dtype=np.uint8)
    ).permute(0, 3, 1, 2)
    copied = _seconds(lambda: pixels.clone(), runs * 100)
    part.add("memory: a copy of the batch", "GB/s", [2 * pixels.nbytes / copied / 1e9])
    for name, change in _KERNELS.items():
        augment = build_augment(AugmentRecipe(policy=name), height, 10)
        ours = _seconds(partial(_apply, augment, pixels, Generator().manual_seed(0)), runs * 20)
        theirs = _seconds(partial(one_by_one, change, pixels), runs)
        part.add(f"{name}: read and written", "GB/s", [2 * pixels.nbytes / ours / 1e9])
        part.compare(f"{name}: beside torchvision, image by image", theirs / ours)


def _apply(augment: Augment, pixels: Tensor, generator: Generator) -> None:
    for step in augment.raw:
        step(pixels, generator)


def _seconds(work: Callable[[], object], calls: int) -> float:
    """Mean seconds of a call, after one to warm up."""
    work()
    clock = time.perf_counter()
    for _ in range(calls):
        work()
    return (time.perf_counter() - clock) / calls
