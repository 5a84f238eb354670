"""A running search is looked at, extended and stopped from another process, on a real Ray."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from tests.driver import Driver
from tunekit import cli
from tunekit.data.pack import Pack
from tunekit.history import History
from tunekit.paths import SearchPaths
from tunekit.tracking.client import open_client
from tunekit.tuning.settings import SearchSettings

pytestmark = [pytest.mark.slow, pytest.mark.ray, pytest.mark.extended, pytest.mark.timeout(280)]

SPACE = """
[fixed]
"model.name" = "resnet8"
"batch_size" = 32

[space]
"optim.lr" = { low = 1e-3, high = 0.1, log = true }
"""

LONG = 400  # epochs: far more than a trial comes to before it is stopped


def tunekit(folder: Path, *arguments: str, code: int = 0) -> str:
    """What a command says, in this process: the search runs in another."""
    result = CliRunner().invoke(cli.main, [*arguments, "--results-dir", str(folder / "results")])
    assert result.exit_code == code, result.output
    return result.output


def until(condition: Callable[[History], bool], paths: SearchPaths) -> History:
    deadline = time.monotonic() + 60
    while not condition(history := History.read(paths.history)):
        assert time.monotonic() < deadline, history.events[-20:]
        time.sleep(0.1)
    return history


def child_status(paths: SearchPaths) -> dict[int, str]:
    """MLflow's word for each trial."""
    client = open_client(SearchSettings.load(paths).tracking_uri)
    runs = client.search_runs([experiment.experiment_id for experiment in client.search_experiments()])
    return {
        int(run.data.tags["tunekit.trial"]): run.info.status
        for run in runs
        if "tunekit.trial" in run.data.tags
    }


def test_a_running_search_is_looked_at_extended_and_stopped_and_goes_on(
    drive: Callable[..., Driver], tmp_path: Path, digits: Pack
) -> None:
    data_dir = digits.folder.parent.parent
    (tmp_path / "long.toml").write_text(SPACE)
    what = ("search", "digits", "--space", "long.toml", "--name", "s", "--data-dir", str(data_dir))
    how = ("--samples", "1", "--epochs", str(LONG), "--train-limit", "200", "--scheduler", "none")
    driver = drive(*what, *how)
    paths = driver.when(lambda history: bool(history.trials and history.trials[0].epoch >= 2))

    seen: dict[str, Any] = json.loads(tunekit(tmp_path, "status", "s", "--json"))
    assert (seen["state"], seen["runner"]["pid"]) == ("running", driver.process.pid)
    assert (seen["trials"], seen["counts"]) == (1, {"running": 1})
    assert seen["unfinished"][0]["epoch"] >= 2
    assert seen["seconds_left"] > 0

    said = tunekit(tmp_path, "extend", "s", "--samples", "+2")
    assert "Search s goes on to 3 samples (1 before)." in said
    # The one trial that was asked for left a CPU idle, and a new one takes it.
    until(lambda history: len(history.trials) == 2 and history.trials[1].epoch >= 1, paths)
    assert "0 of 3 ended: 2 running" in tunekit(tmp_path, "status", "s")

    epoch = History.read(paths.history).trials[0].epoch
    assert "Trial 00 ends after epoch" in tunekit(tmp_path, "stop", "s", "--trial", "0")
    history = until(lambda history: history.trials[0].over, paths)
    trial = history.trials[0]
    assert trial.status == "stopped"
    assert epoch <= trial.epoch < LONG
    assert trial.rung == trial.epoch
    assert "has ended: it is stopped" in tunekit(tmp_path, "stop", "s", "--trial", "0", code=1)
    until(lambda history: len(history.trials) == 3 and history.trials[2].epoch >= 1, paths)

    said = tunekit(tmp_path, "stop", "s")
    assert "Search s ends." in said
    assert "It has ended. Go on with:  tunekit resume s" in said
    code, output = driver.wait()
    assert code == 130, output
    assert "search s goes on to 3 samples (1 before)" in output
    assert child_status(paths) == {0: "KILLED", 1: "SCHEDULED", 2: "SCHEDULED"}
    assert "is not running" in tunekit(tmp_path, "stop", "s", code=1)
    assert "1 stopped" in tunekit(tmp_path, "status", "s")

    assert "Trial 01 ends at epoch" in tunekit(tmp_path, "stop", "s", "--trial", "1")
    before = History.read(paths.history).trials[2].epoch
    resumed = drive("resume", "s")
    until(lambda history: history.trials[2].epoch > before, paths)
    tunekit(tmp_path, "stop", "s", "--trial", "2")
    code, output = resumed.wait()
    assert code == 0, output
    history = History.read(paths.history)
    assert [trial.status for trial in history.trials.values()] == ["stopped"] * 3
    for trial in history.trials.values():
        assert [result.epoch for result in trial.results] == list(range(1, trial.epoch + 1))
    assert set(child_status(paths).values()) == {"KILLED"}
    assert SearchSettings.load(paths).samples == 3
    assert "finished" in tunekit(tmp_path, "status", "s")
