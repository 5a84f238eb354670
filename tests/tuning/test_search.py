"""Searches on a real local Ray and a real MLflow, on real images."""

import re
import shutil
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.driver import Driver
from tunekit.data.pack import Pack
from tunekit.history import History
from tunekit.paths import SearchPaths
from tunekit.reporting.leaderboard import baseline_rows, search_rows
from tunekit.reporting.report import tell
from tunekit.space import Baseline, load_space
from tunekit.tracking.client import open_client
from tunekit.tracking.server import tracking_uri
from tunekit.training.checkpoint import load_best
from tunekit.tuning.assignment import Assignment
from tunekit.tuning.begin import begin_search
from tunekit.tuning.progress import QuietView
from tunekit.tuning.ray_session import Machine
from tunekit.tuning.search import run_search
from tunekit.tuning.settings import SearchSettings
from tunekit.tuning.trial_run import TrialRun

pytestmark = [pytest.mark.slow, pytest.mark.ray, pytest.mark.timeout(600)]

SMALL_SPACE = """
[fixed]
"model.name" = "resnet8"
"batch_size" = 32

[space]
"optim.lr" = { low = 1e-3, high = 0.3, log = true }
"optim.name" = { choices = ["sgd", "adam"] }
"optim.momentum" = { low = 0.0, high = 0.95, when = { "optim.name" = ["sgd"] } }
"""


def settings(tmp_path: Path, digits: Pack, **changes: Any) -> SearchSettings:
    space = tmp_path / "small.toml"
    space.write_text(SMALL_SPACE)
    values: dict[str, Any] = {
        "name": "small",
        "dataset": "digits",
        "space": str(space),
        "samples": 5,
        "epochs": 4,
        "seed": 0,
        "data_dir": str(digits.folder.parent.parent),
        "tracking_uri": tracking_uri(tmp_path / "results", None),
        "train_limit": 360,
    }
    return SearchSettings(**{**values, **changes})


def mlflow_client(paths: SearchPaths) -> Any:
    return open_client(SearchSettings.load(paths).tracking_uri)


def child_runs(paths: SearchPaths) -> list[Any]:
    client = mlflow_client(paths)
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    runs = client.search_runs(experiments)
    return [run for run in runs if "mlflow.parentRunId" in run.data.tags]


def epochs_of_each_trial(history: History) -> list[list[int]]:
    return [[result.epoch for result in trial.results] for trial in history.trials.values()]


@pytest.fixture
def data_without_test_images(tmp_path: Path, digits: Pack) -> Path:
    """A data folder whose test images cannot be read: whoever opens them fails."""
    packed = tmp_path / "data" / "packed" / "digits"
    shutil.copytree(digits.folder, packed)
    for name in ("test_images.npy", "test_labels.npy"):
        (packed / name).write_bytes(b"x" * (packed / name).stat().st_size)
    return tmp_path / "data"


def test_a_search_runs_to_its_end_without_test_images_and_mlflow_has_all_of_it(
    tmp_path: Path, digits: Pack, data_without_test_images: Path
) -> None:
    wanted = settings(tmp_path, digits, data_dir=str(data_without_test_images))
    paths = begin_search(wanted, tmp_path / "results", QuietView())
    outcome = run_search(paths, QuietView(), tell=tell)
    trials = outcome.history.trials
    assert outcome.finished
    assert outcome.untracked_events == 0
    assert len(trials) == 5
    statuses = Counter(trial.status for trial in trials.values())
    assert statuses["completed"] >= 1
    assert set(statuses) <= {"completed", "stopped", "failed"}
    for trial in trials.values():
        assert [result.epoch for result in trial.results] == list(range(1, trial.epoch + 1))
        assert not paths.trial(trial.id).last.exists()

    runs = {int(run.data.tags["tunekit.trial"]): run for run in child_runs(paths)}
    assert sorted(runs) == [0, 1, 2, 3, 4]
    status = {"completed": "FINISHED", "stopped": "KILLED", "failed": "FAILED"}
    for trial in trials.values():
        run = runs[trial.id]
        assert run.info.status == status[trial.status]
        assert set(run.data.params) == set(trial.params)
        if trial.best:
            assert run.data.metrics["best_val_accuracy"] == trial.best.value

    kept = [trial.id for trial in trials.values() if paths.trial(trial.id).best.exists()]
    assert sorted(kept) == sorted(trial.id for trial in outcome.history.ranked()[:3])

    parent = mlflow_client(paths).get_run(runs[0].data.tags["mlflow.parentRunId"])
    assert "state <b>finished</b>" in paths.report.read_text()
    files = mlflow_client(paths).list_artifacts(parent.info.run_id)
    assert "report.html" in {file.path for file in files}
    assert f"The best recipe of {len(trials)} recipes is trial" in parent.data.tags["mlflow.note.content"]


def test_known_recipes_run_first_and_the_best_network_is_where_another_search_begins(
    tmp_path: Path, digits: Pack
) -> None:
    known = Baseline("mine", {"model.name": "resnet8", "batch_size": 32, "optim.lr": 0.02}, "digits", 99.0, 4)
    wanted = settings(tmp_path, digits, samples=1)
    first = begin_search(wanted, tmp_path / "results", QuietView(), baselines=[known])
    history = run_search(first, QuietView()).history
    assert [trial.baseline for trial in history.trials.values()] == ["mine", None]
    assert history.trials[0].epoch == 4
    assert {run.data.tags.get("baseline") for run in child_runs(first)} == {"mine", None}
    (row,) = baseline_rows(first)
    assert (row["baseline"], row["reported_accuracy"], row["epochs"]) == ("mine", 99.0, 4)

    fixed = {"init": "search:small", "freeze.policy": "head_only"}
    wanted = settings(tmp_path, digits, samples=1, name="fine-tuned", fixed=fixed)
    second = begin_search(wanted, tmp_path / "results", QuietView())
    (trial,) = run_search(second, QuietView()).history.trials.values()
    assert trial.results[0].metrics["trainable_parameters"] == 64 * 10 + 10
    best = history.best()
    assert best is not None
    (source, tuned) = (load_best(p.trial(t.id).best).weights for p, t in ((first, best), (second, trial)))
    frozen = [name for name in source if name.startswith("body.")]
    assert all(torch.equal(source[name], tuned[name]) for name in frozen)


HOPELESS_DEFAULT = """
[fixed]
"model.name" = "resnet8"
"batch_size" = 32

[space]
"optim.lr" = { choices = [1e-7, 0.05, 0.03, 0.02] }
"""


def test_a_promoted_trial_goes_on_as_if_it_had_never_been_paused(tmp_path: Path, digits: Pack) -> None:
    wanted = settings(
        tmp_path,
        digits,
        samples=4,
        epochs=6,
        train_limit=200,
        scheduler="asha-promotion",
        grace_period=2,
        reduction_factor=100,  # all pause at epoch 2, and only the best goes on when the others have ended
    )
    Path(wanted.space).write_text(HOPELESS_DEFAULT)
    paths = begin_search(wanted, tmp_path / "results", QuietView())
    outcome = run_search(paths, QuietView())
    history = outcome.history
    assert outcome.finished
    kinds = {kind: {e.trial for e in history.events if e.kind == kind} for kind in ("pause", "resume")}
    assert kinds["pause"] == {1, 2, 3}
    assert len(kinds["resume"]) == 1
    trials = history.trials
    assert trials[0].default
    assert epochs_of_each_trial(history) == [list(range(1, t.epoch + 1)) for t in trials.values()]
    assert {trial.status for trial in trials.values()} == {"completed", "stopped"}
    assert not any(paths.trial(trial).last.exists() for trial in trials)
    assert {run.info.status for run in child_runs(paths)} == {"FINISHED", "KILLED"}

    (promoted,) = kinds["resume"]
    assert trials[promoted].epoch == 6
    straight = TrialRun(
        Assignment(
            trial_id=promoted,
            recipe=load_space(paths.space).recipe(trials[promoted].params).to_flat(),
            seed=wanted.trial_seed(promoted),
            epochs=6,
            reported=0,
            pack=str(digits.folder),
            split=str(paths.split),
            folder=str(tmp_path / "straight"),
        )
    )
    for result in trials[promoted].results:
        epoch = straight.step()
        assert (epoch["val_accuracy"], epoch["train_loss"], epoch["val_loss"]) == (
            result.value,
            result.metrics["train_loss"],
            result.metrics["val_loss"],
        )


HOPELESS = """
[fixed]
"model.name" = "resnet8"
"model.bn_placement" = "none"
"optim.momentum" = 0.99
"batch_size" = 16

[space]
"optim.lr" = { low = 9.0, high = 10.0 }
"""


def test_a_search_in_which_nothing_can_be_trained_stops_and_says_why(tmp_path: Path, digits: Pack) -> None:
    wanted = settings(tmp_path, digits, samples=8, epochs=9, train_limit=None)
    Path(wanted.space).write_text(HOPELESS)
    paths = begin_search(wanted, tmp_path / "results", QuietView())
    outcome = run_search(paths, QuietView())
    assert not outcome.finished
    assert outcome.problem is not None
    assert re.match(
        r"the first 3 trials failed: .+ \(.+search\.log says more; --max-failures", outcome.problem
    )
    statuses = [trial.status for trial in outcome.history.trials.values()]
    assert statuses.count("failed") >= 3
    assert len(statuses) <= 4
    assert set(statuses) <= {"failed", "running"}  # beside the three there may be one in flight
    assert {run.info.status for run in child_runs(paths)} <= {"FAILED", "SCHEDULED"}


def test_trials_wait_for_gpus(tmp_path: Path, digits: Pack) -> None:
    machine = Machine(cpus=2, gpus=1)  # a logical GPU: scheduled like a real one, trained on the CPU
    wanted = settings(tmp_path, digits, gpus_per_trial=0.6, cpus_per_trial=1.0, samples=3, epochs=3)
    paths = begin_search(wanted, tmp_path / "results", QuietView(), machine)
    outcome = run_search(paths, QuietView(), machine=machine)
    assert outcome.finished
    running = most = 0
    for event in outcome.history.events:
        running += (event.kind == "suggest") - (event.kind in ("complete", "stop", "fail"))
        most = max(most, running)
    assert most == 1


class ToldView(QuietView):
    """Shows nothing and keeps what it is told."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, line: str) -> None:
        self.lines.append(line)


@pytest.mark.parametrize(
    ("gpus", "words"),
    [
        (1, "1 trial on each GPU: there is no real GPU to measure on"),
        (0, "--gpus-per-trial auto: there is no GPU, so trials train on CPUs"),
    ],
)
@pytest.mark.skipif(torch.cuda.is_available(), reason="a logical GPU would be taken for the real one")
def test_an_automatic_share_of_a_gpu_needs_no_gpu(
    tmp_path: Path, digits: Pack, gpus: int, words: str
) -> None:
    machine, view = Machine(cpus=2, gpus=gpus), ToldView()
    wanted = settings(tmp_path, digits, gpus_per_trial="auto", samples=2, epochs=1)
    paths = begin_search(wanted, tmp_path / "results", view, machine)
    outcome = run_search(paths, view, machine=machine)
    assert outcome.finished
    assert words in view.lines
    (plan,) = [line for line in view.lines if line.startswith("Will run")]
    assert plan.endswith("1 at a time with 2 CPU and 1 GPU each" if gpus else "2 at a time with 1 CPU each")


def test_a_time_budget_interrupts_and_trials_go_on_where_they_were(tmp_path: Path, digits: Pack) -> None:
    wanted = settings(tmp_path, digits, samples=2, epochs=100_000, scheduler="none")
    paths = begin_search(wanted, tmp_path / "results", QuietView())
    trained = [0, 0]
    for budget in (20, 15):  # seconds; no machine trains 100,000 epochs in them
        outcome = run_search(paths, QuietView(), time_budget=budget)
        assert not outcome.finished
        assert {run.info.status for run in child_runs(paths)} <= {"SCHEDULED"}
        epochs = epochs_of_each_trial(outcome.history)
        assert epochs == [list(range(1, len(of_trial) + 1)) for of_trial in epochs]
        assert [len(of_trial) for of_trial in epochs] >= trained
        trained = [len(of_trial) for of_trial in epochs]


def command(data_dir: str, space: Path, dataset: str = "digits", *more: str) -> tuple[str, ...]:
    space.write_text(SMALL_SPACE)
    options = ("--samples", "4", "--epochs", "12", "--name", "s", "--data-dir", data_dir)
    return ("search", dataset, "--space", str(space), *options, *more)


def some_epochs(history: History) -> bool:
    return sum(len(trial.results) for trial in history.trials.values()) >= 8


def test_ctrl_c_stops_cleanly_and_a_second_process_is_refused_before(
    drive: Callable[..., Driver], tmp_path: Path, digits: Pack
) -> None:
    data_dir = str(digits.folder.parent.parent)
    endless = ("--epochs", "100000", "--scheduler", "none")
    driver = drive(*command(data_dir, tmp_path / "small.toml", "digits", *endless))
    paths = driver.when(some_epochs)
    code, output = drive("resume", "s").wait()
    assert code == 1
    assert "search s is running in another process" in output

    driver.process.send_signal(signal.SIGINT)
    code, output = driver.wait()
    assert code == 130
    assert "Go on with:  tunekit resume s" in output
    assert "Traceback" not in output
    assert all(run.info.status != "RUNNING" for run in child_runs(paths))
    assert [row["state"] for row in search_rows(tmp_path / "results")] == ["interrupted"]


def test_a_signal_while_ray_connects_stops_cleanly(
    drive: Callable[..., Driver], tmp_path: Path, digits: Pack, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In that moment Ray would take SIGTERM for itself, and abort the process."""
    with tempfile.TemporaryDirectory() as short:  # a path in which Ray's sockets fit
        monkeypatch.setenv("TMPDIR", short)
        driver = drive(*command(str(digits.folder.parent.parent), tmp_path / "small.toml"))
        deadline = time.monotonic() + 120
        while not list(Path(short).glob("tunekit-ray-*/session_*/logs/python-core-driver*")):
            assert driver.process.poll() is None and time.monotonic() < deadline
            time.sleep(0.001)
        driver.process.send_signal(signal.SIGTERM)
        code, output = driver.wait()
    assert code == 130, output
    assert "SIGTERM" not in output and "Traceback" not in output
    assert "Go on with:  tunekit resume s" in output
