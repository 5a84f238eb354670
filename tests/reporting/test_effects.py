"""How values compare once the rest was tuned, and known recipes beside what was reported of them."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from tests.reporting.made_up_facts import Made, constant, made_up
from tunekit.baselines import Baseline
from tunekit.errors import RecipeError
from tunekit.history import EventKind
from tunekit.reporting.effects import KeyEffects, factor_table, key_effects, scientific_effects
from tunekit.reporting.facts import Facts
from tunekit.space import Params

PLACE = "model.bn_placement"


def params(place: str, number: int = 0) -> Params:
    return {PLACE: place, "optim.name": "adam", "optim.lr": 0.001 * (number + 1)}


def full(place: str, *values: float) -> list[Made]:
    return [constant(params(place, number), value) for number, value in enumerate(values)]


def effects(facts: Facts, key: str = PLACE) -> KeyEffects:
    found = key_effects(facts, key)
    assert found is not None
    return found


# Effects.


def test_the_best_third_of_a_value_judges_it(tmp_path: Path) -> None:
    good = [0.9, 0.8, 0.1, 0.1, 0.1, 0.1]  # well tuned in two trials, badly in four
    even = [0.5] * 6
    found = effects(made_up(tmp_path, [*full("none", *good), *full("before_act", *even)]))
    first, second = found.values
    assert (first.value, first.trials, first.top_count, first.best) == ("none", 6, 2, 0.9)
    assert first.top_mean == pytest.approx(0.85)
    assert first.difference is None
    assert second.top_mean == pytest.approx(0.5)
    assert second.difference == pytest.approx(-0.35)
    assert found.rung == 9


def test_a_clear_difference_is_beyond_noise_and_its_interval_holds_it(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    trials = full("none", *(0.9 + 0.01 * rng.random(12))) + full("after_act", *(0.6 + 0.01 * rng.random(12)))
    (_, second) = effects(made_up(tmp_path, trials)).values
    assert second.beyond_noise
    assert second.low is not None and second.high is not None and second.difference is not None
    assert second.low <= second.difference <= second.high < 0
    assert "beyond noise" in second.words


def test_noise_is_called_noise(tmp_path: Path) -> None:
    called = 0
    for seed in range(20):
        values = np.random.default_rng(seed).random(16).tolist()
        facts = made_up(tmp_path / str(seed), full("none", *values[:8]) + full("after_act", *values[8:]))
        second = effects(facts).values[1]
        assert second.beyond_noise == ("beyond noise" in second.words)
        called += second.beyond_noise
    assert called <= 3


def test_too_few_trials_are_called_too_few_and_do_not_lead(tmp_path: Path) -> None:
    found = effects(
        made_up(tmp_path, [*full("none", 0.99), *full("after_act", *[0.5 + n / 100 for n in range(6)])])
    )
    first, second = found.values
    assert first.value == "after_act"
    assert second.words == "0.4450 ahead, 0.9900 over the best 1 of 1 trial: too few trials to tell"
    assert second.low is None and second.high is None and not second.beyond_noise


def test_failed_recipes_count_towards_the_third_and_are_named(tmp_path: Path) -> None:
    failed = [Made(params("none", n), [], "fail", reason="diverged") for n in range(6)]
    trials = [*failed, *full("none", 0.8, 0.7, 0.6), *full("after_act", *[0.5] * 6)]
    found = effects(made_up(tmp_path, trials))
    first = found.values[0]
    assert (first.value, first.trials, first.top_count) == ("none", 9, 3)
    assert first.top_mean == pytest.approx(0.7)
    assert "6 failed" in first.words


def test_a_value_of_which_all_trials_failed(tmp_path: Path) -> None:
    failed = [Made(params("none", n), [], "fail", reason="diverged") for n in range(2)]
    found = effects(made_up(tmp_path, [*failed, *full("after_act", *[0.5] * 6)]))
    last = found.values[-1]
    assert (last.value, last.top_mean, last.top_count, last.best) == ("none", None, 0, None)
    assert last.words == "all 2 trials failed"


def test_values_are_compared_where_the_best_third_of_each_arrived(tmp_path: Path) -> None:
    def searched(folder: str, survivors: int) -> Facts:
        ends: list[tuple[int, EventKind]] = [
            (9, "complete") if n < survivors else (3, "stop") for n in range(6)
        ]
        weak = [
            Made(params("after_act", n), [0.5 + n / 100] * epochs, end)
            for n, (epochs, end) in enumerate(ends)
        ]
        return made_up(tmp_path / folder, [*full("none", *[0.8] * 6), *weak])

    assert effects(searched("two", 2)).rung == 9
    few = effects(searched("one", 1))
    assert few.rung == 3
    assert few.values[1].top_mean == pytest.approx(0.545)


def test_trials_that_were_stopped_are_part_of_the_third(tmp_path: Path) -> None:
    stopped = [Made(params("after_act", n), [0.1] * 3, "stop") for n in range(4)]
    found = effects(made_up(tmp_path, [*full("none", *[0.5] * 6), *full("after_act", 0.9, 0.8), *stopped]))
    first = found.values[0]
    assert found.rung == 9
    assert (first.value, first.trials, first.top_count) == ("after_act", 6, 2)


def test_lost_trials_and_repeats_say_nothing(tmp_path: Path) -> None:
    trials = [
        *full("none", 0.5),
        Made(params("none", 5), [0.9], "lose", reason="node gone"),
        Made(params("none", 0), [0.9] * 9, repeat_of=0),
    ]
    (only,) = effects(made_up(tmp_path, trials)).values
    assert (only.trials, only.top_mean) == (1, 0.5)


def test_one_value_alone_is_said_to_be_alone(tmp_path: Path) -> None:
    facts = made_up(tmp_path, full("none", 0.5))
    assert effects(facts).words.startswith(f"{PLACE}: only none was tried")
    assert scientific_effects(facts) == []


def test_a_conditional_key_is_compared_among_the_trials_that_have_it(tmp_path: Path) -> None:
    space = """
[space]
"optim.name" = { choices = ["sgd", "adam"], role = "scientific" }
"optim.nesterov" = { choices = [false, true], role = "scientific", when = { "optim.name" = ["sgd"] } }
"""
    trials = [constant({"optim.name": "adam"}, 0.9)]
    trials += [constant({"optim.name": "sgd", "optim.nesterov": nesterov}, 0.5) for nesterov in (False, True)]
    facts = made_up(tmp_path, trials, space)
    assert [value.trials for value in effects(facts, "optim.nesterov").values] == [1, 1]
    assert [found.key for found in scientific_effects(facts)] == ["optim.name", "optim.nesterov"]


def test_whole_numbers_are_compared_and_wide_ranges_are_not(tmp_path: Path) -> None:
    space = '[space]\n"model.depth" = { low = 1, high = 4 }\n"optim.lr" = { low = 0.1, high = 1.0 }\n'
    trials = [constant({"model.depth": depth, "optim.lr": 0.5}, depth / 10) for depth in (1, 2, 3)]
    facts = made_up(tmp_path, trials, space)
    assert [value.value for value in effects(facts, "model.depth").values] == [3, 2, 1]
    assert key_effects(facts, "optim.lr") is None


def test_a_key_that_does_not_exist(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=PLACE):
        key_effects(made_up(tmp_path, []), "model.bn_placment")


def test_before_a_trial_has_a_result_there_is_no_effect(tmp_path: Path) -> None:
    assert key_effects(made_up(tmp_path, [Made(params("none"), [], None)]), PLACE) is None


def test_the_same_search_gives_the_same_effects(tmp_path: Path) -> None:
    values = np.random.default_rng(0).random(16).tolist()
    facts = made_up(tmp_path, full("none", *values[:8]) + full("after_act", *values[8:]))
    assert key_effects(facts, PLACE) == key_effects(facts, PLACE)


# Known recipes.

VGG = Baseline("vgg", {"model.name": "vgg16", "optim.lr": 0.001}, "mnist", 99.1, 10, "a report")
SGD = Baseline("vgg-lr", {"model.name": "vgg16", "optim.lr": 0.01}, "mnist", 98.9, 10, "a report")
ADAM = Baseline(
    "vgg-adam", {"model.name": "vgg16", "optim.lr": 0.01, "optim.name": "adam"}, "mnist", None, 10
)


def of_known(known: Baseline, *values: float, **about: object) -> Made:
    return Made(known.recipe, values, baseline=known.name, **about)  # type: ignore[arg-type]


def searched(folder: Path, trials: Sequence[Made]) -> Facts:
    return made_up(folder, trials, baselines=[VGG, SGD, ADAM])


def test_known_recipes_beside_what_was_reported(tmp_path: Path) -> None:
    trials = [of_known(VGG, *[0.8] * 9), of_known(SGD, *[0.7] * 9), *full("none", 0.95)]
    first, second, third = factor_table(searched(tmp_path, trials))
    assert (first.baseline, first.varied) == ("vgg", "the first of them")
    assert first.reported == pytest.approx(0.991)
    assert (first.reproduced, first.reproduced_from) == (0.8, "search, 1 seed")
    assert first.best_found == second.best_found == 0.95
    assert second.varied == "vgg with optim.lr = 0.01 (not 0.001)"
    assert third.varied == "vgg-lr with optim.name = adam (not sgd)"
    assert (third.reported, third.reproduced, third.reproduced_from) == (None, None, "not tried")


def test_repeats_of_a_known_recipe_are_averaged(tmp_path: Path) -> None:
    trials = [of_known(VGG, *[0.8] * 9), of_known(VGG, *[0.6] * 9, repeat_of=0)]
    row = factor_table(searched(tmp_path, trials))[0]
    assert row.reproduced == pytest.approx(0.7)
    assert row.reproduced_from == "search, 2 seeds"


def test_a_known_recipe_that_failed_or_is_not_done(tmp_path: Path) -> None:
    trials = [of_known(VGG, end="fail", reason="diverged"), of_known(SGD, 0.5, 0.6, end=None)]
    first, second, _ = factor_table(searched(tmp_path, trials))
    assert (first.reproduced, first.reproduced_from) == (None, "failed")
    assert (second.reproduced, second.reproduced_from) == (0.6, "search, 1 seed, 2 of 9 epochs")


def test_the_test_set_counts_more_than_the_search(tmp_path: Path) -> None:
    facts = searched(tmp_path, [of_known(VGG, *[0.8] * 9)])
    file = facts.paths.retraining.result(1)
    file.parent.mkdir(parents=True)
    rows = [
        {"name": "vgg", "part": "train+val", "mean": 0.99, "accuracies": [0.99] * 5},
        {"name": "vgg", "part": "train", "mean": 0.97, "accuracies": [0.97] * 5},
    ]
    file.write_text(json.dumps({"key": "a", "format": 1, "opening": {"number": 1}, "test": rows}))
    row = factor_table(facts)[0]
    assert (row.reproduced, row.reproduced_from) == (0.97, "retrain, 5 seeds, test set")


def test_without_known_recipes_there_is_no_table(tmp_path: Path) -> None:
    assert factor_table(made_up(tmp_path, full("none", 0.5))) == []


def test_known_recipes_for_other_data_are_no_comparison(tmp_path: Path) -> None:
    facts = searched(tmp_path, full("none", 0.95))
    assert len(factor_table(facts)) == 3
    elsewhere = [dataclasses.replace(known, dataset="cifar100") for known in facts.space.baselines]
    space = dataclasses.replace(facts.space, baselines=tuple(elsewhere))
    rows = factor_table(dataclasses.replace(facts, space=space))
    assert {row.baseline for row in rows} == {known.name for known in facts.settings.known_recipes()}
