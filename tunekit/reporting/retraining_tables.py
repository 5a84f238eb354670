"""The result of a retraining for a terminal: who won, what the test set said, where the model is."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from rich.table import Table

Result = Mapping[str, Any]


def standings_table(result: Result) -> Table:
    """A row for each recipe: validation accuracy over seeds, and what it lacks on the winner."""
    table = _table("recipe", "seeds", "val accuracy", "95 % interval", "behind the winner")
    for row in result["standings"]:
        table.add_row(
            row["name"],
            str(len(row["accuracies"])),
            f"{row['mean']:.4f}",
            _interval(row["interval"]),
            _behind(row["behind"]),
        )
    return table


def accuracy_table(result: Result) -> Table:
    """A row for each tested recipe: accuracy on the test images, and what was reported of a baseline."""
    reported = {row["name"]: row for row in result["standings"] if row["reported_accuracy"] is not None}
    columns = ["recipe", "trained on", "seeds", "test accuracy", "95 % over seeds", "over seeds and images"]
    table = _table(*columns, *(["reported", "after epochs", "epochs here"] if reported else []))
    for row in result["test"]:
        cells = [
            row["name"],
            row["part"],
            str(len(row["accuracies"])),
            f"{row['mean']:.4f}",
            _interval(row["over_seeds"]),
            _interval(row["over_both"]),
        ]
        table.add_row(*cells, *(_reported(reported.get(row["name"])) if reported else []))
    return table


def failure_lines(result: Result) -> list[str]:
    """The seeds that failed, and why."""
    return [f"{row['name']}: {failure}" for row in result["standings"] for failure in row["failures"]]


def model_lines(result: Result) -> list[str]:
    """The model that is handed over, in sentences."""
    model, images = result["model"], result["test_images"]
    first = model["members"][0]
    what = f"{first['recipe']}, seed {first['seed']}"
    if len(model["members"]) > 1:
        what = f"an ensemble of {len(model['members'])} networks"
    elif model["ensemble"]:
        what += ", which no ensemble beat on the validation images"
    lines = [
        f"The model handed over is {what}: test accuracy {model['accuracy']:.4f} on {images:,} images "
        f"(95 %, binomial: {_interval(model['interval'])}), "
        f"calibration error {model['calibration_error']:.3f}{_before(model)}, "
        f"{model['images_per_second']:,.0f} images/s on {model['device']}."
    ]
    if model["ensemble"]:
        lines.append(_ensemble_line(model["ensemble"]))
    return lines


def opening_line(result: Result) -> str:
    """Whether the test set was unseen."""
    number, earlier = result["opening"]["number"], result["earlier_openings"]
    if not earlier:
        return "The test set was opened for the first time."
    last = earlier[-1]
    when = time.strftime("%Y-%m-%d %H:%M", time.localtime(last["time"]))
    times = "once" if len(earlier) == 1 else f"{len(earlier)} times"
    return (
        f"This test set was opened {times} before (last on {when} by {last['user']} for {last['search']}); "
        f"this is opening {number} of this search. Choosing by what it says makes its accuracy look too good."
    )


def registration_line(result: Result, problem: str | None) -> str:
    """Where the model is, or why it is not there."""
    registration = result["registration"]
    if registration is None:
        return f"The model is not in MLflow's registry ({problem}): the same command tries again."
    name = f"{registration['name']}, version {registration['version']}"
    best = "alias best" if registration["best"] else "not best"
    return f"Model: {name} ({best}: {registration['reason']})"


def _ensemble_line(ensemble: Mapping[str, Any]) -> str:
    interval = ensemble["gain_interval"]
    noise = ", within noise" if interval["low"] <= 0 <= interval["high"] else ""
    return (
        f"Against the winner's best network alone ({ensemble['accuracy_alone']:.4f}) it gains "
        f"{ensemble['gain']:+.4f} (95 %: {interval['low']:+.4f} to {interval['high']:+.4f}{noise}), is "
        f"{ensemble['slower']:.1f} times as slow and has {ensemble['larger']:.1f} times the parameters."
    )


def _before(model: Mapping[str, Any]) -> str:
    before = model["calibration_error_before"]
    return "" if before is None else f" ({before:.3f} before temperature {model['temperature']:.2f})"


def _behind(behind: Mapping[str, Any] | None) -> str:
    if behind is None:
        return "winner"
    interval = behind["interval"]
    words = f"{behind['mean']:.4f} ({interval['low']:+.4f} to {interval['high']:+.4f})"
    if behind["seeds"] < 2:
        return f"{words}, one seed cannot tell"
    return words if not interval["low"] <= 0 <= interval["high"] else f"{words}, within noise"


def _reported(row: Mapping[str, Any] | None) -> list[str]:
    if row is None:
        return ["-", "-", "-"]
    return [f"{row['reported_accuracy'] / 100:.4f}", str(row["reported_epochs"] or "-"), str(row["epochs"])]


def _interval(interval: Mapping[str, float] | None) -> str:
    return "-" if interval is None else f"{interval['low']:.4f} to {interval['high']:.4f}"


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        right = column in ("seeds", "val accuracy", "test accuracy")
        table.add_column(column, justify="right" if right else "left", no_wrap=True, min_width=len(column))
    return table
