"""Which images train and which validate: seeded, stratified, recorded. Numpy only."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tunekit.errors import DataError
from tunekit.paths import atomic_write

Indices = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Split:
    """Positions in a pack's training part. `train` and `validation` are sorted and disjoint."""

    train: Indices
    validation: Indices
    seed: int
    fraction: float
    limit: int | None

    def save(self, path: Path) -> None:
        """Write to an `.npz` file, whole or not at all."""
        limit = -1 if self.limit is None else self.limit
        with atomic_write(path) as temporary, open(temporary, "wb") as file:
            np.savez(
                file,
                train=self.train,
                validation=self.validation,
                seed=np.int64(self.seed),
                fraction=np.float64(self.fraction),
                limit=np.int64(limit),
            )

    @classmethod
    def load(cls, path: Path) -> Split:
        """Read what `save` wrote.

        Raises:
            DataError: if the file is absent or damaged.
        """
        try:
            with open(path, "rb") as file, np.load(file, allow_pickle=False) as saved:
                limit = int(saved["limit"])
                return cls(
                    train=_positions(saved["train"]),
                    validation=_positions(saved["validation"]),
                    seed=int(saved["seed"]),
                    fraction=float(saved["fraction"]),
                    limit=None if limit < 0 else limit,
                )
        except Exception as error:  # zipfile, zlib and numpy have a class for each kind of damage
            raise DataError(f"{path} is not a readable split: {error}") from None


def _positions(saved: NDArray[Any]) -> Indices:
    if saved.dtype != np.int64 or saved.ndim != 1 or not len(saved) or saved.min() < 0:
        raise ValueError(f"positions must be whole numbers of 0 or more, but are {saved.dtype} {saved.shape}")
    return saved


def make_split(labels: NDArray[np.int64], fraction: float, seed: int, limit: int | None) -> Split:
    """Divide a training part into train and validation.

    Args:
        labels: (N,) int64, the class of each image.
        fraction: share of the images that validate, above 0 and below 1.
        seed: the same seed gives the same split.
        limit: use only so many of the images, train and validation together; None uses all.
    Raises:
        DataError: if `fraction` or `limit` is out of range, or a class has fewer than 2 images.
    """
    chosen = np.arange(len(labels)) if limit is None else stratified_subset(labels, limit, seed)
    train, validation = stratified_split(labels[chosen], fraction, seed)
    return Split(chosen[train], chosen[validation], seed, fraction, limit)


def stratified_split(labels: NDArray[np.int64], fraction: float, seed: int) -> tuple[Indices, Indices]:
    """Hold out `round(fraction * n)` of the n images of each class, at least 1 and at most n - 1.

    Args:
        labels: (N,) int64.
        fraction: above 0 and below 1.
        seed: of the draw.
    Returns:
        (train, validation): sorted int64 positions, disjoint, together all of them.
    Raises:
        DataError: if `fraction` is out of range or a class has fewer than 2 images.
    """
    if not 0 < fraction < 1:
        raise DataError(f"the validation fraction must be above 0 and below 1, but got {fraction}")
    generator = np.random.Generator(np.random.PCG64(seed))
    held_out = np.zeros(len(labels), dtype=bool)
    for label, count in zip(*_class_counts(labels), strict=True):
        taken = min(max(round(fraction * int(count)), 1), int(count) - 1)
        held_out[generator.permutation(np.flatnonzero(labels == label))[:taken]] = True
    return np.flatnonzero(~held_out), np.flatnonzero(held_out)


def stratified_subset(labels: NDArray[np.int64], n: int, seed: int) -> Indices:
    """Choose exactly `n` images, in the proportions of the classes, at least 2 of each class.

    Args:
        labels: (N,) int64.
        n: 2 * classes to N.
        seed: of the draw.
    Returns:
        (n,) sorted int64 positions.
    Raises:
        DataError: if `n` is out of range or a class has fewer than 2 images.
    """
    classes, counts = _class_counts(labels)
    if not 2 * len(classes) <= n <= len(labels):
        raise DataError(
            f"the number of images must be {2 * len(classes)} (2 of each class) to {len(labels)}, but got {n}"
        )
    generator = np.random.Generator(np.random.PCG64(seed))
    chosen = [
        generator.permutation(np.flatnonzero(labels == label))[:taken]
        for label, taken in zip(classes, _shares(counts, n), strict=True)
    ]
    return np.sort(np.concatenate(chosen))


def _class_counts(labels: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.intp]]:
    classes, counts = np.unique(labels, return_counts=True)
    if counts.min() < 2:
        raise DataError(f"class number {classes[counts.argmin()]} has 1 image, but at least 2 are needed")
    return classes, counts


def _shares(counts: NDArray[np.intp], n: int) -> NDArray[np.int64]:
    """`n` divided in the proportions of `counts` by largest remainder, no share below 2."""
    quotas = n * counts / counts.sum()
    shares: Indices = np.maximum(np.floor(quotas).astype(np.int64), 2)
    while shares.sum() < n:
        shares[np.argmax(quotas - shares)] += 1
    while shares.sum() > n:  # the minimum of 2 took from the large classes
        shares[np.argmax(np.where(shares > 2, shares - quotas, -np.inf))] -= 1
    return shares
