"""Known recipes: tried first, never stopped, the sampler's first observations. No training."""

from pathlib import Path
from typing import Any

import pytest

from tunekit.errors import SpaceError
from tunekit.history import History
from tunekit.paths import SearchPaths
from tunekit.recipe import Recipe
from tunekit.space import Baseline, SearchSpace
from tunekit.tuning.baseline_choice import baselines_for, find_in_spaces
from tunekit.tuning.policy import SearchPolicy, recipe_of
from tunekit.tuning.study_export import export_study

SPACE = SearchSpace.from_dict(
    {
        "fixed": {"model.name": "vgg11"},
        "space": {
            "optim.lr": {"low": 1e-3, "high": 1.0, "log": True},
            "model.bn_placement": {"choices": ["before_act", "after_act"]},
        },
    }
)
INSIDE = Baseline("inside", {"model.name": "vgg16", "optim.lr": 0.01, "model.bn_placement": "after_act"})
OUTSIDE = Baseline("outside", {"model.name": "lenet5", "optim.lr": 1e-5})


def policy(**options: Any) -> SearchPolicy:
    values = {"max_epochs": 9, "baselines": (INSIDE, OUTSIDE), **options}
    return SearchPolicy(SPACE, **values)


def train(search: SearchPolicy, trial_id: int, value: float) -> int:
    """Train a trial to where the policy ends it; returns its last epoch."""
    for epoch in range(1, search.max_epochs + 1):
        if search.report(trial_id, epoch, value) != "continue":
            return epoch
    raise AssertionError("the policy never ended the trial")


def test_baselines_come_first_and_train_as_they_are() -> None:
    search = policy()
    trials = [search.next().trial_id for _ in range(3)]
    recipes = [recipe_of(SPACE, search.history.trials[trial]) for trial in trials]
    assert recipes[:2] == [Recipe.from_flat(INSIDE.recipe), Recipe.from_flat(OUTSIDE.recipe)]
    assert [search.history.trials[trial].baseline for trial in trials] == ["inside", "outside", None]
    assert recipes[2].model.name == "vgg11"


def test_a_baseline_is_never_stopped_early() -> None:
    search = policy(scheduler="asha")
    ids = [search.next().trial_id for _ in range(4)]
    assert train(search, ids[2], 0.9) == 9
    assert train(search, ids[0], 0.1) == 9
    assert train(search, ids[3], 0.1) == 3
    statuses = [search.history.trials[trial].status for trial in ids]
    assert statuses == ["completed", "running", "completed", "stopped"]


def test_a_baseline_inside_the_space_is_an_observation_and_one_outside_is_not() -> None:
    for baseline, counts in ((INSIDE, True), (OUTSIDE, False)):
        search = policy(baselines=(baseline,), scheduler="none")
        train(search, search.next().trial_id, 0.9)
        seen = [trial.params for trial in search.evidence().trials]
        assert seen == ([SPACE.params_of(Recipe.from_flat(INSIDE.recipe))] if counts else [])


def test_a_policy_rebuilt_in_the_middle_of_the_baselines_goes_on_with_the_next() -> None:
    search = policy()
    search.next()
    rebuilt = policy(history=History(events=search.history.events))
    first, second, third = (rebuilt.next() for _ in range(3))
    assert (first.resumes, dict(first.params)) == (True, dict(INSIDE.recipe))
    assert dict(second.params) == dict(OUTSIDE.recipe)
    assert rebuilt.history.trials[third.trial_id].baseline is None


def test_baselines_reach_the_file_and_come_back(tmp_path: Path) -> None:
    search = policy(history=History(tmp_path / "history.jsonl"))
    train(search, search.next().trial_id, 0.9)
    search.next()
    search.history.close()
    again = History.read(tmp_path / "history.jsonl")
    assert [trial.baseline for trial in again.trials.values()] == ["inside", "outside"]
    export_study(again, SPACE, SearchPaths(tmp_path))


def test_the_reported_data_set_decides_which_baselines_run() -> None:
    mnist, cifar = (Baseline(name, {"optim.lr": lr}, name) for name, lr in (("mnist", 0.1), ("cifar10", 0.2)))
    same = Baseline("twin", {"optim.lr": 0.1}, "mnist")
    assert baselines_for("mnist", [mnist, cifar, same]) == [mnist]
    assert baselines_for("photos", [mnist, cifar, same]) == [mnist, cifar]


def test_a_baseline_is_found_in_the_space_that_lists_it() -> None:
    space, baseline = find_in_spaces("B-mnist-vgg16-bn-after-relu", None)
    assert baseline.reported_accuracy == 9.8
    assert find_in_spaces(baseline.name, space) == (space, baseline)
    with pytest.raises(SpaceError, match=r"no baseline called 'B-mnist-vgg61'.*did you mean 'B-mnist-vgg1"):
        find_in_spaces("B-mnist-vgg61", None)
