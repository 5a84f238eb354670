"""A whole search from command to result, beside the same by hand and beside the floor of the machine.

The floor is what two bare loops (`bare_loop.py`), one on each core, take for the epochs that the search
trained. It is measured before and after the search, so that a machine that slows down shows.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tests.benchmarks.speed.bare_loop import Task, seconds_per_epoch
from tests.benchmarks.speed.figures import Part, timed, wait_until_idle
from tunekit.data.pack import Pack
from tunekit.history import History
from tunekit.paths import SearchPaths, search_paths
from tunekit.recipe import Recipe
from tunekit.space import load_space
from tunekit.tuning.settings import SearchSettings

_SPACE = """
[fixed]
"model.name" = "{model}"
"batch_size" = 128
"optim.name" = "sgd"
"optim.momentum" = 0.9
"augment.policy" = "shift_crop"

[space]
"optim.lr" = {{ low = 1e-3, high = 0.3, log = true }}
"optim.weight_decay" = {{ low = 1e-5, high = 1e-2, log = true }}
"""
_IMAGES, _TRAIN = 6000, 4800
_VALIDATION = "validation"
_UNITS = {"trained": "epochs", "trained by hand": "epochs", _VALIDATION: "of an epoch"}


@dataclass(frozen=True)
class Size:
    """How much is searched."""

    name: str
    model: str
    samples: int
    epochs: int
    wanted: float  # of the floor
    by_hand: bool  # whether it is also searched by hand


SHORT = Size("two minutes", "resnet8", 14, 9, 0.7, by_hand=True)
LONG = Size("ten minutes", "resnet20", 24, 9, 0.85, by_hand=False)


def measure(data: Path, size: Size, runs: int) -> Part:
    """Search, search by hand and train bare loops, in turn."""
    part = Part(
        f"Whole search of {size.name}",
        f"MNIST, {_IMAGES:,} images ({_TRAIN:,} train, 1,200 validate), {size.model}, batch 128, shift_crop; "
        f"{size.samples} trials of up to {size.epochs} epochs, first rung 3; {os.cpu_count()} at a time.",
    )
    rows = [_run(data, size, part) for _ in range(runs)]
    columns = {key: [row[key] for row in rows] for key in rows[0]}
    for what, values in columns.items():
        part.add(what, _UNITS.get(what, "s"), values)
    ratios = [row["floor"] / row["tunekit search"] for row in rows]
    part.compare("share of the floor that the search reaches", statistics.median(ratios), size.wanted)
    if size.by_hand:
        gains = [row["an epoch by hand"] / row["an epoch of the search"] for row in rows]
        part.compare("epochs an hour, beside the same by hand", statistics.median(gains))
    return part


def _run(data: Path, size: Size, part: Part) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        (folder / "bench.toml").write_text(_SPACE.format(model=size.model))
        if not wait_until_idle():
            part.notes.append("The machine was not idle: throw these figures away.")
        seconds, started = _search(data, folder, size)
        paths = search_paths(folder, "s")
        bare = [_bare(paths)]
        row = _account(paths, started, seconds)
        if size.by_hand:
            wall, epochs = _by_hand(data, folder, paths, size)
            row |= {"by hand": wall, "trained by hand": float(epochs), "an epoch by hand": wall / epochs}
            bare.append(_bare(paths))
        row["a bare epoch, both cores busy"] = statistics.fmean(bare)
        row["floor"] = row["trained"] * row["a bare epoch, both cores busy"] / (os.cpu_count() or 1)
        return row


def _search(data: Path, folder: Path, size: Size) -> tuple[float, float]:
    words = ["search", "mnist", "--space", str(folder / "bench.toml"), "--name", "s", "--quiet"]
    words += ["--samples", str(size.samples), "--epochs", str(size.epochs), "--train-limit", str(_IMAGES)]
    words += ["--data-dir", str(data), "--results-dir", str(folder)]
    started = time.time()
    return timed(_command([sys.executable, "-m", "tunekit", *words])), started


def _account(paths: SearchPaths, started: float, seconds: float) -> dict[str, float]:
    """Where the time of the search went."""
    results = [event for event in History.read(paths.history).events if event.kind == "result"]
    of_epochs = [event.metrics["epoch_seconds"] for event in results if event.metrics]
    of_steps = [_TRAIN / event.metrics["images_per_second"] for event in results if event.metrics]
    begun = min(event.time - took for event, took in zip(results, of_epochs, strict=True))
    ended = max(event.time for event in results)
    return {
        "tunekit search": seconds,
        "trained": float(len(results)),
        "an epoch of the search": seconds / len(results),
        "from command to first epoch": begun - started,
        "from last epoch to end": started + seconds - ended,
        "an epoch, in its own time": statistics.fmean(of_epochs),
        _VALIDATION: 1 - sum(of_steps) / sum(of_epochs),
        "between epochs, for each": ((ended - begun) * (os.cpu_count() or 1) - sum(of_epochs)) / len(results),
    }


def _by_hand(data: Path, folder: Path, paths: SearchPaths, size: Size) -> tuple[float, int]:
    """Seconds and epochs."""
    settings, split = SearchSettings.load(paths), np.load(paths.split)
    pack = Pack.open(Path(settings.data_dir) / "packed" / "mnist")
    task = {
        "recipe": {**Recipe().to_flat(), "model.name": size.model},
        "mean": pack.mean,
        "std": pack.std,
        "train": split["train"].tolist(),
        "validation": split["validation"].tolist(),
        "augment": True,
        "batch_size": 128,
        "epochs": size.epochs,
        "samples": size.samples,
        "at_once": os.cpu_count(),
        "data": str(data.resolve()),
        "results": str(folder),
    }
    file = folder / "task.json"
    file.write_text(json.dumps(task))
    clock = time.perf_counter()
    done = _command([sys.executable, "-m", "tests.benchmarks.speed.by_hand", str(file)])()
    return time.perf_counter() - clock, json.loads(done.stdout.splitlines()[-1])["epochs"]


def _bare(paths: SearchPaths) -> float:
    settings = SearchSettings.load(paths)
    first = next(iter(History.read(paths.history).trials.values()))
    recipe = {**Recipe().to_flat(), **load_space(paths.space).fixed, **first.params}
    pack = Path(settings.data_dir) / "packed" / "mnist"
    return seconds_per_epoch(Task(recipe, str(pack), str(paths.split)), os.cpu_count() or 1, epochs=8)


def _command(words: list[str]) -> Callable[[], subprocess.CompletedProcess[str]]:
    return lambda: subprocess.run(words, check=True, capture_output=True, text=True)
