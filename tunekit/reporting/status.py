"""Where a search stands now, read from its folder alone: from any process and machine that sees it."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from statistics import fmean
from typing import Any

from rich.table import Table

from tunekit.history import History, Trial
from tunekit.paths import SearchPaths
from tunekit.reporting.leaderboard import search_state
from tunekit.space import load_space
from tunekit.tracking.server import masked
from tunekit.tracking.writer import tracked
from tunekit.tuning.epochs_left import epochs_left
from tunekit.tuning.policy import SearchPolicy, policy_of
from tunekit.tuning.progress import duration, recipe_words, size, trial_name
from tunekit.tuning.runner import runner_of
from tunekit.tuning.settings import SearchSettings

Row = dict[str, Any]

_RECENT = 200  # epochs from whose times the rest is estimated
_MOST_ROWS = 16  # trials that are shown one by one
_ORDER = ("running", "paused", "completed", "stopped", "failed", "lost")


def search_status(paths: SearchPaths) -> Row:
    """Where a search stands.

    Returns:
        What `tunekit status --json` prints: names, counts, seconds, bytes; absent things are None.
    Raises:
        SearchError: if settings or history are damaged.
    """
    settings, history = SearchSettings.load(paths), History.read(paths.history)
    space = load_space(paths.space).with_fixed(settings.fixed)
    policy = policy_of(settings, space, history)
    state = search_state(paths, settings, history)
    runner = runner_of(paths) if state == "running" else None
    counts = Counter[str](trial.status for trial in history.trials.values())
    trials = [history.trials[trial] for trial in sorted(history.running)]
    return {
        "search": paths.name,
        "dataset": settings.dataset,
        "space": settings.space,
        "state": state,
        "runner": asdict(runner) if runner else None,
        "last_event": history.events[-1].time if history.events else None,
        "samples": settings.samples,
        "trials": settings.trials,
        "begun": len(history.recipes),
        "ended": sum(trial.over for trial in history.recipes),
        "counts": {status: counts[status] for status in _ORDER if counts[status]},
        "best": _best(history),
        "unfinished": [_unfinished_row(policy, settings, trial) for trial in trials],
        "seconds_left": _seconds_left(policy, settings) if state in ("running", "interrupted") else None,
        "tracking_uri": masked(settings.tracking_uri),
        "events_mlflow_lacks": max(len(history.events) - tracked(paths.tracked).events, 0),
        "bytes": sum(_sizes(paths.folder)),
    }


def status_lines(row: Row, now: float | None = None) -> list[str]:
    """`search_status` in lines for a person, without the trials one by one.

    Args:
        row: from `search_status`.
        now: seconds since 1970; None for the present.
    """
    counts = ", ".join(f"{count} {_word(status, row)}" for status, count in row["counts"].items())
    lacks = row["events_mlflow_lacks"]
    lines = [
        f"Search {row['search']}: {_state_words(row, time.time() if now is None else now)}",
        f"Data    {row['dataset']}, space {row['space']}",
        f"Trials  {row['ended']} of {row['trials']} ended{': ' if counts else ''}{counts}",
        f"Best    {_best_words(row['best'])}",
    ]
    if row["seconds_left"] is not None:
        lines.append(f"Left    about {duration(row['seconds_left'])}, from the time of recent epochs")
    missing = f"lacks {lacks} event{'s' * (lacks != 1)}" if lacks else "has every event"
    lines.append(f"MLflow  {missing} ({row['tracking_uri']})")
    lines.append(f"Disk    {size(row['bytes'])}")
    return lines


def unfinished_table(row: Row) -> Table:
    """The trials that are being trained, or were when the search was interrupted, for a terminal."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("trial", "epoch", "next comparison", "val accuracy", "epoch takes"):
        table.add_column(name, justify="right", no_wrap=True, min_width=len(name))
    table.add_column("on", no_wrap=True)
    table.add_column("recipe", ratio=1)
    for one in row["unfinished"][:_MOST_ROWS]:
        table.add_row(
            f"{one['trial']:02d}",
            f"{one['epoch']}/{one['epochs']}",
            str(one["next_comparison"]),
            "-" if one["val_accuracy"] is None else f"{one['val_accuracy']:.4f}",
            "-" if one["epoch_seconds"] is None else duration(one["epoch_seconds"]),
            one["worker"] or "-",
            recipe_words(one["baseline"], one["params"], one["default"], one["repeat_of"], one["warm_start"]),
        )
    if len(row["unfinished"]) > _MOST_ROWS:
        table.add_row("", "", "", "", "", "", f"and {len(row['unfinished']) - _MOST_ROWS} more")
    return table


def _best(history: History) -> Row | None:
    trial = history.best()
    if trial is None or trial.best is None:
        return None
    return {
        "trial": trial.id,
        "val_accuracy": history.recipe_value(trial),
        "epoch": trial.best.epoch,
        "trainings": len(history.trainings(trial)),
    }


def _unfinished_row(policy: SearchPolicy, settings: SearchSettings, trial: Trial) -> Row:
    last = trial.results[-1] if trial.results else None
    return {
        "trial": trial.id,
        "name": trial_name(trial),
        "epoch": trial.epoch,
        "epochs": settings.epochs,
        "next_comparison": policy.next_comparison(trial),
        "val_accuracy": last.value if last and not trial.seen_validation else None,
        "epoch_seconds": last.metrics.get("epoch_seconds") if last else None,
        "worker": last.worker if last and last.worker else None,
        "baseline": trial.baseline,
        "default": trial.default,
        "warm_start": trial.warm_start,
        "repeat_of": trial.repeat_of,
        "params": dict(trial.params),
    }


def _seconds_left(policy: SearchPolicy, settings: SearchSettings) -> float | None:
    """Of what is expected to be trained yet, at the pace of the latest epochs, as many trials at once as now.

    Before the first epoch nothing is known.
    """
    recent = [event for event in policy.history.events if event.kind == "result"][-_RECENT:]
    metrics = [event.metrics for event in recent if event.metrics is not None]
    times = [one["epoch_seconds"] for one in metrics if "epoch_seconds" in one]
    at_once = max(len(policy.history.running), 1)
    return epochs_left(policy, settings) * fmean(times) / at_once if times else None


def _state_words(row: Row, now: float) -> str:
    runner = row["runner"]
    if runner:
        return (
            f"running for {duration(max(now - runner['since'], 0))}, "
            f"process {runner['pid']} on {runner['host']}"
        )
    if row["state"] == "running":
        return "not running, but another command works on it (say, retrain-best)"
    if row["last_event"] is None:
        return f"{row['state']}, no trial has begun"
    return f"{row['state']}, last heard of {duration(max(now - row['last_event'], 0))} ago"


def _word(status: str, row: Row) -> str:
    return "unfinished" if status == "running" and row["runner"] is None else status


def _best_words(best: Row | None) -> str:
    if best is None:
        return "no result yet"
    many = f", mean of {best['trainings']} trainings" if best["trainings"] > 1 else ""
    return f"{best['val_accuracy']:.4f} (trial {best['trial']:02d}, epoch {best['epoch']}{many})"


def _sizes(folder: Path) -> Iterator[int]:
    """Bytes of each file below `folder`; one that goes meanwhile takes none."""
    for path in folder.rglob("*"):
        try:
            status = path.lstat()
        except OSError:
            continue
        if not path.is_dir():
            yield status.st_size
