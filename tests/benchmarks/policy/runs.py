"""Replays of methods and seeds, in processes of their own."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import sys
import warnings
from collections.abc import Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import redirect_stdout
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

from tests.benchmarks.policy.comparison import Outcome, regret_of
from tests.benchmarks.policy.methods import method, sources
from tests.benchmarks.policy.record import curves_of, read_table
from tests.benchmarks.policy.smooth import SmoothCurves, model_of
from tests.benchmarks.policy.warm_starts import read_warm_starts
from tunekit.tuning.replay import Curves, replay

WORKERS = 4
TRAININGS = 40  # full trainings that the budget would pay for


class Task(NamedTuple):
    """One replay."""

    table: Path
    method: str
    seed: int
    smooth: bool = False  # whether the table's recipes answer, or the model fitted on them
    warm_starts: Path | None = None  # a file of them, for tunekit's samplers that learn


def key_of(task: Task) -> str:
    """Names what was replayed: method and seed, and a digest of all that decides the outcome."""
    digest = hashlib.sha256(f"{WORKERS} {TRAININGS}".encode())
    model = [Path(str(sys.modules[SmoothCurves.__module__].__file__))] if task.smooth else []
    starts = [task.warm_starts] if task.warm_starts and method(task.method).library == "tunekit" else []
    for file in (task.table, Path(__file__), *model, *starts, *sources(task.method)):
        digest.update(file.read_bytes())
    return f"{task.method} {task.seed} {digest.hexdigest()[:12]}"


def curves_for(table: Path, smooth: bool) -> Curves:
    """What answers in a replay of a table; smooth curves grow with it, so each replay needs its own."""
    return SmoothCurves(model_of(table)) if smooth else curves_of(read_table(table))


def replayed(todo: Mapping[str, Task], processes: int) -> Iterator[tuple[str, Outcome]]:
    """Outcomes by key, as they come."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    with ProcessPoolExecutor(processes, multiprocessing.get_context("spawn")) as pool:
        futures = {pool.submit(_outcome, task): key for key, task in todo.items()}
        for future in as_completed(futures):
            yield futures[future], future.result()


def _outcome(task: Task) -> Outcome:
    warnings.simplefilter("ignore")  # of the libraries that are compared
    curves = curves_for(task.table, task.smooth)
    curves.space = replace(curves.space, warm_starts=read_warm_starts(task.warm_starts))
    references = curves.final  # without the recipes that this replay adds
    with redirect_stdout(sys.stderr):
        policy = method(task.method).make(curves, task.seed)
        found = replay(policy, curves, WORKERS, TRAININGS * curves.epochs)
    # A new value of the same recipe changes nothing here.
    changes = [next(steps) for _, steps in groupby(found.steps, key=lambda step: step.record)]
    return {
        "epochs": [step.epochs for step in changes],
        "regret": [regret_of(curves.final[step.record], references) for step in changes],
        "trials": found.trials,
        "suggestion_ms": [round(1000 * seconds, 3) for seconds in found.suggestion_seconds],
    }
