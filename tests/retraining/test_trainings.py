"""What is trained, in which order, and what is known again: on plain numbers, without Ray."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest

from tunekit.errors import SearchError
from tunekit.history import History
from tunekit.paths import RetrainingPaths, SearchPaths
from tunekit.recipe import Recipe
from tunekit.retraining.candidates import Candidate
from tunekit.retraining.trainings import PlannedTraining, RetrainingPolicy, Trainings, plan, seeds_of
from tunekit.tuning.settings import SearchSettings

ANY = 99  # a retraining does not care how many samples a search has


def candidate(name: str = "trial 07", lr: float = 0.1, epochs: int = 2) -> Candidate:
    recipe = Recipe.from_flat({"model.name": "resnet8", "optim.lr": lr})
    return Candidate(name, recipe, {"optim.lr": lr}, epochs)


def some(count: int = 3, epochs: int = 2) -> list[PlannedTraining]:
    return [plan(candidate(epochs=epochs), seed) for seed in range(count)]


def policy_of(
    planned: list[PlannedTraining], history: History, wanted: list[int] | None = None
) -> RetrainingPolicy:
    return RetrainingPolicy(planned, range(len(planned)) if wanted is None else wanted, history)


def handed_out(policy: RetrainingPolicy) -> list[tuple[int, bool]]:
    """All that wait: id, and whether it goes on from a checkpoint."""
    found = []
    while policy.has_next(ANY):
        suggestion = policy.next(ANY)
        found.append((suggestion.trial_id, suggestion.resumes))
    return found


def train(policy: RetrainingPolicy, training: int, epochs: int = 2) -> None:
    for epoch in range(1, epochs + 1):
        policy.report(training, epoch, epoch / 10)


@pytest.fixture
def history() -> History:
    return History()


def again(history: History) -> History:
    """The history as the next process reads it."""
    return History(events=history.events)


def test_what_is_left_are_the_epochs_of_wanted_trainings(history: History) -> None:
    policy = policy_of(some(4, epochs=3), history, wanted=[2, 0, 3])
    assert policy.epochs_left() == 9
    policy.next(ANY)
    policy.report(2, 1, 0.5)
    assert policy.epochs_left() == 8
    policy.report(2, 2, 0.5)
    policy.report(2, 3, 0.5)
    assert policy.epochs_left() == 6


def test_trainings_begin_in_the_order_in_which_they_are_wanted(history: History) -> None:
    policy = policy_of(some(4), history, wanted=[2, 0, 3])
    assert handed_out(policy) == [(2, False), (0, False), (3, False)]
    assert [event.trial for event in history.events] == [2, 0, 3]


def test_a_training_is_handed_out_with_what_a_person_is_shown(history: History) -> None:
    known = replace(candidate("B-mnist-vgg16", lr=0.5), baseline="B-mnist-vgg16")
    suggestion = policy_of([plan(known, 0)], history).next(ANY)
    assert suggestion.params == {"optim.lr": 0.5}
    assert (history.trials[0].params, history.trials[0].baseline) == ({"optim.lr": 0.5}, "B-mnist-vgg16")


def test_a_training_on_validation_images_is_marked_since_its_values_say_nothing(history: History) -> None:
    planned = [plan(candidate(), 0, "train+val"), plan(candidate(), 0)]
    handed_out(policy_of(planned, history))
    assert [trial.seen_validation for trial in history.trials.values()] == [True, False]


def test_a_training_is_complete_after_its_own_last_epoch(history: History) -> None:
    policy = policy_of([*some(1, epochs=1), *some(1, epochs=3)], history)
    handed_out(policy)
    assert policy.report(0, 1, 0.5) == "stop"
    assert [policy.report(1, epoch, 0.5) for epoch in (1, 2, 3)] == ["continue", "continue", "stop"]
    assert [trial.status for trial in history.trials.values()] == ["completed", "completed"]


def test_what_is_left_ends_with_the_last_training(history: History) -> None:
    policy = policy_of(some(2), history)
    assert policy.left == [0, 1]
    handed_out(policy)
    assert policy.left == [0, 1]
    assert not policy.has_ended(ANY)
    train(policy, 0)
    assert policy.left == [1]
    policy.fail(1, 1, "diverged")
    assert policy.left == []
    assert policy.has_ended(ANY)


def test_metrics_reach_the_history(history: History) -> None:
    policy = policy_of(some(1), history)
    handed_out(policy)
    policy.report(0, 1, 0.25, {"val_loss": 1.5})
    (result,) = history.trials[0].results
    assert (result.epoch, result.value, result.metrics) == (1, 0.25, {"val_loss": 1.5})


def test_an_epoch_that_is_known_changes_nothing(history: History) -> None:
    policy = policy_of(some(1), history)
    handed_out(policy)
    policy.report(0, 1, 0.25)
    assert policy.report(0, 1, 0.99) == "continue"
    assert [result.value for result in history.trials[0].results] == [0.25]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_value_that_is_not_finite_fails_the_training(history: History, value: float) -> None:
    policy = policy_of(some(2), history)
    handed_out(policy)
    policy.report(0, 1, 0.25)
    assert policy.report(0, 2, value) == "stop"
    trial = history.trials[0]
    assert (trial.status, trial.failed_at, trial.reason) == ("failed", 2, f"diverged: value is {value}")
    assert policy.left == [1]


def test_what_was_interrupted_goes_on_before_anything_begins(history: History) -> None:
    planned = some(4)
    policy = policy_of(planned, history, wanted=[0, 2])
    handed_out(policy)
    policy.report(2, 1, 0.5)
    history = again(history)
    assert handed_out(policy_of(planned, history)) == [(0, True), (2, True), (1, False), (3, False)]
    assert history.trials[2].epoch == 1


def test_what_has_ended_is_never_trained_again(history: History) -> None:
    planned = some(3)
    policy = policy_of(planned, history)
    handed_out(policy)
    train(policy, 0)
    policy.fail(1, 1, "out of memory")
    train(policy, 2)
    later = policy_of(planned, again(history))
    assert later.left == []
    assert later.has_ended(ANY)
    assert not later.has_next(ANY)
    assert [trial.status for trial in later.history.trials.values()] == ["completed", "failed", "completed"]


def test_what_the_machine_lost_is_tried_again_by_the_next_call_only(history: History) -> None:
    planned = some(2)
    policy = policy_of(planned, history)
    handed_out(policy)
    policy.report(0, 1, 0.5)
    policy.lose(0, "the node went away")
    train(policy, 1)
    assert policy.left == []
    assert not policy.has_next(ANY)
    later = policy_of(planned, again(history))
    assert later.left == [0]
    assert handed_out(later) == [(0, True)]
    assert later.report(0, 2, 0.6) == "stop"
    assert later.history.trials[0].status == "completed"


def test_an_attempt_that_was_lost_is_handed_out_again_before_anything_begins(history: History) -> None:
    policy = policy_of(some(2), history)
    assert policy.next(ANY).trial_id == 0
    policy.interrupt(0)
    assert handed_out(policy) == [(0, True), (1, False)]


def test_a_call_that_wants_less_leaves_other_trainings_alone(history: History) -> None:
    planned = some(3)
    policy = policy_of(planned, history)
    handed_out(policy)
    policy = policy_of(planned, again(history), wanted=[1])
    assert handed_out(policy) == [(1, True)]
    train(policy, 1)
    assert policy.has_ended(ANY)


# The list of all trainings.


@pytest.fixture
def paths(tmp_path: Path) -> RetrainingPaths:
    return SearchPaths(tmp_path / "mine").retraining


def test_trainings_keep_their_ids_in_later_processes(paths: RetrainingPaths) -> None:
    first, second, third = some(3)
    assert Trainings(paths).ids_of([first, second]) == [0, 1]
    later = Trainings(paths)
    assert later.planned == [first, second]
    assert later.ids_of([third, second]) == [2, 1]
    assert Trainings(paths).planned == [first, second, third]


def test_a_training_is_known_by_what_it_trains_and_not_by_its_name(paths: RetrainingPaths) -> None:
    trainings = Trainings(paths)
    (usual,) = trainings.ids_of([plan(candidate("trial 07"), seed=1)])
    assert trainings.ids_of([plan(candidate("trial 09"), seed=1)]) == [usual]
    assert Trainings(paths).ids_of([plan(candidate("trial 09"), seed=1)]) == [usual]


def test_a_training_is_called_what_the_latest_call_calls_it(paths: RetrainingPaths) -> None:
    # With more of the best, a trial may turn out to have the recipe that was `default recipe` before.
    trainings = Trainings(paths)
    trainings.ids_of([plan(candidate("default recipe"), seed) for seed in (1, 2)])
    trainings.ids_of([plan(candidate("trial 00 (default)"), seed) for seed in (1, 2, 3)])
    assert {training.name for training in trainings.planned} == {"trial 00 (default)"}
    assert {training.name for training in Trainings(paths).planned} == {"trial 00 (default)"}


@pytest.mark.parametrize(
    "other",
    [
        plan(candidate(lr=0.2), seed=1),
        plan(candidate(), seed=2),
        plan(candidate(epochs=3), seed=1),
        plan(candidate(), seed=1, part="train+val"),
    ],
    ids=["recipe", "seed", "epochs", "part"],
)
def test_another_training_is_new(paths: RetrainingPaths, other: PlannedTraining) -> None:
    assert Trainings(paths).ids_of([plan(candidate(), seed=1), other]) == [0, 1]
    assert Trainings(paths).ids_of([other, plan(candidate(), seed=1)]) == [1, 0]


def test_a_training_says_in_words_what_it_is() -> None:
    assert plan(candidate(), seed=5).words == "trial 07 seed 5"
    assert plan(candidate(), seed=5, part="train+val").words == "trial 07 on train+val seed 5"


@pytest.mark.parametrize("content", ["", "[{", "[1]", '[{"seed": 1}]', '[{"colour": 1}]', "null", "\x00"])
def test_a_damaged_list_is_one_clear_error(paths: RetrainingPaths, content: str) -> None:
    paths.folder.mkdir(parents=True)
    paths.settings.write_text(content)
    with pytest.raises(SearchError) as raised:
        Trainings(paths)
    message = str(raised.value)
    assert message.startswith(f"{paths.settings}: not the trainings of a search (")
    assert "\n" not in message


# Seeds.


def settings(seed: int) -> SearchSettings:
    return SearchSettings(
        "mine", "digits", "mine.toml", 50, 3, seed, "data", "sqlite:///mlflow.db", repeats=3
    )


def test_five_seeds_begin_with_the_same_three() -> None:
    assert seeds_of(settings(0), 5)[:3] == seeds_of(settings(0), 3)
    assert len(set(seeds_of(settings(0), 1000))) == 1000


def test_no_trial_of_a_search_has_a_seed_of_a_retraining() -> None:
    # Nor has a search with the next seed: its trials begin where those of this one cannot come.
    mine, next_one = settings(41), settings(42)
    trials = {search.trial_seed(trial) for search in (mine, next_one) for trial in range(50_000)}
    assert not trials & set(seeds_of(mine, 1000))


def test_searches_with_other_seeds_retrain_with_other_seeds() -> None:
    assert not set(seeds_of(settings(0), 1000)) & set(seeds_of(settings(1), 1000))
