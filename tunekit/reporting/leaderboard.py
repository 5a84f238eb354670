"""Searches, trials and the best recipe as plain rows: printed as tables or as JSON."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from rich.table import Table

from tunekit.errors import SearchError
from tunekit.history import History, Trial
from tunekit.paths import SearchPaths, list_searches
from tunekit.space import load_space
from tunekit.tuning.policy import recipe_of
from tunekit.tuning.progress import recipe_words
from tunekit.tuning.settings import SearchSettings

Row = dict[str, Any]


def search_rows(results_dir: Path) -> list[Row]:
    """One row a search, oldest first: what was asked, what came of it."""
    return [_search_row(paths) for paths in list_searches(results_dir)]


def trial_rows(paths: SearchPaths) -> list[Row]:
    """One row a trial, best first."""
    return [_trial_row(paths, trial) for trial in History.read(paths.history).ranked()]


def best_trial(paths: SearchPaths) -> Row:
    """The best trial of a search.

    Returns:
        `search, trial, val_accuracy, epoch, baseline, recipe (nested), checkpoint`.

    Raises:
        SearchError: if no trial has a result yet.
    """
    trial = History.read(paths.history).best()
    if trial is None or trial.best is None:
        raise SearchError(f"search {paths.name} has no result yet")
    space = load_space(paths.space).with_fixed(SearchSettings.load(paths).fixed)
    return {
        "search": paths.name,
        "trial": trial.id,
        "val_accuracy": trial.best.value,
        "epoch": trial.best.epoch,
        "baseline": trial.baseline,
        "recipe": recipe_of(space, trial).to_dict(),
        "checkpoint": str(paths.trial(trial.id).best),
    }


def baseline_rows(paths: SearchPaths) -> list[Row]:
    """One row a baseline that has a result: what was found, what was reported."""
    settings, history = SearchSettings.load(paths), History.read(paths.history)
    known = {baseline.name: baseline for baseline in settings.known_recipes()}
    return [
        {
            "baseline": trial.baseline,
            "val_accuracy": trial.best.value,
            "epochs": trial.epoch,
            "reported_accuracy": known[trial.baseline].reported_accuracy,
            "reported_epochs": known[trial.baseline].epochs,
        }
        for trial in history.trials.values()
        if trial.baseline and trial.best
    ]


def baseline_table(rows: list[Row]) -> Table:
    """`baseline_rows` for a terminal."""
    table = _table("baseline", "val accuracy", "epochs", "reported (test)", "after epochs")
    for row in rows:
        reported = row["reported_accuracy"]
        table.add_row(
            row["baseline"],
            f"{row['val_accuracy']:.4f}",
            str(row["epochs"]),
            f"{reported / 100:.4f}" if reported is not None else "-",
            str(row["reported_epochs"] or "-"),
        )
    return table


def search_table(rows: list[Row]) -> Table:
    """`search_rows` for a terminal."""
    table = _table("search", "dataset", "space", "state", "trials", "best val accuracy", "begun")
    for row in rows:
        begun = time.strftime("%Y-%m-%d %H:%M", time.localtime(row["created"]))
        best = f"{row['best_val_accuracy']:.4f}" if row["best_val_accuracy"] is not None else "-"
        trials = f"{row['ended']}/{row['trials']}"
        table.add_row(row["search"], row["dataset"], row["space"], row["state"], trials, best, begun)
    return table


def trial_table(rows: list[Row], most: int | None = None) -> Table:
    """`trial_rows` for a terminal, the first `most` of them."""
    table = _table("trial", "val accuracy", "at epoch", "outcome", "recipe")
    for row in rows[:most]:
        accuracy = f"{row['val_accuracy']:.4f}" if row["val_accuracy"] is not None else "-"
        epoch = f"{row['best_epoch']}/{row['epochs']}" if row["best_epoch"] else f"-/{row['epochs']}"
        table.add_row(
            f"{row['trial']:02d}",
            accuracy,
            epoch,
            row["outcome"],
            recipe_words(row["baseline"], row["params"]),
        )
    return table


def recipe_table(recipe: Mapping[str, Any]) -> Table:
    """A flat recipe for a terminal."""
    table = _table("key", "value")
    for name, value in recipe.items():
        table.add_row(name, f"{value:.6g}" if isinstance(value, float) else str(value))
    return table


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        right = column in ("trials", "val accuracy", "best val accuracy", "at epoch")
        if column == "recipe":
            table.add_column(column, ratio=1)
        else:
            table.add_column(
                column, justify="right" if right else "left", no_wrap=True, min_width=len(column)
            )
    return table


def _search_row(paths: SearchPaths) -> Row:
    settings, history = SearchSettings.load(paths), History.read(paths.history)
    best = history.best()
    counts = Counter(trial.status for trial in history.trials.values())
    ended = sum(not trial.unfinished for trial in history.trials.values())
    return {
        "search": paths.name,
        "dataset": settings.dataset,
        "space": settings.space,
        "state": _state(paths, ended, settings.trials),
        "trials": settings.trials,
        "ended": ended,
        "counts": dict(counts),
        "best_trial": best.id if best else None,
        "best_val_accuracy": best.best.value if best and best.best else None,
        "created": settings.created,
    }


def _state(paths: SearchPaths, ended: int, trials: int) -> str:
    try:
        FileLock(paths.lock, timeout=0).acquire().lock.release()
    except Timeout:
        return "running"
    except OSError:
        pass  # a folder that only can be read: nobody runs a search there
    return "finished" if ended >= trials else "interrupted"


def _trial_row(paths: SearchPaths, trial: Trial) -> Row:
    best = trial.best
    checkpoint = paths.trial(trial.id).best
    return {
        "trial": trial.id,
        "val_accuracy": best.value if best else None,
        "best_epoch": best.epoch if best else None,
        "epochs": trial.epoch,
        "status": trial.status,
        "outcome": _outcome(trial),
        "baseline": trial.baseline,
        "params": dict(trial.params),
        "trainable_parameters": trial.results[-1].metrics.get("trainable_parameters")
        if trial.results
        else None,
        "checkpoint": str(checkpoint) if checkpoint.is_file() else None,
    }


def _outcome(trial: Trial) -> str:
    if trial.status == "stopped":
        return f"stopped at {trial.rung}"
    if trial.reason:
        return f"{trial.status}: {trial.reason}"
    return trial.status
