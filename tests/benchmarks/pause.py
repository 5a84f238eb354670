"""Seconds that a pause and a resume cost: from the promotion to the first step of the resumed training.

    .venv/bin/python -m tests.benchmarks.pause [TRIALS]

A search on digits with `--scheduler asha-promotion`. A paused trial goes on as a new trial of Ray's, in a
process that another trial leaves: its network is built and its last checkpoint is loaded again. A result
arrives at the end of its epoch, so the first step is that time less the seconds that the epoch took.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
from pathlib import Path

from tunekit.data.datasets import open_dataset
from tunekit.history import EventKind, History
from tunekit.paths import tracking_database
from tunekit.tuning.begin import begin_search
from tunekit.tuning.progress import QuietView
from tunekit.tuning.search import run_search
from tunekit.tuning.settings import SearchSettings

_SPACE = """
[fixed]
"model.name" = "resnet20"
"batch_size" = 32

[space]
"optim.lr" = { low = 1e-4, high = 0.3, log = true }
"""


def promotion_search(folder: Path, trials: int) -> History:
    """The history of a search in which trials pause and are promoted."""
    open_dataset("digits", folder / "data")
    space = folder / "space.toml"
    space.write_text(_SPACE)
    settings = SearchSettings(
        name="pause",
        dataset="digits",
        space=str(space),
        samples=trials,
        epochs=5,
        seed=0,
        data_dir=str(folder / "data"),
        tracking_uri=f"sqlite:///{tracking_database(folder / 'results')}",
        scheduler="asha-promotion",
        grace_period=1,
        reduction_factor=2,  # so that many are promoted
        train_limit=400,
    )
    return run_search(begin_search(settings, folder / "results", QuietView()), QuietView()).history


def seconds_to_first_step(history: History, kind: EventKind) -> list[float]:
    """From each event of this kind to the first step that its trial then made."""
    seconds = []
    for place, event in enumerate(history.events):
        later = history.events[place + 1 :]
        result = next((e for e in later if e.kind == "result" and e.trial == event.trial), None)
        if event.kind == kind and result is not None and result.metrics is not None:
            seconds.append(result.time - result.metrics["epoch_seconds"] - event.time)
    return seconds


def summary(name: str, seconds: list[float]) -> str:
    """Median, smallest and largest on one line."""
    if not seconds:
        return f"{name:44} none"
    low, high = min(seconds), max(seconds)
    return f"{name:44} {statistics.median(seconds):6.2f} s  ({low:.2f} to {high:.2f}, n = {len(seconds)})"


def main(trials: int) -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory() as folder:
        history = promotion_search(Path(folder), trials)
    epochs = [e.metrics["epoch_seconds"] for e in history.events if e.kind == "result" and e.metrics]
    begun = seconds_to_first_step(history, "suggest")
    print("median (range)")
    print(summary("promotion to the first step", seconds_to_first_step(history, "resume")))
    print(summary("a new trial to its first step", begun[2:]))  # the first wait for their processes
    print(summary("one epoch, to compare", epochs))


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 20)
