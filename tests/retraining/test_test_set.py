"""The lock of the test set: what is recorded of each opening, and that there is no other way in."""

from __future__ import annotations

import ast
import json
import shutil
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.search_on_disk import lay_down_search
from tests.test_structure import FILES, PACKAGE, imports, room
from tunekit.data.pack import Content, Pack, Part, ensure_pack
from tunekit.errors import DataError, SearchError
from tunekit.paths import SearchPaths
from tunekit.retraining.test_set import open_test_set, openings, openings_of_data
from tunekit.tracking.runs import user_name

IMAGES = np.random.default_rng(0).integers(0, 256, (12, 4, 4, 1), dtype=np.uint8)


def make_pack(folder: Path, shift: int = 0) -> Pack:
    """Eight training images and four test images, brighter by `shift`."""
    train, test = (
        Part.of(IMAGES[:8], np.arange(8) % 2),
        Part.of(IMAGES[8:] + np.uint8(shift), np.arange(4) % 2),
    )
    return ensure_pack(folder, lambda: Content("noise", ("a", "b"), (4, 4, 1), train, test, "a test", "abc"))


@pytest.fixture
def pack(tmp_path: Path) -> Pack:
    return make_pack(tmp_path / "pack")


@pytest.fixture
def results_dir(tmp_path: Path) -> Path:
    return tmp_path / "results"


@pytest.fixture
def paths(results_dir: Path) -> SearchPaths:
    return lay_down_search(results_dir, "mine")


def test_a_search_that_never_opened_it_has_no_openings(paths: SearchPaths, results_dir: Path) -> None:
    assert openings(paths) == []
    assert openings_of_data(results_dir, "0" * 16) == []


def test_an_opening_gives_the_images_and_says_who_when_and_what_for(paths: SearchPaths, pack: Pack) -> None:
    before = time.time()
    opened = open_test_set(paths, pack, ["trial 07", "default recipe"])
    assert np.array_equal(opened.images, IMAGES[8:])
    assert opened.labels.tolist() == [0, 1, 0, 1]
    (opening,) = openings(paths)
    assert opening == opened.opening
    assert (opening.number, opening.search, opening.data) == (1, "mine", pack.test_digest)
    assert opening.recipes == ("trial 07", "default recipe")
    assert (opening.user, opening.host) == (user_name(), socket.gethostname())
    assert before <= opening.time <= time.time()


def test_openings_are_counted_and_none_is_forgotten(paths: SearchPaths, pack: Pack) -> None:
    for recipe in ("a", "b", "c"):
        open_test_set(paths, pack, [recipe])
    found = openings(paths)
    assert [opening.number for opening in found] == [1, 2, 3]
    assert [opening.recipes for opening in found] == [("a",), ("b",), ("c",)]


@pytest.mark.parametrize("name", ["test_images.npy", "test_labels.npy"])
def test_an_opening_is_on_disk_before_anything_is_read(paths: SearchPaths, pack: Pack, name: str) -> None:
    content = bytearray((pack.folder / name).read_bytes())
    content[-1] ^= 1
    (pack.folder / name).write_bytes(content)
    with pytest.raises(DataError, match=rf"{name} is damaged"):
        open_test_set(paths, pack, ["trial 07"])
    assert [opening.recipes for opening in openings(paths)] == [("trial 07",)]


def test_what_cannot_be_recorded_is_not_opened(paths: SearchPaths, pack: Pack) -> None:
    shutil.rmtree(paths.folder)
    paths.folder.write_text("a file where the search's folder was")
    with pytest.raises(SearchError) as raised:
        open_test_set(paths, pack, ["trial 07"])
    assert str(raised.value).startswith(f"{paths.test_openings}: the opening cannot be recorded (")


def test_openings_of_a_test_set_are_found_in_all_searches_oldest_first(
    results_dir: Path, pack: Pack, tmp_path: Path
) -> None:
    first, second = (lay_down_search(results_dir, name) for name in ("zebra", "ant"))
    lay_down_search(results_dir, "never")
    other = make_pack(tmp_path / "other", shift=1)
    assert other.digest == pack.digest  # the training images are the same: the test images decide
    open_test_set(first, pack, ["a"])
    open_test_set(second, pack, ["b"])
    open_test_set(second, other, ["c"])
    open_test_set(first, pack, ["d"])
    found = openings_of_data(results_dir, pack.test_digest)
    assert [(one.search, one.number, one.recipes) for one in found] == [
        ("zebra", 1, ("a",)),
        ("ant", 1, ("b",)),
        ("zebra", 2, ("d",)),
    ]
    assert [one.recipes for one in openings_of_data(results_dir, other.test_digest)] == [("c",)]


DAMAGED = ["[", "{}", "[1]", '{"number": 1}', '{"colour": 1, "recipes": []}', '{"recipes": 3}', "\n"]


@pytest.mark.parametrize("line", DAMAGED)
def test_a_damaged_record_is_one_clear_error_and_opens_nothing(
    paths: SearchPaths, pack: Pack, line: str
) -> None:
    open_test_set(paths, pack, ["a"])
    with open(paths.test_openings, "a") as file:
        file.write(line + "\n")
    for ask in (lambda: openings(paths), lambda: open_test_set(paths, pack, ["b"])):
        with pytest.raises(SearchError) as raised:
            ask()
        message = str(raised.value)
        assert message.startswith(f"{paths.test_openings}: not a record of openings (")
        assert "\n" not in message
    assert len(paths.test_openings.read_text().splitlines()) == 1 + len((line + "\n").splitlines())


def test_the_record_is_a_json_line_for_each_opening(paths: SearchPaths, pack: Pack) -> None:
    open_test_set(paths, pack, ["a"])
    open_test_set(paths, pack, ["b"])
    lines = [json.loads(line) for line in paths.test_openings.read_text().splitlines()]
    assert [line["recipes"] for line in lines] == [["a"], ["b"]]


# No other way in: these read the source of the package.


def words(file: Path) -> Iterator[str]:
    """Every name that a file uses, without those that it defines, and every text in it."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Name):
            yield node.id
        elif isinstance(node, ast.Attribute):
            yield node.attr
        elif isinstance(node, ast.alias):
            yield node.name
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def files_with(word: str) -> list[str]:
    return [str(file.relative_to(PACKAGE)) for file in FILES if word in words(file)]


def test_one_file_opens_the_test_part_of_a_pack_and_one_asks_it_to() -> None:
    assert files_with("open_test") == ["retraining/test_set.py"]
    assert files_with("open_test_set") == ["retraining/retrain.py"]


def test_one_file_knows_the_names_of_the_test_files() -> None:
    holding = [file for file in FILES if any(".npy" in word for word in words(file))]
    assert [str(file.relative_to(PACKAGE)) for file in holding] == ["data/pack.py"]


@pytest.mark.parametrize("name", ["data", "models", "training", "tracking", "tuning"])
def test_what_trains_and_chooses_cannot_reach_the_retraining(name: str) -> None:
    files = [file for file in FILES if room(file) == name]
    assert files
    for file in files:
        assert not [module for module in imports(file) if "retraining" in module], file
