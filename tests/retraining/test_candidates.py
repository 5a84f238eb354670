"""Which recipes of a search are retrained."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path

import pytest

from tests.search_on_disk import lay_down_search
from tunekit.baselines import Baseline, find_baseline
from tunekit.errors import SearchError
from tunekit.history import Event, History
from tunekit.paths import SearchPaths
from tunekit.recipe import Recipe, Value
from tunekit.retraining.candidates import Candidate, choose_candidates
from tunekit.tuning.settings import SearchSettings

ADAM = Recipe.from_flat({"optim.name": "adam"})


def settings(paths: SearchPaths) -> SearchSettings:
    return SearchSettings.load(paths)


def chosen(paths: SearchPaths, top_k: int = 3, epochs: int | None = None) -> list[Candidate]:
    return choose_candidates(paths, settings(paths), top_k, epochs)


def names(candidates: list[Candidate]) -> list[str]:
    return [candidate.name for candidate in candidates]


def go_on(paths: SearchPaths, *events: Event) -> None:
    history = History.read(paths.history)
    history.append(*events)
    history.close()


def trained(trial: int, value: float, params: dict[str, Value], **fields: object) -> list[Event]:
    """A trial of three epochs."""
    results = [Event("result", trial, epoch=epoch, value=value) for epoch in (1, 2, 3)]
    begin = Event("suggest", trial, params=params, **fields)  # type: ignore[arg-type]
    return [begin, *results, Event("complete", trial)]


@pytest.fixture
def paths(tmp_path: Path) -> SearchPaths:
    """Trial 0 reached 0.25, trial 1 0.75, trial 2 nothing."""
    return lay_down_search(tmp_path, "mine")


def test_the_best_come_first_and_the_default_recipe_last(paths: SearchPaths) -> None:
    go_on(paths, *trained(3, 0.3, {"optim.lr": 0.3}))
    best, second, default = chosen(paths, top_k=2)
    assert names([best, second, default]) == ["trial 01", "trial 03", "default recipe"]
    assert [best.default, second.default, default.default] == [False, False, True]
    assert best.params == {"optim.lr": 0.5}
    # What the search fixed is in every recipe.
    assert best.recipe == Recipe.from_flat({"optim.name": "adam", "optim.lr": 0.5})


def test_a_default_recipe_that_the_search_did_not_train_comes_from_its_space(paths: SearchPaths) -> None:
    default = chosen(paths, top_k=1)[-1]
    assert default.recipe == ADAM
    assert default.params == {"optim.lr": ADAM.optim.lr}


def test_a_default_recipe_that_the_search_trained_bears_its_trials_name(paths: SearchPaths) -> None:
    go_on(paths, *trained(3, 0.1, {"optim.lr": ADAM.optim.lr}, default=True))
    found = chosen(paths, top_k=1)
    assert names(found) == ["trial 01", "trial 03 (default)"]
    assert found[1].default


def test_a_default_recipe_among_the_best_is_trained_once(paths: SearchPaths) -> None:
    go_on(paths, *trained(3, 0.9, {"optim.lr": ADAM.optim.lr}, default=True))
    assert names(chosen(paths, top_k=2)) == ["trial 03 (default)", "trial 01"]


def test_only_so_many_of_the_best_are_taken(paths: SearchPaths) -> None:
    assert names(chosen(paths, top_k=1)) == ["trial 01", "default recipe"]


def test_of_equal_recipes_the_better_trial_stands_for_both(paths: SearchPaths) -> None:
    go_on(paths, *trained(3, 0.7, {"optim.lr": 0.5}), *trained(4, 0.6, {"optim.lr": 0.4}))
    assert names(chosen(paths, top_k=3)) == ["trial 01", "trial 04", "default recipe"]


def test_a_trial_that_happened_upon_the_default_recipe_stands_for_it(paths: SearchPaths) -> None:
    best, default = chosen(paths)
    assert [best.name, default.name] == ["trial 01", "trial 00 (default)"]
    assert default.recipe == ADAM
    assert default.default


def test_a_known_recipe_that_equals_the_default_one_stands_for_it(paths: SearchPaths) -> None:
    # The search then never suggests its default recipe: it was tried.
    known = ADAM.to_flat()
    go_on(paths, *trained(3, 0.9, known, baseline="the usual"))
    best, other = chosen(paths, top_k=2)
    assert best.name == "the usual (default)"
    assert (best.default, best.baseline) == (True, "the usual")
    assert other.name == "trial 01"


def test_repeats_are_no_candidates_and_count_for_their_recipe(paths: SearchPaths) -> None:
    go_on(
        paths,
        *trained(3, 0.8, {"optim.lr": 0.4}),
        *trained(4, 0.6, {"optim.lr": 0.5}, repeat_of=1),
        *trained(5, 0.99, {"optim.lr": 0.4}, repeat_of=3),
    )
    assert names(chosen(paths, top_k=2)) == ["trial 03", "trial 01", "default recipe"]
    assert len(chosen(paths, top_k=99)) == 3


def test_a_known_recipe_in_a_search_keeps_its_name_and_its_whole_recipe(paths: SearchPaths) -> None:
    lenet = find_baseline("lecun1998-mnist-lenet5")
    go_on(paths, *trained(3, 0.9, dict(lenet.recipe), baseline=lenet.name))
    best = chosen(paths)[0]
    assert (best.name, best.baseline) == (lenet.name, lenet.name)
    assert best.recipe == Recipe.from_flat(lenet.recipe)


def test_all_train_as_long_as_the_search_did_or_as_was_asked_for(paths: SearchPaths) -> None:
    assert {candidate.epochs for candidate in chosen(paths)} == {3}
    assert {candidate.epochs for candidate in chosen(paths, epochs=7)} == {7}


def test_a_search_without_a_result_says_how_to_get_one(paths: SearchPaths) -> None:
    paths.history.unlink()
    with pytest.raises(SearchError) as raised:
        chosen(paths)
    assert str(raised.value) == "search mine has no result yet: 'tunekit resume mine' goes on with it"
    go_on(paths, Event("suggest", 0, params={"optim.lr": 0.1}), Event("fail", 0, epoch=1, reason="diverged"))
    with pytest.raises(SearchError, match="has no result yet"):
        chosen(paths)


def known_only(paths: SearchPaths, *baselines: Baseline) -> None:
    """Makes the search one of known recipes alone, which proposes nothing."""
    replace(settings(paths), samples=0, epochs=40, baselines=[asdict(known) for known in baselines]).save(
        paths
    )
    paths.history.unlink()


def test_of_known_recipes_alone_all_are_taken_each_with_what_was_reported(paths: SearchPaths) -> None:
    silent = Baseline("silent", {"optim.lr": 0.02}, "digits")
    known_only(paths, find_baseline("B-mnist-vgg16"), find_baseline("lecun1998-mnist-lenet5"), silent)
    found = chosen(paths, top_k=1)
    assert names(found) == ["B-mnist-vgg16", "lecun1998-mnist-lenet5", "silent"]
    assert [candidate.epochs for candidate in found] == [10, 20, 40]
    assert [candidate.reported_epochs for candidate in found] == [10, 20, None]
    assert [candidate.reported_accuracy for candidate in found] == [99.1, 99.05, None]
    assert found[0].recipe == Recipe.from_flat(find_baseline("B-mnist-vgg16").recipe)
    assert not any(candidate.default for candidate in found)


def test_epochs_that_were_asked_for_count_for_known_recipes_too(paths: SearchPaths) -> None:
    known_only(paths, find_baseline("B-mnist-vgg16"), find_baseline("lecun1998-mnist-lenet5"))
    found = chosen(paths, epochs=2)
    assert [candidate.epochs for candidate in found] == [2, 2]
    assert [candidate.reported_epochs for candidate in found] == [10, 20]


def test_known_recipes_that_are_the_same_training_are_trained_once(paths: SearchPaths) -> None:
    # The catalogue has such pairs: one report gives the same recipe in two tables.
    twins = find_baseline("B-mnist-vgg16"), find_baseline("B-mnist-vgg16-sgd+momentum")
    longer = replace(twins[0], name="longer", epochs=20)
    known_only(paths, *twins, longer)
    assert names(chosen(paths)) == ["B-mnist-vgg16", "longer"]
    assert names(chosen(paths, epochs=2)) == ["B-mnist-vgg16"]
