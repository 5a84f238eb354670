"""Searches side by side: histories written by hand, with known sums."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from tests.search_on_disk import lay_down_search
from tunekit.history import Event, History
from tunekit.paths import SearchPaths
from tunekit.reporting.comparison import best_so_far, compare_searches, comparison_table, warnings
from tunekit.reporting.facts import read_facts
from tunekit.tuning.settings import SearchSettings


def changed(paths: SearchPaths, **fields: Any) -> SearchPaths:
    """The same search, asked for with other settings."""
    dataclasses.replace(SearchSettings.load(paths), **fields).save(paths)
    return paths


def printed(searches: list[SearchPaths]) -> str:
    console = Console(width=120)
    with console.capture() as capture:
        console.print(comparison_table(compare_searches(searches)))
    return capture.get()


@pytest.fixture
def search(tmp_path: Path) -> SearchPaths:
    return lay_down_search(tmp_path, "first")


def with_trial(paths: SearchPaths, *events: Event) -> SearchPaths:
    history = History.read(paths.history)
    history.append(*events)
    history.close()
    return paths


def test_a_row_adds_up_what_all_trials_did(search: SearchPaths) -> None:
    more = [Event("result", 2, epoch=e, value=0.5, metrics={"epoch_seconds": 1800.0}) for e in (1, 2)]
    (row,) = compare_searches([with_trial(search, *more)])

    assert (row.search, row.dataset, row.sampler, row.scheduler) == (
        "first",
        "digits",
        "portfolio",
        "asha-promotion",
    )
    assert (row.trials, row.epochs, row.hours) == (3, 6, 1.0)
    assert row.best == 0.75
    assert row.epochs_to_best == 3  # the third epoch of all was the second of the best trial
    assert row.test is None


def test_the_gain_is_over_the_default_recipe(search: SearchPaths) -> None:
    (row,) = compare_searches([search])

    assert row.default == 0.25  # trial 0 had the default learning rate, 0.1
    assert row.gain == 0.5


def test_there_is_no_gain_where_the_default_recipe_was_not_trained(search: SearchPaths) -> None:
    (row,) = compare_searches([changed(search, fixed={"batch_size": 64, "optim.lr": 0.2})])

    assert row.default is None and row.gain is None


def test_best_so_far_rises_over_the_epochs_of_all_trials(search: SearchPaths) -> None:
    points = best_so_far(read_facts(search))

    assert [(epochs, best) for epochs, _, best in points] == [(1, 0.25), (2, 0.5), (3, 0.75), (4, 0.75)]
    seconds = [second for _, second, _ in points]
    assert seconds == sorted(seconds) and seconds[0] >= 0


def test_trainings_that_saw_the_validation_images_do_not_raise_the_best(search: SearchPaths) -> None:
    with_trial(
        search,
        Event("suggest", 3, params={"optim.lr": 0.3}, seen_validation=True),
        Event("result", 3, epoch=1, value=1.0),
    )

    assert best_so_far(read_facts(search))[-1][0] == 5
    assert best_so_far(read_facts(search))[-1][2] == 0.75


def test_a_search_without_a_result_has_a_row_too(tmp_path: Path, search: SearchPaths) -> None:
    empty = lay_down_search(tmp_path, "empty")
    empty.history.unlink()

    rows = compare_searches([search, empty])

    assert rows[1].best is None and rows[1].epochs == 0 and rows[1].epochs_to_best is None
    assert best_so_far(read_facts(empty)) == []
    assert "empty" in printed([search, empty])


def test_the_keys_in_which_the_best_recipes_differ_are_told(tmp_path: Path, search: SearchPaths) -> None:
    second = changed(lay_down_search(tmp_path, "second"), fixed={"optim.name": "adam", "batch_size": 64})

    rows = compare_searches([search, second])

    assert [row.differs for row in rows] == [{"batch_size": 128}, {"batch_size": 64}]
    assert "batch_size" in printed([search, second]) and "optim.lr" not in printed([search, second])


@pytest.mark.parametrize(
    ("fields", "word"),
    [
        ({"data_digest": "other"}, "data"),
        ({"seed": 1}, "seed of the split"),
        ({"train_limit": 100}, "--train-limit"),
        ({"val_fraction": 0.3}, "--val-fraction"),
    ],
)
def test_accuracies_of_other_images_cannot_be_compared(
    tmp_path: Path, search: SearchPaths, fields: dict[str, Any], word: str
) -> None:
    second = changed(lay_down_search(tmp_path, "second"), **fields)

    (warning,) = warnings(compare_searches([search, second]))

    assert word in warning and "cannot be compared" in warning and "first" in warning and "second" in warning


def test_searches_on_the_same_images_are_compared_without_a_warning(
    tmp_path: Path, search: SearchPaths
) -> None:
    second = changed(lay_down_search(tmp_path, "second"), sampler="random")

    assert warnings(compare_searches([search, second])) == []
    assert warnings([]) == []


def test_longer_trainings_are_told_apart(tmp_path: Path, search: SearchPaths) -> None:
    second = changed(lay_down_search(tmp_path, "second"), epochs=9)

    (warning,) = warnings(compare_searches([search, second]))
    assert "up to 9 epochs" in warning


def test_the_test_accuracy_is_that_of_the_retrained_winner(search: SearchPaths) -> None:
    file = search.retraining.result(1)
    file.parent.mkdir(parents=True)
    test = [{"name": "default", "mean": 0.7}, {"name": "trial 1", "mean": 0.74}]
    file.write_text(
        json.dumps({"key": "k", "format": 1, "opening": {"number": 1}, "winner": "trial 1", "test": test})
    )

    (row,) = compare_searches([search])

    assert row.test == 0.74
    assert "0.7400" in printed([search])
