"""A search that travels as text arrives whole or not at all, and harms nothing that is there."""

import base64
import dataclasses
import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.search_on_disk import lay_down_search
from tunekit.errors import SearchError
from tunekit.history import Event, History
from tunekit.paths import SearchPaths
from tunekit.reporting.leaderboard import best_trial, trial_rows
from tunekit.tuning.parcel import pack, unpack
from tunekit.tuning.settings import SearchSettings


@pytest.fixture
def there(tmp_path: Path) -> SearchPaths:
    """A search on the cluster: trial 0 and the better trial 1 have weights, and each its checkpoint."""
    paths = lay_down_search(tmp_path / "there", "mine")
    for number, size in ((0, 5000), (1, 10_000)):
        trial = paths.trial(number)
        trial.folder.mkdir(parents=True)
        trial.best.write_bytes(bytes([number]) * size)
        trial.last.write_bytes(b"large")
    paths.retraining.opening(1).mkdir(parents=True)
    paths.retraining.result(1).write_text("{}")
    paths.log.write_text("noise\n")
    return paths


def names(paths: SearchPaths) -> set[str]:
    files = (file for file in paths.folder.rglob("*") if file.is_file() and not file.name.startswith("."))
    return {file.relative_to(paths.folder).as_posix() for file in files}


def test_a_search_arrives_and_can_be_read(there: SearchPaths, tmp_path: Path) -> None:
    between = [line for parcel in pack(there) for line in ("a warning of a library", parcel)]
    home = unpack(between, tmp_path / "home", "mine")
    assert names(home) == {
        *("search.json", "space.toml", "history.jsonl", "retrain/opening-1/result.json"),
        *("trials/0000/best.safetensors", "trials/0001/best.safetensors"),
    }
    assert home.trial(1).best.read_bytes() == there.trial(1).best.read_bytes()
    assert best_trial(home)["trial"] == best_trial(there)["trial"] == 1
    assert len(trial_rows(home)) == 3
    assert [file.name for file in (tmp_path / "home").iterdir()] == ["mine"]


def test_weights_of_a_trial_that_still_runs_arrive_as_those_of_the_trial(
    there: SearchPaths, tmp_path: Path
) -> None:
    trial = there.trial(1)
    weights = trial.best.read_bytes()
    trial.attempt(2).folder.mkdir()
    trial.best.rename(trial.attempt(2).best)
    home = unpack(pack(there), tmp_path / "home", "mine")
    assert home.trial(1).best.read_bytes() == weights
    assert not home.trial(1).attempts()


def test_weights_of_the_best_trials_come_first_when_there_is_little_room(
    there: SearchPaths, tmp_path: Path
) -> None:
    room = sum((there.folder / name).stat().st_size for name in names(there) if "trials" not in name) + 12_000
    home = unpack(pack(there, room), tmp_path / "home", "mine")
    assert home.trial(1).best.exists()
    assert not home.trial(0).best.exists()
    with pytest.raises(SearchError, match="more than 100 bytes to send"):
        list(pack(there, 100))


def test_a_line_of_the_history_that_is_being_written_stays_behind(there: SearchPaths, tmp_path: Path) -> None:
    whole = there.history.read_bytes()
    there.history.write_bytes(whole + b'{"kind": "resu')
    assert unpack(pack(there), tmp_path / "home", "mine").history.read_bytes() == whole


def test_fetching_again_brings_what_is_new_and_keeps_what_is_only_here(
    there: SearchPaths, tmp_path: Path
) -> None:
    home = unpack(pack(there), tmp_path / "home", "mine")
    home.study.write_text("exported here")
    with_more = History.read(there.history)
    with_more.append(Event("result", 2, epoch=1, value=0.9))
    with_more.close()
    unpack(pack(there), tmp_path / "home", "mine")
    assert best_trial(home)["trial"] == 2
    assert home.study.read_text() == "exported here"


def test_a_search_that_went_on_here_is_not_set_back(there: SearchPaths, tmp_path: Path) -> None:
    home = unpack(pack(there), tmp_path / "home", "mine")
    here = History.read(home.history)
    here.append(Event("result", 2, epoch=1, value=0.9))
    here.close()
    with pytest.raises(SearchError, match="went on here"):
        unpack(pack(there), tmp_path / "home", "mine")
    assert best_trial(home)["trial"] == 2


def test_another_search_of_that_name_stays(there: SearchPaths, tmp_path: Path) -> None:
    other = lay_down_search(tmp_path / "home", "mine")
    before = other.settings.read_bytes()
    with pytest.raises(SearchError, match="is another search"):
        unpack(pack(there), tmp_path / "home", "mine")
    assert other.settings.read_bytes() == before
    other.settings.unlink()
    with pytest.raises(SearchError, match="is another search"):
        unpack(pack(there), tmp_path / "home", "mine")


def file_lines(name: str, data: bytes = b"data") -> list[str]:
    return [
        f"=parcel file {len(data)} {name}",
        f"=parcel {base64.b64encode(data).decode()}",
        f"=parcel sha256 {hashlib.sha256(data).hexdigest()}",
    ]


@pytest.mark.parametrize(
    "name",
    [
        *("../evil", "/tmp/evil", "trials/0000/../../../evil", "trials/0000/last.pt", ".lock", "", "a b"),
        *("search.json/x", "retrain/opening-1/../../../evil.png", "ray"),
        "trials/\u0660\u0660\u0660\u0660/best.safetensors",
    ],
)
def test_only_files_that_a_search_has_are_written(name: str, there: SearchPaths, tmp_path: Path) -> None:
    first, *_, _ = pack(there)
    before = {*tmp_path.rglob("*")}
    with pytest.raises(SearchError, match="cannot be used"):
        unpack([first, *file_lines(name), "=parcel end 1"], tmp_path / "home", "mine")
    assert {*tmp_path.rglob("*")} - before <= {tmp_path / "home"}


Change = Callable[[list[str]], list[str]]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda lines: [], "expected 'parcel 1 mine', but got 'nothing'"),
        (lambda lines: lines[:-1], "but got 'nothing'"),
        (lambda lines: lines[: len(lines) // 2], "cannot be used"),
        (lambda lines: [lines[0].replace("mine", "other"), *lines[1:]], "but got 'parcel 1 other'"),
        (lambda lines: [lines[0].replace(" 1 ", " 2 "), *lines[1:]], "but got 'parcel 2 mine'"),
        (lambda lines: [*lines[:-1], "=parcel end 2"], "but got 'end 2'"),
        (lambda lines: [*lines[:-1], *lines[1:]], "no search has a file"),  # each file twice
        (lambda lines: [lines[0], *file_lines("search.json"), "=parcel end 1"], "not the settings"),
        (lambda lines: [lines[0], "=parcel end 0"], "not the settings"),
        (lambda lines: [*lines[:2], "=parcel " + "A" * 8, *lines[3:]], "cannot be used"),
    ],
)
def test_what_is_damaged_is_refused_and_leaves_nothing(
    change: Change, message: str, there: SearchPaths, tmp_path: Path
) -> None:
    with pytest.raises(SearchError, match=message):
        unpack(change(list(pack(there))), tmp_path / "home", "mine")
    assert not [*(tmp_path / "home").iterdir()]


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(data=st.data())
def test_no_changed_sign_gets_through(data: st.DataObject, there: SearchPaths, tmp_path: Path) -> None:
    text = "\n".join(pack(there))
    place = data.draw(st.integers(0, len(text) - 1))
    sign = data.draw(st.characters(codec="utf-8").filter(lambda other: other != text[place]))
    changed = text[:place] + sign + text[place + 1 :]
    with pytest.raises(SearchError):
        unpack(changed.split("\n"), tmp_path / "home", "mine")


def test_too_much_is_refused_before_it_is_written(there: SearchPaths, tmp_path: Path) -> None:
    with pytest.raises(SearchError, match="larger than is allowed"):
        unpack(pack(there), tmp_path / "home", "mine", largest=9000)


def test_settings_of_another_search_id_are_another_search(there: SearchPaths, tmp_path: Path) -> None:
    home = unpack(pack(there), tmp_path / "home", "mine")
    dataclasses.replace(SearchSettings.load(there), search_id="other").save(there)
    with pytest.raises(SearchError, match="is another search"):
        unpack(pack(there), tmp_path / "home", "mine")
    assert SearchSettings.load(home).search_id != "other"
