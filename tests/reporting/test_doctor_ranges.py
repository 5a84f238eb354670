"""Which ranges move, grow or shrink, in searches whose truth is known."""

from pathlib import Path

import numpy as np
import pytest

from tests.reporting.made_up_search import advice, log_lr, noise, proposed, searched
from tests.tuning.made_up import number
from tunekit.reporting.doctor import examine_space
from tunekit.space import Params, SearchSpace
from tunekit.tuning.samplers import suggest_random


def test_the_best_at_the_upper_end_of_a_log_range_move_it_by_half_its_decades(tmp_path: Path) -> None:
    facts = searched(tmp_path, lambda params: noise(params) + 0.1 * log_lr(params))

    (found,) = [finding for finding in advice(facts) if finding.kind == "at_bound"]
    rate = proposed(facts, tmp_path).parameters["optim.lr"]

    assert found.key == "optim.lr" and "upper" in found.text and "of the 12 best trials" in found.text
    assert rate.high == pytest.approx(1.0) and rate.log  # two decades wide, so one further


def test_the_best_inside_of_a_range_move_no_end_and_make_it_narrower(tmp_path: Path) -> None:
    facts = searched(tmp_path, lambda params: noise(params) - 0.2 * abs(log_lr(params) + 2))

    assert {(finding.kind, finding.key) for finding in advice(facts)} == {("narrow", "optim.lr")}
    rate = proposed(facts, tmp_path).parameters["optim.lr"]
    assert rate.low is not None and rate.high is not None
    assert 1e-3 < rate.low < 0.007 and 0.014 < rate.high < 0.1


def test_a_peak_near_an_end_does_not_move_it(tmp_path: Path) -> None:
    facts = searched(
        tmp_path, lambda params: noise(params) - 3 * abs(number(params, "schedule.warmup") - 0.17), trials=120
    )

    assert not [finding for finding in examine_space(facts) if finding.kind == "at_bound"]


def test_a_conditional_key_is_judged_by_the_trials_that_have_it(tmp_path: Path) -> None:
    def outcome(params: Params) -> float:
        return noise(params) + (
            0.1 * number(params, "optim.momentum") if "optim.momentum" in params else 0.12
        )

    facts = searched(tmp_path, outcome, trials=200, seed=1)

    momentum = proposed(facts, tmp_path).parameters["optim.momentum"]
    assert momentum.high == 0.999  # half of its width further would be 1.43, and the key ends at 0.999
    assert momentum.when == {"optim.name": ("sgd",)}


def test_whole_numbers_stay_whole(tmp_path: Path) -> None:
    facts = searched(
        tmp_path, lambda params: noise(params) + 0.02 * number(params, "augment.randaugment_ops")
    )
    upper = "augment.randaugment_ops"
    assert [finding.severity for finding in examine_space(facts) if finding.kind == "at_bound"] == ["note"]

    low = proposed(facts, tmp_path).parameters[upper].low  # 8 is the most there is, so only the low end moves

    assert isinstance(low, int) and low > 1


def test_a_range_of_whole_numbers_grows_by_whole_numbers(tmp_path: Path) -> None:
    facts = searched(
        tmp_path,
        lambda params: noise(params) + 0.01 * float(params.get("augment.randaugment", 0)),
        trials=120,
    )

    magnitude = proposed(facts, tmp_path).parameters["augment.randaugment"]

    assert isinstance(magnitude.high, int) and magnitude.high == 14


def test_a_range_with_steps_stays_on_its_grid(tmp_path: Path) -> None:
    facts = searched(tmp_path, lambda params: noise(params) + 0.2 * number(params, "model.dropout"))

    dropout = proposed(facts, tmp_path).parameters["model.dropout"]

    assert dropout.high == 0.75 and dropout.step == 0.05
    assert all(dropout.holds(value) for value in (0.5, 0.7, 0.75))


def test_trials_that_were_stopped_early_count_where_they_were_compared(tmp_path: Path) -> None:
    def outcome(params: Params) -> list[float]:
        value = noise(params) + 0.1 * log_lr(params)
        return [value] * (9 if value > 0.64 else 3)  # those with small rates never went on

    facts = searched(tmp_path, outcome, epochs=9, trials=80)

    assert ("at_bound", "optim.lr") in {(finding.kind, finding.key) for finding in advice(facts)}


def test_where_all_trials_crowd_an_end_the_best_being_there_is_no_news(tmp_path: Path) -> None:
    def crowded(space: SearchSpace, seed: int) -> Params:
        params = dict(suggest_random(space, seed))
        rates = np.random.default_rng(seed)
        return {**params, "optim.lr": float(10 ** rates.uniform(-1.2, -1.0))}

    facts = searched(tmp_path, noise, draw=crowded)

    assert not advice(facts)
    assert any("the sampler put 60 of 60 trials at the upper end" in f.text for f in examine_space(facts))
