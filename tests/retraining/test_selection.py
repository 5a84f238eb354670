"""Who wins, and what is said of it, on answers whose differences are plain to see."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from tunekit.retraining.selection import Standing, standings, verdicts
from tunekit.retraining.statistics import accuracy_interval, binomial_interval, difference

Right = NDArray[np.bool_]
IMAGES = 400


def answers(accuracy: float, seeds: int = 3) -> Right:
    """Right about the first images, the same for each seed: only images make the interval wide."""
    return np.tile(np.arange(IMAGES) < round(accuracy * IMAGES), (seeds, 1))


def said(right: dict[str, Right], default: str | None = None) -> list[str]:
    return verdicts(standings(right), default)


def names(found: list[Standing]) -> list[str]:
    return [standing.name for standing in found]


def test_the_mean_over_seeds_decides_and_not_the_best_seed() -> None:
    lucky = np.concatenate([answers(0.99, 1), answers(0.5, 2)])
    found = standings({"lucky": lucky, "steady": answers(0.8), "bad": answers(0.1)})
    assert names(found) == ["steady", "lucky", "bad"]
    assert [standing.mean for standing in found] == pytest.approx([0.8, 1.99 / 3, 0.1])
    assert found[1].accuracies == pytest.approx((0.99, 0.5, 0.5))


def test_of_equal_recipes_the_first_given_wins() -> None:
    right = {"b": answers(0.8), "a": answers(0.8), "c": answers(0.9)}
    assert names(standings(right)) == ["c", "b", "a"]
    # Also where the seeds are not as many: two of three is four of six.
    two, four = answers(0.5, 3), answers(0.5, 6)
    two[0], four[:2] = False, False
    assert names(standings({"four": four, "two": two})) == ["four", "two"]


def test_each_recipe_is_compared_with_the_winner_image_by_image() -> None:
    right = {"second": answers(0.8), "best": answers(0.9), "third": answers(0.7)}
    best, second, third = standings(right)
    assert best.behind is None
    assert second.behind == difference(right["best"], right["second"])
    assert third.behind == difference(right["best"], right["third"])
    assert second.behind is not None
    assert second.behind.mean == pytest.approx(0.1)


def test_the_interval_of_a_recipe_is_its_own() -> None:
    right = {"many": answers(0.9), "one": answers(0.8, seeds=1)}
    many, one = standings(right)
    assert many.interval == accuracy_interval(right["many"])
    assert one.interval == binomial_interval(320, IMAGES)


def test_a_seed_that_failed_counts_as_wrong_everywhere() -> None:
    broken = np.concatenate([answers(0.9, 1), answers(0.0, 1)])
    found = standings({"broken": broken, "steady": answers(0.5, 2)})
    assert names(found) == ["steady", "broken"]
    assert found[1].accuracies == (0.9, 0.0)


# What is said of it.


def test_one_recipe_alone_is_compared_with_nothing() -> None:
    assert said({"default recipe": answers(0.9)}, "default recipe") == []


def test_the_default_recipe_is_beaten() -> None:
    (sentence,) = said({"trial 07": answers(0.9), "default recipe": answers(0.7)}, "default recipe")
    interval = difference(answers(0.9), answers(0.7)).interval
    assert sentence == (
        f"trial 07 beats the default recipe by 0.2000 (95 %: {interval.low:+.4f} to {interval.high:+.4f})."
    )


def test_the_default_recipe_is_within_noise() -> None:
    (sentence,) = said({"trial 07": answers(0.9), "default recipe": answers(0.895)}, "default recipe")
    assert sentence.startswith(
        "trial 07 is within noise of the default recipe: it is ahead by 0.0050 (95 %: -"
    )


def test_the_default_recipe_wins_clearly() -> None:
    assert said({"trial 07": answers(0.5), "trial 00 (default)": answers(0.9)}, "trial 00 (default)") == [
        "The default recipe was not beaten.",
        "trial 00 (default) is ahead of all other recipes by more than noise.",
    ]


def test_the_default_recipe_wins_by_chance() -> None:
    assert said({"trial 07": answers(0.895), "default recipe": answers(0.9)}, "default recipe") == [
        "The default recipe was not beaten.",
        "default recipe is within noise of trial 07.",
    ]


def test_all_others_are_clearly_behind() -> None:
    right = {"trial 07": answers(0.9), "trial 03": answers(0.7), "default recipe": answers(0.5)}
    beaten, ahead = said(right, "default recipe")
    assert beaten.startswith("trial 07 beats the default recipe by 0.4000 ")
    assert ahead == "trial 07 is ahead of all other recipes by more than noise."


def test_rivals_are_named_and_so_is_who_is_none() -> None:
    right = {
        "trial 07": answers(0.9),
        "trial 01": answers(0.8975),
        "trial 02": answers(0.895),
        "trial 03": answers(0.8925),
        "trial 04": answers(0.6),
        "default recipe": answers(0.5),
    }
    beaten, close, ahead = said(right, "default recipe")
    assert beaten.startswith("trial 07 beats the default recipe by 0.4000 ")
    assert close == "trial 07 is within noise of trial 01, trial 02 and trial 03."
    assert ahead == "trial 07 is ahead of trial 04 by more than noise."


def test_who_is_as_good_as_the_default_recipe_is_not_ahead_of_all() -> None:
    right = {"trial 07": answers(0.9), "default recipe": answers(0.895), "trial 03": answers(0.5)}
    within, ahead = said(right, "default recipe")
    assert within.startswith("trial 07 is within noise of the default recipe: ")
    assert ahead == "trial 07 is ahead of trial 03 by more than noise."


def test_known_recipes_have_no_default_one() -> None:
    assert said({"B-mnist-vgg11": answers(0.9), "B-mnist-vgg16": answers(0.895)}) == [
        "B-mnist-vgg11 is within noise of B-mnist-vgg16."
    ]
    assert said({"B-mnist-vgg11": answers(0.9), "B-mnist-vgg16": answers(0.5)}) == [
        "B-mnist-vgg11 is ahead of all other recipes by more than noise."
    ]


def test_one_seed_a_recipe_cannot_tell_however_large_the_difference() -> None:
    right = {"trial 07": answers(0.9, 1), "trial 03": answers(0.2, 1), "default recipe": answers(0.1, 1)}
    assert said(right, "default recipe") == [
        "Nobody can tell whether trial 07 is better than trial 03 and default recipe: "
        "that takes two seeds of each."
    ]


def test_one_seed_of_the_default_recipe_cannot_tell_whether_it_wins() -> None:
    right = {"trial 07": answers(0.2, 1), "default recipe": answers(0.9, 1)}
    assert said(right, "default recipe") == [
        "Nobody can tell whether default recipe is better than trial 07: that takes two seeds of each."
    ]


def test_one_seed_of_one_recipe_leaves_the_others_comparable() -> None:
    # The machine lost two of its three trainings.
    right = {
        "trial 07": answers(0.9),
        "trial 05": answers(0.895),
        "trial 03": answers(0.2, 1),
        "default recipe": answers(0.5),
    }
    beaten, close, unknown = said(right, "default recipe")
    assert beaten.startswith("trial 07 beats the default recipe by 0.4000 ")
    assert close == "trial 07 is within noise of trial 05."
    assert unknown == (
        "Nobody can tell whether trial 07 is better than trial 03: that takes two seeds of each."
    )


def test_one_seed_of_the_default_recipe_says_nothing_about_it() -> None:
    right = {"trial 07": answers(0.9), "trial 03": answers(0.5), "default recipe": answers(0.2, 1)}
    assert said(right, "default recipe") == [
        "trial 07 is ahead of trial 03 by more than noise.",
        "Nobody can tell whether trial 07 is better than default recipe: that takes two seeds of each.",
    ]


def test_equal_answers_are_within_noise() -> None:
    (sentence,) = said({"trial 07": answers(0.9), "default recipe": answers(0.9)}, "default recipe")
    assert sentence.startswith("trial 07 is within noise of the default recipe: ")
