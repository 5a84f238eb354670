"""Files that hold a training's state. Nothing that is read back can run code."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from tunekit.errors import TunekitError
from tunekit.paths import atomic_write

_FORMAT = 4
_LARGEST_SIDE = 4096  # pixels, of images that a file of weights may be for


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write a training's `state()` so that `path` holds the old or the new one, never a half."""
    with atomic_write(path) as temporary:
        torch.save({"format": _FORMAT, **state}, temporary)


def load_checkpoint(path: Path) -> dict[str, Any] | None:
    """The state in `path`, on the CPU; None if there is no such file.

    Raises:
        TunekitError: if the file is damaged or holds anything but tensors and plain values.
    """
    if not path.exists():
        return None
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        if state.pop("format") != _FORMAT:
            raise KeyError("format")
    except Exception as error:  # torch.load raises a different class for each kind of damage
        raise TunekitError(f"{path}: is not a checkpoint of this version ({type(error).__name__})") from None
    return state


@dataclass(frozen=True)
class BestWeights:
    """The weights of a trial's best epoch, with all that is needed to use them."""

    weights: dict[str, Tensor]
    recipe: dict[str, Any]  # flat: dotted key to value
    epoch: int
    val_accuracy: float
    classes: list[str]
    image_shape: tuple[int, int, int]  # H, W, C
    mean: list[float]  # a channel, of pixels scaled to 0..1
    std: list[float]


def save_best(path: Path, model: nn.Module, description: dict[str, Any]) -> None:
    """Write weights and their description (the other fields of `BestWeights`), atomically."""
    weights = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    metadata = {name: json.dumps(value) for name, value in description.items()}
    with atomic_write(path) as temporary:
        save_file(weights, temporary, metadata)


def load_best(path: Path) -> BestWeights:
    """The weights and description in `path`, on the CPU.

    Raises:
        TunekitError: if the file is absent or damaged.
    """
    try:
        with safe_open(path, framework="pt") as file:
            description = {name: json.loads(text) for name, text in (file.metadata() or {}).items()}
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        description["image_shape"] = tuple(description["image_shape"])
        best = BestWeights(weights, **description)
        _check_description(best)
        return best
    except (OSError, SafetensorError, TypeError, ValueError, KeyError, RecursionError) as error:
        raise TunekitError(f"{path}: no weights that can be read ({error})") from None


def _check_description(best: BestWeights) -> None:
    """The file of a stranger must not make a network of any size, or fail later and elsewhere."""
    shape, channels = best.image_shape, best.image_shape[-1]
    if len(shape) != 3 or not all(type(n) is int and 1 <= n <= _LARGEST_SIDE for n in shape):
        raise ValueError(f"image_shape must be 3 whole numbers of 1 to {_LARGEST_SIDE}, but is {shape}")
    numbers = [*best.mean, *best.std]
    if len(numbers) != 2 * channels or not all(type(n) is float and math.isfinite(n) for n in numbers):
        raise ValueError("mean and std must be a number for each channel")
    if not (best.classes and all(isinstance(name, str) for name in best.classes)):
        raise ValueError("classes must be names")
    if not isinstance(best.recipe, dict):
        raise ValueError("recipe must be keys and values")
