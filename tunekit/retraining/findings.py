"""What came of an opening of the test set, on disk: one JSON file, tables, and pictures to look at."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunekit.data.pack import Images
from tunekit.errors import SearchError
from tunekit.history import History
from tunekit.paths import RetrainingPaths, SearchPaths, atomic_write
from tunekit.retraining.trainings import PlannedTraining

if TYPE_CHECKING:  # they import torch, which who reads a result does not need
    from tunekit.retraining.examination import ExaminedModel
    from tunekit.retraining.metrics import ReliabilityBin
    from tunekit.retraining.networks import Judge, Logits

Result = dict[str, Any]
Curves = Mapping[str, Sequence[Sequence[float]]]  # of a recipe, for each seed, an accuracy each epoch

FORMAT = 1  # of a result
_SHOWN = 24  # images in a grid
_KINDS: dict[str, type | tuple[type, ...]] = {
    **dict.fromkeys(("search", "key", "dataset", "winner"), str),
    **dict.fromkeys(("request", "recipe", "opening", "model"), dict),
    **dict.fromkeys(("standings", "verdicts", "test", "earlier_openings"), list),
    "test_images": int,
    "registration": (dict, type(None)),
}


def find_result(paths: SearchPaths, key: str | None = None) -> Result | None:
    """The latest result of a search's retraining; with a key, the latest of that request.

    Raises:
        SearchError: if a result is damaged.
    """
    ends = [folder.name.removeprefix("opening-") for folder in paths.retraining.folder.glob("opening-*")]
    # A person may have made a copy of one, with a name of its own.
    for number in sorted((int(end) for end in ends if end.isdecimal()), reverse=True):
        file = paths.retraining.result(number)
        result = _read(file) if file.is_file() else None
        if result is not None and key in (None, result["key"]):
            return result
    return None


def save_result(paths: RetrainingPaths, result: Result) -> Result:
    """Write the result of an opening, whole or not at all; returns what `find_result` will read."""
    file = paths.result(result["opening"]["number"])
    with atomic_write(file) as temporary:
        temporary.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    return _read(file)


def _read(file: Path) -> Result:
    try:
        result: Result = json.loads(file.read_text(encoding="utf-8"))
        if result["format"] != FORMAT:
            raise ValueError("of another version")
        for name, kind in _KINDS.items():
            if name in result and not isinstance(result[name], kind):
                raise ValueError(f"{name} is not as it was written")
        return result
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise SearchError(f"{file}: not the result of a retraining ({error})") from None


def draw_findings(
    folder: Path,
    model: ExaminedModel,
    before: Sequence[ReliabilityBin] | None,
    classes: Sequence[str],
    curves: Curves,
) -> None:
    """Confusions, calibration and training curves.

    Args:
        folder: where the pictures go.
        model: what is handed over.
        before: its calibration without temperature scaling, if it was scaled.
        classes: their names.
        curves: of every recipe.
    """
    import numpy as np

    from tunekit.retraining.figures import confusion_figure, curves_figure, reliability_figure, save_figure

    matrix = np.array(model.confusion, np.int64)
    save_figure(confusion_figure(matrix, classes), folder / "confusion.png")
    first, after = (before, model.bins) if before else (model.bins, None)
    save_figure(reliability_figure(first, after), folder / "reliability.png")
    figure = curves_figure(curves, "validation accuracy", "Training with several seeds: mean and range")
    save_figure(figure, folder / "curves.png")


def curves_of(planned: Sequence[PlannedTraining], history: History, ids: Sequence[int]) -> Curves:
    """The validation accuracy of trainings, by recipe."""
    curves: dict[str, list[list[float]]] = {}
    for training in ids:
        values = [result.value for result in history.trials[training].results]
        if values:
            curves.setdefault(planned[training].name, []).append(values)
    return curves


def show_images(folder: Path, images: Images, logits: Logits, judge: Judge, classes: Sequence[str]) -> None:
    """The most confident mistakes, and as many successes."""
    from tunekit.retraining.examination import captions, surest
    from tunekit.retraining.figures import image_grid, save_figure

    for name, right, title in (
        ("mistakes.png", False, "The most confident mistakes: true class as predicted class, confidence"),
        ("successes.png", True, "The most confident successes: class, confidence"),
    ):
        places = surest(logits, judge.labels, right, _SHOWN)
        words = captions(places, logits, judge.labels, classes)
        save_figure(image_grid(images[places], words, title), folder / name)


def write_tables(folder: Path, model: ExaminedModel, classes: Sequence[str]) -> None:
    """Scores by class and the confusion matrix as CSV."""
    scores = [
        [one.name, f"{one.precision:.4f}", f"{one.recall:.4f}", f"{one.f1:.4f}", one.support]
        for one in model.class_scores
    ]
    _write_csv(folder / "classes.csv", [["class", "precision", "recall", "f1", "support"], *scores])
    rows = [[name, *counts] for name, counts in zip(classes, model.confusion, strict=True)]
    _write_csv(folder / "confusion.csv", [["true class", *classes], *rows])


def _write_csv(file: Path, rows: Sequence[Sequence[object]]) -> None:
    with atomic_write(file) as temporary, open(temporary, "w", encoding="utf-8", newline="") as out:
        csv.writer(out).writerows(rows)
