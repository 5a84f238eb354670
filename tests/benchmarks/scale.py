"""What a search of thousands of trials costs its driver: results a second, memory, sizes on disk.

    .venv/bin/python -m tests.benchmarks.scale [TRIALS] [REPORTS] [SAMPLER]

Trials train nothing: each step answers at once. All else is real: Ray Tune, policy, history on the disk,
MLflow (SQLite) behind its thread, the study at the end. Prints a line for every tenth of the trials.
"""

from __future__ import annotations

import math
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import psutil

from tunekit.history import Event, History
from tunekit.paths import SearchPaths, find_space, tracking_artifacts, tracking_database
from tunekit.space import load_space
from tunekit.tracking.writer import Tracker
from tunekit.tuning.checkpoint_keeper import CheckpointKeeper
from tunekit.tuning.policy import SearchPolicy
from tunekit.tuning.progress import trial_name
from tunekit.tuning.ray_session import Machine, plan_resources, ray_session
from tunekit.tuning.settings import SearchSettings
from tunekit.tuning.study_export import export_study

_SLOTS = 8


class Progress:
    """Prints how fast the last tenth was."""

    def __init__(self, history: History, trials: int) -> None:
        self._history = history
        self._every = max(1, trials // 10)
        self._ended = self._results = 0
        self._since, self._worked = time.perf_counter(), time.thread_time()

    def event(self, event: Event) -> None:
        self._results += event.kind == "result"
        self._ended += event.kind in ("complete", "stop", "fail")
        if event.kind in ("complete", "stop") and self._ended % self._every == 0:
            seconds = time.perf_counter() - self._since
            worked = (time.thread_time() - self._worked) / self._results
            memory = psutil.Process().memory_info().rss / 1e6
            print(
                f"{self._ended:>6} trials ended  {self._results / seconds:6.0f} results/s  "
                f"{worked * 1000:5.2f} ms of the driver's main thread each  "
                f"driver {memory:5.0f} MB  history {len(self._history.events):,} events",
                flush=True,
            )
            self._results = 0
            self._since, self._worked = time.perf_counter(), time.thread_time()


def no_op() -> type:
    """A trial of Ray's that trains nothing."""
    from ray.tune import Trainable

    class NoOp(Trainable):  # type: ignore[misc]
        def setup(self, config: dict[str, Any]) -> None:
            self._epoch, self._trial = config["reported"], config["trial_id"]

        def reset_config(self, new_config: dict[str, Any]) -> bool:
            self.setup(new_config)
            return True

        def step(self) -> dict[str, Any]:
            self._epoch += 1
            metrics = ("train_loss", "train_accuracy", "val_loss", "learning_rate", "epoch_seconds")
            quality = 0.5 + 0.4 * math.sin(self._trial)
            return {
                **dict.fromkeys(metrics, 0.5),
                "images_per_second": 1.0,
                "trainable_parameters": 1000,
                "micro_batches": 1,
                "epoch": self._epoch,
                "val_accuracy": quality * (1 - 1 / (1 + self._epoch)),
            }

    return NoOp


def main(trials: int, reports: int, sampler: str) -> None:
    from tunekit.tuning.adapters import TrialDesk
    from tunekit.tuning.assignment import Assignment
    from tunekit.tuning.engine import run_trials
    from tunekit.tuning.policy import Suggestion

    folder = Path(tempfile.mkdtemp())
    paths = SearchPaths(folder / "results" / "scale")
    paths.folder.mkdir(parents=True)
    space = load_space(find_space("resnet"))
    history = History(paths.history)
    uri = f"sqlite:///{tracking_database(folder / 'results')}"
    settings = SearchSettings("scale", "none", "resnet", trials, reports, 0, str(folder), uri)
    tracker = Tracker(
        paths, history, asdict(settings), uri, tracking_artifacts(folder / "results"), trial_name
    )
    progress, keeper = Progress(history, trials), CheckpointKeeper(paths, history, 3)
    for listener in (tracker.record, keeper.event, progress.event):
        history.subscribe(listener)
    policy = SearchPolicy(space, max_epochs=reports, sampler=sampler, scheduler="none", history=history)

    def assign(suggestion: Suggestion) -> Assignment:
        return Assignment(suggestion.trial_id, {}, 0, reports, 0, "", "", "")

    with tracker, ray_session(paths.folder / "log", Machine(cpus=_SLOTS)):
        resources = plan_resources(trials, 1.0, 0.0, may_grow=False)
        started = time.perf_counter()
        run_trials(TrialDesk(policy, trials, assign), resources, paths.ray, trainable=no_op())
        seconds = time.perf_counter() - started
        print(
            f"{trials} trials of {reports} reports in {seconds:.0f} s: "
            f"{trials * reports / seconds:.0f} results/s"
        )
        print(f"MLflow lacks {tracker.report().undelivered:,} events at the end of the last trial")
        started = time.perf_counter()
        left = tracker.close(600)
        print(
            f"and has them {time.perf_counter() - started:.0f} s later "
            f"(left: {left.undelivered}, {left.error})"
        )
    started = time.perf_counter()
    export_study(history, space, paths)
    sizes = {
        file.name: file.stat().st_size / 1e6
        for file in (paths.history, paths.study, tracking_database(folder / "results"))
    }
    print(f"study written in {time.perf_counter() - started:.0f} s; MB on disk: {sizes}")


if __name__ == "__main__":
    words = [*sys.argv[1:], *["5000", "10", "portfolio"][len(sys.argv) - 1 :]]
    main(int(words[0]), int(words[1]), words[2])
