from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tunekit.data.split import Split, make_split, stratified_split, stratified_subset
from tunekit.errors import DataError

LABELS = np.random.default_rng(0).permutation(np.repeat(np.arange(4), [100, 50, 7, 2]))


def test_split_is_complete_disjoint_and_sorted() -> None:
    train, validation = stratified_split(LABELS, 0.2, seed=1)
    assert train.dtype == validation.dtype == np.int64
    assert np.array_equal(np.sort(np.concatenate([train, validation])), np.arange(len(LABELS)))
    assert (np.diff(train) > 0).all()
    assert (np.diff(validation) > 0).all()


@pytest.mark.parametrize(
    ("fraction", "held_out"), [(0.2, [20, 10, 1, 1]), (0.5, [50, 25, 4, 1]), (0.999, [99, 49, 6, 1])]
)
def test_split_takes_the_fraction_of_each_class(fraction: float, held_out: list[int]) -> None:
    _, validation = stratified_split(LABELS, fraction, seed=1)
    assert np.bincount(LABELS[validation]).tolist() == held_out  # at least 1, and at least 1 is left


def test_split_follows_from_the_seed() -> None:
    first, again, other = (stratified_split(LABELS, 0.2, seed)[1] for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize("fraction", [0.0, 1.0, -0.1, float("nan")])
def test_fraction_out_of_range(fraction: float) -> None:
    with pytest.raises(DataError, match="fraction must be above 0 and below 1, but got"):
        stratified_split(LABELS, fraction, seed=1)


def test_class_with_one_image() -> None:
    with pytest.raises(DataError, match="class number 3 has 1 image, but at least 2"):
        stratified_split(np.array([1, 1, 3]), 0.5, seed=1)


@pytest.mark.parametrize(
    ("n", "shares"),
    [
        (159, [100, 50, 7, 2]),  # all
        (100, [63, 31, 4, 2]),  # quotas 62.9, 31.4, 4.4, 1.3
        (20, [11, 5, 2, 2]),  # quotas 12.6, 6.3, 0.9, 0.3: the minimum takes from the largest
        (8, [2, 2, 2, 2]),
    ],
)
def test_subset_has_the_proportions_of_the_classes(n: int, shares: list[int]) -> None:
    chosen = stratified_subset(LABELS, n, seed=3)
    assert chosen.dtype == np.int64
    assert (np.diff(chosen) > 0).all()
    counts = np.bincount(LABELS[chosen])
    assert counts.sum() == n
    assert np.abs(counts - shares).max() <= 1
    assert counts.min() >= 2


@pytest.mark.parametrize("n", [7, 160, 0])
def test_subset_of_impossible_size(n: int) -> None:
    with pytest.raises(DataError, match=rf"must be 8 \(2 of each class\) to 159, but got {n}"):
        stratified_subset(LABELS, n, seed=3)


def test_limit_counts_train_and_validation_together() -> None:
    split = make_split(LABELS, 0.25, seed=5, limit=40)
    assert len(split.train) + len(split.validation) == 40
    assert not set(split.train) & set(split.validation)


def test_every_possible_limit_can_be_split() -> None:
    for limit in range(8, 160):
        split = make_split(LABELS, 0.1, seed=5, limit=limit)
        assert set(LABELS[split.train]) == set(LABELS[split.validation]) == {0, 1, 2, 3}


@pytest.mark.parametrize("limit", [None, 40])
def test_split_survives_its_file(tmp_path: Path, limit: int | None) -> None:
    split = make_split(LABELS, 0.25, seed=5, limit=limit)
    path = tmp_path / "search" / "split.npz"
    split.save(path)
    loaded = Split.load(path)
    assert np.array_equal(loaded.train, split.train)
    assert np.array_equal(loaded.validation, split.validation)
    assert (loaded.seed, loaded.fraction, loaded.limit) == (5, 0.25, limit)
    assert [file.name for file in path.parent.iterdir()] == ["split.npz"]


@pytest.mark.parametrize("damage", ["absent", "empty", "garbage", "half", "pickle"])
def test_damaged_split_file(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "split.npz"
    make_split(LABELS, 0.25, seed=5, limit=None).save(path)
    whole = path.read_bytes()
    if damage == "absent":
        path.unlink()
    elif damage == "pickle":
        np.savez(path, train=np.array([{}], dtype=object), limit=1)
    else:
        path.write_bytes({"empty": b"", "garbage": b"x" * 99, "half": whole[: len(whole) // 2]}[damage])
    with pytest.raises(DataError, match=r"split.npz is not a readable split"):
        Split.load(path)
