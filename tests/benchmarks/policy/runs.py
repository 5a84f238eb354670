"""Replays of methods and seeds, in two processes."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import sys
import warnings
from collections.abc import Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import redirect_stdout
from itertools import groupby
from pathlib import Path

from tests.benchmarks.policy.comparison import Outcome, regret_of
from tests.benchmarks.policy.methods import method, sources
from tests.benchmarks.policy.record import curves_of, read_table
from tunekit.tuning.replay import replay

WORKERS = 4
TRAININGS = 40  # full trainings that the budget would pay for

Task = tuple[Path, str, int]  # table, method, seed


def key_of(task: Task) -> str:
    """Names what was replayed: method and seed, and a digest of all that decides the outcome."""
    table, name, seed = task
    digest = hashlib.sha256(f"{WORKERS} {TRAININGS}".encode())
    for file in (table, Path(__file__), *sources(name)):
        digest.update(file.read_bytes())
    return f"{name} {seed} {digest.hexdigest()[:12]}"


def replayed(todo: Mapping[str, Task]) -> Iterator[tuple[str, Outcome]]:
    """Outcomes by key, as they come, from two processes."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as pool:
        futures = {pool.submit(_outcome, *task): key for key, task in todo.items()}
        for future in as_completed(futures):
            yield futures[future], future.result()


def _outcome(table: Path, name: str, seed: int) -> Outcome:
    warnings.simplefilter("ignore")  # of the libraries that are compared
    curves = curves_of(read_table(table))
    with redirect_stdout(sys.stderr):
        found = replay(method(name).make(curves, seed), curves, WORKERS, TRAININGS * curves.epochs)
    # A new value of the same recipe changes nothing here.
    changes = [next(steps) for _, steps in groupby(found.steps, key=lambda step: step.record)]
    return {
        "epochs": [step.epochs for step in changes],
        "regret": [regret_of(curves, step.record) for step in changes],
        "trials": found.trials,
        "suggestion_ms": [round(1000 * seconds, 3) for seconds in found.suggestion_seconds],
    }
