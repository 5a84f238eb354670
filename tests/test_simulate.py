"""`tunekit simulate` as a user meets it."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from tests.search_on_disk import lay_down_search
from tunekit import cli
from tunekit.history import Event, History
from tunekit.paths import SearchPaths
from tunekit.reporting.simulation import Combination, combinations


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., Result]:
    """Run `tunekit simulate ...` on the searches of `tmp_path`."""

    def invoke(*arguments: str) -> Result:
        return CliRunner().invoke(cli.main, ["simulate", *arguments, "--results-dir", str(tmp_path)])

    return invoke


def peak(trial: int) -> float:
    """Trial 5 is the best."""
    return (10 - abs(trial - 5)) / 10


def lay_down_curves(results_dir: Path, trials: int, result: Callable[[int], float] = peak) -> SearchPaths:
    """A search of trials of three epochs and learning rates up to 1, with such results; 0 was stopped."""
    paths = lay_down_search(results_dir, "curves")
    paths.history.unlink()
    history = History(paths.history)
    for trial in range(trials):
        history.append(Event("suggest", trial, params={"optim.lr": (trial + 1) / trials}))
        for epoch in range(1, 2 if trial == 0 else 4):
            value, metrics = result(trial) * epoch / 3, {"epoch_seconds": 60.0}
            history.append(Event("result", trial, epoch=epoch, value=value, metrics=metrics))
        history.append(Event("complete", trial) if trial else Event("stop", trial, epoch=1))
    history.close()
    return paths


def test_a_search_is_replayed_in_other_ways(run: Callable[..., Result], tmp_path: Path) -> None:
    lay_down_curves(tmp_path, 10)
    narrow = ("--sampler", "random", "--scheduler", "none", "--scheduler", "asha", "--grace-period", "1")
    result = run("curves", *narrow, "--seeds", "3", "--workers", "2")
    assert result.exit_code == 0, result.output
    assert "validation accuracy 1.0000, seen after 16 of 28 epochs" in result.output
    assert "9 of 10 trials are known to their end" in result.output
    assert "--scheduler none to compare fairly" in result.output
    assert "Replayed 2 of 2: random + asha, grace period 1" in result.output
    found = json.loads(run("curves", *narrow, "--seeds", "3", "--workers", "2", "--quiet", "--json").stdout)
    assert (found["trials"], found["trials_known"], found["epochs"], found["found_after"]) == (10, 9, 28, 16)
    rows = found["replays"]
    assert {(row["sampler"], row["scheduler"], row["grace_period"]) for row in rows} == {
        ("random", "none", None),
        ("random", "asha", 1),
    }
    for row in rows:
        if row["found"] > 0.5:
            assert 3 <= row["epochs"] <= 28
            assert row["share"] == row["epochs"] / 28
            assert row["seconds"] >= 60 * row["epochs"] / 2  # two workers
        else:
            assert row["epochs"] is None


NOISE = np.random.default_rng(0).random(30)


@pytest.mark.parametrize(
    ("result", "least", "most"),
    [(lambda trial: trial / 30, 0.9, 1.0), (lambda trial: float(NOISE[trial]), -0.37, 0.37)],
    ids=["rising", "noise"],
)
def test_how_well_similar_recipes_tell_results_is_said(
    run: Callable[..., Result], tmp_path: Path, result: Callable[[int], float], least: float, most: float
) -> None:
    lay_down_curves(tmp_path, 30, result)
    way = ("--sampler", "random", "--scheduler", "none", "--seeds", "1", "--quiet")
    correlation = json.loads(run(*way, "--json").stdout)["rank_correlation"]
    assert least < correlation < most
    said = run(*way).output
    assert f"tells a recipe's result with a rank correlation of {correlation:.2f}" in said
    assert ("no more than chance would give with 29 recipes" in said) is (most < 1)


def test_too_few_full_trainings_are_refused_with_what_to_do(
    run: Callable[..., Result], tmp_path: Path
) -> None:
    lay_down_curves(tmp_path, 8)
    result = run()
    assert result.exit_code == 1
    assert "7 of 8 trials were trained for all 3 epochs, but a replay needs 8" in result.output
    assert "--scheduler none" in result.output


def test_a_wrong_name_meets_the_nearest(run: Callable[..., Result], tmp_path: Path) -> None:
    lay_down_curves(tmp_path, 8)
    assert "did you mean 'curves'?" in run("curve").output


def test_all_ways_that_differ_are_replayed_unless_some_are_named() -> None:
    ways = combinations(9, ("random",), ("asha", "none"), ())
    assert ways == [
        Combination("random", "asha", 1),
        Combination("random", "asha", 3),
        Combination("random", "none", None),
    ]
    assert {way.sampler for way in combinations(27, (), ("none",), ())} >= {"random"}
    assert [way.grace_period for way in combinations(9, ("random",), ("asha",), (2, 20))] == [2, 20]
