"""The file of weights that networks begin with: the tensors of a body, and where they come from.

driver     pretrained.fetch_weights: library, file or earlier search -> one safetensors file
each trial build.build_model reads that file into a new body
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from tunekit.errors import RecipeError, TunekitError
from tunekit.paths import atomic_write


@dataclass(frozen=True)
class FirstWeights:
    """Weights of a body.

    Attributes:
        tensors: by their name within the body.
        model: `model.name` of the network that they are for.
        placement: where norm stood in the network that they come from (`model.bn_placement`).
        small_stem: whether that network had the stem for small images.
        source: where they come from, as `init` says it.
    """

    tensors: Mapping[str, Tensor]
    model: str
    placement: str
    small_stem: bool
    source: str

    def write(self, path: Path) -> None:
        """Write everything to `path` (safetensors; the other attributes are its metadata, as JSON)."""
        described = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        described.pop("tensors")
        metadata = {name: json.dumps(value) for name, value in described.items()}
        # A tensor that shares memory with another cannot be written: each gets its own.
        tensors = {name: tensor.detach().clone().contiguous() for name, tensor in self.tensors.items()}
        with atomic_write(path) as temporary:
            save_file(tensors, temporary, metadata)

    @classmethod
    def read(cls, path: Path) -> FirstWeights:
        """What `write` wrote, on the CPU.

        Raises:
            TunekitError: if the file is absent or damaged.
        """
        tensors, metadata = read_safetensors(path)
        try:
            return cls(tensors, **read_descriptions(metadata))
        except (TypeError, ValueError, RecursionError) as error:
            raise TunekitError(f"{path}: not the first weights of a search ({error})") from None

    def load(self, body: nn.Module, added: Mapping[str, Tensor]) -> None:
        """Put the weights into `body`; a first convolution for other channels is converted.

        Three channels become one by their sum and one becomes three by thirds, so that a grey image gives
        what it gave (as in timm's adapt_input_conv).

        Args:
            body: built for the same stem and placement.
            added: tensors of the body that the weights may lack, with their value.
        Raises:
            RecipeError: names the first tensor that does not fit, with both shapes.
        """
        expected = body.state_dict()
        tensors = _converted({**added, **self.tensors}, expected, first_convolution(body))
        self._check(tensors, expected)
        body.load_state_dict({name: tensor.to(expected[name].device) for name, tensor in tensors.items()})

    def _check(self, tensors: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
        for name in (*expected, *tensors):
            has, needs = (_shape(side.get(name)) for side in (tensors, expected))
            if has != needs:
                raise RecipeError(
                    f"init = {self.source!r}: {name} must be {needs} for {self.model}, but is {has}"
                )


def read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors of a file, on the CPU, and its metadata.

    Raises:
        TunekitError: if the file is absent or damaged.
    """
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise TunekitError(f"{path}: no weights that can be read ({error})") from None


def read_descriptions(metadata: Mapping[str, str]) -> dict[str, Any]:
    """What tunekit wrote beside tensors, as JSON."""
    return {name: json.loads(text) for name, text in metadata.items()}


def first_convolution(body: nn.Module) -> str:
    """The name of the weight that meets the images; empty if no convolution does."""
    convolutions = (name for name, module in body.named_modules() if isinstance(module, nn.Conv2d))
    return next((f"{name}.weight" for name in convolutions), "")


def _converted(tensors: dict[str, Tensor], expected: Mapping[str, Tensor], first: str) -> dict[str, Tensor]:
    if first not in tensors or first not in expected:
        return tensors
    weight, channels = tensors[first], expected[first].shape[1]
    if weight.ndim == 4 and {weight.shape[1], channels} == {1, 3}:
        tensors[first] = weight.sum(1, keepdim=True).expand(-1, channels, -1, -1) / channels
    return tensors


def _shape(tensor: Tensor | None) -> str:
    return "absent" if tensor is None else "x".join(map(str, tensor.shape)) or "a number"
