"""A storage that stands for a folder that nodes do not share: on a folder, and on a real S3 server."""

from __future__ import annotations

import platform
import shutil
import stat
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.tuning.places import NOBODY, login, own_temporary_folder, s3_server
from tests.tuning.test_trial_run import steps
from tunekit.data.pack import Pack
from tunekit.data.split import Split
from tunekit.errors import DataError, SearchError, StorageError
from tunekit.history import Event, History
from tunekit.models.pretrained import fetch_weights
from tunekit.paths import SearchPaths, TrialPaths
from tunekit.recipe import Recipe
from tunekit.training.checkpoint import load_best
from tunekit.tuning.assignment import Assignment
from tunekit.tuning.checkpoint_keeper import CheckpointKeeper
from tunekit.tuning.checkpoints import StoredCheckpoints
from tunekit.tuning.node_files import private_folder
from tunekit.tuning.storage import Storage, check_storage_uri, storage_uri
from tunekit.tuning.stored_search import push_inputs, push_pack
from tunekit.tuning.trial_run import TrialRun


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    with s3_server() as uri:
        yield uri


@pytest.fixture(params=["folder", "file", "s3"])
def uri(request: pytest.FixtureRequest, s3: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    login(monkeypatch)
    places = {"folder": str(tmp_path / "place"), "file": (tmp_path / "a place").as_uri(), "s3": s3}
    return places[request.param]


@pytest.fixture
def storage(uri: str, tmp_path: Path, request: pytest.FixtureRequest) -> Storage:
    """Of a search that no other test has."""
    (tmp_path / "search").mkdir()
    return Storage(uri, f"search-{abs(hash(request.node.name))}", str(tmp_path / "search"))


def test_a_file_arrives_as_it_was_last_pushed(storage: Storage) -> None:
    file = Path(storage.root) / "trials" / "0001" / "last.pt"
    file.parent.mkdir(parents=True)
    assert not storage.pull(file)
    for content in (b"first" * 10**6, b"", b"last"):
        file.write_bytes(content)
        storage.push(file)
        file.unlink()
        assert storage.pull(file)
        assert file.read_bytes() == content
    assert [left.name for left in file.parent.iterdir()] == ["last.pt"]


def test_files_are_copied_listed_and_dropped(storage: Storage) -> None:
    root = Path(storage.root)
    for name in ("a/one", "a/b/two", "c/three"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(name)
        storage.push(root / name)
    storage.copy(root / "a/one", root / "a/copied")
    assert sorted(storage.files(root / "a")) == [root / name for name in ("a/b/two", "a/copied", "a/one")]
    assert storage.pull(root / "a/copied", root / "elsewhere")
    assert (root / "elsewhere").read_text() == "a/one"
    storage.drop(root / "a/one")
    storage.drop(root / "a/one")
    assert sorted(storage.files(root / "a")) == [root / name for name in ("a/b/two", "a/copied")]
    assert storage.files(root / "nothing") == []


@pytest.mark.parametrize("there", [NOBODY, "/proc/nobody/can/write"])
def test_a_place_that_cannot_be_used_is_one_line(
    there: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    login(monkeypatch)
    (tmp_path / "file").touch()
    with pytest.raises(StorageError) as error:
        Storage(there, "search", str(tmp_path)).push(tmp_path / "file")
    assert str(error.value).startswith(f"storage {there} cannot be written from {platform.node()}: ")
    assert "\n" not in str(error.value)


def test_why_nothing_can_be_read_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    login(monkeypatch)
    with pytest.raises(StorageError, match=r"cannot be read from .+: When .+ NETWORK_CONNECTION"):
        Storage(NOBODY, "search", str(tmp_path)).pull(tmp_path / "file")


GOOD = [
    "s3://bucket/folder?endpoint_override=store.lab:9000&scheme=https&region=here",
    "gs://bucket",
    "gs://anonymous@bucket/folder",
    "abfss://container@account.dfs.core.windows.net/folder",
    "file:///shared/folder",
    "/shared/folder",
]
BAD = [
    *(
        "",
        "s3://",
        "s3:///folder",
        "ftp://host/folder",
        "http://bucket",
        "s3://[bucket",
        "file://host/folder",
    ),
    *("bucket/folder", "s3:bucket", "s3://bucket/\x1b[31m"),
]
WITH_LOGIN = [
    "s3://user:secret@bucket/folder",
    "s3://secret@bucket",
    "s3://bucket?access_key=a&secret_key=secret",
    "s3://bucket?session_token=secret",
    "abfss://:secret@account.dfs.core.windows.net/container",
    "abfss://container:secret@account.dfs.core.windows.net",
    "abfss://container@account.dfs.core.windows.net/folder?client_secret=secret",
    "abfss://container@account.dfs.core.windows.net/folder?sv=2024&sig=secret",
]


@pytest.mark.parametrize("uri", GOOD)
def test_these_can_name_a_place(uri: str) -> None:
    assert storage_uri(uri) == uri


@pytest.mark.parametrize("uri", BAD)
def test_these_name_no_place(uri: str) -> None:
    with pytest.raises(SearchError, match=r"--storage must be s3://BUCKET/FOLDER, .*, but got '"):
        check_storage_uri(uri)


@pytest.mark.parametrize("uri", WITH_LOGIN)
def test_a_login_has_no_place_in_files(uri: str) -> None:
    with pytest.raises(SearchError, match="--storage must have no login and no key in it") as error:
        check_storage_uri(uri)
    assert "=secret" not in str(error.value) and "secret@" not in str(error.value)


def test_a_folder_is_meant_from_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert storage_uri("shared/place") == str(tmp_path / "shared" / "place")


def given_to_worker(storage: Storage, digits: Pack, split: Split) -> Assignment:
    """As the driver gives it to a worker that sees nothing of the search's folder."""
    paths = SearchPaths(Path(storage.root))
    split.save(paths.split)
    paths.settings.write_text("{}")
    push_inputs(storage)
    for file in (paths.split, paths.settings):
        file.unlink()
    recipe = Recipe.from_flat({"model.name": "resnet8", "batch_size": 32, "optim.lr": 0.05})
    return Assignment(
        trial_id=0,
        recipe=recipe.to_flat(),
        seed=3,
        epochs=4,
        reported=0,
        pack=str(digits.folder),
        split=str(paths.split),
        folder=str(paths.trial(0).folder),
        storage=storage.uri,
        storage_folder=storage.folder,
        storage_root=storage.root,
    )


@pytest.fixture
def assignment(storage: Storage, digits: Pack, digits_split: Split) -> Assignment:
    return given_to_worker(storage, digits, digits_split)


@pytest.fixture
def straight(
    assignment: Assignment, digits_split: Split, tmp_path: Path
) -> tuple[list[dict[str, object]], Path]:
    """The results of the same trial without storage and interruption, and its best weights."""
    digits_split.save(tmp_path / "split.npz")
    folder = tmp_path / "straight"
    alone = replace(assignment, storage=None, split=str(tmp_path / "split.npz"), folder=str(folder))
    return steps(TrialRun(alone), 4), TrialPaths(folder).best


def same_weights(file: Path, other: Path) -> bool:
    one, two = load_best(file), load_best(other)
    same = (torch.equal(one.weights[name], two.weights[name]) for name in two.weights)
    return one.epoch == two.epoch and one.weights.keys() == two.weights.keys() and all(same)


def brought_home(storage: Storage) -> Path:
    """The best weights of trial 0, as the search's end brings them into the results folder."""
    paths, history = SearchPaths(Path(storage.root)), History()
    history.append(Event("suggest", 0, params={}), Event("result", 0, epoch=1, value=0.5))
    StoredCheckpoints(paths, storage).bring_home(history.trials.values())
    return paths.trial(0).best


def test_a_trial_goes_on_on_another_node_as_if_nothing_had_happened(
    assignment: Assignment,
    storage: Storage,
    straight: tuple[list[dict[str, object]], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    results, best = straight
    own_temporary_folder(monkeypatch, tmp_path / "node1")
    first = TrialRun(assignment)
    assert steps(first, 2) == results[:2]
    own_temporary_folder(monkeypatch, tmp_path / "node2")  # the first node is lost: nobody closes its trial
    second = TrialRun(replace(assignment, attempt=2, reported=2))
    assert steps(second, 2) == results[2:]
    second.close()
    assert not list((tmp_path / "node2").rglob("attempt-*"))
    assert not list(Path(storage.root).iterdir())  # the driver's folder was of no use to either
    there = {file.parent.name for file in storage.files(Path(assignment.folder))}
    assert there == {"attempt-2"}
    assert same_weights(brought_home(storage), best)


def test_a_worker_that_was_cut_off_spoils_nothing_in_the_storage(
    assignment: Assignment,
    storage: Storage,
    straight: tuple[list[dict[str, object]], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    results, best = straight
    own_temporary_folder(monkeypatch, tmp_path / "node")
    cut_off = TrialRun(assignment)
    steps(cut_off, 2)
    assert steps(TrialRun(replace(assignment, attempt=2, reported=2)), 1) == results[2:3]
    steps(cut_off, 2)  # it trains on to the end and writes
    junk = TrialPaths(Path(assignment.folder)).attempt(1)
    junk.folder.mkdir(parents=True)
    for file in (junk.last, junk.best):
        file.write_bytes(b"or anything else")
        storage.push(file)
        file.unlink()
    assert steps(TrialRun(replace(assignment, attempt=3, reported=3)), 1) == results[3:]
    assert same_weights(brought_home(storage), best)


def test_first_weights_and_pack_come_from_the_storage_once(
    assignment: Assignment, storage: Storage, digits: Pack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own_temporary_folder(monkeypatch, tmp_path / "earlier")
    earlier = TrialRun(assignment)
    steps(earlier, 1)
    source = TrialPaths(tmp_path / "source").best
    source.parent.mkdir()
    shutil.copy(brought_home(storage), source)
    paths = SearchPaths(Path(storage.root))
    recipe = Recipe.from_flat({**assignment.recipe, "init": f"file:{source}", "freeze.policy": "head_only"})
    weights = paths.first_weights("resnet8-0")
    weights.parent.mkdir()
    fetch_weights(recipe, None, weights)
    push_inputs(storage)
    shared = push_pack(storage, digits)
    weights.unlink()

    own_temporary_folder(monkeypatch, tmp_path / "node")
    given = replace(
        assignment,
        trial_id=1,
        folder=str(paths.trial(1).folder),
        recipe=recipe.to_flat(),
        weights=str(weights),
        pack=str(tmp_path / "data of the node" / "digits"),
        shared_pack=shared,
    )
    (result,) = steps(TrialRun(given), 1)
    assert result["trainable_parameters"] == 64 * 10 + 10
    pack = Pack.open(Path(given.pack))
    assert pack.files == digits.files and pack.verify()

    there = Storage(storage.uri, shared, str(tmp_path))
    for name in pack.files:
        there.drop(tmp_path / name)
    assert steps(TrialRun(replace(given, folder=str(paths.trial(2).folder))), 1) == [result]
    shutil.rmtree(given.pack)
    with pytest.raises(DataError, match=f"storage .* has no {shared}/"):
        TrialRun(given).step()
    push_pack(storage, digits)  # pack.json is there, so all seems to be
    assert not there.pull(tmp_path / "train_images.npy")


def test_images_that_arrive_damaged_are_refused(
    assignment: Assignment, storage: Storage, digits: Pack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own_temporary_folder(monkeypatch, tmp_path / "node")
    shared = push_pack(replace(storage, uri=str(tmp_path / "another")), digits)
    there = Storage(str(tmp_path / "another"), shared, str(tmp_path))
    labels = tmp_path / "train_labels.npy"
    labels.write_bytes(b"x" * digits.files[labels.name].size)
    there.push(labels)
    given = replace(assignment, storage=there.uri, pack=str(tmp_path / "data"), shared_pack=shared)
    with pytest.raises(DataError, match="digits did not arrive"):
        TrialRun(given).step()
    assert not (tmp_path / "data").exists()


def check_problem(result: dict[str, Any], uri: str) -> None:
    assert list(result) == ["problem"]
    assert result["problem"].startswith(f"storage {uri} cannot be written from {platform.node()}: ")
    assert "\n" not in result["problem"]


def test_a_server_that_is_gone_ends_a_trial_like_a_full_disk(
    digits: Pack, digits_split: Split, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    login(monkeypatch)
    own_temporary_folder(monkeypatch, tmp_path / "node")
    (tmp_path / "search").mkdir()
    with s3_server() as uri:
        storage = Storage(uri, "search-1", str(tmp_path / "search"))
        trial = TrialRun(given_to_worker(storage, digits, digits_split))
        steps(trial, 1)
    check_problem(trial.step(), uri)


def test_a_folder_that_is_gone_ends_a_trial_like_a_full_disk(
    digits: Pack, digits_split: Split, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own_temporary_folder(monkeypatch, tmp_path / "node")
    (tmp_path / "search").mkdir()
    place = tmp_path / "place"
    storage = Storage(str(place), "search-1", str(tmp_path / "search"))
    trial = TrialRun(given_to_worker(storage, digits, digits_split))
    steps(trial, 1)
    shutil.rmtree(place)
    place.write_text("no folder any more")
    check_problem(trial.step(), str(place))


def test_what_lies_on_a_node_is_for_its_user_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own_temporary_folder(monkeypatch, tmp_path / "node")
    folder = private_folder("search-1")
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert private_folder("search-1") == folder
    folder.chmod(0o755)
    with pytest.raises(StorageError, match="is not a folder of this user alone"):
        private_folder("search-1")
    folder.rmdir()
    folder.symlink_to(tmp_path)
    with pytest.raises(StorageError, match="is not a folder of this user alone"):
        private_folder("search-1")


def test_what_nobody_can_need_goes_from_the_storage_and_the_best_come_home(storage: Storage) -> None:
    paths, history = SearchPaths(Path(storage.root)), History()
    checkpoints = StoredCheckpoints(paths, storage)
    keeper = CheckpointKeeper(paths, history, keep=1, checkpoints=checkpoints)
    history.subscribe(keeper.event)

    def train(trial: int, attempt: int, value: float) -> None:
        files = paths.trial(trial).attempt(attempt)
        files.folder.mkdir(parents=True)
        for file in (files.last, files.best):
            file.write_text(f"trial {trial}, attempt {attempt}")
            storage.push(file)
            file.unlink()
        files.folder.rmdir()
        epoch = history.trials[trial].epoch + 1
        history.append(Event("result", trial, epoch=epoch, value=value))

    def there() -> list[str]:
        checkpoints.close()
        root = paths.folder / "trials"
        return sorted(file.relative_to(root).as_posix() for file in storage.files(root))

    for trial, value in enumerate((0.5, 0.9, 0.1)):
        history.append(Event("suggest", trial, params={}))
        train(trial, 1, value)
    history.append(Event("complete", 0), Event("pause", 2, epoch=1))
    # Trial 0 is over and not the best, trial 1 runs, trial 2 may go on.
    assert there() == ["0001/attempt-1/best.safetensors", "0001/attempt-1/last.pt", "0002/attempt-1/last.pt"]
    history.append(Event("resume", 1))
    train(1, 2, 0.95)
    history.append(Event("complete", 1), Event("resume", 2))
    train(2, 2, 0.99)
    assert "0001/attempt-2/best.safetensors" in there()
    keeper.bring_home()
    assert paths.trial(2).best.read_text() == "trial 2, attempt 2"
    history.append(Event("complete", 2))
    assert there() == ["0002/attempt-2/best.safetensors"]
    keeper.bring_home()
    assert [trial for trial in range(3) if paths.trial(trial).best.exists()] == [2]


def test_what_cannot_be_deleted_stays_and_stops_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    login(monkeypatch)
    paths, history = SearchPaths(tmp_path), History()
    checkpoints = StoredCheckpoints(paths, Storage(NOBODY, "search", str(tmp_path)))
    history.subscribe(CheckpointKeeper(paths, history, keep=1, checkpoints=checkpoints).event)
    for trial in range(30):
        history.append(Event("suggest", trial, params={}), Event("result", trial, epoch=1, value=trial / 30))
        history.append(Event("complete", trial))
    checkpoints.close()
    assert "checkpoints of trial 0000 stay: storage s3://" in caplog.text
    with pytest.raises(StorageError, match="cannot be read"):
        checkpoints.bring_home(history.leaders(1))
