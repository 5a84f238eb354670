"""CPU milliseconds that each augmentation takes for a batch of 128 x 32 x 32 x 3, on one thread of the CPU.

    .venv/bin/python -m tests.benchmarks.augmentation [RUNS]

Beside it, how many times as long torchvision takes to change the same images one by one.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from functools import partial

import torch
from torch import Generator, Tensor
from torchvision.transforms import v2

from tunekit.data.augment import Augment, build_augment
from tunekit.recipe import AUGMENTATIONS, AugmentRecipe

_IMAGES, _SIDE, _CLASSES = 128, 32, 10
_ONE_BY_ONE: dict[str, Callable[[Tensor], Tensor]] = {
    "flip": v2.RandomHorizontalFlip(),
    "shift_crop": v2.RandomCrop(_SIDE, padding=4, padding_mode="reflect"),
    "rotation": v2.RandomRotation(15, v2.InterpolationMode.BILINEAR),
    "randaugment": v2.RandAugment(),
    "trivialaugment": v2.TrivialAugmentWide(),
    "autoaugment": v2.AutoAugment(v2.AutoAugmentPolicy.CIFAR10),
    "random_erasing": v2.RandomErasing(0.25),
}


def milliseconds(work: Callable[[], object], runs: int) -> float:
    """Median over `runs` calls, after one to warm up; time of this thread, whatever else the machine does."""
    work()
    seconds = []
    for _ in range(runs):
        clock = time.thread_time()
        work()
        seconds.append(time.thread_time() - clock)
    return 1000 * statistics.median(seconds)


def batched(augment: Augment, pixels: Tensor, labels: Tensor) -> Callable[[], None]:
    """One call changes one batch, without normalising it."""
    generator, normalised = Generator().manual_seed(0), pixels.float()

    def work() -> None:
        for change in augment.raw:
            change(pixels, generator)
        for change in augment.normalised:
            change(normalised, generator)
        if augment.mix:
            augment.mix(normalised, labels, generator)

    return work


def one_by_one(change: Callable[[Tensor], Tensor], images: Tensor) -> list[Tensor]:
    """Each image changed on its own."""
    return [change(image) for image in images]


def main(runs: int) -> None:
    """Measure and print."""
    torch.set_num_threads(1)
    pixels = torch.randint(0, 256, (_IMAGES, _SIDE, _SIDE, 3), dtype=torch.uint8).permute(0, 3, 1, 2)
    labels = torch.randint(0, _CLASSES, (_IMAGES,))
    print(f"{'augmentation':16} {'batch':>9} {'one by one':>12} {'ratio':>7}   (median of {runs} runs)")
    for policy in (*AUGMENTATIONS, "mixup+cutmix"):
        augment = build_augment(AugmentRecipe(policy=policy), _SIDE, _CLASSES)
        ours = milliseconds(batched(augment, pixels, labels), runs)
        line = f"{policy:16} {ours:6.2f} ms"
        if single := _ONE_BY_ONE.get(policy):
            theirs = milliseconds(partial(one_by_one, single, pixels), max(3, runs // 10))
            line += f" {theirs:9.2f} ms {theirs / ours:6.1f}x"
        print(line)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 50)
