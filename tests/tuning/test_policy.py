"""The policy on plain numbers: no training, no Ray."""

import dataclasses
import math
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.tuning.made_up import SPACE
from tunekit.errors import SearchError
from tunekit.history import Event, History
from tunekit.space import Baseline, SearchSpace
from tunekit.tuning.policy import SAMPLERS, SCHEDULERS, SearchPolicy, Suggestion

ONE_KEY = SearchSpace.from_dict({"space": {"optim.lr": {"low": 1e-3, "high": 1.0, "log": True}}})


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
    assert run(other, 3)[1:] != run(policy(), 3)[1:]  # the first is the default recipe


WARM: list[dict[str, Any]] = [{"x": 0.9}, {"kind": "b", "y": 0.1}, {"x": 0.9}]  # the last says nothing new
WARM_SPACE = dataclasses.replace(SPACE, warm_starts=tuple(WARM))
MORE_WARM_SPACE = dataclasses.replace(SPACE, warm_starts=(*WARM, {"x": 0.2}, {"x": 0.3}))


@pytest.mark.parametrize("sampler", ["portfolio", "rung-tpe"])
def test_warm_starts_follow_the_default_recipe_once_each_after_a_resume_too(sampler: str) -> None:
    search = SearchPolicy(WARM_SPACE, max_epochs=9, sampler=sampler)
    default = search.next()
    assert default.params == WARM_SPACE.default_params()
    assert len(search.warm_starts_left()) == 2
    train(search, default, lambda epoch: 0.5)
    again = SearchPolicy(WARM_SPACE, max_epochs=9, sampler=sampler, history=search.history)
    tried = [again.next().params for _ in range(6)]
    assert tried[:2] == WARM_SPACE.warm_start_params()[:2]
    assert tried[0] not in tried[1:] and tried[1] not in tried[2:]
    assert again.warm_starts_left() == []
    assert [trial.warm_start for trial in again.history.recipes] == [False, True, True, *4 * [False]]


def test_a_fourth_warm_start_may_be_stopped_early_like_every_proposal() -> None:
    search = SearchPolicy(MORE_WARM_SPACE, max_epochs=9, scheduler="asha")
    assert train(search, search.next(), lambda epoch: 0.9) == 9
    *in_full, fourth = [search.next() for _ in range(4)]
    assert train(search, fourth, lambda epoch: 0.1) < 9
    assert [train(search, each, lambda epoch: 0.1) for each in in_full] == [9, 9, 9]


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_three_warm_starts_are_trained_to_their_end_after_a_resume_too(scheduler: str) -> None:
    search = SearchPolicy(MORE_WARM_SPACE, max_epochs=9, grace_period=1, scheduler=scheduler)
    default, first = search.next(), search.next()
    assert search.warm_starts_in_full_left() == 2
    again = SearchPolicy(
        MORE_WARM_SPACE, max_epochs=9, grace_period=1, scheduler=scheduler, history=search.history
    )
    handed_out = [again.next() for _ in range(9)]
    assert [each.trial_id for each in handed_out[:3]] == [default.trial_id, first.trial_id, 2]
    for other in handed_out[5:]:
        train(again, other, lambda epoch: 0.9)
    assert [train(again, each, lambda epoch: 0.1) for each in handed_out[:4]] == [9, 9, 9, 9]
    assert [trial.in_full for trial in again.history.recipes] == [*4 * [True], *5 * [False]]
    assert again.warm_starts_in_full_left() == 0


def test_there_are_no_more_warm_starts_in_full_than_warm_starts() -> None:
    assert SearchPolicy(SPACE, max_epochs=9).warm_starts_in_full_left() == 0
    one = dataclasses.replace(SPACE, warm_starts=tuple(WARM[:1]))
    assert SearchPolicy(one, max_epochs=9).warm_starts_in_full_left() == 1


def test_an_even_draw_of_the_space_has_no_warm_starts() -> None:
    drawn = SearchPolicy(WARM_SPACE, max_epochs=9, sampler="random")
    without = SearchPolicy(SPACE, max_epochs=9, sampler="random")
    assert [drawn.next() for _ in range(5)] == [without.next() for _ in range(5)]


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
    search = policy(sampler="random", scheduler="asha")
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


class Simulation:
    """Some workers train trials an epoch at a time, in turns; `watch` looks on before each step."""

    def __init__(self, search: SearchPolicy, samples: int, curve: Callable[[Suggestion, int], float]) -> None:
        self.search = search
        self.samples = samples
        self.curve = curve
        self.running: deque[Suggestion] = deque()
        self.steps: list[Suggestion | str] = []  # what the policy said, in order

    def run(self, workers: int = 3, watch: Callable[["Simulation"], None] = lambda simulation: None) -> None:
        hands_out = self.search.has_next(self.samples)
        while self.running or hands_out:
            watch(self)
            self.steps.append(self.ask(self.search, workers))
            last = self.steps[-1]
            if isinstance(last, Suggestion):
                self.running.append(last)
            else:
                trial = self.running.popleft()
                self.running.extend([trial] if last == "continue" else [])
            hands_out = self.search.has_next(self.samples)
        assert self.search.has_ended(self.samples)

    def ask(self, search: SearchPolicy, workers: int = 3) -> Suggestion | str:
        """The next step, of this policy or of one built from its history: a new trial or one more epoch."""
        if len(self.running) < workers and search.has_next(self.samples):
            return search.next()
        suggestion = self.running[0]
        epoch = search.history.trials[suggestion.trial_id].epoch + 1
        return search.report(suggestion.trial_id, epoch, self.curve(suggestion, epoch))


def rising(suggestion: Suggestion, epoch: int) -> float:
    """A made-up curve: recipes differ in their end and in their speed, and one in seven diverges."""
    if suggestion.trial_id % 7 == 6 and epoch == 2:
        return math.nan
    return quality(suggestion.params) - float(suggestion.params["y"]) / epoch


def rebuilt_from(search: SearchPolicy, **options: Any) -> SearchPolicy:
    """What a resume builds; the trials that were running are handed out already."""
    again = policy(history=History(events=list(search.history.events)), **options)
    for trial in search.history.trials.values():
        if trial.unfinished:
            assert again.next() == Suggestion(trial.id, trial.params, resumes=True)
    return again


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_a_policy_rebuilt_at_any_point_of_a_search_decides_the_same(scheduler: str) -> None:
    options = {"sampler": "random", "scheduler": scheduler, "grace_period": 1, "repeats": 2}
    predicted = []

    def predict(simulation: Simulation) -> None:
        again = rebuilt_from(simulation.search, **options)
        assert again.has_next(20) == simulation.search.has_next(20)
        assert not again.has_ended(20)
        predicted.append(simulation.ask(again))

    simulation = Simulation(policy(**options), 20, rising)
    simulation.run(watch=predict)
    assert simulation.steps == predicted
    assert {step for step in predicted if isinstance(step, str)} >= {"continue", "stop"}
    if scheduler == "asha-promotion":
        assert "pause" in predicted
        assert any(isinstance(step, Suggestion) and step.resumes for step in predicted)


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_each_scheduler_ends_with_every_epoch_once_and_the_best_in_full(scheduler: str) -> None:
    search = policy(sampler="random", scheduler=scheduler, grace_period=1)
    Simulation(search, 40, rising).run()
    trials = list(search.history.trials.values())
    assert len(trials) == 40
    for trial in trials:
        assert [result.epoch for result in trial.results] == list(range(1, trial.epoch + 1))
        assert trial.status in ("completed", "stopped", "paused", "failed")
    completed = [trial for trial in trials if trial.status == "completed"]
    epochs = sum(trial.epoch for trial in trials)
    if scheduler == "none":
        assert all(trial.status in ("completed", "failed") for trial in trials)
    else:
        assert epochs < 0.8 * 40 * 9
        ahead = np.mean([quality(trial.params) for trial in completed if not trial.default])
        assert ahead > np.mean([quality(trial.params) for trial in trials])


def test_promotion_leaves_nobody_of_the_top_third_behind_and_the_others_stop_with_the_search() -> None:
    search = policy(sampler="random", scheduler="asha-promotion", grace_period=1)
    Simulation(search, 41, lambda suggestion, epoch: quality(suggestion.params)).run(workers=4)
    trials = search.history.trials.values()
    for rung in (1, 3):
        there = [trial for trial in trials if trial.epoch >= rung]
        ranked = sorted(there, key=lambda trial: -(trial.value_at(rung) or 0.0))
        assert all(trial.epoch > rung for trial in ranked[: len(there) // 3])
        assert sum(trial.epoch > rung for trial in there) < 0.6 * len(there)  # early ones had few to beat
    paused = [trial.id for trial in trials if trial.status == "paused"]
    assert len(paused) == 41 - sum(trial.status == "completed" for trial in trials)
    search.stop_paused()
    assert [trial.id for trial in trials if trial.status == "stopped"] == paused
    assert all(search.history.trials[trial].rung in (1, 3) for trial in paused)
    assert search.has_ended(41)


@pytest.mark.parametrize("scheduler", ["asha", "asha-promotion"])
def test_of_recipes_that_train_alike_one_goes_on(scheduler: str) -> None:
    search = policy(scheduler=scheduler, sampler="rung-tpe")
    for _ in range(60):  # as where recorded curves answer: the nearest of four does
        suggestion = search.next()
        nearest = round(3 * quality(suggestion.params))
        train(search, suggestion, lambda epoch, nearest=nearest: nearest - 1 / epoch)  # type: ignore[misc]
    beyond = [trial for trial in search.history.recipes if trial.epoch > 3 and not trial.in_full]
    curves = [trial.results[0].value for trial in beyond]
    assert 0 < len(set(curves)) == len(curves)
    assert len({trial.results[0].value for trial in search.history.recipes}) > len(curves)


def test_promotions_go_on_when_all_samples_were_suggested() -> None:
    search = policy(sampler="random", scheduler="asha-promotion", grace_period=1)
    default, *others = (search.next() for _ in range(4))
    assert search.report(others[0].trial_id, 1, 0.9) == "pause"
    assert search.report(others[1].trial_id, 1, 0.3) == "pause"
    assert not search.has_next(4)
    assert not search.has_ended(4)
    assert search.report(others[2].trial_id, 1, 0.6) == "pause"
    assert search.has_next(4)
    assert search.next() == Suggestion(others[0].trial_id, others[0].params, resumes=True)
    assert not search.has_next(4)
    train(search, others[0], lambda epoch: 0.9)
    assert search.history.trials[others[0].trial_id].rung == 3  # one alone is no third
    assert not search.has_next(4)
    train(search, default, lambda epoch: 0.1)
    # All others have ended: the best goes on, so that the winner was trained in full.
    assert search.next(4) == Suggestion(others[0].trial_id, others[0].params, resumes=True)
    train(search, others[0], lambda epoch: 0.9)
    assert search.has_ended(4)


def test_interrupted_trials_come_first_then_baselines_promotions_and_proposals() -> None:
    known = [Baseline(f"known {lr}", {"optim.lr": lr}) for lr in (0.2, 0.3)]
    search = SearchPolicy(
        ONE_KEY,
        max_epochs=9,
        grace_period=1,
        scheduler="asha-promotion",
        sampler="random",
        baselines=known,
    )
    search.next()
    search.interrupt(0)
    handed_out = [search.next() for _ in range(6)]
    assert [(s.trial_id, s.resumes) for s in handed_out[:3]] == [(0, True), (1, False), (2, False)]
    trials = search.history.trials
    assert [trials[n].baseline for n in range(3)] == ["known 0.2", "known 0.3", None]
    assert trials[2].default
    for trial, value in ((3, 0.9), (4, 0.5), (5, 0.7)):
        search.report(trial, 1, value)
    search.interrupt(1)
    handed_out = [search.next() for _ in range(3)]
    assert [(s.trial_id, s.resumes) for s in handed_out] == [(1, True), (3, True), (6, False)]


def test_a_promoted_trial_that_is_lost_keeps_its_place_and_the_next_one_follows() -> None:
    search = policy(sampler="random", scheduler="asha-promotion", grace_period=1)
    suggestions = [search.next() for _ in range(7)]
    for trial in range(1, 4):
        assert search.report(trial, 1, 1 - trial / 10) == "pause"
    assert search.next() == Suggestion(1, suggestions[1].params, resumes=True)
    search.lose(1, "the node went away")
    assert not search.has_next(7)
    for trial in range(4, 7):
        assert search.report(trial, 1, 1 - trial / 10) == "pause"
    assert search.next() == Suggestion(2, suggestions[2].params, resumes=True)


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_the_default_recipe_comes_first_and_is_never_stopped_or_paused(scheduler: str) -> None:
    search = policy(scheduler=scheduler, grace_period=1)
    first = search.next()
    assert first.params == {"x": 0.5, "y": 0.5, "kind": "a", "z": 0.5}
    assert search.history.trials[0].default
    for other in [search.next() for _ in range(8)]:
        train(search, other, lambda epoch: 0.9)
    assert train(search, first, lambda epoch: 0.1) == 9
    assert search.history.trials[0].status == "completed"
    assert sum(trial.default for trial in search.history.trials.values()) == 1


FINITE = SearchSpace.from_dict(
    {
        "space": {
            "kind": {"choices": ["a", "b"]},
            "depth": {"low": 1, "high": 3, "when": {"kind": ["a"]}},
            "rate": {"low": 0.1, "high": 0.3, "step": 0.1, "when": {"kind": ["b"]}},
        }
    }
)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_finite_space_is_tried_once_and_then_the_search_ends(sampler: str) -> None:
    search = SearchPolicy(FINITE, max_epochs=2, sampler=sampler, scheduler="none")
    tried = []
    while search.has_next(100):
        suggestion = search.next()
        tried.append(suggestion.params)
        train(search, suggestion, lambda epoch: 0.5)
    assert len(tried) == 6
    assert len({tuple(params.items()) for params in tried}) == 6
    assert search.has_ended(100)
    with pytest.raises(SearchError, match="all 6 recipes of the space were tried"):
        search.next()
    again = SearchPolicy(FINITE, max_epochs=2, history=History(events=search.history.events))
    assert again.has_ended(100)
    assert again.has_ended(6)


def test_a_rare_branch_with_a_continuous_range_never_runs_dry() -> None:
    space = SearchSpace.from_dict(
        {
            "space": {
                "kind": {"choices": list(range(12))},
                "x": {"low": 1e-4, "high": 1.0, "log": True, "when": {"kind": [3]}},
            }
        }
    )
    search = SearchPolicy(space, max_epochs=1, sampler="random")
    params = [search.next().params for _ in range(40)]
    assert len({tuple(each.items()) for each in params}) == 40
    assert all(1e-4 <= float(each["x"]) <= 1.0 for each in params if "x" in each)


def test_a_baseline_that_is_the_default_recipe_is_not_proposed_again() -> None:
    space = SearchSpace.from_dict({"space": {"optim.name": {"choices": ["sgd", "adam"]}}})
    same = Baseline("same", {"optim.name": "sgd"})
    other = Baseline("other", {"optim.name": "sgd", "batch_size": 7})  # more than the space varies
    for baseline, proposed in ((same, ["adam"]), (other, ["sgd", "adam"])):
        search = SearchPolicy(space, max_epochs=1, baselines=(baseline,), sampler="random")
        names = []
        while search.has_next(9):
            names.append(search.next().params["optim.name"])
            search.report(len(names) - 1, 1, 0.5)
        assert names == ["sgd", *proposed]


def test_what_trained_in_full_is_repeated_with_other_trials_and_counted_apart() -> None:
    search = policy(sampler="random", scheduler="asha", grace_period=1, repeats=3)
    simulation = Simulation(search, 12, lambda s, epoch: quality(s.params) - 0.01 * s.trial_id)
    simulation.run()
    history = search.history
    assert len(history.recipes) == 12
    for trial in history.recipes:
        repeats = history.repeats(trial)
        assert len(repeats) == (2 if trial.status == "completed" else 0)
        for repeat in repeats:
            assert repeat.params == trial.params
            assert (repeat.status, repeat.epoch) == ("completed", 9)
    assert any(trial.status == "stopped" for trial in history.recipes)
    # Neither the comparison at a rung nor the sampler sees a recipe twice.
    assert len(search.values_at(1)) == 12
    assert len(search.evidence().trials) == 12


def test_baselines_are_repeated_too_and_a_repeat_that_failed_or_was_lost_counts_as_done() -> None:
    known = Baseline("known", {"optim.lr": 0.5})
    search = SearchPolicy(ONE_KEY, max_epochs=9, baselines=(known,), repeats=3)
    train(search, search.next(), lambda epoch: 0.5)
    for number in (1, 2):
        trial = search.history.trials[search.next().trial_id]
        assert (trial.repeat_of, trial.baseline, dict(trial.params)) == (0, "known", {"optim.lr": 0.5})
        if number == 1:
            search.fail(trial.id, 1, "diverged")
        else:
            search.lose(trial.id, "the node went away")
    assert search.has_ended(1)
    assert search.history.trials[search.next().trial_id].default


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
    search = policy(scheduler="asha", sampler="random", history=History(tmp_path / "history.jsonl"))
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
        ({"scheduler": "hyperbnd"}, "unknown scheduler 'hyperbnd' (did you mean 'hyperband'?)"),
        ({"repeats": 0}, "repeats must be at least 1"),
    ],
)
def test_arguments_are_checked(options: dict[str, Any], message: str) -> None:
    with pytest.raises(SearchError) as error:
        policy(**options)
    assert message in str(error.value)


def test_what_wins_a_search_with_pauses_was_trained_in_full() -> None:
    for samples in (2, 5, 12):
        search = policy(scheduler="asha-promotion", seed=samples)
        while search.has_next(samples):
            suggestion = search.next(samples)
            trial = search.history.trials[suggestion.trial_id]
            # The later a trial comes the better it is: promotions alone would leave the last ones behind.
            for epoch in range(trial.epoch + 1, 10):
                if search.report(trial.id, epoch, trial.id / 100 + epoch / 1000) != "continue":
                    break
        assert search.has_ended(samples)
        best = search.history.best()
        assert best is not None
        assert (best.id, best.status) == (samples - 1, "completed")
        assert {trial.status for trial in search.history.recipes} <= {"completed", "paused", "stopped"}


class Patient(SearchPolicy):
    """Lets every paused trial wait until the end."""

    def _stop_hopeless(self, samples: float) -> None:
        return


@pytest.mark.parametrize("seed", range(5))
def test_a_trial_without_hope_of_a_promotion_is_stopped_and_nothing_else_changes(seed: int) -> None:
    samples = 40
    options: dict[str, Any] = {"max_epochs": 9, "seed": seed, "grace_period": 1, "sampler": "random"}
    search, patient = SearchPolicy(SPACE, **options), Patient(SPACE, **options)
    noise = np.random.default_rng(seed).normal(size=(samples, 10))
    waited: list[int] = []
    while search.has_next(samples):
        suggestion = search.next(samples)
        waited.append(sum(trial.status == "paused" for trial in search.history.recipes))
        assert patient.next(samples) == suggestion
        for one in (search, patient):
            train(one, suggestion, lambda epoch, trial=suggestion.trial_id: float(noise[trial, epoch]))  # type: ignore[misc]
    assert search.has_ended(samples)
    assert patient.has_ended(samples)
    assert max(waited) <= search.scheduler.most_paused(samples) + 1
    assert max(waited) < sum(trial.status == "paused" for trial in patient.history.recipes)
