"""How long a search will take, and how much room: from a measured batch of each network, before it begins."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from tunekit.errors import RecipeError, RecipeFailure
from tunekit.recipe import Recipe, Value

_BATCH = 32
_VALIDATION_COST = 1 / 3  # of a training step, an image: forward alone
_TIMEOUT = 120.0  # seconds; a search does not wait longer for its estimate


@dataclass(frozen=True)
class Measurement:
    """What is to be measured: one training step of each recipe's network, as a trial would make it."""

    recipes: tuple[Mapping[str, Value], ...]  # dotted keys; each is taken to be as likely
    image_shape: tuple[int, int, int]  # H, W, C
    classes: int
    cpus: float  # of a trial
    gpus: float | None  # of a trial; None for one if there is one


@dataclass(frozen=True)
class NetworkCost:
    """What a recipe's network costs."""

    seconds: float  # of a training step, an image
    weights: int  # bytes


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

    def costs(self) -> list[NetworkCost] | None:
        """Wait for the figures, one a recipe whose network can be built; None if none can be had."""
        try:
            output, _ = self._process.communicate(timeout=_TIMEOUT)
        except subprocess.TimeoutExpired:
            return None
        figures = json.loads(output) if self._process.returncode == 0 else None
        return [NetworkCost(**figure) for figure in figures] if figures else None

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
    survivors: Sequence[tuple[int, float]] = (),
    in_full: int = 0,
    repeats: int = 1,
) -> Estimate:
    """Add up a search.

    Args:
        seconds_per_image: of a training step, for each recipe; each is taken to be as likely.
        train_images, val_images: images an epoch.
        trials: trials to run.
        epochs: of a full training.
        slots: trials at a time.
        survivors: (epoch, share), rising: after that epoch about so large a share of the trials still
            trains; empty without early stopping.
        in_full: how many of the trials are never stopped early.
        repeats: trainings of a recipe that trains to its end.
    """
    images = train_images + val_images * _VALIDATION_COST
    epoch_seconds = sum(seconds_per_image) / len(seconds_per_image) * images
    proposal, to_the_end = epochs_of_proposal(epochs, survivors)
    proposals = trials - in_full
    again = (repeats - 1) * (in_full + proposals * to_the_end) * epochs
    expected = in_full * epochs + proposals * proposal + again
    at_once = min(slots, trials)
    return Estimate(expected * epoch_seconds / at_once, trials * repeats * epochs * epoch_seconds / at_once)


def epochs_of_proposal(epochs: int, survivors: Sequence[tuple[int, float]]) -> tuple[float, float]:
    """Epochs that a trial which may end early is expected to train, and the chance that it trains them all.

    Args:
        epochs: of a full training.
        survivors: as for `estimate`.
    """
    share, done, expected = 1.0, 0, 0.0
    for epoch, left in survivors:
        expected += share * (epoch - done)
        share, done = left, epoch
    return expected + share * (epochs - done), share


@dataclass(frozen=True)
class DiskNeed:
    """Bytes that the checkpoints of a search take at the same time."""

    at_least: int
    at_most: int  # about


_STATE_AT_MOST = 4  # times the weights: themselves, two moments of each (Adam), and their average
_COPIES = 2  # of a state that is being replaced


def disk_need(weights: Sequence[int], slots: int, keep: int, paused: int) -> DiskNeed:
    """Add up the checkpoints of a search.

    Args:
        weights: bytes of each network that trials may train.
        slots: trials at a time.
        keep: recipes whose best weights stay.
        paused: how many trials may wait at the same time.
    """
    state = _STATE_AT_MOST * max(weights)
    at_most = slots * (_COPIES * state + max(weights)) + paused * state + keep * max(weights)
    return DiskNeed(at_least=(_COPIES + 1) * min(weights), at_most=at_most)


def _measure(measurement: Measurement) -> list[NetworkCost]:
    """Recipes of the same network share a measurement, and what fails is left out."""
    networks = [_network_keys(Recipe.from_flat(values)) for values in measurement.recipes]
    costs = {network: _cost(network, measurement) for network in set(networks)}
    return [found for network in networks if (found := costs[network]) is not None]


def _network_keys(recipe: Recipe) -> Recipe:
    """The keys of a recipe that decide how long a step takes; the others have their defaults."""
    return Recipe(model=recipe.model, input=recipe.input, loss=recipe.loss)


def _cost(network: Recipe, measurement: Measurement) -> NetworkCost | None:
    from tunekit.models.build import build_model
    from tunekit.training.step_time import seconds_per_step

    shape, classes = measurement.image_shape, measurement.classes
    try:
        seconds = seconds_per_step(network, _BATCH, shape, classes, measurement.cpus, measurement.gpus)
    except (RecipeError, RecipeFailure):
        return None
    weights = build_model(network, shape, classes).state_dict().values()
    return NetworkCost(seconds / _BATCH, sum(tensor.nbytes for tensor in weights))


if __name__ == "__main__":
    print(json.dumps([asdict(cost) for cost in _measure(Measurement(**json.loads(sys.argv[1])))]))
