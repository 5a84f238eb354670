"""How long a search will take, from one measured batch of each network. Said before the search begins."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass

_BATCH = 32
_VALIDATION_COST = 1 / 3  # of a training step, an image: forward alone
_TIMEOUT = 120.0  # seconds; a search does not wait longer for its estimate


@dataclass(frozen=True)
class Measurement:
    """What is to be measured: one training step of each network, as a trial would make it."""

    models: tuple[str, ...]  # `model.name` of a recipe
    image_shape: tuple[int, int, int]  # H, W, C
    classes: int
    cpus: float  # of a trial
    gpus: float | None  # of a trial; None for one if there is one


@dataclass(frozen=True)
class Estimate:
    """Seconds of training alone; starting the workers comes on top."""

    expected: float  # with early stopping as the scheduler is built to do it
    at_most: float  # every trial trains all epochs


class MeasuringProcess:
    """Measures in a process of its own, beside the start of Ray, and leaves no memory taken behind."""

    def __init__(self, measurement: Measurement) -> None:
        command = [sys.executable, "-m", __name__, json.dumps(asdict(measurement))]
        self._process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, start_new_session=True
        )

    def seconds_per_image(self) -> list[float] | None:
        """Wait for the figures, one a network; None if they cannot be had (say, out of memory)."""
        try:
            output, _ = self._process.communicate(timeout=_TIMEOUT)
        except subprocess.TimeoutExpired:
            return None
        return list(json.loads(output)) if self._process.returncode == 0 else None

    def close(self) -> None:
        """End the process if it still runs."""
        self._process.kill()
        self._process.communicate()


def estimate(
    seconds_per_image: Sequence[float],
    train_images: int,
    val_images: int,
    trials: int,
    epochs: int,
    slots: int,
    rungs: Sequence[int],
    reduction_factor: int,
) -> Estimate:
    """Add up a search.

    Args:
        seconds_per_image: of a training step, for each network of the space; each is taken to be as likely.
        train_images, val_images: images an epoch.
        trials: trials to run.
        epochs: of a full training.
        slots: trials at a time.
        rungs: epochs at which one trial in `reduction_factor` goes on; empty without early stopping.
        reduction_factor: see there.
    """
    images = train_images + val_images * _VALIDATION_COST
    epoch_seconds = sum(seconds_per_image) / len(seconds_per_image) * images
    share, done, expected_epochs = 1.0, 0, 0.0
    for rung in (*rungs, epochs):
        expected_epochs += share * (rung - done)
        share, done = share / reduction_factor, rung
    rounds = trials / min(slots, trials)
    return Estimate(
        expected=rounds * expected_epochs * epoch_seconds, at_most=rounds * epochs * epoch_seconds
    )


def _measure(measurement: Measurement) -> list[float]:
    from tunekit.training.step_time import seconds_per_step

    steps = [
        seconds_per_step(
            model, _BATCH, measurement.image_shape, measurement.classes, measurement.cpus, measurement.gpus
        )
        for model in measurement.models
    ]
    return [seconds / _BATCH for seconds in steps]


if __name__ == "__main__":
    print(json.dumps(_measure(Measurement(**json.loads(sys.argv[1])))))
