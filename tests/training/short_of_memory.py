"""A process of a test that has little memory: trains trials and prints what each gives, a JSON object a line.

    python -m tests.training.short_of_memory '[{"assignment": {...}, "steps": 2, "spare": 1048576}]'

Every trial trains in the same process, as in a worker that Ray reuses. `free_steps` of a trial are made
before memory is short; without `spare` it never is. What is loaded on first use is loaded before all trials.
"""

from __future__ import annotations

import json
import resource
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import ray.tune.trainable.trainable as ray_trainable

from tunekit.recipe import Recipe
from tunekit.training.memory import release_memory
from tunekit.tuning.assignment import Assignment
from tunekit.tuning.trainable import RecipeTrainable

_ADDRESSED, _RESIDENT = 0, 1  # columns of /proc/self/statm


def main(plan: Sequence[Mapping[str, Any]]) -> None:
    """Print the results of each trial of the plan, with the resident memory before it in bytes."""
    trials = [(Assignment(**trial["assignment"]), trial) for trial in plan]
    with tempfile.TemporaryDirectory() as folder:
        ray_trainable.DEFAULT_STORAGE_PATH = folder
        trainable = RecipeTrainable(config=asdict(_first(trials[0][0], folder)))
        trainable.step()
        for assignment, trial in trials:
            assert trainable.reset(asdict(assignment))
            before = _bytes(_RESIDENT)
            results = [trainable.step() for _ in range(trial.get("free_steps", 0))]
            release_memory()
            _allow(_bytes(_ADDRESSED) + trial["spare"] if "spare" in trial else resource.RLIM_INFINITY)
            while len(results) < trial["steps"] and not _ended_badly(results):
                results.append(trainable.step())
            _allow(resource.RLIM_INFINITY)
            print(json.dumps({"results": results, "memory_before": before}), flush=True)


def _allow(size: int) -> None:
    """Let this process have so many bytes of address space."""
    resource.setrlimit(resource.RLIMIT_AS, (size, resource.RLIM_INFINITY))


def _ended_badly(results: list[dict[str, Any]]) -> bool:
    return bool(results) and "failure" in results[-1]


def _first(assignment: Assignment, folder: str) -> Assignment:
    """The same network on tiny batches."""
    recipe = Recipe.from_flat({**assignment.recipe, "batch_size": 8, "input.size": 0, "model.head": "gap"})
    return replace(assignment, recipe=recipe.to_flat(), epochs=1, folder=str(Path(folder) / "first"))


def _bytes(column: int) -> int:
    return int(Path("/proc/self/statm").read_text().split()[column]) * resource.getpagesize()


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
