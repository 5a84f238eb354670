"""Seconds from `tunekit search` to the first trained batch, and of `tunekit --help`.

    .venv/bin/python -m tests.benchmarks.first_batch [RUNS]

Each run is a search of its own on digits, packed before. The first batch begins when the first result
arrives, less the seconds that its epoch took.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tunekit.data.datasets import open_dataset
from tunekit.history import History
from tunekit.paths import search_paths

_SEARCH = ("search", "digits", "--space", "resnet", "--samples", "2", "--epochs", "1", "--name", "s")


def seconds_to_first_batch(data_dir: Path, results_dir: Path) -> tuple[float, float]:
    """(start of the command to first batch, whole command) in seconds."""
    started, clock = time.time(), time.monotonic()
    folders = ("--data-dir", str(data_dir), "--results-dir", str(results_dir))
    subprocess.run([sys.executable, "-m", "tunekit", *_SEARCH, *folders], check=True, capture_output=True)
    whole = time.monotonic() - clock
    trials = History.read(search_paths(results_dir, "s").history).trials.values()
    begun = [trial.results[0].time - trial.results[0].metrics["epoch_seconds"] for trial in trials]
    return min(begun) - started, whole


def seconds_of_help() -> float:
    """`tunekit --help` in a process of its own."""
    clock = time.monotonic()
    subprocess.run([sys.executable, "-m", "tunekit", "--help"], check=True, capture_output=True)
    return time.monotonic() - clock


def summary(name: str, seconds: list[float]) -> str:
    """Median, smallest and largest on one line."""
    return f"{name:32} {statistics.median(seconds):6.2f} s  ({min(seconds):.2f} to {max(seconds):.2f})"


def main(runs: int) -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory() as folder:
        data_dir = Path(folder) / "data"
        open_dataset("digits", data_dir)
        pairs = [seconds_to_first_batch(data_dir, Path(folder) / f"results{run}") for run in range(runs)]
    seconds_of_help()
    print(f"median (range) of {runs} runs")
    print(summary("tunekit --help", [seconds_of_help() for _ in range(runs)]))
    print(summary("search to first batch", [first for first, _ in pairs]))
    print(summary("search of 2 trials x 1 epoch", [whole for _, whole in pairs]))


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 3)
