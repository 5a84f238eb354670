"""Seconds in which nothing trains: before the first batch, between two trials, and of `tunekit --help`.

Between two trials in a reused process: from the last result of one to the first batch of the next, less the
time that building the network takes by itself, since every trial needs that.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.benchmarks.speed.figures import Part, timed, wait_until_idle
from tunekit.data.datasets import open_dataset
from tunekit.history import History
from tunekit.learning_curve import Result
from tunekit.models.build import build_model
from tunekit.paths import search_paths
from tunekit.recipe import Recipe

SPACE = """
[fixed]
"model.name" = "resnet20"

[space]
"optim.lr" = { low = 1e-3, high = 0.3, log = true }
"""


def measure(_data: Path, runs: int) -> Part:
    """Small searches on digits, packed before."""
    part = Part(
        "Waiting",
        "digits, resnet20; searches of 1 epoch, so that what is not training is most of them; "
        f"{os.cpu_count()} trials at a time.",
    )
    if not wait_until_idle():
        part.notes.append("The machine was not idle: throw these figures away.")
    help_ = [sys.executable, "-m", "tunekit", "--help"]
    timed(lambda: subprocess.run(help_, check=True, capture_output=True))
    seconds = [timed(lambda: subprocess.run(help_, check=True, capture_output=True)) for _ in range(runs)]
    part.add("tunekit --help", "s", seconds)
    with tempfile.TemporaryDirectory() as folder:
        open_dataset("digits", Path(folder) / "data")
        searches = [_search(Path(folder), f"s{run}") for run in range(runs)]
    part.add("from command to first batch", "s", [first for first, _, _ in searches])
    part.add("from last result to the prompt", "s", [last for _, last, _ in searches])
    between = [gap for _, _, gaps in searches for gap in gaps]
    part.add("between two trials in a process", "s", between)
    building = [timed(lambda: build_model(Recipe(), (8, 8, 1), 10)) for _ in range(20)]
    part.add("of which building the network", "s", building)
    part.compare(
        "0.2 s / seconds between two trials beyond building the network",
        0.2 / max(1e-9, statistics.median(between) - statistics.median(building)),
        1.0,
    )
    return part


def _search(folder: Path, name: str) -> tuple[float, float, list[float]]:
    """Seconds to the first batch, after the last result, and between the trials of each process."""
    (folder / "one.toml").write_text(SPACE)
    words = ["search", "digits", "--space", str(folder / "one.toml"), "--samples", "12", "--epochs", "1"]
    words += ["--name", name, "--data-dir", str(folder / "data"), "--results-dir", str(folder)]
    started = time.time()
    command = [sys.executable, "-m", "tunekit", *words]
    subprocess.run(command, check=True, capture_output=True)
    ended = time.time()
    history = History.read(search_paths(folder, name).history)
    results = sorted((trial.results[0] for trial in history.trials.values()), key=_begun)
    gaps: list[float] = []
    free_since: dict[str, float] = {}
    for result in results:
        if result.worker in free_since:
            gaps.append(_begun(result) - free_since[result.worker])
        free_since[result.worker] = result.time
    return _begun(results[0]) - started, ended - max(free_since.values()), gaps


def _begun(result: Result) -> float:
    return result.time - result.metrics["epoch_seconds"]
