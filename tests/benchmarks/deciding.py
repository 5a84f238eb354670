"""How long a search thinks, the more trials it has: tunekit's defaults, on plain numbers.

    .venv/bin/python -m tests.benchmarks.deciding [RUNNING] [TRIALS ...]

A history of so many trials of at most 27 epochs, stopped and promoted as asha-promotion does, with so many
more in training; then new trials are asked for and results handed in. Without Ray and without MLflow; every
event is on the disk before anybody acts on it.
"""

from __future__ import annotations

import math
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TypeVar

from tunekit.history import History
from tunekit.paths import find_space
from tunekit.space import load_space
from tunekit.tuning.policy import Decision, SearchPolicy

Answer = TypeVar("Answer")

_EPOCHS = 27
_ASKED = 30  # new trials that are timed, and as many results
_METRICS = dict.fromkeys(("train_loss", "train_accuracy", "val_loss", "learning_rate", "epoch_seconds"), 0.5)


def accuracy(trial: int, epoch: int) -> float:
    """Of a made-up trial: the same whenever it is asked for."""
    return (0.5 + 0.4 * math.sin(trial * 12.9898)) * (1 - 1 / (1 + epoch))


def filled(file: Path, trials: int) -> History:
    """What a search of so many trials with random recipes leaves behind."""
    history = History(file)
    policy = SearchPolicy(
        load_space(find_space("resnet")), max_epochs=_EPOCHS, sampler="random", history=history
    )
    while len(history.trials) < trials:
        trial = policy.next().trial_id
        while epoch_of(policy, trial) == "continue":
            pass
    history.close()
    return history


def epoch_of(policy: SearchPolicy, trial: int) -> Decision:
    """Hand in the next epoch of a trial."""
    epoch = policy.history.trials[trial].epoch + 1
    return policy.report(trial, epoch, accuracy(trial, epoch), _METRICS, "host:1")


def in_training(history: History, trials: int) -> SearchPolicy:
    """tunekit's defaults, with so many trials in training."""
    space = load_space(find_space("resnet"))
    start = SearchPolicy(space, max_epochs=_EPOCHS, sampler="random", scheduler="none", history=history)
    for _ in range(trials):
        start.next()
    policy = SearchPolicy(space, max_epochs=_EPOCHS, history=history)
    for _ in range(trials):
        assert policy.next().resumes
    return policy


def timed(do: Callable[[], Answer]) -> tuple[float, Answer]:
    """Milliseconds that it takes, and what it returns."""
    started = time.perf_counter()
    answer = do()
    return (time.perf_counter() - started) * 1000, answer


def measure(running: int, trials: int) -> None:
    """Print a line of the table."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "history.jsonl"
        filled(file, trials)
        read, history = timed(lambda: History.read(file))
        policy = in_training(history, running)
        started = sorted(history.running)[:_ASKED]
        asked: list[float] = []
        while len(asked) < _ASKED:
            milliseconds, suggestion = timed(policy.next)
            asked += [] if suggestion.resumes else [milliseconds]
        handed_in = [timed(partial(epoch_of, policy, trial))[0] for trial in started]
        print(
            f"{trials:>6} trials, {running} in training: a new trial {statistics.median(asked):5.1f} ms "
            f"(at most {max(asked):.0f}), a result {statistics.median(handed_in):.2f} ms, "
            f"the history of {len(history.events):,} events read in {read:.0f} ms",
            flush=True,
        )


if __name__ == "__main__":
    numbers = [int(word) for word in sys.argv[1:]] or [512, 500, 2000, 10_000]
    for count in numbers[1:]:
        measure(numbers[0], count)
