"""Which parts of a space are cut off, in searches whose recipes fail for a known reason."""

import math
from pathlib import Path

import pytest

from tests.reporting.made_up_search import SPACE, advice, log_lr, noise, proposed, searched
from tests.tuning.made_up import number
from tunekit.reporting.doctor import examine_space
from tunekit.space import Params


def test_a_part_of_a_range_where_all_diverge_is_cut_off(tmp_path: Path) -> None:
    facts = searched(tmp_path, lambda params: None if log_lr(params) > -1.4 else noise(params))

    (found,) = [finding for finding in advice(facts) if finding.kind == "infeasible"]
    high = proposed(facts, tmp_path).parameters["optim.lr"].high

    failed = sum(trial.status == "failed" for trial in facts.trials)
    assert f"{failed} of {failed} trials failed" in found.text and "training loss is nan" in found.text
    assert high is not None and math.log10(high) == pytest.approx(-1.4, abs=0.1)


def test_an_end_beyond_which_all_fail_is_not_moved_outwards(tmp_path: Path) -> None:
    def outcome(params: Params) -> float | None:
        return None if log_lr(params) > -1.1 else noise(params) + 0.1 * log_lr(params)

    facts = searched(tmp_path, outcome, trials=120)

    high = proposed(facts, tmp_path).parameters["optim.lr"].high
    assert high is not None and high < 0.1


def test_failures_that_are_not_the_rule_somewhere_are_told_and_not_cut_off(tmp_path: Path) -> None:
    def outcome(params: Params) -> float | None:
        half = round(number(params, "schedule.warmup") * 1e6) % 2 == 0
        return None if log_lr(params) > -1.6 and half else noise(params)

    facts = searched(tmp_path, outcome, trials=100)

    notes = [finding for finding in examine_space(facts) if finding.kind == "infeasible"]
    assert [(finding.key, finding.severity) for finding in notes] == [("optim.lr", "note")]


def test_a_choice_that_always_fails_is_left_out_with_all_that_hangs_on_it(tmp_path: Path) -> None:
    facts = searched(tmp_path, lambda params: None if params["optim.name"] == "sgd" else noise(params))

    space = proposed(facts, tmp_path)

    assert space.parameters["optim.name"].choices == ("adam", "adamw")
    assert not {"optim.momentum", "optim.nesterov"} & set(space.parameters)
    assert set(space.parameters) == set(facts.space.parameters) - {"optim.momentum", "optim.nesterov"}


def test_two_causes_of_failure_are_told_apart(tmp_path: Path) -> None:
    def outcome(params: Params) -> float | None:
        fails = params["model.name"] == "resnet32" or log_lr(params) > -1.4
        return None if fails else noise(params)

    facts = searched(tmp_path, outcome, trials=100)

    found = [finding.key for finding in advice(facts) if finding.kind == "infeasible"]
    assert sorted(map(str, found)) == ["model.name", "optim.lr"]


def test_a_range_of_one_value_explains_no_failure(tmp_path: Path) -> None:
    space = SPACE.replace("high = 0.5, step = 0.05", "high = 0.04, step = 0.05")
    facts = searched(tmp_path, lambda params: None if log_lr(params) > -1.4 else noise(params), space=space)

    assert [finding.key for finding in advice(facts) if finding.kind == "infeasible"] == ["optim.lr"]
