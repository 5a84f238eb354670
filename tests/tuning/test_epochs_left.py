"""What is left of a search, on plain numbers."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import pytest

from tunekit.baselines import Baseline
from tunekit.space import SearchSpace
from tunekit.tuning.epochs_left import epochs_left
from tunekit.tuning.policy import SearchPolicy
from tunekit.tuning.settings import SearchSettings

SPACE = SearchSpace.from_dict({"space": {"optim.lr": {"low": 1e-3, "high": 1.0, "log": True}}})
PROPOSAL = 3 + 6 / 3 + 18 / 9  # rungs at 3 and 9 of 27 epochs, a third goes on at each
BELIEF = 10


def searched(
    tmp_path: Path, samples: int = 10, repeats: int = 1, baselines: Sequence[Baseline] = ()
) -> tuple[SearchPolicy, SearchSettings]:
    settings = SearchSettings(
        name="left",
        dataset="digits",
        space="made-up",
        samples=samples,
        epochs=27,
        seed=0,
        data_dir=str(tmp_path),
        tracking_uri="",
        baselines=[asdict(known) for known in baselines],
        repeats=repeats,
    )
    return SearchPolicy(
        SPACE, max_epochs=27, scheduler="asha", baselines=baselines, repeats=repeats
    ), settings


def train(policy: SearchPolicy, trial: int, epochs: int, value: float = 0.5) -> None:
    first = policy.history.trials[trial].epoch + 1
    for epoch in range(first, epochs + 1):
        policy.report(trial, epoch, value)


def test_before_the_first_trial_it_is_what_the_scheduler_is_built_to_do(tmp_path: Path) -> None:
    policy, settings = searched(tmp_path)
    assert epochs_left(policy, settings) == pytest.approx(27 + 9 * PROPOSAL)  # the default recipe in full


def test_baselines_train_in_full(tmp_path: Path) -> None:
    known = [Baseline("B-low", {"optim.lr": 0.1}), Baseline("B-high", {"optim.lr": 1.0})]
    policy, settings = searched(tmp_path, samples=0, baselines=known)
    assert epochs_left(policy, settings) == 2 * 27
    policy.next(settings.samples)
    train(policy, 0, 20)
    assert epochs_left(policy, settings) == 7 + 27


def test_trials_that_run_go_on_and_those_that_ended_say_what_the_others_will_do(tmp_path: Path) -> None:
    policy, settings = searched(tmp_path)
    for _ in range(3):
        policy.next(settings.samples)
    train(policy, 0, 20)
    train(policy, 1, 3, value=0.9)  # goes on
    assert epochs_left(policy, settings) == pytest.approx(7 + (9 - 3) + PROPOSAL + 7 * PROPOSAL)
    train(policy, 2, 3, value=0.1)  # stops
    typical = (BELIEF * PROPOSAL + 3) / (BELIEF + 1)
    assert epochs_left(policy, settings) == pytest.approx(7 + (9 - 3) + 7 * typical)
    train(policy, 0, 27)  # the default recipe says nothing of the others
    assert epochs_left(policy, settings) == pytest.approx((9 - 3) + 7 * typical)


def test_at_the_end_nothing_is_left(tmp_path: Path) -> None:
    policy, settings = searched(tmp_path, samples=2)
    policy.next(2)
    policy.next(2)
    train(policy, 0, 27, value=0.9)
    train(policy, 1, 3, value=0.1)
    assert policy.has_ended(2)
    assert epochs_left(policy, settings) == 0


def test_repeats_of_what_trains_in_full_are_left_too(tmp_path: Path) -> None:
    policy, settings = searched(tmp_path, samples=2, repeats=3)
    assert epochs_left(policy, settings) == pytest.approx(27 + PROPOSAL + 2 * (1 + 1 / 9) * 27)
    policy.next(2)
    train(policy, 0, 27, value=0.9)
    repeat = policy.next(2)
    train(policy, repeat.trial_id, 20, value=0.9)
    assert epochs_left(policy, settings) == pytest.approx(PROPOSAL + 7 + (2 * (1 + 1 / 9) - 1) * 27)
