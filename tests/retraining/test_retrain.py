"""Retraining on a real local Ray and a real MLflow, on real images."""

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.conftest import TEST_DATA, needs_real_images
from tests.driver import Driver
from tunekit.data.pack import Pack
from tunekit.data.split import Split
from tunekit.history import History
from tunekit.paths import RetrainingPaths, SearchPaths
from tunekit.retraining.request import Request
from tunekit.retraining.retrain import RetrainingOutcome, retrain
from tunekit.retraining.test_set import openings
from tunekit.tracking.client import open_client
from tunekit.tracking.server import tracking_uri
from tunekit.training.checkpoint import load_best
from tunekit.tuning.begin import begin_search
from tunekit.tuning.progress import QuietView
from tunekit.tuning.search import run_search
from tunekit.tuning.settings import SearchSettings
from tunekit.tuning.winner import load_winner

pytestmark = [pytest.mark.slow, pytest.mark.ray, pytest.mark.timeout(600)]

SMALL_SPACE = """
[fixed]
"model.name" = "resnet8"
"batch_size" = 32

[space]
"optim.lr" = { choices = [0.02, 0.05, 0.1] }
"""
ONCE = Request(top_k=1, seeds=2)


def searched(folder: Path, **changes: Any) -> SearchPaths:
    """A finished search of two recipes, whose default is the better one or not."""
    space = folder / "small.toml"
    space.write_text(SMALL_SPACE)
    values: dict[str, Any] = {
        "name": "s",
        "space": str(space),
        "samples": 2,
        "epochs": 3,
        "seed": 0,
        "scheduler": "none",
        "tracking_uri": tracking_uri(folder / "results", None),
        "train_limit": 360,
    }
    paths = begin_search(SearchSettings(**{**values, **changes}), folder / "results", QuietView())
    run_search(paths, QuietView())
    return paths


@pytest.fixture(scope="module")
def search(tmp_path_factory: pytest.TempPathFactory, digits: Pack) -> SearchPaths:
    return searched(tmp_path_factory.mktemp("s"), dataset="digits", data_dir=str(digits.folder.parent.parent))


@pytest.fixture(scope="module")
def first(search: SearchPaths) -> RetrainingOutcome:
    return retrain(search, ONCE, QuietView())


def result_of(outcome: RetrainingOutcome) -> dict[str, Any]:
    assert outcome.result is not None
    return outcome.result


def trained(search: SearchPaths) -> History:
    return History.read(search.retraining.history)


def accuracy_on_test(paths: RetrainingPaths, training: int, digits: Pack) -> float:
    """Slowly, one image at a time, by what stands in the file alone."""
    classifier = load_winner(paths.trial(training).best)
    mean, std = torch.tensor(classifier.mean), torch.tensor(classifier.std)
    images, labels = digits.open_test()
    right = 0
    for image, label in zip(images, labels, strict=True):
        pixels = (torch.from_numpy(image.copy()).float() / 255 - mean) / std
        right += int(classifier.module(pixels.permute(2, 0, 1)[None]).argmax()) == label
    return right / len(labels)


def test_seeds_are_trained_in_full_and_the_winner_is_tested_once(
    search: SearchPaths, first: RetrainingOutcome, digits: Pack
) -> None:
    result = result_of(first)
    assert not first.known
    assert (first.untracked_events, first.problem) == (0, None)
    history = trained(search)
    recipes = len(result["standings"])
    assert [trial.epoch for trial in history.trials.values()] == [3] * 2 * recipes
    assert not any(search.retraining.trial(trial).last.exists() for trial in history.trials)
    assert any(row["default"] for row in result["standings"])
    means = [row["mean"] for row in result["standings"]]
    assert means == sorted(means, reverse=True)
    assert result["winner"] == result["standings"][0]["name"]

    (member,) = result["model"]["members"]
    assert result["model"]["accuracy"] == pytest.approx(
        accuracy_on_test(search.retraining, member["training"], digits)
    )
    assert result["model"]["accuracy"] in result["test"][0]["accuracies"]
    assert sum(score["support"] for score in result["model"]["class_scores"]) == 359
    (opening,) = openings(search)
    assert opening.recipes[0] == result["winner"]
    assert result["opening"]["number"] == opening.number == 1
    assert result["earlier_openings"] == []
    pictures = {file.name for file in search.retraining.opening(1).iterdir()}
    assert {"confusion.png", "reliability.png", "curves.png", "mistakes.png", "successes.png"} <= pictures


def test_mlflow_has_the_trainings_the_figures_and_the_model(
    search: SearchPaths, first: RetrainingOutcome, digits: Pack
) -> None:
    result = result_of(first)
    client = open_client(SearchSettings.load(search).tracking_uri)
    runs = client.search_runs([e.experiment_id for e in client.search_experiments()])
    (parent,) = [run for run in runs if run.info.run_name == "retrain-best s"]
    (of_search,) = [run for run in runs if run.info.run_name == "s"]
    assert of_search.data.tags["retraining_run"] == parent.info.run_id
    assert of_search.data.tags["test_openings"] == "1"
    children = [run for run in runs if run.data.tags.get("mlflow.parentRunId") == parent.info.run_id]
    assert len(children) == 2 * len(result["standings"])
    assert len({run.data.tags["seed"] for run in children}) == 2
    assert parent.data.metrics["test_accuracy"] == pytest.approx(result["test"][0]["mean"])
    files = {file.path for file in client.list_artifacts(parent.info.run_id, "opening-1")}
    assert "opening-1/confusion.png" in files

    version = client.get_model_version_by_alias("tunekit-digits", "best")
    assert int(version.version) == result["registration"]["version"] == 1
    assert version.run_id == parent.info.run_id
    assert float(version.tags["test_accuracy"]) == pytest.approx(result["model"]["accuracy"], abs=1e-6)


def test_the_same_command_again_trains_and_opens_nothing(
    search: SearchPaths, first: RetrainingOutcome
) -> None:
    events = len(trained(search).events)
    again = retrain(search, ONCE, QuietView())
    assert again.known
    assert again.result == first.result
    assert len(trained(search).events) == events
    assert len(openings(search)) == 1


def test_other_wishes_use_what_was_trained_and_the_second_opening_is_said(
    search: SearchPaths, first: RetrainingOutcome, digits: Pack
) -> None:
    events = len(trained(search).events)
    result = result_of(retrain(search, Request(top_k=1, seeds=2, ensemble=True, calibrate=True), QuietView()))
    assert len(trained(search).events) == events
    assert result["opening"]["number"] == 2
    assert [opening["number"] for opening in result["earlier_openings"]] == [1]
    assert sum(member["weight"] for member in result["model"]["members"]) == pytest.approx(1)
    ensemble = result["model"]["ensemble"]
    assert ensemble["accuracy_alone"] == result_of(first)["model"]["accuracy"]
    assert ensemble["gain"] == pytest.approx(result["model"]["accuracy"] - ensemble["accuracy_alone"])
    assert ensemble["larger"] == pytest.approx(len(result["model"]["members"]))
    assert result["registration"]["version"] == 2


def test_refitted_networks_saw_all_images_and_are_not_chosen_by_validation(
    search: SearchPaths, first: RetrainingOutcome
) -> None:
    before = trained(search)
    result = result_of(retrain(search, Request(top_k=1, seeds=2, refit=True), QuietView()))
    history = trained(search)
    assert history.events[: len(before.events)] == list(before.events)
    refitted = [trial for trial in history.trials if trial not in before.trials]
    assert len(refitted) == 2
    assert [row["part"] for row in result["test"]][:2] == ["train+val", "train"]
    assert result["model"]["members"][0]["training"] == refitted[0]
    for trial in refitted:
        assert load_best(search.retraining.trial(trial).best).epoch == 3  # the last, not the best
        assert history.trials[trial].results[0].metrics["images_per_second"] > 0
    best = history.best()
    assert best is not None
    assert best.id not in refitted
    split = Split.load(search.retraining.whole_split)
    assert set(split.validation) <= set(split.train)
    assert len(split.train) == 360


@needs_real_images
def test_a_kill_loses_no_training_on_real_photos(drive: Callable[..., Driver], tmp_path: Path) -> None:
    assert TEST_DATA is not None
    paths = searched(tmp_path, dataset="cifar10", data_dir=TEST_DATA, train_limit=1000, epochs=1, samples=1)
    command = ("retrain-best", "s", "--top-k", "1", "--seeds", "3", "--epochs", "6")
    driver = drive(*command)
    driver.when(
        lambda history: (
            sum(trial.status == "completed" for trial in history.trials.values()) >= 1
            and any(trial.unfinished and trial.epoch >= 2 for trial in history.trials.values())
        ),
        below="retrain",
    )
    os.kill(driver.process.pid, signal.SIGKILL)
    driver.wait()
    before = trained(paths)
    assert openings(paths) == []

    code, output = drive(*command).wait()
    assert code == 0, output
    after = trained(paths)
    assert after.events[: len(before.events)] == list(before.events)
    assert [[result.epoch for result in trial.results] for trial in after.trials.values()] == [
        [1, 2, 3, 4, 5, 6]
    ] * 3
    assert "10,000 images" in output
    assert "alias best" in output
    assert len(openings(paths)) == 1
