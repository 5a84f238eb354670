"""Where a search stands, read from its folder, and the commands that ask something of it."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from filelock import FileLock
from rich.console import Console

from tests.bad_input.refusal import USAGE, Refusal
from tests.search_on_disk import lay_down_search
from tunekit import cli
from tunekit.history import Event, History
from tunekit.paths import SearchPaths
from tunekit.reporting.status import search_status, status_lines, unfinished_table
from tunekit.tuning.runner import Runner, announced


@pytest.fixture
def paths(tmp_path: Path) -> SearchPaths:
    """Of 4 samples of 3 epochs, trial 0 is stopped, trial 1 completed and trial 2 unfinished."""
    return lay_down_search(tmp_path / "results", "mine")


@pytest.fixture
def run(paths: SearchPaths) -> Callable[..., Result]:
    def invoke(*arguments: str) -> Result:
        return CliRunner().invoke(cli.main, [*arguments, "--results-dir", str(paths.folder.parent)])

    return invoke


def add(paths: SearchPaths, *events: Event) -> None:
    history = History.read(paths.history)
    history.append(*events)
    history.close()


def epoch(trial: int, number: int, seconds: float) -> Event:
    metrics = {"epoch_seconds": seconds}
    return Event("result", trial, epoch=number, value=0.5, metrics=metrics, worker="node-a:17")


def test_an_interrupted_search_says_what_it_came_to(paths: SearchPaths) -> None:
    row = search_status(paths)
    assert (row["state"], row["runner"]) == ("interrupted", None)
    assert (row["trials"], row["begun"], row["ended"]) == (4, 3, 2)
    assert row["counts"] == {"running": 1, "completed": 1, "stopped": 1}
    assert row["best"] == {"trial": 1, "val_accuracy": 0.75, "epoch": 2, "trainings": 1}
    assert row["seconds_left"] is None  # no epoch says how long it took
    assert row["events_mlflow_lacks"] == 9
    assert row["bytes"] == sum(file.stat().st_size for file in paths.folder.iterdir())
    lines = status_lines(row, now=row["last_event"] + 130)
    assert lines[0] == "Search mine: interrupted, last heard of 2 min 10 s ago"
    assert lines[2] == "Trials  2 of 4 ended: 1 unfinished, 1 completed, 1 stopped"
    assert lines[3] == "Best    0.7500 (trial 01, epoch 2)"
    assert lines[4].startswith("MLflow  lacks 9 events (sqlite:")


def test_a_running_search_says_who_runs_it_and_what_each_trial_does(paths: SearchPaths) -> None:
    add(paths, epoch(2, 1, 7.0))
    with FileLock(paths.lock), announced(paths):
        row = search_status(paths)
    assert row["state"] == "running"
    assert (row["runner"]["host"], row["runner"]["pid"]) == (Runner().host, os.getpid())
    line = status_lines(row, now=row["runner"]["since"] + 65)[0]
    assert line == f"Search mine: running for 1 min 05 s, process {os.getpid()} on {Runner().host}"
    assert "1 running" in status_lines(row)[2]
    (trial,) = row["unfinished"]
    assert (trial["trial"], trial["epoch"], trial["epochs"], trial["next_comparison"]) == (2, 1, 3, 3)
    assert (trial["val_accuracy"], trial["epoch_seconds"], trial["worker"]) == (0.5, 7.0, "node-a:17")
    console = Console(width=200)
    with console.capture() as captured:
        console.print(unfinished_table(row))
    assert captured.get().splitlines()[1].split() == [
        *("02", "1/3", "3", "0.5000", "7", "s", "node-a:17", "lr=0.2")
    ]


def test_what_is_left_is_estimated_from_the_time_of_recent_epochs(paths: SearchPaths) -> None:
    # One trial has 2 of its 3 epochs to go; one is to begin, of 3 epochs or, since one ended after 1, less.
    add(paths, epoch(2, 1, 10.0))
    assert search_status(paths)["seconds_left"] == pytest.approx((2 + (10 * 3 + 1 + 3) / 12) * 10.0)
    # Now both run: 2 epochs each, two at a time, at the mean pace of the two known epochs.
    add(paths, Event("suggest", 3, params={"optim.lr": 0.3}), epoch(3, 1, 20.0))
    assert search_status(paths)["seconds_left"] == pytest.approx(4 * 15.0 / 2)


def test_a_search_that_is_retrained_does_not_say_that_it_runs(paths: SearchPaths) -> None:
    with FileLock(paths.lock):
        row = search_status(paths)
    assert status_lines(row)[0] == (
        "Search mine: not running, but another command works on it (say, retrain-best)"
    )


def test_a_finished_search_has_nothing_left(paths: SearchPaths, run: Callable[..., Result]) -> None:
    add(paths, Event("fail", 2, epoch=1, reason="nan"), Event("suggest", 3, params={"optim.lr": 0.3}))
    add(paths, Event("stop", 3, epoch=0))
    paths.tracked.write_text(json.dumps({"events": 12, "run_id": "x"}))
    row = search_status(paths)
    assert (row["state"], row["seconds_left"], row["unfinished"]) == ("finished", None, [])
    assert run("status").output.splitlines()[-2].startswith("MLflow  has every event")


def test_a_search_without_any_trial_says_so(paths: SearchPaths, run: Callable[..., Result]) -> None:
    paths.history.unlink()
    assert "interrupted, no trial has begun" in run("status", "mine").output
    assert "Best    no result yet" in run("status", "mine").output


def test_status_reads_only(paths: SearchPaths, run: Callable[..., Result]) -> None:
    def files() -> dict[str, int]:
        return {str(file): file.stat().st_mtime_ns for file in paths.folder.iterdir() if file.name != ".lock"}

    before = files()
    assert json.loads(run("status", "--json").output)["search"] == "mine"
    assert run("status").exit_code == 0
    assert files() == before


def test_extending_a_search_that_does_not_run_says_how_it_goes_on(
    paths: SearchPaths, run: Callable[..., Result]
) -> None:
    result = run("extend", "mine", "--samples", "+50")
    assert result.exit_code == 0
    assert result.output.splitlines() == [
        "Search mine may go on to 54 samples (4 before).",
        f"Go on with:  tunekit resume mine --results-dir {paths.folder.parent}",
    ]
    assert json.loads(run("status", "--json").output)["samples"] == 54


def test_a_trial_of_a_search_that_does_not_run_is_stopped_at_once(
    paths: SearchPaths, run: Callable[..., Result]
) -> None:
    add(paths, Event("result", 2, epoch=1, value=0.1))
    result = run("stop", "mine", "--trial", "2")
    assert (result.exit_code, result.output) == (0, "Trial 02 ends at epoch 1.\n")
    assert History.read(paths.history).trials[2].status == "stopped"


@pytest.mark.parametrize(
    ("arguments", "words", "code"),
    [
        (("extend", "mine", "--samples", "3"), "at least the 4 of search mine, but got 3", 1),
        (("extend", "mine", "--samples", "many"), "must be a number such as 80", USAGE),
        (("extend", "mine", "--samples", "-5"), "must be a number such as 80", USAGE),
        (("extend", "mine", "--samples", "9999999"), "at most 1000000 in all", 1),
        (("extend", "mine"), "give --samples", USAGE),
        (("extend", "mine", "--epochs", "50"), "epochs cannot be extended", USAGE),
        (("extend", "mien", "--samples", "+1"), "did you mean 'mine'?", 1),
        (("stop", "mine"), "search mine is not running", 1),
        (("stop", "mine", "--trial", "1"), "trial 01 of search mine has ended: it is completed", 1),
        (("stop", "mine", "--trial", "7"), "search mine has no trial 7 yet (there are 0 to 2)", 1),
        (("stop", "mine", "--trial", "x"), "x", USAGE),
        (("stop", "mien"), "did you mean 'mine'?", 1),
        (("status", "mien"), "did you mean 'mine'?", 1),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_what_cannot_be_done_is_refused_in_one_line(
    arguments: tuple[str, ...], words: str, code: int, paths: SearchPaths
) -> None:
    results_dir = paths.folder.parent
    Refusal(results_dir)([*arguments, "--results-dir", str(results_dir)], words, code)


def damage(**changes: Any) -> str:
    return json.dumps(changes)


@pytest.mark.parametrize("content", ["", "{", "[]", damage(host=1), damage(host="a", pid="x", since=0)])
def test_a_damaged_file_about_who_runs_a_search_is_no_error(paths: SearchPaths, content: str) -> None:
    with FileLock(paths.lock):
        paths.runner.write_text(content)
        assert search_status(paths)["runner"] is None
