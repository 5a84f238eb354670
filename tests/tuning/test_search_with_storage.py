"""Searches whose checkpoints lie on a real S3 server: a real local Ray, real images."""

from __future__ import annotations

import platform
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.tuning.places import S3Server, login
from tests.tuning.test_search import HOPELESS_DEFAULT, settings
from tests.tuning.test_storage import same_weights
from tunekit.data.pack import Pack
from tunekit.history import Event, History
from tunekit.paths import SearchPaths
from tunekit.retraining.request import Request
from tunekit.retraining.retrain import retrain
from tunekit.tuning.begin import begin_search
from tunekit.tuning.progress import QuietView
from tunekit.tuning.ray_session import Machine
from tunekit.tuning.search import run_search
from tunekit.tuning.settings import SearchSettings
from tunekit.tuning.stored_search import storage_of

pytestmark = [pytest.mark.slow, pytest.mark.ray, pytest.mark.extended, pytest.mark.timeout(600)]

ONE = Machine(cpus=1)  # one trial at a time: the same search each time


def wanted(folder: Path, digits: Pack, storage: str | None = None) -> SearchSettings:
    """All trials but the default one pause at epoch 2, and the best of them goes on in the end."""
    rungs = {"scheduler": "asha-promotion", "grace_period": 2, "reduction_factor": 100}
    asked = settings(folder, digits, storage=storage, samples=4, epochs=6, train_limit=200, **rungs)
    Path(asked.space).write_text(HOPELESS_DEFAULT)
    return asked


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[S3Server]:
    login(monkeypatch)
    server = S3Server()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory, digits: Pack) -> SearchPaths:
    """The same search without a storage."""
    folder = tmp_path_factory.mktemp("straight")
    paths = begin_search(wanted(folder, digits), folder / "results", QuietView())
    assert run_search(paths, QuietView(), machine=ONE).finished
    return paths


def what_happened(paths: SearchPaths) -> list[tuple[object, ...]]:
    history = History.read(paths.history)
    return [(e.kind, e.trial, e.epoch, e.value) for e in history.events if e.kind != "resume"]


def check_as(straight: SearchPaths, paths: SearchPaths) -> None:
    """The results folder is as if all nodes had shared it, and nothing else is left."""
    assert what_happened(paths) == what_happened(straight)
    kept = sorted(file.relative_to(straight.folder) for file in straight.folder.glob("trials/*/*"))
    assert sorted(file.relative_to(paths.folder) for file in paths.folder.glob("trials/*/*")) == kept
    assert all(same_weights(paths.folder / file, straight.folder / file) for file in kept)
    storage = storage_of(SearchSettings.load(paths), paths)
    assert storage is not None
    there = [file.relative_to(paths.folder) for file in storage.files(paths.folder / "trials")]
    assert sorted(Path(*file.parts[:2], file.name) for file in there) == kept
    assert not list(Path(tempfile.gettempdir()).glob(f"*{storage.folder}"))


def test_a_search_without_a_shared_folder_ends_as_one_with_it_and_gives_a_model(
    server: S3Server, straight: SearchPaths, tmp_path: Path, digits: Pack
) -> None:
    paths = begin_search(wanted(tmp_path, digits, server.uri), tmp_path / "results", QuietView())
    outcome = run_search(paths, QuietView(), machine=ONE)
    assert (outcome.finished, outcome.problem, outcome.untracked_events) == (True, None, 0)
    assert {"pause", "resume"} <= {event.kind for event in outcome.history.events}
    check_as(straight, paths)

    retrained = retrain(paths, Request(top_k=1, seeds=1), QuietView(), machine=ONE)
    assert retrained.result is not None
    (member,) = retrained.result["model"]["members"]
    assert paths.retraining.trial(member["training"]).best.exists()
    assert not list(paths.folder.rglob("attempt-*"))


class Unplugging(QuietView):
    """Stops a server when a trial has finished its third epoch."""

    def __init__(self, server: S3Server) -> None:
        self._server = server

    def event(self, event: Event) -> None:
        if event.kind == "result" and event.epoch == 3:
            self._server.stop()


def test_a_storage_that_goes_away_stops_the_search_and_a_resume_goes_on(
    server: S3Server, straight: SearchPaths, tmp_path: Path, digits: Pack
) -> None:
    paths = begin_search(wanted(tmp_path, digits, server.uri), tmp_path / "results", QuietView())
    outcome = run_search(paths, Unplugging(server), machine=ONE)
    assert not outcome.finished
    assert outcome.problem is not None
    assert outcome.problem.startswith(f"storage {server.uri} cannot be written from {platform.node()}: ")
    server.start()
    again = run_search(paths, QuietView(), machine=ONE)
    assert (again.finished, again.problem) == (True, None)
    check_as(straight, paths)
