"""The harness names what is wrong: a good search passes, and each kind of damage to it is seen."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from tests.chaos.leftovers import files_left
from tests.chaos.verdict import differences, history_facts, unlike_the_policy, wrong_in_history
from tests.search_on_disk import lay_down_search
from tunekit.history import Event, History
from tunekit.paths import SearchPaths
from tunekit.space import load_space
from tunekit.tuning.policy import policy_of
from tunekit.tuning.settings import SearchSettings


def searched(paths: SearchPaths, *faults: tuple[int, int]) -> History:
    """A whole search with made-up values; in each (trial, epoch) of `faults` the machine fails once."""
    to_come = set(faults)
    settings = SearchSettings.load(paths)
    policy = policy_of(settings, load_space(paths.space).with_fixed(settings.fixed), History())
    while not policy.has_ended(settings.trials):
        trial = policy.next(settings.trials).trial_id
        decision = "continue"
        while decision == "continue":
            epoch = policy.history.trials[trial].epoch + 1
            if (trial, epoch) in to_come:
                to_come.remove((trial, epoch))
                policy.interrupt(trial)
                break
            decision = policy.report(trial, epoch, (trial * 7 % 5 + epoch) / 100, {"epoch_seconds": 1.0})
    policy.stop_paused()
    return policy.history


@pytest.fixture
def paths(tmp_path: Path) -> SearchPaths:
    laid = lay_down_search(tmp_path, "s")
    replace(SearchSettings.load(laid), samples=9, epochs=9, grace_period=1).save(laid)
    laid.history.unlink()
    return laid


def test_a_search_that_goes_on_after_a_fault_equals_an_undisturbed_one(paths: SearchPaths) -> None:
    undisturbed, disturbed = searched(paths), searched(paths, (0, 4), (5, 1))
    assert len(disturbed.events) == len(undisturbed.events) + 2
    assert differences(history_facts(undisturbed), history_facts(disturbed)) == []
    for history in (undisturbed, disturbed):
        assert list(unlike_the_policy(paths, history)) == []
        assert list(wrong_in_history(paths, history)) == []


def epoch_missing(events: list[Event]) -> None:
    events.pop(next(n for n, event in enumerate(events) if event.kind == "result" and event.epoch == 2))


def epoch_twice(events: list[Event]) -> None:
    place = next(n for n, event in enumerate(events) if event.epoch == 3)
    events.insert(place, replace(events[place - 1], epoch=2))


def trial_missing(events: list[Event]) -> None:
    events[:] = [event for event in events if event.trial != 8]


def time_that_falls(events: list[Event]) -> None:
    events[5] = replace(events[5], time=1.0)


def never_ended(events: list[Event]) -> None:
    events.remove(next(event for event in events if event.kind == "complete"))


@pytest.mark.parametrize(
    "damage",
    [epoch_missing, epoch_twice, trial_missing, time_that_falls, never_ended],
    ids=lambda d: d.__name__,
)
def test_a_damaged_history_is_wrong(paths: SearchPaths, damage: Callable[[list[Event]], None]) -> None:
    events = list(searched(paths).events)
    damage(events)
    assert list(wrong_in_history(paths, History(events=events)))


def other_params(events: list[Event]) -> None:
    place = next(n for n, event in enumerate(events) if event.kind == "suggest" and event.trial == 4)
    events[place] = replace(events[place], params={"optim.lr": 0.123})


def other_promotion(events: list[Event]) -> None:
    place = next(n for n, event in enumerate(events) if event.kind == "pause")
    events.insert(place + 1, Event("resume", events[place].trial, time=events[place].time))


@pytest.mark.parametrize("damage", [other_params, other_promotion], ids=lambda d: d.__name__)
def test_a_decision_that_the_policy_would_not_take_is_seen(
    paths: SearchPaths, damage: Callable[[list[Event]], None]
) -> None:
    events = list(searched(paths).events)
    damage(events)
    assert list(unlike_the_policy(paths, History(events=events)))


def test_another_value_is_a_difference(paths: SearchPaths) -> None:
    history = searched(paths)
    events = [
        replace(event, value=0.5) if event.kind == "result" and event.trial == 3 else event
        for event in history.events
    ]
    found = differences(history_facts(history), history_facts(History(events=events)))
    assert any("trial 3, epoch 1" in line for line in found)


def test_half_files_and_states_that_nobody_needs_are_seen(paths: SearchPaths) -> None:
    history = History(paths.history)
    history.append(*searched(paths).events)
    history.close()
    assert list(files_left(paths)) == []
    trial = paths.trial(2)
    trial.last.parent.mkdir(parents=True)
    trial.last.write_bytes(b"state")
    (trial.folder / f".last.pt.{'0' * 32}").write_bytes(b"half a state")
    assert [line.split(" is ")[0] for line in files_left(paths)] == ["half a file", "trial 2"]
