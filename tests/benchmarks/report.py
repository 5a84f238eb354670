"""Seconds to write the report of a search, and its size in MB.

    .venv/bin/python -m tests.benchmarks.report [TRIALS ...]

The searches are made up: the shipped space `resnet`, 27 epochs with rungs at 3 and 9, one trial in twenty
fails. To write takes under 5 s for 200 trials (and under 5 MB), under 30 s for 1,000.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from tunekit.history import Event, EventKind, History
from tunekit.paths import SearchPaths, find_space, search_paths
from tunekit.reporting.report import write_report
from tunekit.space import load_space
from tunekit.tuning.samplers import suggest_random
from tunekit.tuning.settings import SearchSettings

_EPOCHS, _WORKERS = 27, 4
_LASTS = (3, 3, 3, 3, 3, 3, 9, 9, 27)  # the last epochs of nine trials


def lay_down_large_search(results_dir: Path, trials: int) -> SearchPaths:
    """A made-up search that has come to its end."""
    paths = search_paths(results_dir, f"made-up-{trials}")
    paths.folder.mkdir(parents=True)
    paths.space.write_bytes(find_space("resnet").read_bytes())
    SearchSettings(
        name=paths.name,
        dataset="digits",
        space="resnet",
        samples=trials,
        epochs=_EPOCHS,
        seed=0,
        data_dir=str(results_dir),
        tracking_uri=f"sqlite:///{results_dir}/mlflow.db",
        command=f"tunekit search digits --samples {trials} --epochs {_EPOCHS}",
        train_images=1151,
        val_images=287,
    ).save(paths)
    space = load_space(paths.space)
    history = History(paths.history)
    for trial in range(trials):
        params = suggest_random(space, trial) if trial else space.default_params()
        history.append(Event("suggest", trial, 1e9 + trial, params=params, default=trial == 0 or None))
        history.append(*_results(trial, 1e9 + 60 * (trial // _WORKERS)))
    history.close()
    return paths


def _results(trial: int, start: float) -> list[Event]:
    """A learning curve and its end."""
    random = np.random.default_rng(trial)
    last = _LASTS[trial % len(_LASTS)]
    height, speed = 0.5 + 0.5 * random.beta(4, 1), random.uniform(0.2, 2)
    events = [
        Event(
            "result",
            trial,
            start + 2 * epoch,
            epoch,
            float(np.clip(height * (1 - np.exp(-speed * epoch)) + random.normal(0, 0.005), 0, 1)),
            metrics={"train_loss": 2 / epoch, "val_loss": 2.2 / epoch, "epoch_seconds": 2.0},
            worker=f"node {trial % _WORKERS}",
        )
        for epoch in range(1, last + 1)
    ]
    if trial % 20 == 7:
        return [events[0], Event("fail", trial, start + 4, 2, reason="the loss is not finite in epoch 2")]
    kind: EventKind = "complete" if last == _EPOCHS else "stop"
    return [*events, Event(kind, trial, start + 2 * last, last)]


def main(sizes: list[int]) -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory() as folder:
        write_report(lay_down_large_search(Path(folder) / "warm", 4))  # imports, which a command pays once
        for trials in sizes:
            paths = lay_down_large_search(Path(folder), trials)
            clock, cpu = time.monotonic(), time.process_time()
            size = write_report(paths).stat().st_size
            seconds, busy = time.monotonic() - clock, time.process_time() - cpu
            print(f"{trials:5} trials: {seconds:6.2f} s (CPU {busy:.2f} s), {size / 1e6:.2f} MB")


if __name__ == "__main__":
    main([int(argument) for argument in sys.argv[1:]] or [200, 1000])
