"""The policy on plain numbers: no training, no Ray."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tunekit.errors import SearchError
from tunekit.history import Event, History
from tunekit.space import SearchSpace
from tunekit.tuning.policy import SAMPLERS, SearchPolicy, Suggestion

SPACE = SearchSpace.from_dict(
    {
        "space": {
            "x": {"low": 0.0, "high": 1.0},
            "y": {"low": 0.0, "high": 1.0},
            "kind": {"choices": ["a", "b"]},
            "z": {"low": 0.0, "high": 1.0, "when": {"kind": ["a"]}},
        }
    }
)


def policy(**options: Any) -> SearchPolicy:
    return SearchPolicy(SPACE, **{"max_epochs": 9, "seed": 1, **options})


def quality(params: Any) -> float:
    """Highest, 0, at x = 0.7, y = 0.3, kind b."""
    x, y = float(params["x"]), float(params["y"])
    return -((x - 0.7) ** 2) - (y - 0.3) ** 2 - 0.3 * float(params["kind"] == "a")


def train(search: SearchPolicy, suggestion: Suggestion, curve: Callable[[int], float]) -> int:
    """Train one trial to where the policy ends it; returns its last epoch."""
    for epoch in range(search.history.trials[suggestion.trial_id].epoch + 1, search.max_epochs + 1):
        if search.report(suggestion.trial_id, epoch, curve(epoch)) != "continue":
            return epoch
    raise AssertionError("the policy never ended the trial")


def run(search: SearchPolicy, trials: int) -> list[float]:
    """Train trials one after the other; returns their final qualities in order."""
    found = []
    for _ in range(trials):
        suggestion = search.next()
        value = quality(suggestion.params)
        train(search, suggestion, lambda epoch, value=value: value - 1 / epoch)  # type: ignore[misc]
        found.append(value)
    return found


def test_same_seed_and_same_calls_give_the_same_trials() -> None:
    first, second, other = policy(), policy(), policy(seed=2)
    assert run(first, 40) == run(second, 40)
    assert first.next() == second.next()
    assert run(other, 3) != run(policy(), 3)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_policy_built_from_the_history_goes_on_as_if_nothing_had_happened(sampler: str) -> None:
    straight = policy(sampler=sampler)
    run(straight, 30)
    rebuilt = policy(sampler=sampler, history=History(events=straight.history.events))
    for _ in range(5):
        assert rebuilt.next() == straight.next()


def test_rung_tpe_finds_better_recipes_than_random() -> None:
    late = [run(policy(seed=seed, scheduler="none"), 60)[30:] for seed in range(3)]
    blind = [run(policy(seed=seed, scheduler="none", sampler="random"), 60)[30:] for seed in range(3)]
    assert np.mean(late) > np.mean(blind) / 2  # qualities are negative: less than half of the loss


@pytest.mark.parametrize(("epochs", "prefers_large_x"), [(9, True), (3, False)])
def test_tpe_is_fitted_on_the_highest_rung_that_sixteen_trials_reached(
    epochs: int, prefers_large_x: bool
) -> None:
    # What is good at epoch 3 is bad at epoch 9: only who looks at epoch 9 prefers a large x.
    search = policy(scheduler="none")
    for _ in range(30):
        suggestion = search.next()
        x = float(suggestion.params["x"])
        for epoch in range(1, epochs + 1):
            search.report(suggestion.trial_id, epoch, -x if epoch < 9 else x)
        search.complete(suggestion.trial_id)
    proposed = [float(search.next().params["x"]) for _ in range(20)]
    assert (np.mean(proposed) > 0.5) == prefers_large_x


def test_asha_stops_at_rungs_only_and_the_last_epoch_completes() -> None:
    search = policy(sampler="random")
    first = search.next()
    assert train(search, first, lambda epoch: 0.5) == 9
    assert search.history.trials[first.trial_id].status == "completed"
    worse = search.next()
    assert train(search, worse, lambda epoch: 0.4) == 3
    assert search.history.trials[worse.trial_id].status == "stopped"
    assert search.history.trials[worse.trial_id].rung == 3


def test_without_a_scheduler_every_trial_trains_to_the_end() -> None:
    search = policy(scheduler="none")
    for value in (0.9, 0.5, 0.1):
        assert train(search, search.next(), lambda epoch, value=value: value) == 9  # type: ignore[misc]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_value_that_is_not_finite_fails_the_trial_at_once(value: float) -> None:
    search = policy()
    suggestion = search.next()
    assert search.report(suggestion.trial_id, 1, value) == "stop"
    trial = search.history.trials[suggestion.trial_id]
    assert trial.status == "failed"
    assert "diverged" in str(trial.reason)


def test_failures_teach_the_sampler_and_count_at_their_rung() -> None:
    search = policy(max_epochs=9)
    for _ in range(70):
        suggestion = search.next()
        if float(suggestion.params["x"]) > 0.5:
            search.fail(suggestion.trial_id, 1, "diverged")
        else:
            train(search, suggestion, lambda epoch: 0.5)
    late = [trial.params["x"] for trial in search.history.trials.values()][40:]
    assert np.mean([float(x) > 0.5 for x in late]) < 0.35
    failed = sum(trial.status == "failed" for trial in search.history.trials.values())
    assert search.values_at(3).count(-math.inf) == failed
    assert -math.inf not in search.values_at(9)


def test_lost_trials_teach_nothing() -> None:
    search = policy()
    run(search, 20)
    twin = policy(history=History(events=search.history.events))
    lost = search.next()
    search.lose(lost.trial_id, "the node went away")
    twin.next()
    twin.lose(lost.trial_id, "another reason")
    assert search.values_at(3) == twin.values_at(3)
    assert search.next() == twin.next()


def test_unfinished_trials_are_handed_out_first_and_keep_their_params() -> None:
    search = policy()
    first, second = search.next(), search.next()
    search.report(second.trial_id, 1, 0.5)
    rebuilt = policy(history=History(events=search.history.events))
    assert rebuilt.next() == Suggestion(first.trial_id, first.params, resumes=True)
    assert rebuilt.next() == Suggestion(second.trial_id, second.params, resumes=True)
    assert rebuilt.next() == search.next()


def test_an_epoch_that_is_trained_again_counts_once() -> None:
    search = policy()
    suggestion = search.next()
    assert search.report(suggestion.trial_id, 1, 0.5) == "continue"
    assert search.report(suggestion.trial_id, 1, 0.9) == "continue"
    assert search.history.trials[suggestion.trial_id].value_at(1) == 0.5


def test_an_interrupted_trial_comes_back_at_once() -> None:
    search = policy()
    suggestion = search.next()
    search.interrupt(suggestion.trial_id)
    assert search.next() == Suggestion(suggestion.trial_id, suggestion.params, resumes=True)


def test_a_result_and_its_decision_reach_the_disk_together(tmp_path: Path) -> None:
    search = policy(sampler="random", history=History(tmp_path / "history.jsonl"))
    on_disk: list[tuple[str, ...]] = []
    search.history.subscribe(
        lambda event: on_disk.append(tuple(e.kind for e in History.read(tmp_path / "history.jsonl").events))
    )
    train(search, search.next(), lambda epoch: 0.5)
    train(search, search.next(), lambda epoch: 0.4)
    search.history.close()
    # Whoever hears of the last result can read from the disk that the trial has ended.
    ends = [kinds for kinds in on_disk if kinds[-1] in ("complete", "stop")]
    assert [kinds[-2:] for kinds in ends] == [("result", "complete")] * 2 + [("result", "stop")] * 2


def test_completing_twice_is_one_event() -> None:
    search = policy()
    suggestion = search.next()
    search.complete(suggestion.trial_id)
    search.complete(suggestion.trial_id)
    assert [event.kind for event in search.history.events] == ["suggest", "complete"]


def test_conditional_keys_are_proposed_only_where_they_count() -> None:
    search = policy()
    run(search, 40)
    for trial in search.history.trials.values():
        assert ("z" in trial.params) == (trial.params["kind"] == "a")


def test_the_history_of_a_policy_is_one_that_another_can_read() -> None:
    search = policy()
    run(search, 3)
    lines = [event.to_line() for event in search.history.events]
    assert all(line.endswith("\n") and line.count("\n") == 1 for line in lines)
    assert (
        Event("suggest", 0, params={}).to_line()
        == '{"kind": "suggest", "trial": 0, "time": 0.0, "params": {}}\n'
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_epochs": 0}, "max_epochs must be at least 1, but got 0"),
        ({"grace_period": 0}, "grace_period must be at least 1"),
        ({"reduction_factor": 1}, "reduction_factor must be at least 2"),
        ({"sampler": "rung-tp"}, "unknown sampler 'rung-tp' (did you mean 'rung-tpe'?)"),
        ({"scheduler": "hyperband"}, "unknown scheduler 'hyperband'"),
    ],
)
def test_arguments_are_checked(options: dict[str, Any], message: str) -> None:
    with pytest.raises(SearchError) as error:
        policy(**options)
    assert message in str(error.value)
