"""What a retraining says in the descriptions of its run and of the search's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

import pytest
from mlflow import MlflowClient

from tunekit.paths import SearchPaths
from tunekit.tracking.client import open_client
from tunekit.tracking.retraining_run import RetrainingRun

NOTE = "mlflow.note.content"


class Two(NamedTuple):
    """The runs of a search and of its retraining."""

    client: MlflowClient
    paths: SearchPaths
    search: str
    retraining: str
    uri: str

    def note(self, run_id: str) -> str:
        return str(self.client.get_run(run_id).data.tags[NOTE])


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> MlflowClient:
    return open_client(f"sqlite:///{tmp_path_factory.mktemp('results')}/mlflow.db")


@pytest.fixture
def two(client: MlflowClient, tmp_path: Path) -> Two:
    paths = SearchPaths(tmp_path / "pets")
    experiment = client.create_experiment(str(tmp_path), (tmp_path / "artifacts").as_uri())
    ids = []
    for file, words in (
        (paths.tracked, "old words\n\n### What was asked\n\n**pets**: 20 trials."),
        (paths.retraining.tracked, "**retrain-best pets**"),
    ):
        run = client.create_run(experiment, tags={NOTE: words})
        file.parent.mkdir(parents=True)
        file.write_text(json.dumps({"events": 1, "run_id": run.info.run_id}))
        ids.append(run.info.run_id)
    return Two(client, paths, ids[0], ids[1], client.tracking_uri)


def test_both_runs_say_what_the_test_set_said_and_link_to_each_other(two: Two, tmp_path: Path) -> None:
    folder = tmp_path / "opening"
    folder.mkdir()
    (folder / "curves.png").write_bytes(b"picture")
    report = tmp_path / "report.html"
    report.write_text("<p>all</p>")
    run = RetrainingRun(two.paths, two.uri)
    run.record(1, {"test_accuracy": 0.9}, {"winner": "trial 3"}, folder)
    run.describe("Test: 0.9.", "Opened once: 0.9.", "tunekit-pets@best", [report, tmp_path / "absent.png"])

    of_search, of_retraining = two.note(two.search), two.note(two.retraining)
    assert of_search.startswith("Opened once: 0.9.")
    assert of_search.endswith("### What was asked\n\n**pets**: 20 trials.")
    assert "old" not in of_search
    assert f"/runs/{two.retraining})" in of_search
    assert of_retraining.startswith("Test: 0.9.")
    assert of_retraining.endswith("### What was asked\n\n**retrain-best pets**")
    assert f"/runs/{two.search})" in of_retraining
    assert all("tunekit predict tunekit-pets@best IMAGE" in words for words in (of_search, of_retraining))
    assert [file.path for file in two.client.list_artifacts(two.search)] == ["report.html"]


def test_without_a_model_the_way_on_is_that_of_a_search(two: Two) -> None:
    RetrainingRun(two.paths, two.uri).describe("Test: 0.9.", "Opened once: 0.9.")
    assert "tunekit retrain-best pets" in two.note(two.search)
    assert "How to go on" not in two.note(two.retraining)


def test_a_run_of_the_search_that_a_person_deleted_is_left_alone(two: Two, tmp_path: Path) -> None:
    two.client.delete_run(two.search)
    run = RetrainingRun(two.paths, two.uri)
    run.describe("Test: 0.9.", "Opened once: 0.9.", files=[tmp_path / "absent.png"])
    assert "Test: 0.9." in two.note(two.retraining)
