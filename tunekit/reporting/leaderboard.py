"""Searches, trials and the best recipe as plain rows: printed as tables or as JSON."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.table import Table

from tunekit.errors import SearchError
from tunekit.history import History, Trial, TrialStatus, commonest_reason
from tunekit.paths import SearchPaths, list_searches
from tunekit.retraining.test_set import openings
from tunekit.space import load_space
from tunekit.tuning.policy import policy_of, recipe_of
from tunekit.tuning.progress import recipe_words
from tunekit.tuning.runner import is_held
from tunekit.tuning.settings import SearchSettings

Row = dict[str, Any]

_FATES: dict[TrialStatus, str] = {
    "completed": "completed",
    "stopped": "stopped early",
    "paused": "paused",
    "running": "unfinished",
    "failed": "failed",
    "lost": "lost to the machine",
}


def search_rows(results_dir: Path) -> list[Row]:
    """One row a search, oldest first: what was asked, what came of it."""
    return [_search_row(paths) for paths in list_searches(results_dir)]


def trial_rows(paths: SearchPaths) -> list[Row]:
    """One row a trial, best first."""
    history = History.read(paths.history)
    return [_trial_row(paths, history, trial) for trial in history.ranked()]


def best_trial(paths: SearchPaths) -> Row:
    """The best trial of a search.

    Returns:
        `search, trial, val_accuracy, epoch, trainings, mean_val_accuracy, baseline, recipe (nested),
        checkpoint`; accuracy, epoch and checkpoint are those of the first of the recipe's trainings.

    Raises:
        SearchError: if no trial has a result yet.
    """
    history = History.read(paths.history)
    trial = history.best()
    if trial is None or trial.best is None:
        raise SearchError(f"search {paths.name} has no result yet")
    space = load_space(paths.space).with_fixed(SearchSettings.load(paths).fixed)
    return {
        "search": paths.name,
        "trial": trial.id,
        "val_accuracy": trial.best.value,
        "epoch": trial.best.epoch,
        "trainings": len(history.trainings(trial)),
        "mean_val_accuracy": history.recipe_value(trial),
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
            "val_accuracy": history.recipe_value(trial),
            "epochs": trial.epoch,
            "reported_accuracy": known[trial.baseline].reported_accuracy,
            "reported_epochs": known[trial.baseline].epochs,
        }
        for trial in history.recipes
        if trial.baseline and trial.best
    ]


def summary(paths: SearchPaths) -> str:
    """What became of the trials of a search, on one line; with the commonest reason where they went wrong."""
    row = _search_row(paths)
    counts, repeats = row["counts"], row["repeats"]
    reasons = {"failed": row["commonest_failure"], "lost": row["commonest_loss"]}
    fates = [
        f"{counts[status]} {words}" + (f" (most often: {reasons[status]})" if reasons.get(status) else "")
        for status, words in _FATES.items()
        if status in counts
    ]
    trials = f"{row['begun']} trial{'s' * (row['begun'] != 1)}"
    trials += f" and {repeats} repeat{'s' * (repeats != 1)}" if repeats else ""
    line = f"{trials}: {', '.join(fates)}." if fates else f"{trials}."
    if row["state"] == "finished" and row["begun"] < row["trials"]:
        line += f" The space has no other recipe, so the search ended before {row['trials']} trials."
    return line


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
    columns = ("search", "dataset", "space", "state", "trials", "best val accuracy", "begun")
    table = _table(*columns, "test set opened")
    for row in rows:
        begun = time.strftime("%Y-%m-%d %H:%M", time.localtime(row["created"]))
        best = f"{row['best_val_accuracy']:.4f}" if row["best_val_accuracy"] is not None else "-"
        trials = f"{row['ended']}/{row['trials']}"
        opened = {0: "no", 1: "once"}.get(row["test_openings"], f"{row['test_openings']} times")
        table.add_row(row["search"], row["dataset"], row["space"], row["state"], trials, best, begun, opened)
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
            recipe_words(row["baseline"], row["params"], row["default"], row["repeat_of"], row["warm_start"]),
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
    trials = history.trials.values()
    return {
        "search": paths.name,
        "dataset": settings.dataset,
        "space": settings.space,
        "state": search_state(paths, settings, history),
        "trials": settings.trials,
        "begun": len(history.recipes),
        "ended": sum(trial.over for trial in history.recipes),
        "repeats": len(trials) - len(history.recipes),
        "counts": dict(Counter(trial.status for trial in trials)),
        "commonest_failure": commonest_reason(t for t in trials if t.status == "failed"),
        "commonest_loss": commonest_reason(t for t in trials if t.status == "lost"),
        "best_trial": best.id if best else None,
        "best_val_accuracy": history.recipe_value(best) if best else None,
        "created": settings.created,
        "test_openings": len(openings(paths)),
    }


def search_state(paths: SearchPaths, settings: SearchSettings, history: History) -> str:
    """Whether a search is running, interrupted or finished; "retrained" if it is known recipes alone."""
    if is_held(paths):
        return "running"
    if settings.samples == 0 and not history.events and paths.retraining.history.exists():
        return "retrained"  # known recipes, of which `retrain-best --baseline` trained every seed itself
    space = load_space(paths.space).with_fixed(settings.fixed)
    ended = policy_of(settings, space, history).has_ended(settings.trials)
    return "finished" if ended else "interrupted"


def _trial_row(paths: SearchPaths, history: History, trial: Trial) -> Row:
    best = trial.best
    checkpoint = paths.trial(trial.id).best
    return {
        "trial": trial.id,
        "val_accuracy": best.value if best else None,
        "best_epoch": best.epoch if best else None,
        "epochs": trial.epoch,
        "status": trial.status,
        "outcome": _outcome(trial, history),
        "baseline": trial.baseline,
        "default": trial.default,
        "warm_start": trial.warm_start,
        "repeat_of": trial.repeat_of,
        "trainings": len(history.trainings(trial)),
        "mean_val_accuracy": history.recipe_value(trial) if best else None,
        "params": dict(trial.params),
        "trainable_parameters": trial.results[-1].metrics.get("trainable_parameters")
        if trial.results
        else None,
        "checkpoint": str(checkpoint) if checkpoint.is_file() else None,
    }


def _outcome(trial: Trial, history: History) -> str:
    trainings = len(history.trainings(trial))
    mean = f", mean of {trainings}: {history.recipe_value(trial):.4f}" if trainings > 1 else ""
    if trial.status in ("stopped", "paused"):
        return f"{trial.status} at {trial.rung}"
    if trial.reason:
        return f"{trial.status}: {trial.reason}"
    return trial.status + mean
