"""A search in sentences that are true whatever became of it."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from tests.reporting.made_up_facts import Made, constant, made_up
from tunekit.baselines import Baseline
from tunekit.reporting.analysis import analyse
from tunekit.reporting.facts import Facts
from tunekit.reporting.summary import combined_difference, summary_sentences
from tunekit.retraining.statistics import Interval, binomial_interval
from tunekit.space import Params

DEFAULT: Params = {
    "model.bn_placement": "before_act",
    "optim.name": "sgd",
    "optim.lr": 0.1,
    "optim.momentum": 0.9,
}
OTHER: Params = {"model.bn_placement": "none", "optim.name": "adam", "optim.lr": 0.01}
THIRD: Params = {"model.bn_placement": "after_act", "optim.name": "adam", "optim.lr": 0.1}


def default(value: float, **about: Any) -> Made:
    return constant(DEFAULT, value, default=True, **about)


def summary(facts: Facts) -> str:
    sentences = summary_sentences(facts, analyse(facts))
    assert all(sentence.endswith(".") and "None" not in sentence for sentence in sentences)
    return " ".join(sentences)


def retrained(facts: Facts, **changed: Any) -> None:
    """A result of 3 seeds, laid down as retrain-best does."""
    behind = {"mean": 0.05, "interval": {"low": 0.01, "high": 0.09}, "seeds": 3}
    tested = {"accuracies": [0.8] * 3, "mean": 0.8, "over_both": {"low": 0.75, "high": 0.85}}
    result = {
        "key": "a",
        "format": 1,
        "opening": {"number": 1},
        "winner": "trial 01",
        "standings": [
            {"name": "trial 01", "default": False, "behind": None, "accuracies": [0.8] * 3},
            {"name": "trial 00 (default)", "default": True, "behind": behind, "accuracies": [0.75] * 3},
        ],
        "test": [{"name": "trial 01", "part": "train", **tested}],
        "test_images": 10000,
        "earlier_openings": [],
        "registration": {"name": "tunekit-digits"},
        **changed,
    }
    file = facts.paths.retraining.result(1)
    file.parent.mkdir(parents=True)
    file.write_text(json.dumps(result))
    opening = {"number": 1, "search": "made-up", "time": 0.0, "user": "me", "host": "here"}
    opening |= {"recipes": ["trial 01"], "data": "0"}
    facts.paths.test_openings.write_text(json.dumps(opening) + "\n")


# Every kind of search.


def test_a_search_that_has_not_begun(tmp_path: Path) -> None:
    words = summary(made_up(tmp_path, [], samples=5))
    assert words.startswith("No trial has begun.")
    assert "'tunekit resume made-up'" in words


def test_a_search_without_a_result_yet(tmp_path: Path) -> None:
    words = summary(made_up(tmp_path, [Made(OTHER, [], None)]))
    assert words.startswith("No trial has a result yet")


@pytest.mark.parametrize(("count", "words"), [(1, "The only trial failed"), (2, "All 2 trials failed")])
def test_a_search_whose_trials_all_failed(tmp_path: Path, count: int, words: str) -> None:
    trials = [Made(OTHER, [], "fail", reason="diverged: value is nan"), Made(THIRD, [], "fail", reason="x")]
    said = summary(made_up(tmp_path, trials[:count]))
    assert said.startswith(words)
    assert "diverged (1)" in said
    assert "read why the trials failed" in said


def test_one_trial(tmp_path: Path) -> None:
    words = summary(made_up(tmp_path, [default(0.5)]))
    assert "The best recipe of 1 recipe is trial 00" in words
    assert "That is the default recipe: no other recipe has a result." in words
    assert "'tunekit retrain-best made-up'" in words


def test_an_unfinished_search(tmp_path: Path) -> None:
    words = summary(made_up(tmp_path, [default(0.5), Made(OTHER, [0.6, 0.7], None)]))
    assert "1 trial had not ended when this was written." in words
    assert "trial 01 itself is not trained to its end." in words
    assert "'tunekit resume made-up'" in words


def test_a_search_of_known_recipes_alone(tmp_path: Path) -> None:
    known = Baseline("he2016", {"optim.lr": 0.1}, "digits", 91.25)
    trial = Made(known.recipe, [0.5] * 9, baseline="he2016")
    words = summary(made_up(tmp_path, [trial], baselines=[known], samples=0))
    assert "The best recipe of 1 recipe is he2016: validation accuracy 0.5000" in words
    assert "default recipe" not in words


def test_failures_and_losses_are_told_apart(tmp_path: Path) -> None:
    trials = [
        default(0.5),
        Made(OTHER, [0.1], "fail", reason="diverged: value is nan"),
        Made(THIRD, [0.1], "lose", reason="the node is gone"),
    ]
    words = summary(made_up(tmp_path, trials))
    assert "1 of 3 trials failed: diverged (1)." in words
    assert (
        "1 of 3 trials was lost to the machine, which says nothing of recipes: the node is gone (1)." in words
    )


# The gain over the default recipe.


def test_without_the_default_recipe_no_gain_is_named(tmp_path: Path) -> None:
    words = summary(made_up(tmp_path, [constant(OTHER, 0.5)]))
    assert "The default recipe was not trained" in words


def test_a_default_recipe_that_failed(tmp_path: Path) -> None:
    failed = Made(DEFAULT, [], "fail", default=True, reason="diverged")
    words = summary(made_up(tmp_path, [failed, constant(OTHER, 0.5)]))
    assert "The default recipe failed, so a gain over it cannot be named." in words


def test_a_known_recipe_may_be_the_default_one(tmp_path: Path) -> None:
    known = Baseline("mine", DEFAULT, "digits")
    trials = [Made(DEFAULT, [0.5] * 9, baseline="mine"), constant(OTHER, 0.7)]
    words = summary(made_up(tmp_path, trials, baselines=[known], samples=1))
    assert "trial 01 gains +0.2000 over the default recipe (0.5000)" in words


@pytest.mark.parametrize(("best", "verdict"), [(0.52, "does not exceed"), (0.60, "exceeds")])
def test_one_training_each_is_at_least_as_unsure_as_the_images_make_it(
    tmp_path: Path, best: float, verdict: str
) -> None:
    words = summary(made_up(tmp_path, [default(0.5), constant(OTHER, best)]))
    assert "With one training of each the uncertainty is at least that of drawing 1,000" in words
    assert f"and the gain {verdict} it" in words


def test_with_repeats_the_seeds_say_how_sure_the_gain_is(tmp_path: Path) -> None:
    trials = [default(0.5), constant(OTHER, 0.7)]
    trials += [constant(DEFAULT, 0.5 + n / 100, repeat_of=0) for n in (1, 2)]
    trials += [constant(OTHER, 0.7 + n / 100, repeat_of=1) for n in (1, 2)]
    words = summary(made_up(tmp_path, trials, repeats=3, samples=2))
    assert "0.7100, the mean of 3 trainings" in words
    assert "gains +0.2000 over the default recipe (0.5100) (95 % over 3 and 3 seeds" in words
    assert "beyond noise" in words


def test_retraining_says_more_than_the_search(tmp_path: Path) -> None:
    facts = made_up(tmp_path, [default(0.5), constant(OTHER, 0.6)])
    retrained(facts)
    words = summary(facts)
    assert "Retrained, trial 01 gains +0.0500 over the default recipe on the validation images" in words
    assert "(95 %, 3 seeds: +0.0100 to +0.0900), beyond noise." in words
    assert "binomial" not in words
    assert "on 10,000 test images: trial 01, trained on the training images, has accuracy 0.8000" in words
    assert "'tunekit predict tunekit-digits IMAGE'" in words


def test_a_default_recipe_that_won_the_retraining(tmp_path: Path) -> None:
    facts = made_up(tmp_path, [default(0.5), constant(OTHER, 0.6)])
    behind = {"mean": 0.05, "interval": {"low": 0.01, "high": 0.09}, "seeds": 3}
    rows = [
        {"name": "trial 00 (default)", "default": True, "behind": None, "accuracies": [0.75] * 3},
        {"name": "trial 01", "default": False, "behind": behind, "accuracies": [0.7] * 3},
    ]
    retrained(facts, winner="trial 00 (default)", standings=rows)
    words = summary(facts)
    assert "Retrained with 3 seeds, the default recipe was not beaten." in words
    assert "the default recipe is not shown to be worse" in words


# The test set.


def test_an_unopened_test_set_is_said_to_be_that(tmp_path: Path) -> None:
    assert "The test set was not opened." in summary(made_up(tmp_path, [default(0.5)]))


def test_an_opening_without_a_result_is_not_hidden(tmp_path: Path) -> None:
    facts = made_up(tmp_path, [default(0.5)])
    retrained(facts)
    facts.paths.retraining.result(1).unlink()
    assert "The test set was opened once, but no result of it was kept." in summary(facts)


def test_earlier_openings_are_a_warning(tmp_path: Path) -> None:
    facts = made_up(tmp_path, [default(0.5), constant(OTHER, 0.6)])
    retrained(facts, earlier_openings=[{}, {}])
    assert "It had been opened 2 times before: accuracies may look too good." in summary(facts)


# What mattered.


def test_what_mattered_and_what_is_noise(tmp_path: Path) -> None:
    trials = [default(0.5)]
    for number in range(30):
        params: Params = {**OTHER, "optim.lr": 0.0001 * 1.3**number}
        params = {**params, "model.bn_placement": ("none", "after_act")[number % 2]}
        trials.append(constant(params, 0.9 - 0.02 * number))
    words = summary(made_up(tmp_path, trials))
    assert "What set the best trials apart at epoch 9 (31 trials): optim.lr." in words
    assert "Not told from noise: " in words
    assert "No value is shown to be better than the others of model.bn_placement." in words


def test_a_value_that_leads_beyond_noise_is_named(tmp_path: Path) -> None:
    trials = [
        constant({**OTHER, "model.bn_placement": place, "optim.lr": 0.001 * (n + 1)}, value + n / 1000)
        for place, value in (("none", 0.9), ("after_act", 0.5))
        for n in range(8)
    ]
    words = summary(made_up(tmp_path, trials))
    assert (
        "model.bn_placement: none leads at epoch 9; beyond noise it is ahead of after_act by 0.4000." in words
    )
    assert "What mattered cannot be told: that takes 20 trials" in words


def test_the_interval_of_a_difference_is_narrower_than_the_sum_of_both() -> None:
    ours, theirs = binomial_interval(900, 1000), binomial_interval(850, 1000)
    found = combined_difference(0.9, ours, 0.85, theirs)
    assert ours.low - theirs.high < found.low < 0.05 < found.high < ours.high - theirs.low
    # Where nothing is known of one side but its value, the other side's interval is left.
    alone = combined_difference(0.9, ours, 0.85, Interval(0.85, 0.85))
    assert (alone.low, alone.high) == pytest.approx((ours.low - 0.85, ours.high - 0.85))


def test_a_folder_of_known_recipes_is_no_search_to_go_on_with(tmp_path: Path) -> None:
    facts = made_up(tmp_path, [])
    facts = dataclasses.replace(facts, settings=dataclasses.replace(facts.settings, samples=0))
    facts.paths.retraining.history.parent.mkdir(parents=True)
    facts.paths.retraining.history.write_text("")
    sentences = summary_sentences(facts, analyse(facts))
    assert sentences[0] == "Known recipes were retrained, without a search."
    assert not any("resume" in sentence for sentence in sentences)
