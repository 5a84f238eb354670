"""Which keys mattered: on made-up trials whose values depend on known keys."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.reporting.made_up_facts import Made, constant, made_up
from tunekit.baselines import Baseline
from tunekit.reporting.facts import Facts
from tunekit.reporting.importance import Importance, ImportanceReport, importance_report
from tunekit.space import Params
from tunekit.tuning.samplers import suggest_random

PLACE, LR, MOMENTUM = "model.bn_placement", "optim.lr", "optim.momentum"


def log_lr(params: Params) -> float:
    return float(np.log10(float(params[LR])))


def searched(folder: Path, count: int, value: Callable[[Params], float], seed: int = 0) -> Facts:
    """Trials drawn at random and trained in full."""
    space = made_up(folder / "space", []).space
    drawn = [suggest_random(space, 1000 * seed + number) for number in range(count)]
    return made_up(folder, [constant(params, value(params)) for params in drawn])


def report(facts: Facts) -> ImportanceReport:
    found = importance_report(facts)
    assert found is not None
    return found


def beyond(importances: tuple[Importance, ...]) -> list[str]:
    return [one.key for one in importances if one.beyond_noise]


def test_the_key_that_decides_comes_first_and_the_others_are_noise(tmp_path: Path) -> None:
    found = report(searched(tmp_path, 60, lambda params: 0.5 - 0.1 * abs(log_lr(params) + 2)))
    assert found.rung == 9
    assert found.trials == 60
    assert found.overall[0].key == LR
    assert found.overall[0].share > 0.5
    assert beyond(found.overall) == [LR]
    assert found.reliable
    assert "optim.lr" in found.words[0]
    assert "not told from noise" in found.words[0]


def test_shares_add_up_to_1_and_fall(tmp_path: Path) -> None:
    found = report(searched(tmp_path, 40, lambda params: 0.5 + 0.1 * log_lr(params)))
    for importances in (found.good, found.overall, *found.by_rung.values()):
        shares = [one.share for one in importances]
        assert sum(shares) == pytest.approx(1)
        assert shares == sorted(shares, reverse=True)
        assert min(shares) >= 0


def test_values_that_depend_on_nothing_are_called_noise(tmp_path: Path) -> None:
    quiet = 0
    for seed in range(3):
        rng = np.random.default_rng(seed)
        facts = searched(tmp_path / str(seed), 40, lambda _, rng=rng: float(rng.random()), seed)  # type: ignore[misc]
        found = report(facts)
        quiet += not beyond(found.overall)
        if not found.reliable:
            assert "no key is told from noise" in found.words[0]
    assert quiet >= 2


def test_what_decides_in_the_good_region_may_be_another_key(tmp_path: Path) -> None:
    def value(params: Params) -> float:
        # A wrong placement ruins everything; among the rest the learning rate decides.
        return 0.1 if params[PLACE] == "none" else 0.7 + 0.05 * log_lr(params)

    found = report(searched(tmp_path, 120, value))
    assert PLACE in beyond(found.overall)
    assert found.good[0].key == LR
    assert beyond(found.good)[0] == LR


def test_a_key_that_some_trials_do_not_have_is_judged_by_those_that_have_it(tmp_path: Path) -> None:
    facts = searched(tmp_path, 60, lambda params: 0.5 + 0.4 * float(params.get(MOMENTUM, 0.5)))
    had = sum(MOMENTUM in trial.params for trial in facts.trials)
    found = report(facts)
    assert {one.key: one.trials for one in found.overall}[MOMENTUM] == had < 60
    assert found.overall[0].key == MOMENTUM
    assert any(f"{MOMENTUM} on {had}" in words for words in found.words)


def test_failed_recipes_count_as_the_worst(tmp_path: Path) -> None:
    space = made_up(tmp_path / "space", []).space
    drawn = [suggest_random(space, number) for number in range(60)]
    trials = [
        Made(params, [], "fail", reason="diverged") if log_lr(params) > -1 else constant(params, 0.5)
        for params in drawn
    ]
    # Values must differ among those that did not fail, or all of them are the best.
    trials = [t if t.end == "fail" else constant(t.params, 0.5 + n / 1000) for n, t in enumerate(trials)]
    facts = made_up(tmp_path, trials)
    found = report(facts)
    assert found.by_rung[3][0].key == LR
    assert LR in beyond(found.by_rung[3])


def test_values_of_different_rungs_are_never_mixed(tmp_path: Path) -> None:
    space = made_up(tmp_path / "space", []).space
    trials = []
    for number in range(90):
        params = suggest_random(space, number)
        early = {"before_act": 0.2, "after_act": 0.5, "none": 0.8}[str(params[PLACE])] + number / 1000
        late = [0.9 + 0.1 * log_lr(params) / 4] * 6
        trials.append(Made(params, [early] * 3 + late) if number % 3 else Made(params, [early] * 3, "stop"))
    found = report(made_up(tmp_path, trials))
    assert found.rung == 9
    assert found.trials == 60
    assert found.by_rung[3][0].key == PLACE
    assert found.by_rung[9][0].key == LR
    assert found.by_rung[9] == found.overall
    assert "90 at epoch 3, 60 at epoch 9" in found.words[-1]


def test_the_highest_rung_that_enough_trials_reached_is_reported(tmp_path: Path) -> None:
    space = made_up(tmp_path / "space", []).space
    drawn = [suggest_random(space, number) for number in range(30)]
    trials = [
        Made(params, [0.5 + number / 100] * (9 if number < 19 else 3), "complete" if number < 19 else "stop")
        for number, params in enumerate(drawn)
    ]
    found = report(made_up(tmp_path, trials))
    assert found.rung == 3
    assert list(found.by_rung) == [3]


@pytest.mark.parametrize("count", [0, 1, 19])
def test_too_few_trials_say_nothing(tmp_path: Path, count: int) -> None:
    assert importance_report(searched(tmp_path, count, log_lr)) is None


def test_trials_that_are_all_equal_say_nothing(tmp_path: Path) -> None:
    assert importance_report(searched(tmp_path, 30, lambda _: 0.5)) is None


def test_a_better_half_without_differences_says_so(tmp_path: Path) -> None:
    found = report(searched(tmp_path, 60, lambda params: 0.9 if params[PLACE] != "none" else 0.1))
    assert found.overall[0].key == PLACE
    assert found.good == ()
    assert "as good as equal" in found.words[1]


def test_a_search_of_one_value_for_every_key_says_nothing(tmp_path: Path) -> None:
    params: Params = {PLACE: "none", "optim.name": "adam", LR: 0.1}
    facts = made_up(tmp_path, [constant(params, n / 100) for n in range(30)])
    assert importance_report(facts) is None


def test_a_key_with_one_value_has_no_share(tmp_path: Path) -> None:
    trials = [
        constant({PLACE: "none", "optim.name": "adam", LR: 10 ** -(n / 10)}, n / 100) for n in range(30)
    ]
    assert {one.key for one in report(made_up(tmp_path, trials)).overall} == {LR}


def test_repeats_and_known_recipes_of_another_kind_are_left_out(tmp_path: Path) -> None:
    space = made_up(tmp_path / "space", []).space
    drawn = [suggest_random(space, number) for number in range(25)]
    trials = [constant(params, 0.5 + number / 100) for number, params in enumerate(drawn)]
    known = Baseline("vgg", {**drawn[0], "model.name": "vgg16"})
    others = [
        constant(known.recipe, 0.1, baseline="vgg"),
        constant(drawn[3], 0.9, repeat_of=3),
        constant(drawn[3], 0.9, end="lose", epochs=0),
    ]
    assert report(made_up(tmp_path, [*trials, *others])).trials == 25


def test_the_same_search_gives_the_same_report(tmp_path: Path) -> None:
    facts = searched(tmp_path, 40, lambda params: 0.5 + 0.1 * log_lr(params))
    assert importance_report(facts) == importance_report(facts)
