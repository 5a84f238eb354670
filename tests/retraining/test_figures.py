"""What the pictures show, read from the figures themselves; and that a file is a picture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray
from PIL import Image

from tunekit.retraining.figures import (
    confusion_figure,
    curves_figure,
    image_grid,
    reliability_figure,
    save_figure,
)
from tunekit.retraining.metrics import ReliabilityBin

MATRIX = np.array([[90, 10, 0], [0, 50, 1], [2, 0, 0]])
BINS = [ReliabilityBin(0.4, 0.6, 0.5, 0.25, 40), ReliabilityBin(0.8, 1.0, 0.9, 0.875, 160)]
CURVES = {"sgd": [[0.2, 0.4, 0.6], [0.4, 0.6, 0.8]], "adamw": [[0.1, 0.2, 0.3], [0.3]]}


def drawn(figure: Figure, tmp_path: Path) -> tuple[int, int]:
    """Width and height of the file; drawing must warn of nothing."""
    path = tmp_path / "figures" / "figure.png"
    save_figure(figure, path)
    with Image.open(path) as image:
        assert image.format == "PNG"
        image.load()
        assert image.info["dpi"] == pytest.approx((150, 150), abs=0.1)
        return image.size


def texts(axes: Axes) -> dict[tuple[float, float], str]:
    return {text.get_position(): text.get_text() for text in axes.texts}


def pictures(figure: Figure) -> list[Axes]:
    return [axes for axes in figure.axes if axes.images]


def crosses(figure: Figure) -> list[tuple[float, float]]:
    marks = [line.get_xydata() for line in figure.axes[0].lines if line.get_marker() == "x"]
    return [tuple(point) for mark in marks for point in np.asarray(mark)]


def legend(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.legends[0].get_texts()]


def bars(axes: Axes) -> list[tuple[float, float]]:
    """Left edge and height."""
    return [(bar.get_x(), bar.get_height()) for bar in axes.patches if isinstance(bar, Rectangle)]


def luminance(colour: Any) -> float:
    """Relative luminance, 0 to 1, as WCAG 2.2 defines it."""
    red, green, blue = (
        part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in to_rgb(colour)
    )
    return float(0.2126 * red + 0.7152 * green + 0.0722 * blue)


def noise(n: int, channels: int) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (n, 8, 8, channels), dtype=np.uint8)


def test_confusions_are_written_in_their_cells_and_nothing_where_there_are_none(tmp_path: Path) -> None:
    figure = confusion_figure(MATRIX, ["cat", "dog", "frog"])
    axes = figure.axes[0]
    assert texts(axes) == {(0, 0): "90", (1, 0): "10", (1, 1): "50", (2, 1): "1", (0, 2): "2"}
    assert [label.get_text() for label in axes.get_yticklabels()] == ["cat", "dog", "frog"]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("predicted class", "true class")
    assert axes.get_title(loc="left") == "91.5% of 153 images right, 13 mistakes"
    assert np.asarray(axes.images[0].get_array())[0] == pytest.approx([0.9, 0.1, 0])
    drawn(figure, tmp_path)


@pytest.mark.parametrize("count", range(0, 101, 5))
def test_counts_can_be_read_on_light_and_on_dark_cells(count: int) -> None:
    axes = confusion_figure(np.array([[count, 100 - count], [0, 1]]), ["a", "b"]).axes[0]
    for text in axes.texts:
        column, row = text.get_position()
        cell = axes.images[0].to_rgba(np.asarray(axes.images[0].get_array()))[int(row), int(column)]
        light = sorted(luminance(colour) for colour in (text.get_color(), tuple(cell)))
        assert (light[1] + 0.05) / (light[0] + 0.05) > 4.5  # what WCAG 2.2 asks of text, criterion 1.4.3


def test_many_classes_with_long_names_are_coloured_and_not_counted(tmp_path: Path) -> None:
    names = [f"a name that goes on and on and on {k}" for k in range(100)]
    figure = confusion_figure(np.eye(100, dtype=np.int64), names)
    axes = figure.axes[0]
    assert not axes.texts
    labels = [label.get_text() for label in axes.get_xticklabels()]
    assert len(labels) == 100
    assert all(len(label) <= 24 for label in labels)
    assert len(set(labels)) == 100
    assert axes.get_title(loc="left") == "100.0% of 100 images right, no mistake"
    assert max(drawn(figure, tmp_path)) < 2500


def test_of_a_thousand_classes_some_are_named() -> None:
    axes = confusion_figure(np.eye(1000, dtype=np.int64), [f"class {k}" for k in range(1000)]).axes[0]
    named = {int(label.get_position()[1]): label.get_text() for label in axes.get_yticklabels()}
    assert 50 < len(named) <= 120
    assert all(text == f"class {place}" for place, text in named.items())


def test_names_are_shown_as_they_are_in_any_script(tmp_path: Path) -> None:
    names = ["$x_1$ and $y$", "日本語", "50 % off"]
    figure = confusion_figure(MATRIX, names)
    drawn(figure, tmp_path)
    label = figure.axes[0].get_yticklabels()[0]
    assert label.get_text() == names[0]
    assert not label.get_parse_math()


def test_reliability_shows_accuracy_by_confidence_and_the_share_of_images(tmp_path: Path) -> None:
    figure = reliability_figure(BINS, None)
    accuracy, images = figure.axes
    assert bars(accuracy) == [(0.4, 0.25), (0.8, 0.875)]
    assert [height for _, height in bars(images)] == pytest.approx([0.2, 0.8])
    assert (accuracy.get_ylabel(), images.get_ylabel()) == ("accuracy", "share of images")
    assert "confidence" in images.get_xlabel()
    assert np.asarray(accuracy.lines[0].get_xydata()).tolist() == [[0, 0], [1, 1]]
    assert accuracy.get_title(loc="left") == "As trained: ECE 7.0%"
    drawn(figure, tmp_path)


def test_reliability_after_temperature_scaling_stands_beside(tmp_path: Path) -> None:
    figure = reliability_figure(BINS, BINS[1:])
    titles = [axes.get_title(loc="left") for axes in figure.axes]
    assert titles == ["As trained: ECE 7.0%", "After temperature scaling: ECE 2.5%", "", ""]
    width, height = drawn(figure, tmp_path)
    assert width > height


@pytest.mark.parametrize("channels", [1, 3])
def test_the_grid_shows_each_image_with_its_caption(channels: int, tmp_path: Path) -> None:
    images = noise(8, channels)
    figure = image_grid(images, [f"caption {k}" for k in range(8)], "Mistakes", columns=3)
    shown = pictures(figure)
    assert [axes.get_xlabel() for axes in shown] == [f"caption {k}" for k in range(8)]
    for axes, image in zip(shown, images, strict=True):
        pixels = np.asarray(axes.images[0].get_array())
        assert (pixels.reshape(image.shape) == image).all()
        assert axes.images[0].get_interpolation() == "nearest"
        if channels == 1:
            assert axes.images[0].get_cmap().name == "gray"
            assert axes.images[0].get_clim() == (0, 255)
    assert figure.get_suptitle() == "Mistakes"
    width, height = drawn(figure, tmp_path)
    assert height > 0.8 * width  # 3 rows of 3


def test_large_images_are_not_shown_as_squares() -> None:
    figure = image_grid(np.zeros((1, 300, 200, 3), np.uint8), ["large"], "One")
    assert figure.axes[0].images[0].get_interpolation() == "antialiased"


def test_no_images_are_said_to_be_none(tmp_path: Path) -> None:
    figure = image_grid(noise(0, 3), [], "Mistakes")
    assert not pictures(figure)
    assert {text.get_text() for text in figure.texts} == {"Mistakes", "no images"}
    drawn(figure, tmp_path)


def test_long_captions_are_shortened_and_lines_kept() -> None:
    captions = ["cat taken for dog\n99% sure", "a_name_that_goes_on_and_on_and_on", " ".join(["word"] * 40)]
    kept, word, sentence = (axes.get_xlabel() for axes in pictures(image_grid(noise(3, 1), captions, "")))
    assert kept == "cat taken for dog\n99% sure"
    assert len(word) <= 20
    assert word.startswith("a_name")
    assert sentence.endswith("...")
    assert sentence.count("\n") == 3


def test_a_curve_is_the_mean_over_seeds_and_a_band_their_range(tmp_path: Path) -> None:
    figure = curves_figure(CURVES, "validation accuracy", "Two recipes")
    axes = figure.axes[0]
    sgd, adamw = (np.asarray(line.get_xydata()) for line in axes.lines if line.get_marker() != "x")
    assert sgd == pytest.approx(np.array([[1, 0.3], [2, 0.5], [3, 0.7]]))
    assert adamw == pytest.approx(np.array([[1, 0.2], [2, 0.2], [3, 0.3]]))
    corners = axes.collections[0].get_paths()[0].vertices
    assert {(1, 0.2), (1, 0.4), (3, 0.6), (3, 0.8)} <= {tuple(corner) for corner in np.asarray(corners)}
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("epoch", "validation accuracy")
    assert axes.get_title(loc="left") == "Two recipes"
    drawn(figure, tmp_path)


def test_a_cross_marks_where_a_seed_ended_early() -> None:
    figure = curves_figure(CURVES, "", "")
    assert crosses(figure) == [(1, 0.3)]
    assert legend(figure) == ["sgd", "adamw", "a seed ended early"]
    assert legend(curves_figure({"sgd": CURVES["sgd"]}, "", "")) == ["sgd"]


def test_values_that_are_not_finite_end_a_seed(tmp_path: Path) -> None:
    diverged = {"a": [[0.1, float("nan"), float("inf")], [0.3, 0.4, 0.5]], "b": [[float("nan")]]}
    figure = curves_figure(diverged, "", "")
    assert np.asarray(figure.axes[0].lines[0].get_ydata()) == pytest.approx([0.2, 0.4, 0.5])
    assert crosses(figure) == [(1, 0.1)]
    drawn(figure, tmp_path)


@pytest.mark.parametrize("curves", [{}, {"none": []}, {"empty": [[], []]}, {"one epoch": [[0.5]]}])
def test_few_values_are_no_mistake(curves: dict[str, list[list[float]]], tmp_path: Path) -> None:
    figure = curves_figure(curves, "accuracy", "Little")
    assert legend(figure) == list(curves)
    drawn(figure, tmp_path)


def test_no_two_recipes_look_alike() -> None:
    lines = curves_figure({f"recipe {k}": [[0.1, 0.2]] for k in range(20)}, "", "").axes[0].lines
    assert len({(line.get_color(), line.get_linestyle()) for line in lines}) == 20


def test_a_saved_figure_replaces_the_last_one_and_leaves_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "figure.png"
    save_figure(curves_figure(CURVES, "", "first"), path)
    before = path.read_bytes()
    save_figure(curves_figure(CURVES, "", "second"), path)
    assert path.read_bytes() != before
    assert list(tmp_path.iterdir()) == [path]
