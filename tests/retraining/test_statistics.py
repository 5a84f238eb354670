"""Intervals against known formulas, and how often they hold the truth in worlds where it is known."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.random import Generator
from numpy.typing import NDArray
from scipy.stats import binomtest, norm, t

from tunekit.retraining.statistics import (
    Interval,
    accuracy_interval,
    binomial_interval,
    difference,
    seed_interval,
)

DRAWS = 400
ENOUGH = 0.93  # of DRAWS; 95 % that are promised, less two standard errors


def answers(
    seeds: int, skill: float, ease: NDArray[np.float64], rng: Generator, spread: float = 0.1
) -> NDArray[np.bool_]:
    """(S, N) bool: seeds differ in skill by `spread`, images in ease."""
    noise = spread * rng.standard_normal((seeds, 1)) + rng.standard_normal((seeds, len(ease)))
    right: NDArray[np.bool_] = skill + ease + noise > 0
    return right


def truth(skill: float, ease: float, spread: float = 0.1) -> float:
    """The accuracy of that world: the normals of skill, ease and noise add up to one."""
    return float(norm.cdf(skill / np.sqrt(1 + ease**2 + spread**2)))


def ends(interval: Interval | None) -> tuple[float, float]:
    assert interval is not None
    return interval.low, interval.high


@pytest.mark.parametrize(
    ("right", "images"), [(0, 10), (3, 10), (10, 10), (351, 360), (1, 1), (9_999, 10_000)]
)
@pytest.mark.parametrize("level", [0.8, 0.95])
def test_binomial_interval_is_wilsons(right: int, images: int, level: float) -> None:
    expected = binomtest(right, images).proportion_ci(level, method="wilson")
    found = binomial_interval(right, images, level)
    assert ends(found) == pytest.approx(ends(expected), abs=1e-12)


def test_seed_interval_is_students_t() -> None:
    values = [0.91, 0.93, 0.92, 0.95]
    low, high = t.interval(0.95, 3, np.mean(values), np.std(values, ddof=1) / 2)
    assert ends(seed_interval(values)) == pytest.approx((low, high))
    low, high = t.interval(0.5, 3, np.mean(values), np.std(values, ddof=1) / 2)
    assert ends(seed_interval(values, level=0.5)) == pytest.approx((low, high))


def test_seed_interval_needs_two_seeds_and_stays_within_accuracies() -> None:
    assert seed_interval([]) is None
    assert seed_interval([0.9]) is None
    low, _ = t.interval(0.95, 1, 0.945, 0.045)
    assert ends(seed_interval([0.99, 0.9])) == pytest.approx((low, 1.0))


def test_seed_interval_of_equal_seeds_is_that_value() -> None:
    assert ends(seed_interval([0.7, 0.7, 0.7])) == pytest.approx((0.7, 0.7))


def test_accuracy_interval_adds_the_variance_of_seeds_and_of_images() -> None:
    right = answers(3, 1.5, np.random.default_rng(0).standard_normal(50), np.random.default_rng(1), 0.5)
    by_seed, by_image = right.mean(1).var(ddof=1) / 3, right.mean(0).var(ddof=1) / 50
    freedom = (by_seed + by_image) ** 2 / (by_seed**2 / 2 + by_image**2 / 49)
    low, high = t.interval(0.95, freedom, right.mean(), np.sqrt(by_seed + by_image))
    found = accuracy_interval(right)
    assert ends(found) == pytest.approx((low, min(high, 1.0)))


def test_difference_adds_the_variance_of_both_recipes_seeds_and_of_paired_images() -> None:
    rng = np.random.default_rng(5)
    ease = rng.standard_normal(50)
    ours, theirs = answers(3, 1.5, ease, rng, 0.5), answers(4, 1.0, ease, rng, 0.5)
    parts = np.array([ours.mean(1).var(ddof=1) / 3, theirs.mean(1).var(ddof=1) / 4, 0])
    parts[2] = (ours.mean(0) - theirs.mean(0)).var(ddof=1) / 50
    freedom = parts.sum() ** 2 / (parts**2 / [2, 3, 49]).sum()
    expected = t.interval(0.95, freedom, ours.mean() - theirs.mean(), np.sqrt(parts.sum()))
    assert ends(difference(ours, theirs).interval) == pytest.approx(expected)


def test_accuracy_interval_of_one_seed_is_wilsons() -> None:
    right = np.arange(40)[None] < 33
    assert accuracy_interval(right) == binomial_interval(33, 40)


@pytest.mark.parametrize("seeds", [1, 3])
def test_no_mistake_is_no_certainty(seeds: int) -> None:
    everything = np.ones((seeds, 72), bool)
    perfect, hopeless = accuracy_interval(everything), accuracy_interval(~everything)
    wilson = binomial_interval(72, 72)
    assert ends(perfect) == pytest.approx((wilson.low, 1.0))
    assert ends(hopeless) == pytest.approx((0.0, 1 - wilson.low))


def test_one_image_says_little() -> None:
    interval = accuracy_interval(np.array([[True], [True], [False]]))
    assert interval.low < 0.2 < 0.9 < interval.high
    assert not difference(np.ones((3, 1), bool), np.zeros((3, 1), bool)).interval.low > 0


@pytest.mark.parametrize(
    ("seeds", "images", "skill", "ease"),
    [(1, 72, 1.5, 1.0), (3, 72, 1.5, 1.0), (3, 360, 3.0, 1.5), (5, 1000, 3.0, 3.0)],
)
def test_accuracy_interval_holds_the_truth(seeds: int, images: int, skill: float, ease: float) -> None:
    rng = np.random.default_rng(0)
    # What one seed cannot know: how much seeds differ. Its interval is for a world where they do not.
    spread = 0.1 if seeds > 1 else 0.0
    accuracy = truth(skill, ease, spread)
    held = 0
    for _ in range(DRAWS):
        found = accuracy_interval(answers(seeds, skill, ease * rng.standard_normal(images), rng, spread))
        held += found.low <= accuracy <= found.high
    assert held / DRAWS >= ENOUGH


@pytest.mark.parametrize(("seeds", "others", "images"), [(2, 2, 360), (3, 3, 72), (3, 5, 360), (5, 5, 1000)])
def test_no_difference_is_called_noise(seeds: int, others: int, images: int) -> None:
    rng = np.random.default_rng(1)
    called = 0
    for _ in range(DRAWS):
        ease = 1.5 * rng.standard_normal(images)
        ours = answers(seeds, 2.0, ease + 0.3 * rng.standard_normal(images), rng)
        theirs = answers(others, 2.0, ease + 0.3 * rng.standard_normal(images), rng)
        called += difference(ours, theirs).beyond_noise
    assert called / DRAWS <= 1 - ENOUGH


def test_difference_interval_holds_a_true_difference() -> None:
    rng = np.random.default_rng(2)
    gain = truth(2.3, 1.5) - truth(2.0, 1.5)
    held = 0
    for _ in range(DRAWS):
        ease = 1.5 * rng.standard_normal(360)
        found = difference(answers(3, 2.3, ease, rng), answers(4, 2.0, ease, rng))
        assert found.seeds == 3
        held += found.interval.low <= gain <= found.interval.high
    assert held / DRAWS >= ENOUGH


def test_a_known_difference_is_found_and_has_a_sign() -> None:
    rng = np.random.default_rng(3)
    ease = 1.5 * rng.standard_normal(1000)
    better, worse = answers(5, 3.0, ease, rng), answers(5, 2.0, ease, rng)
    found, opposite = difference(better, worse), difference(worse, better)
    assert found.beyond_noise
    assert opposite.beyond_noise
    assert found.mean == pytest.approx(better.mean() - worse.mean())
    assert ends(opposite.interval) == pytest.approx((-found.interval.high, -found.interval.low))


def test_pairing_by_image_finds_what_the_accuracies_alone_do_not() -> None:
    rng = np.random.default_rng(4)
    ease = 20 * rng.standard_normal(200)  # most images are right for every seed, or wrong for every seed
    better, worse = answers(5, 4.0, ease, rng), answers(5, 1.0, ease, rng)
    assert difference(better, worse).beyond_noise
    assert accuracy_interval(better).low < accuracy_interval(worse).high


@pytest.mark.parametrize(("seeds", "others"), [(1, 1), (1, 5), (5, 1)])
def test_one_seed_is_never_beyond_noise(seeds: int, others: int) -> None:
    found = difference(np.ones((seeds, 500), bool), np.zeros((others, 500), bool))
    assert found.mean == 1
    assert found.interval.low > 0
    assert found.seeds == 1
    assert not found.beyond_noise


def test_recipes_that_agree_on_every_image_may_differ_on_others() -> None:
    right = np.tile(np.arange(72) < 60, (3, 1))
    found = difference(right, right)
    assert found.mean == 0
    assert found.interval.low < 0 < found.interval.high
    assert not found.beyond_noise
