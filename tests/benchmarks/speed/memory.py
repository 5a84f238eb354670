"""Memory of a search: what each further trial at the same time costs, and what the driver takes.

Measured as the proportional set size (Linux: pages that n processes share count 1/n for each), so a data set
that is mapped from one file counts once. Two searches of full CIFAR-10 images differ in how many trials run
at a time.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

import psutil

from tests.benchmarks.speed.figures import Part
from tests.benchmarks.speed.waiting import SPACE
from tunekit.data.datasets import open_dataset
from tunekit.models.build import build_model
from tunekit.recipe import Recipe


def measure(data: Path, runs: int) -> Part:
    """Searches of CIFAR-10 with two and with four trials at a time."""
    part = Part(
        "Memory",
        "CIFAR-10, all 40,000 training images, resnet20, batch 128; proportional set size after 45 s, in MB.",
    )
    pack = open_dataset("cifar10", data)
    images = pack.train()[0].nbytes / 1e6
    for _ in range(runs):
        two, four = _peaks(data, 2), _peaks(data, 4)
        further = (four["workers"] - two["workers"]) / 2
        for name, megabytes in {
            "two trials at a time: workers": two["workers"],
            "four trials at a time: workers": four["workers"],
            "each further trial": further,
            "the driver": four["driver"],
            "Ray's own processes": four["ray"],
        }.items():
            part.add(name, "MB", [megabytes])
    weights = sum(p.nbytes for p in build_model(Recipe(), (32, 32, 3), 10).parameters()) / 1e6
    part.add("for comparison: the training images", "MB", [images])
    part.add("for comparison: weights, gradients and momentum", "MB", [3 * weights])
    return part


def _peaks(data: Path, at_once: int) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        space = Path(folder) / "one.toml"
        space.write_text(SPACE)
        words = ["search", "cifar10", "--space", str(space), "--name", "s", "--quiet", "--epochs", "1"]
        words += ["--samples", "4", "--cpus-per-trial", str((os.cpu_count() or 1) / at_once)]
        words += ["--data-dir", str(data), "--results-dir", folder]
        search = subprocess.Popen([sys.executable, "-m", "tunekit", *words])
        try:
            time.sleep(45)
            driver = psutil.Process(search.pid)
            others = driver.children(recursive=True)
            workers = [process for process in others if "Trainable" in " ".join(process.cmdline())]
            assert len(workers) == at_once, f"{len(workers)} trials run"
            return {
                "workers": _megabytes(workers),
                "driver": _megabytes([driver]),
                "ray": _megabytes(process for process in others if process not in workers),
            }
        finally:
            search.send_signal(2)
            search.wait()


def _megabytes(processes: Iterable[psutil.Process]) -> float:
    return float(sum(process.memory_full_info().pss for process in processes)) / 1e6
