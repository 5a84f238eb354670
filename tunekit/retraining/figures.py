"""Pictures of what a retraining found: confusions, calibration, images, learning curves.

Every function returns a Figure that no window holds; `save_figure` writes it. Colours are those of Okabe
and Ito 2008, "Color universal design", which people with any colour vision tell apart.
"""

from __future__ import annotations

import textwrap
import warnings
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator, PercentFormatter
from numpy.typing import NDArray

from tunekit.paths import atomic_write
from tunekit.retraining.metrics import ReliabilityBin, calibration_error

_BLUE, _ORANGE = "#0072B2", "#E69F00"
# Without the yellow, which is too pale for a line on white.
_COLOURS = (_BLUE, "#D55E00", "#009E73", "#CC79A7", _ORANGE, "#56B4E9", "#000000")
_DASHES = ("-", "--", ":")  # for more lines than colours
_TEXT, _GREY, _FAINT = "#222222", "#666666", "#D5D5D5"
_TITLE: dict[str, Any] = {"loc": "left", "fontsize": 11, "fontweight": "bold", "color": _TEXT}

_MOST_COUNTED = 20  # classes; no number can be read in smaller cells
_MOST_NAMED = 120  # classes; of more, every second or third is named
_NAME_LETTERS = 24
_LABEL_LETTERS = 60  # of a recipe in a legend
_CAPTION_LETTERS, _CAPTION_LINES = 20, 4
_CELL_PIXELS = 128  # smaller images show their pixels as squares


def confusion_figure(matrix: NDArray[np.int64], classes: Sequence[str]) -> Figure:
    """Which classes are taken for which: rows are true, columns predicted, coloured by share of the row.

    Args:
        matrix: (K, K) counts, of `confusion_matrix`.
        classes: K names; long ones are shortened. The counts are written for up to 20 classes.
    """
    side = float(np.clip(0.45 * len(classes), 3.2, 11.0))
    names = [_shortened(name, _NAME_LETTERS) for name in classes]
    size = float(np.clip(54 * side / len(classes), 4.5, 9))  # of the names, in points: 3/4 of a cell
    longest = max(map(len, names)) * size / 120  # about, in inches
    figure = Figure(figsize=(side + 2 + longest, side + 1 + longest), layout="constrained")
    axes = figure.subplots()
    shares = matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
    # Colour goes with the square root: one image in a hundred can be seen too.
    image = axes.imshow(shares, cmap="Blues", norm=PowerNorm(0.5, 0, 1))
    bar = figure.colorbar(image, ax=axes, shrink=0.8, aspect=30, ticks=[0, 0.01, 0.05, 0.2, 0.5, 1])
    bar.ax.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    bar.ax.tick_params(length=0, labelsize=8, labelcolor=_GREY)
    bar.set_label("share of the true class", color=_GREY, fontsize=9)
    bar.outline.set_visible(False)
    _name_classes(axes, names, size, turned=longest > 0.9 * side / len(classes))
    if len(classes) <= _MOST_COUNTED:
        _write_counts(axes, matrix, shares)
    axes.set_title(_confusion_title(matrix), **_TITLE)
    return figure


def reliability_figure(
    bins: Sequence[ReliabilityBin], after: Sequence[ReliabilityBin] | None = None
) -> Figure:
    """Whether a network is as sure as it is right: accuracy by confidence, and how many images have it.

    Args:
        bins: of `reliability_bins`, at least one.
        after: likewise, after temperature scaling; drawn beside it.
    """
    shown = {"As trained": bins, "After temperature scaling": after}
    panels = {name: part for name, part in shown.items() if part is not None}
    # Room between the panels, or the last number of one axis meets the first of the next.
    figure = Figure(figsize=(4.6 * len(panels), 5.2), layout=ConstrainedLayoutEngine(w_pad=0.14))
    columns = figure.subplots(2, len(panels), squeeze=False, sharex=True, sharey="row", height_ratios=[3, 1])
    for place, (name, part) in enumerate(panels.items()):
        upper, lower = columns[:, place]
        _draw_accuracy(upper, part)
        _draw_images(lower, part)
        upper.set_title(f"{name}: ECE {calibration_error(part):.1%}", **_TITLE)
        if place == 0:
            upper.set_ylabel("accuracy", color=_GREY)
            lower.set_ylabel("share of images", color=_GREY)
            upper.legend(loc="upper left", frameon=False, fontsize=8)
    return figure


def image_grid(images: NDArray[np.uint8], captions: Sequence[str], title: str, columns: int = 6) -> Figure:
    """Images in rows, each with its caption below.

    Args:
        images: (n, H, W, C) uint8; C is 1 (grey) or 3 (RGB); n may be 0.
        captions: n texts, of up to four short lines; what is longer is shortened.
        title: what the images are.
        columns: the most images in a row.
    """
    assert len(images) == len(captions), f"{len(images)} images, {len(captions)} captions"
    columns = min(columns, max(len(images), 3))
    rows = max(1, -(-len(images) // columns))
    lines = max((_caption(caption).count("\n") + 1 for caption in captions), default=0)
    figure = Figure(figsize=(1.45 * columns, (1.35 + 0.17 * lines) * rows + 0.4), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in grid:
        axes.set_axis_off()
    for axes, image, caption in zip(grid, images, captions, strict=False):
        axes.set_axis_on()
        _draw_image(axes, image)
        axes.set_xlabel(_caption(caption), fontsize=8, color=_TEXT, parse_math=False)
    if len(images) == 0:
        figure.text(0.5, 0.4, "no images", ha="center", color=_GREY)
    figure.suptitle(title, x=0.01, ha="left", fontsize=11, fontweight="bold", color=_TEXT, parse_math=False)
    return figure


def curves_figure(curves: Mapping[str, Sequence[Sequence[float]]], ylabel: str, title: str) -> Figure:
    """A value by epoch for each recipe: the mean over its seeds as a line, their range as a band.

    Args:
        curves: for each recipe a sequence of values for each seed, from epoch 1 on; they may differ in
            length, and be empty. A cross marks where a seed ended before the others of its recipe.
            Values that are not finite are left out.
        ylabel: what the values are.
        title: what the figure shows.
    """
    columns = _legend_columns(curves)
    figure = Figure(figsize=(7.6, 4.0 + 0.17 * (len(curves) // columns + 1)), layout="constrained")
    axes = figure.subplots()
    handles = [_draw_curve(axes, place, seeds) for place, seeds in enumerate(curves.values())]
    _plain(axes)
    axes.grid(axis="y", color=_FAINT, linewidth=0.6)
    last = max((len(seed) for seeds in curves.values() for seed in seeds if seed), default=1)
    axes.set_xlim(0.5, last + 0.5)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.set_xlabel("epoch", color=_GREY)
    axes.set_ylabel(ylabel, color=_GREY)
    axes.set_title(title, parse_math=False, **_TITLE)
    if any(line.get_marker() == "x" for line in axes.lines):
        handles.append(Line2D([], [], linestyle="", marker="x", color=_GREY))
    _add_legend(figure, handles, [*curves, "a seed ended early"][: len(handles)], columns)
    return figure


def save_figure(figure: Figure, path: Path) -> None:
    """Write a PNG with 150 dots per inch, cut to what is drawn; a file at `path` is replaced."""
    with atomic_write(path) as temporary, warnings.catch_warnings():
        # A class may be named in a script that the font lacks; boxes are drawn then, which stops nobody.
        warnings.filterwarnings("ignore", r"Glyph .* missing from", UserWarning)
        figure.savefig(temporary, format="png", dpi=150, bbox_inches="tight", facecolor="white")


def _confusion_title(matrix: NDArray[np.int64]) -> str:
    images, right = int(matrix.sum()), int(matrix.trace())
    wrong = images - right
    mistakes = "no mistake" if wrong == 0 else "1 mistake" if wrong == 1 else f"{wrong:,} mistakes"
    return f"{right / max(images, 1):.1%} of {images:,} images right, {mistakes}"


def _name_classes(axes: Axes, names: Sequence[str], size: float, turned: bool) -> None:
    step = -(-len(names) // _MOST_NAMED)
    places, shown = range(0, len(names), step), names[::step]
    axes.set_xticks(places, shown, rotation=90 if turned else 0, fontsize=size, parse_math=False)
    axes.set_yticks(places, shown, fontsize=size, parse_math=False)
    axes.tick_params(length=0, labelcolor=_TEXT)
    axes.spines[:].set_color(_FAINT)
    axes.set_xlabel("predicted class", color=_GREY)
    axes.set_ylabel("true class", color=_GREY)


def _write_counts(axes: Axes, matrix: NDArray[np.int64], shares: NDArray[np.float64]) -> None:
    """Nothing where the count is 0, so that mistakes stand out."""
    size = 9 if matrix.max(initial=0) < 10_000 else 7
    for row, column in np.argwhere(matrix):
        dark = shares[row, column] > 0.5
        style: dict[str, Any] = {"ha": "center", "va": "center", "fontsize": size}
        axes.text(column, row, str(matrix[row, column]), color="white" if dark else "black", **style)


def _draw_accuracy(axes: Axes, bins: Sequence[ReliabilityBin]) -> None:
    low, width, accuracy = _bars(bins)
    axes.bar(
        low, accuracy, width, align="edge", color=_BLUE, edgecolor="white", linewidth=0.8, label="accuracy"
    )
    axes.plot([0, 1], [0, 1], "--", color=_TEXT, linewidth=1, label="as right as sure")
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1)
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    _plain(axes)


def _draw_images(axes: Axes, bins: Sequence[ReliabilityBin]) -> None:
    low, width, _ = _bars(bins)
    images = np.array([part.images for part in bins])
    axes.bar(low, images / images.sum(), width, align="edge", color=_ORANGE, edgecolor="white", linewidth=0.8)
    axes.set_ylim(0, 1)
    axes.set_xlabel("confidence in the predicted class", color=_GREY)
    _plain(axes)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(PercentFormatter(1, decimals=0))


def _bars(
    bins: Sequence[ReliabilityBin],
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Where each bin begins, its width and its accuracy, each of shape (bins,)."""
    low, high = np.array([part.low for part in bins]), np.array([part.high for part in bins])
    return low, high - low, np.array([part.accuracy for part in bins])


def _draw_image(axes: Axes, image: NDArray[np.uint8]) -> None:
    height, width, channels = image.shape
    assert channels in (1, 3), f"{channels} channels"
    axes.imshow(
        image[..., 0] if channels == 1 else image,
        cmap="gray",
        vmin=0,
        vmax=255,
        interpolation="nearest" if max(height, width) < _CELL_PIXELS else "antialiased",
    )
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_color(_FAINT)


def _draw_curve(axes: Axes, place: int, seeds: Sequence[Sequence[float]]) -> Line2D:
    """Draw the recipe at `place`; the line that stands for it in the legend."""
    values = np.full((len(seeds), max(map(len, seeds), default=0)), np.nan)
    for row, seed in zip(values, seeds, strict=True):
        row[: len(seed)] = seed
    known = np.isfinite(values)
    seen = np.flatnonzero(known.any(0))  # epochs with a value, from 0 on
    mean = np.where(known, values, 0).sum(0)[seen] / known.sum(0)[seen]
    low = np.where(known, values, np.inf).min(0, initial=np.inf)[seen]
    high = np.where(known, values, -np.inf).max(0, initial=-np.inf)[seen]
    colour, dash = _COLOURS[place % len(_COLOURS)], _DASHES[place // len(_COLOURS) % len(_DASHES)]
    marker = "o" if len(seen) == 1 else None
    (line,) = axes.plot(seen + 1, mean, dash, color=colour, linewidth=1.8, marker=marker)
    axes.fill_between(seen + 1, low, high, color=colour, alpha=0.15, linewidth=0)
    for row, has in zip(values, known, strict=True):
        last = np.flatnonzero(has)[-1:]
        if len(last) and last[0] < seen[-1]:
            axes.plot(last + 1, row[last], "x", color=colour, markersize=6, markeredgewidth=1.5)
    return line


def _add_legend(figure: Figure, handles: Sequence[Line2D], names: Sequence[str], columns: int) -> None:
    shown = [_shortened(name, _LABEL_LETTERS) for name in names]
    legend = figure.legend(handles, shown, loc="outside lower left", frameon=False, fontsize=8, ncols=columns)
    for text in legend.get_texts():
        text.set_parse_math(False)


def _legend_columns(names: Collection[str]) -> int:
    longest = max((min(len(name), _LABEL_LETTERS) for name in names), default=0)
    return max(1, min(len(names), 110 // (longest + 8)))


def _plain(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(_GREY)
    axes.tick_params(color=_GREY, labelcolor=_TEXT, labelsize=9)


def _caption(text: str) -> str:
    words = (
        " ".join(_shortened(word, _CAPTION_LETTERS) for word in line.split()) for line in text.splitlines()
    )
    lines = [part for line in words for part in textwrap.wrap(line, _CAPTION_LETTERS, break_on_hyphens=False)]
    more = ["..."] if len(lines) > _CAPTION_LINES else []
    return "\n".join(lines[: _CAPTION_LINES - len(more)] + more)


def _shortened(name: str, letters: int) -> str:
    """The beginning and the end, which tell names apart that begin alike."""
    if len(name) <= letters:
        return name
    end = (letters - 3) // 3
    return f"{name[: letters - 3 - end]}...{name[-end:]}"
