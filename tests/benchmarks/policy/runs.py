"""Replays of methods and seeds, in processes of their own."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import sys
import warnings
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import redirect_stdout
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import Literal, NamedTuple, TypeVar

from tests.benchmarks.policy.comparison import Outcome, regret_of
from tests.benchmarks.policy.each_once import EachOnce
from tests.benchmarks.policy.methods import method, sources
from tests.benchmarks.policy.record import curves_of, read_table
from tests.benchmarks.policy.smooth import SmoothCurves, model_of
from tests.benchmarks.policy.warm_starts import read_warm_starts
from tunekit.paths import atomic_write
from tunekit.tuning.replay import Curves, Replay, Step, replay

AnyTask = TypeVar("AnyTask")
Answers = Literal["nearest", "once", "smooth"]
"""What behaves like a proposed recipe: the nearest one of the table, as often as it is the nearest; the
nearest one that has not answered yet (each_once.py); or a model fitted on the table (smooth.py)."""

WORKERS = 4
TRAININGS = 40  # full trainings that the budget would pay for


class Task(NamedTuple):
    """One replay."""

    table: Path
    method: str
    seed: int
    answers: Answers = "nearest"
    warm_starts: Path | None = None  # a file of them, for tunekit's samplers that learn
    prior: Path | None = None  # likewise


def key_of(task: Task) -> str:
    """Names what was replayed: method and seed, and a digest of all that decides the outcome."""
    digest = hashlib.sha256(f"{WORKERS} {TRAININGS} {task.answers}".encode())
    answering = [Path(str(sys.modules[kind.__module__].__file__)) for kind in (EachOnce, SmoothCurves)]
    known = (task.warm_starts, task.prior) if method(task.method).library == "tunekit" else ()
    for file in (task.table, Path(__file__), *answering, *filter(None, known), *sources(task.method)):
        digest.update(file.read_bytes())
    return f"{task.method} {task.seed} {digest.hexdigest()[:12]}"


def curves_for(table: Path, answers: Answers) -> Curves:
    """What answers in a replay of a table; some kinds remember what was asked: each replay needs its own."""
    if answers == "smooth":
        return SmoothCurves(model_of(table))
    recorded = curves_of(read_table(table))
    return EachOnce(recorded) if answers == "once" else recorded


def remembered(
    run: Callable[[AnyTask], Outcome], tasks: Mapping[str, AnyTask], out: Path, processes: int
) -> dict[str, Outcome]:
    """Outcomes by key, of all that is known; each is written to a file as it comes, and runs once.

    Args:
        run: makes the outcome of a task; importable, since it runs in other processes.
        tasks: by the key of their outcome.
        out: JSON; another environment may write there at the same time.
        processes: that run tasks.
    """
    known = _read(out)
    todo = {key: task for key, task in tasks.items() if key not in known}
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    with ProcessPoolExecutor(processes, multiprocessing.get_context("spawn")) as pool:
        futures = {pool.submit(run, task): key for key, task in todo.items()}
        for number, future in enumerate(as_completed(futures), start=1):
            known = {**_read(out), futures[future]: future.result()}
            with atomic_write(out) as temporary:
                temporary.write_text(json.dumps(known))
            print(f"{number} of {len(todo)}: {todo[futures[future]]}", file=sys.stderr)
    return known


def _read(out: Path) -> dict[str, Outcome]:
    return json.loads(out.read_text()) if out.is_file() else {}


def outcome_of(task: Task) -> Outcome:
    """Replay a task."""
    warnings.simplefilter("ignore")  # of the libraries that are compared
    curves = curves_for(task.table, task.answers)
    warm_starts, prior = read_warm_starts(task.warm_starts), str(task.prior or "")
    curves.space = replace(curves.space, warm_starts=warm_starts, prior=prior)
    references = curves.final  # without the recipes that this replay adds
    with redirect_stdout(sys.stderr):
        policy = method(task.method).make(curves, task.seed)
        found = replay(policy, curves, WORKERS, TRAININGS * curves.epochs)
    regret = [regret_of(curves.final[step.record], references) for step in incumbents(found)]
    return {"regret": regret, **course(found)}


def incumbents(found: Replay) -> list[Step]:
    """The steps at which another trial becomes the best; a new value of the same changes nothing."""
    return [next(steps) for _, steps in groupby(found.steps, key=lambda step: step.record)]


def course(found: Replay) -> Outcome:
    """All of an outcome but its regret."""
    return {
        "epochs": [step.epochs for step in incumbents(found)],
        "trials": found.trials,
        "suggestion_ms": [round(1000 * seconds, 3) for seconds in found.suggestion_seconds],
    }
