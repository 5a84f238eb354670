"""The history in MLflow: every event once, whatever happens to the process or the server."""

from __future__ import annotations

import http.server
import json
import os
import signal
import socket
import subprocess
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from mlflow.entities import Metric, Run
from torch import nn

from tunekit.errors import TrackingError
from tunekit.history import Event, EventKind, History
from tunekit.paths import SearchPaths
from tunekit.tracking.client import open_client
from tunekit.tracking.model import Classifier
from tunekit.tracking.server import check_reachable, ui_command
from tunekit.tracking.writer import Tracker, TrackerReport

STARTED = 1_700_000_000.0


@dataclass
class Place:
    """A database that several searches share, as they do under `results/`."""

    folder: Path
    uri: str
    client: MlflowClient


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    folder = tmp_path_factory.mktemp("results")
    uri = f"sqlite:///{folder}/mlflow.db"
    return Place(folder, uri, open_client(uri))


@dataclass
class Search:
    """A search on disk, a clock that advances a second an event, and its runs in MLflow."""

    place: Place
    name: str
    experiment: str = field(init=False)
    settings: dict[str, Any] = field(init=False)
    paths: SearchPaths = field(init=False)
    history: History = field(init=False)

    def __post_init__(self) -> None:
        self.experiment = f"digits {self.name}"
        self.settings = {
            "search_id": uuid.uuid4().hex,
            "name": self.name,
            "dataset": "digits",
            "space": self.name,  # so an experiment each
            "seed": 3,
            "epochs": 9,
            "samples": 6,
            "train_limit": None,
            "fixed": {"batch_size": 64},
            "command": "tunekit search digits --tracking-uri http://ann:s3cret@host",
            "tracking_uri": "http://ann:s3cret@host",
            "versions": {"torch": "2.15.0"},
            "git": {"commit": "abc123", "state": "clean"},
            "created": STARTED - 1,
            "data_digest": "d" * 64,
            "train_images": 1000,
            "val_images": 250,
        }
        self.paths = SearchPaths(self.place.folder / self.name)
        self.paths.folder.mkdir()
        self.paths.space.write_text("[space]\n")
        self.history = History(self.paths.history)

    def tracker(self, uri: str | None = None) -> Tracker:
        """A tracker of a new session; it hears of every event from now on."""
        self.history.close()
        self.history = History.read(self.paths.history)
        artifacts = self.place.folder / "artifacts"
        tracker = Tracker(
            self.paths,
            self.history,
            self.settings,
            uri or self.place.uri,
            artifacts,
            lambda trial: "resnet20",
            lambda trial: 300_000 + trial,
        )
        self.history.subscribe(tracker.record)
        return tracker

    def happen(self, kind: EventKind, trial: int, **fields: Any) -> None:
        self.history.append(Event(kind, trial, time=STARTED + len(self.history.events), **fields))

    def suggest(self, trial: int, **params: Any) -> None:
        self.happen("suggest", trial, params=params or {"optim.lr": 0.1})

    def train(self, trial: int, *values: float) -> None:
        """Finish an epoch a value."""
        first = self.history.trials[trial].epoch + 1
        for epoch, value in enumerate(values, start=first):
            metrics = {"train_loss": 1 / epoch, "val_accuracy": value, "learning_rate": 0.1}
            self.happen("result", trial, epoch=epoch, value=value, metrics=metrics)

    @property
    def runs(self) -> list[Run]:
        experiment = self.place.client.get_experiment_by_name(self.experiment)
        return list(self.place.client.search_runs([experiment.experiment_id])) if experiment else []

    @property
    def parent(self) -> Run:
        (parent,) = [run for run in self.runs if "tunekit.trial" not in run.data.tags]
        return parent

    @property
    def children(self) -> dict[int, Run]:
        runs = [run for run in self.runs if "tunekit.trial" in run.data.tags]
        children = {int(run.data.tags["tunekit.trial"]): run for run in runs}
        assert len(children) == len(runs), "two runs of one trial"
        return children

    def points(self, trial: int, name: str) -> list[Metric]:
        points: list[Metric] = self.place.client.get_metric_history(self.children[trial].info.run_id, name)
        return points

    def snapshot(self) -> dict[str, Any]:
        """All that MLflow has of this search and that must not change when it is written again."""
        found = {}
        for run in self.runs:
            history = [
                self.place.client.get_metric_history(run.info.run_id, name) for name in run.data.metrics
            ]
            points = sorted(
                (point.key, point.timestamp, point.step, point.value) for each in history for point in each
            )
            found[run.info.run_id] = (dict(run.info), run.data.params, run.data.tags, points)
        return found


@pytest.fixture
def search(place: Place, request: pytest.FixtureRequest) -> Iterator[Search]:
    search = Search(place, request.node.name[:90])
    yield search
    search.history.close()


def _all_outcomes(search: Search) -> None:
    for trial in range(6):
        search.suggest(
            trial, **{"optim.lr": 0.1 + trial, "optim.nesterov": trial == 0, "model.name": "resnet20"}
        )
    search.train(0, 0.2, 0.9, 0.8)
    search.happen("complete", 0, epoch=3)
    search.train(1, 0.3)
    search.happen("stop", 1, epoch=1)
    search.happen("fail", 2, epoch=1, reason="training loss is nan in epoch 1")
    search.happen("lose", 3, reason="the node died")
    search.train(4, 0.4)
    search.happen("pause", 4, epoch=1)
    search.train(5, 0.5, 0.6)


@pytest.fixture(scope="module")
def ended(place: Place) -> Iterator[Search]:
    """A search with a trial of each outcome, delivered live and interrupted with trial 5 unfinished."""
    search = Search(place, "ended")
    with search.tracker() as tracker:
        _all_outcomes(search)
        tracker.finish("interrupted")
        assert tracker.close(60) == TrackerReport(0, None)
    yield search
    search.history.close()


def test_one_parent_run_and_one_child_run_a_trial(ended: Search) -> None:
    parent, children = ended.parent, ended.children
    assert parent.info.run_name == "ended"
    assert sorted(children) == [0, 1, 2, 3, 4, 5]
    assert {child.data.tags["mlflow.parentRunId"] for child in children.values()} == {parent.info.run_id}
    assert children[3].info.run_name == "03 resnet20"
    assert children[3].data.tags["seed"] == "300003"


def test_params_of_a_trial_are_the_keys_that_varied(ended: Search) -> None:
    expected = {"optim.lr": "0.1", "optim.nesterov": "true", "model.name": "resnet20"}
    assert ended.children[0].data.params == expected


def test_params_are_rounded_to_what_a_person_reads(search: Search) -> None:
    with search.tracker() as tracker:
        search.suggest(
            0, **{"optim.lr": 0.10000000000000006, "optim.weight_decay": 1.23456789e-5, "epochs": 9}
        )
        tracker.close(60)
    expected = {"optim.lr": "0.1", "optim.weight_decay": "1.23457e-05", "epochs": "9"}
    assert search.children[0].data.params == expected


def test_metrics_are_by_epoch_at_the_time_of_the_event(ended: Search) -> None:
    points = ended.points(0, "val_accuracy")
    assert [(point.step, point.value) for point in points] == [(1, 0.2), (2, 0.9), (3, 0.8)]
    results = ended.history.trials[0].results
    assert [point.timestamp for point in points] == [int(result.time * 1000) for result in results]
    assert set(ended.children[5].data.metrics) >= {"train_loss", "learning_rate"}


def test_the_best_epoch_stands_beside_the_last(ended: Search) -> None:
    metrics = ended.children[0].data.metrics
    assert (metrics["best_val_accuracy"], metrics["best_epoch"], metrics["val_accuracy"]) == (0.9, 2, 0.8)


@pytest.mark.parametrize(
    ("trial", "status", "outcome"),
    [
        (0, "FINISHED", "completed"),
        (1, "KILLED", "stopped early at epoch 1"),
        (2, "FAILED", "failed: training loss is nan in epoch 1"),
        (3, "FAILED", "lost: the node died"),
        (4, "SCHEDULED", "paused at rung 1"),
        (5, "SCHEDULED", "interrupted at epoch 2"),
    ],
)
def test_status_and_outcome_tell_how_a_trial_ended(
    ended: Search, trial: int, status: str, outcome: str
) -> None:
    child = ended.children[trial]
    assert (child.info.status, child.data.tags["outcome"]) == (status, outcome)
    assert child.info.start_time == int((STARTED + trial) * 1000)
    ended_at = ended.history.trials[trial].ended
    assert child.info.end_time == (int((ended_at or 0) * 1000) if status != "SCHEDULED" else None)


def test_the_parent_says_what_ran_and_what_came_of_it(ended: Search) -> None:
    parent = ended.parent
    assert parent.info.status == "KILLED"
    assert parent.data.params == {"seed": "3", "epochs": "9", "samples": "6", "fixed.batch_size": "64"}
    tags = parent.data.tags
    assert tags["mlflow.source.git.commit"] == "abc123"
    assert (tags["best_trial"], tags["best_child_run_id"]) == ("0", ended.children[0].info.run_id)
    counts = _counts(ended)
    outcomes = ("completed", "stopped", "failed", "lost", "paused", "interrupted")
    assert counts == {f"trials_{outcome}": 1.0 for outcome in outcomes}
    assert parent.data.metrics["best_val_accuracy"] == 0.9


def test_the_data_set_is_an_input_of_every_run_once(ended: Search) -> None:
    for run in ended.runs:
        assert run.inputs is not None
        (data,) = run.inputs.dataset_inputs
        assert data.dataset.profile is not None
        assert (data.dataset.name, data.dataset.digest) == ("digits", "d" * 36)
        assert json.loads(data.dataset.profile) == {"train_images": 1000, "val_images": 250}


def test_no_value_stands_in_a_run_twice(ended: Search) -> None:
    """Neither under two kinds of the same name, nor are there tags but for those that a reader filters by."""
    shown = {"best_trial", "best_child_run_id", "outcome", "seed", "kind"}
    for run in ended.runs:
        tags = {name for name in run.data.tags if not name.startswith(("mlflow.", "tunekit."))}
        assert tags <= shown
        names = [*run.data.metrics, *run.data.params, *tags]
        assert len(names) == len(set(names))


def test_a_count_of_nothing_is_left_out_unless_there_was_something_before(search: Search) -> None:
    with search.tracker() as tracker:
        search.suggest(0)
        search.train(0, 0.1)
        tracker.finish("interrupted")
        tracker.close(60)
    assert _counts(search) == {"trials_interrupted": 1.0}
    with search.tracker() as tracker:
        search.happen("resume", 0)
        search.happen("complete", 0)
        tracker.finish("finished")
        tracker.close(60)
    assert _counts(search) == {"trials_interrupted": 0.0, "trials_completed": 1.0}


def test_the_description_says_what_came_of_it_and_how_to_go_on(search: Search) -> None:
    with search.tracker() as tracker:
        search.suggest(0)
        search.train(0, 0.5)
        tracker.finish("interrupted")
        tracker.close(60)
    first = search.parent.data.tags["mlflow.note.content"]
    assert "Best validation accuracy: **0.5000**. Child runs: 1 interrupted." in first
    assert f"tunekit resume {search.name}\n```" in first
    by_hand = first.replace("Each child run", "Ann: looks odd. Each child run")
    search.place.client.set_tag(search.parent.info.run_id, "mlflow.note.content", by_hand)
    with search.tracker() as tracker:
        search.happen("resume", 0)
        search.happen("complete", 0)
        tracker.finish("finished", note="Ahead of the default recipe by 0.1.")
        tracker.close(60)
    second = search.parent.data.tags["mlflow.note.content"]
    assert "Ann: looks odd." in second
    assert second.startswith("Ahead of the default recipe by 0.1.\n")
    assert second.count("### What was asked") == second.count("6 trials of at most 9 epochs") == 1
    assert "Best validation accuracy" not in second
    assert f"tunekit retrain-best {search.name}\n```" in second
    assert "resume" not in second
    assert f"/runs/{search.children[0].info.run_id})" in second


def test_report_and_figures_lie_on_the_parent(search: Search) -> None:
    report, absent = search.paths.folder / "report.html", search.paths.folder / "absent.png"
    for words in ("first", "second"):
        report.write_text(f"<p>{words}</p>")
        with search.tracker() as tracker:
            if not search.history.events:
                search.suggest(0)
            tracker.finish("finished", files=[report, absent])
            assert tracker.close(60) == TrackerReport(0, None)
    run_id = search.parent.info.run_id
    assert "report.html" in {file.path for file in search.place.client.list_artifacts(run_id)}
    assert "absent.png" not in {file.path for file in search.place.client.list_artifacts(run_id)}
    assert Path(search.place.client.download_artifacts(run_id, "report.html")).read_text() == "<p>second</p>"


def test_the_size_of_a_network_is_a_point_where_it_changes(search: Search) -> None:
    with search.tracker() as tracker:
        search.suggest(0)
        for epoch, size in enumerate((100.0, 100.0, 200.0, 200.0), start=1):
            metrics = {"trainable_parameters": size, "images_per_second": 9.0}
            search.happen("result", 0, epoch=epoch, value=0.5, metrics=metrics)
        tracker.finish("interrupted")
        tracker.close(60)
    points = search.points(0, "trainable_parameters")
    assert [(point.step, point.value) for point in points] == [(1, 100.0), (3, 200.0)]
    assert set(search.children[0].data.metrics) == {
        *("val_accuracy", "trainable_parameters", "best_val_accuracy", "best_epoch")
    }


@pytest.mark.parametrize(("samples", "name"), [(100, "03 resnet20"), (101, "003 resnet20")])
def test_sorting_runs_by_name_sorts_them_by_number(search: Search, samples: int, name: str) -> None:
    search.settings["samples"] = samples
    with search.tracker() as tracker:
        for trial in range(4):
            search.suggest(trial)
        tracker.close(60)
    assert search.children[3].info.run_name == name


def test_of_a_retraining_no_single_training_is_called_the_best(search: Search) -> None:
    del search.settings["samples"]
    search.settings["note"] = "Trained again."
    with search.tracker() as tracker:
        search.suggest(0)
        search.train(0, 0.5)
        search.happen("complete", 0)
        tracker.finish("finished")
        tracker.close(60)
    assert search.parent.data.metrics == {"trials_completed": 1.0}
    assert "best_trial" not in search.parent.data.tags
    description = search.parent.data.tags["mlflow.note.content"]
    assert description.startswith("Child runs: 1 completed.")
    assert description.endswith("### What was asked\n\nTrained again.")
    assert "tunekit" not in description


def test_a_view_that_a_person_changed_stays(search: Search) -> None:
    def view(change: str = "") -> str:
        (run, *_) = search.runs
        client, key = search.place.client, "mlflow.sharedViewState.tunekit-trials"
        if change:
            client.set_experiment_tag(run.info.experiment_id, key, change)
        return str(client.get_experiment(run.info.experiment_id).tags.get(key))

    with search.tracker() as tracker:
        search.suggest(0)
        tracker.finish("interrupted")
        tracker.close(60)
    assert json.loads(view())["name"] == "Trials, best first"
    view("mine")
    with search.tracker() as tracker:
        tracker.finish("interrupted")
        tracker.close(60)
    assert view() == "mine"


def test_no_password_reaches_mlflow(ended: Search) -> None:
    assert "s3cret" not in str(ended.snapshot())
    folder = Path(ended.parent.info.artifact_uri.removeprefix("file://"))
    assert sorted(file.name for file in folder.iterdir()) == ["search.json", "space.toml"]
    assert "s3cret" not in (folder / "search.json").read_text()


def test_replaying_the_whole_history_changes_nothing(search: Search) -> None:
    for _ in range(3):
        with search.tracker() as tracker:
            if not search.history.events:
                _all_outcomes(search)
            tracker.finish("interrupted")
            assert tracker.close(60).undelivered == 0
        found = search.snapshot()
        search.paths.tracked.unlink()  # MLflow has all, tunekit knows nothing of it
        assert len(found) == 7
        assert search.snapshot() == found


def test_each_event_arrives_once_after_a_crash(search: Search) -> None:
    """The tracker is abandoned when MLflow has more than `tracked.json` says."""
    tracker = search.tracker()
    tracker.start()
    search.suggest(0)
    search.train(0, 0.1, 0.2)
    _until(lambda: _tracked(search) == 3)
    behind = search.paths.tracked.read_text()
    search.train(0, 0.3)
    _until(lambda: _tracked(search) == 4)
    search.paths.tracked.write_text(behind)

    with search.tracker() as resumed:  # the crashed one hears nothing of this session
        search.happen("resume", 0)
        search.train(0, 0.4)
        search.happen("complete", 0, epoch=4)
        resumed.finish("finished")
        assert resumed.close(60) == TrackerReport(0, None)
    assert [(p.step, p.value) for p in search.points(0, "val_accuracy")] == [
        (1, 0.1),
        (2, 0.2),
        (3, 0.3),
        (4, 0.4),
    ]
    assert search.children[0].info.status == "FINISHED"
    tracker.close(60)


def test_a_crash_of_the_driver_leaves_no_run_running(search: Search) -> None:
    def crash() -> None:
        with search.tracker():
            search.suggest(0)
            search.train(0, 0.1)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        crash()
    assert search.parent.info.status == "KILLED"
    assert search.children[0].data.tags["outcome"] == "interrupted at epoch 1"


def test_a_resume_sets_interrupted_runs_running_again(search: Search) -> None:
    with search.tracker() as tracker:
        search.suggest(0)
        search.train(0, 0.1)
        tracker.finish("interrupted")
        tracker.close(60)
    tracker = search.tracker()
    tracker.start()
    search.happen("resume", 0)
    search.train(0, 0.2)
    _until(lambda: _tracked(search) == 4)
    assert search.parent.info.status == "RUNNING"
    assert (search.children[0].info.status, search.children[0].data.tags["outcome"]) == ("RUNNING", "running")
    search.happen("complete", 0, epoch=2)
    tracker.finish("finished")
    assert tracker.close(60).undelivered == 0
    assert (search.parent.info.status, search.children[0].info.status) == ("FINISHED", "FINISHED")
    assert search.parent.data.metrics["trials_interrupted"] == 0


def test_a_paused_trial_waits_goes_on_and_is_killed_with_the_search(search: Search) -> None:
    with search.tracker() as tracker:
        for trial in range(2):
            search.suggest(trial)
            search.train(trial, 0.5)
            search.happen("pause", trial, epoch=1)
        tracker.finish("interrupted")
        tracker.close(60)
    assert {child.info.status for child in search.children.values()} == {"SCHEDULED"}
    with search.tracker() as tracker:
        search.happen("resume", 0)
        search.train(0, 0.6)
        search.happen("complete", 0)
        search.happen("stop", 1, epoch=1)  # as the policy does with those that wait when it is over
        tracker.finish("finished")
        tracker.close(60)
    children = search.children
    assert [(children[n].info.status, children[n].data.tags["outcome"]) for n in range(2)] == [
        ("FINISHED", "completed"),
        ("KILLED", "stopped early at epoch 1"),
    ]
    assert [point.step for point in search.points(0, "val_accuracy")] == [1, 2]
    assert search.parent.data.metrics["trials_paused"] == 0


def test_the_default_recipe_warm_starts_and_repeats_are_tagged_and_the_parent_has_the_mean(
    search: Search,
) -> None:
    with search.tracker() as tracker:
        search.happen("suggest", 0, params={"optim.lr": 0.1}, default=True)
        search.happen("suggest", 1, params={"optim.lr": 0.1}, repeat_of=0)
        search.happen("suggest", 2, params={"optim.lr": 0.2}, warm_start=True)
        for trial, value in ((0, 0.5), (1, 0.25), (2, 0.25)):
            search.train(trial, value)
            search.happen("complete", trial)
        tracker.finish("finished")
        tracker.close(60)
    tags = {trial: child.data.tags for trial, child in search.children.items()}
    assert [(tags[n].get("default"), tags[n].get("repeat_of")) for n in range(2)] == [
        ("true", None),
        (None, "0"),
    ]
    assert [tags[n].get("warm_start") for n in range(3)] == [None, None, "true"]
    assert search.parent.data.metrics["best_val_accuracy"] == 0.375
    assert search.parent.data.tags["best_trial"] == "0"


def test_a_run_names_the_nodes_that_trained_it(search: Search) -> None:
    with search.tracker() as tracker:
        for trial, workers in enumerate((("a:17", "a:18", "b:17", "a:18"), (None,))):
            search.suggest(trial)
            for epoch, worker in enumerate(workers, start=1):
                search.happen("result", trial, epoch=epoch, value=0.5, metrics={}, worker=worker)
            search.happen("complete", trial)
        tracker.finish("finished")
        tracker.close(60)
    children = search.children
    assert children[0].data.tags["tunekit.nodes"] == "a, b"
    assert "tunekit.nodes" not in children[1].data.tags


def test_a_deleted_experiment_is_left_alone_and_another_gets_everything(search: Search) -> None:
    """`tracked.json` speaks of one parent run, and says nothing about another."""
    with search.tracker() as tracker:
        search.suggest(0)
        search.train(0, 0.1)
        tracker.close(60)
    search.place.client.delete_experiment(search.parent.info.experiment_id)
    with search.tracker() as tracker:
        tracker.finish("interrupted")
        assert tracker.close(60).undelivered == 0
    assert search.runs == []
    search.experiment += " (2)"
    assert [point.value for point in search.points(0, "val_accuracy")] == [0.1]


def test_a_deleted_parent_is_replaced_and_keeps_its_children(search: Search) -> None:
    with search.tracker() as tracker:
        search.suggest(0)
        tracker.finish("interrupted")
        tracker.close(60)
    child = search.children[0].info.run_id
    search.place.client.delete_run(search.parent.info.run_id)
    with search.tracker() as tracker:
        tracker.finish("interrupted")
        assert tracker.close(60).undelivered == 0
    assert search.children[0].info.run_id == child
    assert search.children[0].data.tags["mlflow.parentRunId"] == search.parent.info.run_id


def test_a_run_that_a_person_deleted_does_not_stop_the_others(search: Search) -> None:
    with search.tracker() as tracker:
        search.suggest(0)
        search.suggest(1)
        search.train(0, 0.1)
        _until(lambda: _tracked(search) == 3)
        search.place.client.delete_run(search.children[0].info.run_id)
        search.train(0, 0.3)
        search.train(1, 0.2)
        tracker.finish("interrupted")
        report = tracker.close(60)
    assert report.undelivered == 0
    assert report.error is not None
    assert report.error.startswith("trial 0: ")
    assert [point.value for point in search.points(1, "val_accuracy")] == [0.2]
    assert search.parent.info.status == "KILLED"


def test_nothing_is_opened_before_the_first_result(search: Search) -> None:
    """Importing MLflow costs seconds of CPU, just when the workers start."""
    with search.tracker() as tracker:
        search.suggest(0)
        time.sleep(0.2)
        assert search.runs == []
        search.train(0, 0.1)
        _until(lambda: _tracked(search) == 2)
        tracker.finish("interrupted")
        assert tracker.close(60).undelivered == 0


def test_checkpoints_and_winner_are_uploaded_once_an_epoch(search: Search) -> None:
    loads: list[int] = []

    def load() -> Classifier:
        loads.append(1)
        return _tiny_classifier()

    checkpoint = search.paths.trial(0).best
    checkpoint.parent.mkdir(parents=True)
    checkpoint.write_bytes(b"weights")
    files = [(0, checkpoint), (1, search.paths.trial(1).best)]  # the second is not there

    def session(*values: float) -> Run:
        with search.tracker() as tracker:
            if not search.history.events:
                search.suggest(0)
                search.suggest(1)
            search.train(0, *values)
            tracker.finish("interrupted", files, load)
            assert tracker.close(60) == TrackerReport(0, None)
        return search.parent

    first = session(0.5)
    assert session().data.tags["best_model"] == first.data.tags["best_model"]
    assert len(loads) == 1
    assert search.parent.outputs is not None
    assert len(search.parent.outputs.model_outputs) == 1
    run_id = search.children[0].info.run_id
    assert [file.path for file in search.place.client.list_artifacts(run_id, "checkpoint")] == [
        "checkpoint/best.safetensors"
    ]
    model = search.place.client.get_logged_model(first.data.tags["best_model"].removeprefix("models:/"))
    assert {metric.key: metric.value for metric in model.metrics or []} == {"best_val_accuracy": 0.5}
    assert session(0.7).data.tags["best_model"] != first.data.tags["best_model"]
    assert len(loads) == 2


def test_recording_returns_at_once_while_the_server_is_away(search: Search, no_answer: str) -> None:
    with search.tracker(no_answer) as tracker:
        search.suggest(0)
        search.train(0, *[0.1] * 500)
        durations = []
        for event in search.history.events[-500:]:
            started = time.perf_counter()
            tracker.record(event)
            durations.append(time.perf_counter() - started)
        started = time.perf_counter()
        report = tracker.close(2)
        assert time.perf_counter() - started < 3
    assert sorted(durations)[250] < 0.001
    assert report.undelivered == len(search.history.events)
    assert not search.paths.tracked.exists()


def test_a_server_that_is_away_is_given_up_at_the_end(search: Search) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        uri = f"http://ann:s3cret@127.0.0.1:{server.getsockname()[1]}"
    with search.tracker(uri) as tracker:
        search.suggest(0)
        started = time.perf_counter()
        report = tracker.close(120)
        assert time.perf_counter() - started < 30
    assert report.undelivered == 1
    assert report.error is not None
    assert "s3cret" not in report.error
    with search.tracker() as tracker:  # the next start delivers, here to another place
        assert tracker.close(60).undelivered == 0
    assert list(search.children) == [0]


@pytest.mark.slow
def test_events_arrive_when_the_server_comes_back(
    search: Search, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tunekit.tracking.writer._LONGEST_WAIT", 1.0)
    with _failing_server() as port:
        uri = f"http://127.0.0.1:{port}"
        tracker = search.tracker(uri)
        tracker.start()
        search.suggest(0)
        search.train(0, 0.1)
        _until(lambda: tracker.report().error is not None)
    with _mlflow_server(tmp_path, port):
        search.train(0, 0.2)
        search.happen("complete", 0, epoch=2)
        tracker.finish("finished", [(0, search.paths.space)], _tiny_classifier)
        assert tracker.close(60).undelivered == 0
        search.place = Place(tmp_path, uri, open_client(uri))
        assert search.parent.info.status == "FINISHED"
        assert [point.value for point in search.points(0, "val_accuracy")] == [0.1, 0.2]
        uploaded = search.place.client.list_artifacts(search.children[0].info.run_id, "checkpoint")
        assert [file.path for file in uploaded] == ["checkpoint/space.toml"]
        winner = search.place.client.get_logged_model(
            search.parent.data.tags["best_model"][len("models:/") :]
        )
        assert str(winner.status) == "READY"


def _tiny_classifier() -> Classifier:
    network = nn.Sequential(nn.Flatten(), nn.Linear(16, 2))
    return Classifier(network, (4, 4, 1), ["a", "b"], [0.0], [1.0])


@pytest.fixture
def no_answer() -> Iterator[str]:
    """A server that takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


class _Broken(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_error(500)

    do_POST = do_GET  # noqa: N815

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def _failing_server() -> Iterator[int]:
    """A port where everything is answered with 500."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Broken) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port
        server.shutdown()


@contextmanager
def _mlflow_server(folder: Path, port: int) -> Iterator[None]:
    command = ui_command(f"sqlite:///{folder}/server.db", folder / "artifacts", "127.0.0.1", port)
    log = folder / "server.log"
    with open(log, "wb") as output:
        environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
        process = subprocess.Popen(
            command, stdout=output, stderr=output, env=environment, start_new_session=True
        )
    try:
        _until(lambda: process.poll() is not None or _answers(f"http://127.0.0.1:{port}"), 90)
        assert process.poll() is None, log.read_text()
        yield
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(20)
        _until(lambda: not _group_lives(process.pid))


def _answers(uri: str) -> bool:
    try:
        check_reachable(uri)
    except TrackingError:
        return False
    return True


def _group_lives(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def _counts(search: Search) -> dict[str, float]:
    metrics = search.parent.data.metrics
    return {name: value for name, value in metrics.items() if name.startswith("trials_")}


def _tracked(search: Search) -> int:
    if not search.paths.tracked.exists():
        return 0
    events: int = json.loads(search.paths.tracked.read_text())["events"]
    return events


def _until(condition: Callable[[], bool], seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)
