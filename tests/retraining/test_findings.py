"""What an opening leaves on disk, and how its result is found again."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.retraining.saved_networks import CLASSES, IMAGES, LABELS, answers
from tunekit.errors import SearchError
from tunekit.history import Event, History
from tunekit.paths import SearchPaths
from tunekit.recipe import Recipe
from tunekit.retraining.candidates import Candidate
from tunekit.retraining.examination import ExaminedModel
from tunekit.retraining.findings import (
    Result,
    curves_of,
    draw_findings,
    find_result,
    save_result,
    show_images,
    write_tables,
)
from tunekit.retraining.metrics import ClassScore, ReliabilityBin
from tunekit.retraining.networks import Judge
from tunekit.retraining.statistics import Interval
from tunekit.retraining.trainings import plan

MODEL = ExaminedModel(
    accuracy=0.9,
    interval=Interval(0.8, 0.95),
    cross_entropy=0.3,
    calibration_error=0.04,
    bins=[ReliabilityBin(0.8, 1.0, 0.9, 0.94, 30)],
    class_scores=[
        ClassScore("cat", 0.875, 0.7, 0.77777, 10),
        ClassScore("dog", 1.0, 1.0, 1.0, 10),
        ClassScore("bird", 0.0, 0.0, 0.0, 0),
    ],
    confusion=[[7, 0, 3], [0, 10, 0], [0, 0, 0]],
    images_per_second=100.0,
    device="CPU, 2 threads",
    parameters=1000,
)
CURVES = {"trial 07": [[0.1, 0.5], [0.2, 0.6]], "default recipe": [[0.1, 0.2]]}


@pytest.fixture
def paths(tmp_path: Path) -> SearchPaths:
    return SearchPaths(tmp_path / "mine")


def picture(file: Path) -> tuple[int, int]:
    """Width and height of a picture that can be read."""
    with Image.open(file) as image:
        image.load()
        assert image.format == "PNG"
        return image.size


def table(file: Path) -> list[list[str]]:
    with open(file, encoding="utf-8", newline="") as lines:
        return list(csv.reader(lines))


# Results.


def kept(paths: SearchPaths, number: int, key: str) -> Result:
    result = {"key": key, "format": 1, "opening": {"number": number}, "winner": f"trial {number:02d}"}
    save_result(paths.retraining, result)
    return result


def test_before_the_first_opening_there_is_no_result(paths: SearchPaths) -> None:
    assert find_result(paths) is None
    # An opening whose examination was interrupted left a folder and no result.
    paths.retraining.opening(1).mkdir(parents=True)
    assert find_result(paths) is None
    assert find_result(paths, "a") is None


def test_the_latest_result_is_found_and_the_latest_of_a_wish(paths: SearchPaths) -> None:
    results = [kept(paths, number, key) for number, key in ((2, "a"), (9, "b"), (10, "a"), (11, "c"))]
    assert find_result(paths) == results[3]
    assert find_result(paths, "a") == results[2]
    assert find_result(paths, "b") == results[1]
    assert find_result(paths, "d") is None


def test_a_result_that_is_saved_again_replaces_the_old_one(paths: SearchPaths) -> None:
    result = kept(paths, 1, "a")
    save_result(paths.retraining, {**result, "registration": {"version": 3}})
    assert find_result(paths) == {**result, "registration": {"version": 3}}
    assert [file.name for file in paths.retraining.opening(1).iterdir()] == ["result.json"]


def test_what_is_saved_is_given_back_as_it_will_be_read(paths: SearchPaths) -> None:
    made = {"key": "a", "format": 1, "opening": {"number": 1, "recipes": ("trial 07", "default recipe")}}
    saved = save_result(paths.retraining, made)
    assert saved == find_result(paths)
    assert saved["opening"]["recipes"] == ["trial 07", "default recipe"]


def test_a_copy_that_a_person_made_of_an_opening_is_left_alone(paths: SearchPaths) -> None:
    result = kept(paths, 1, "a")
    for name in ("opening-1 (copy)", "opening-", "opening-old"):
        (paths.retraining.folder / name).mkdir()
    assert find_result(paths) == result


@pytest.mark.parametrize(
    "content", ["", "{", "[]", "null", "{}", '{"key": "a"}', '{"key": "a", "opening": 3}']
)
def test_a_damaged_result_is_one_clear_error(paths: SearchPaths, content: str) -> None:
    kept(paths, 1, "a")
    paths.retraining.result(1).write_text(content)
    for key in (None, "a"):
        with pytest.raises(SearchError) as raised:
            find_result(paths, key)
        message = str(raised.value)
        assert message.startswith(f"{paths.retraining.result(1)}: not the result of a retraining (")
        assert "\n" not in message


def test_a_result_is_plain_json(paths: SearchPaths) -> None:
    result = kept(paths, 3, "a")
    assert json.loads(paths.retraining.result(3).read_text()) == result


# Tables.


def test_the_tables_hold_every_class_and_every_confusion(tmp_path: Path) -> None:
    classes = ["cat", 'dog, "small"', "vögel"]
    write_tables(tmp_path, MODEL, classes)
    assert table(tmp_path / "confusion.csv") == [
        ["true class", *classes],
        ["cat", "7", "0", "3"],
        ['dog, "small"', "0", "10", "0"],
        ["vögel", "0", "0", "0"],
    ]
    assert table(tmp_path / "classes.csv") == [
        ["class", "precision", "recall", "f1", "support"],
        ["cat", "0.8750", "0.7000", "0.7778", "10"],
        ["dog", "1.0000", "1.0000", "1.0000", "10"],
        ["bird", "0.0000", "0.0000", "0.0000", "0"],
    ]


# Pictures.


def test_confusions_calibration_and_curves_are_drawn(tmp_path: Path) -> None:
    draw_findings(tmp_path, MODEL, None, CLASSES, CURVES)
    assert {file.name for file in tmp_path.iterdir()} == {"confusion.png", "reliability.png", "curves.png"}
    sizes = {file.name: picture(file) for file in tmp_path.iterdir()}
    assert min(min(size) for size in sizes.values()) > 100
    # Where the model was calibrated, its calibration before stands beside that after.
    draw_findings(tmp_path, MODEL, [ReliabilityBin(0.6, 0.8, 0.7, 0.94, 30)], CLASSES, CURVES)
    assert picture(tmp_path / "reliability.png")[0] > 1.5 * sizes["reliability.png"][0]


def test_the_surest_mistakes_and_successes_are_shown(tmp_path: Path) -> None:
    said = LABELS.copy()
    said[:2] = (said[:2] + 1) % 3  # two mistakes in one row; of the successes more, in several rows
    show_images(tmp_path, IMAGES, answers(said.tolist()), Judge(IMAGES, LABELS), CLASSES)
    assert {file.name for file in tmp_path.iterdir()} == {"mistakes.png", "successes.png"}
    heights = [picture(tmp_path / name)[1] for name in ("mistakes.png", "successes.png")]
    assert 100 < 2 * heights[0] < heights[1]


@pytest.mark.parametrize("shift", [0, 1], ids=["no mistake", "no success"])
def test_where_there_is_none_there_is_a_picture_still(tmp_path: Path, shift: int) -> None:
    said = (LABELS + shift) % 3
    show_images(tmp_path, IMAGES, answers(said.tolist()), Judge(IMAGES, LABELS), CLASSES)
    for name in ("mistakes.png", "successes.png"):
        assert min(picture(tmp_path / name)) > 50


def test_pictures_are_drawn_from_memory_mapped_images(tmp_path: Path) -> None:
    np.save(tmp_path / "images.npy", IMAGES)
    mapped = np.load(tmp_path / "images.npy", mmap_mode="c")
    show_images(tmp_path, mapped, answers(LABELS.tolist()), Judge(mapped, LABELS), CLASSES)
    assert min(picture(tmp_path / "successes.png")) > 200


# Curves.


def test_curves_are_gathered_by_recipe_one_for_each_seed_that_has_any() -> None:
    candidates = [Candidate(name, Recipe(), {}, 2) for name in ("trial 07", "default recipe")]
    planned = [plan(candidate, seed) for seed in (1, 2) for candidate in candidates]
    history = History()
    for training, values in enumerate([(0.1, 0.2), (0.3,), (), (0.5, 0.6)]):
        history.append(Event("suggest", training, params={}))
        for epoch, value in enumerate(values, start=1):
            history.append(Event("result", training, epoch=epoch, value=value))
    assert curves_of(planned, history, [0, 1, 2, 3]) == {
        "trial 07": [[0.1, 0.2]],
        "default recipe": [[0.3], [0.5, 0.6]],
    }
    assert curves_of(planned, history, [3]) == {"default recipe": [[0.5, 0.6]]}
    assert curves_of(planned, history, [2]) == {}
