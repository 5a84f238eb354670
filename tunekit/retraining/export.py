"""A model as a file for other programs, read back and compared before it gets its name."""

from __future__ import annotations

import copy
import importlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from tunekit.errors import TunekitError
from tunekit.paths import atomic_write
from tunekit.retraining.model_source import ImageClassifier

LARGEST_DIFFERENCE = 1e-4  # of a probability; in float32, another order of operations gave up to 5e-6

Pixels = NDArray[np.uint8]
Probabilities = NDArray[np.float32]

_EXAMPLE_IMAGES = 2  # of an example of one, torch.export would fix the batch size for ever
_CHECKED_IMAGES = (1, 5)
_ONNX_PACKAGES = ("onnx", "onnxruntime", "onnxscript")


@dataclass(frozen=True)
class ExportCheck:
    """How near the exported model is to the model."""

    largest_difference: float  # of a probability, over all images and classes
    spread: float  # largest range of a class's probability over the images; near 0, the check says little
    images: int  # random ones, on which both were run


def export_model(model: ImageClassifier, path: Path, format: str) -> ExportCheck:
    """Write a model that takes uint8 images (N, H, W, C) of any N and gives probabilities (N, classes).

    `onnx` and `torch-export` hold the whole computation. `state-dict` holds the weights by name
    (`network.*`, `mean`, `std`). In all of them classes, image_shape and recipes lie beside, as JSON.
    TorchScript is left out because it is deprecated in torch 2.15.

    Args:
        model: to export; it stays as it is.
        path: of the file; one that is there is replaced once the new one is known to be good.
        format: one of `FORMATS`.
    Returns:
        The outcome of reading the file back and running it on random images.
    Raises:
        TunekitError: if the format cannot express the model, packages are missing, or a probability
            differs by more than 1e-4; then no file is left.
    """
    if format == "onnx":
        _check_onnx_packages()
    try:
        return _write_checked(model, path, format)
    except OSError as error:
        raise TunekitError(f"cannot write {path}: {error.strerror}") from None


def default_file(model: ImageClassifier, format: str) -> Path:
    """What an exported model is called if nobody says otherwise: `digits-3.onnx`, in this folder."""
    return Path(model.name + FORMATS[format][0])


def _write_checked(model: ImageClassifier, path: Path, format: str) -> ExportCheck:
    _, write, read = FORMATS[format]
    with atomic_write(path) as temporary:
        try:
            write(model, temporary)
            check = _compare(model, read(model, temporary))
        except Exception as error:  # each library has a class for each thing that it cannot do
            raise TunekitError(f"cannot export {model.name} as {format}: {_first_line(error)}") from error
        if not check.largest_difference <= LARGEST_DIFFERENCE:  # also when it is not a number
            raise TunekitError(
                f"{model.name} as {format} differs from the model by {check.largest_difference:.1e} "
                f"in a probability, more than {LARGEST_DIFFERENCE:.0e}: no file was written"
            )
    return check


def _compare(model: ImageClassifier, exported: Callable[[Pixels], Probabilities]) -> ExportCheck:
    generator = np.random.default_rng(0)
    images = _random_images(generator, sum(_CHECKED_IMAGES), model.image_shape)
    batches = np.split(images, np.cumsum(_CHECKED_IMAGES)[:-1])
    expected = np.concatenate([_run(model.module)(batch) for batch in batches])
    found = np.concatenate([exported(batch) for batch in batches])
    difference = float(np.abs(found - expected).max())
    return ExportCheck(difference, float(np.ptp(expected, axis=0).max()), len(images))


def _random_images(generator: np.random.Generator, count: int, shape: tuple[int, int, int]) -> Pixels:
    """Of different colours and contrasts: pure noise is the same to a network, image after image."""
    colours = generator.uniform(0, 255, (count, 1, 1, shape[2]))
    contrasts = generator.uniform(0, 100, (count, 1, 1, 1))
    noise = generator.standard_normal((count, *shape))
    return (colours + contrasts * noise).clip(0, 255).astype(np.uint8)


def _run(module: nn.Module) -> Callable[[Pixels], Probabilities]:
    def run(images: Pixels) -> Probabilities:
        with torch.no_grad():
            probabilities: Probabilities = module(torch.from_numpy(images)).numpy()
        return probabilities

    return run


def _about(model: ImageClassifier) -> dict[str, str]:
    return {
        "classes": json.dumps(model.classes),
        "image_shape": json.dumps(model.image_shape),
        "recipes": json.dumps([dict(recipe) for recipe in model.recipes]),
    }


def _example(model: ImageClassifier) -> tuple[Tensor]:
    return (torch.zeros(_EXAMPLE_IMAGES, *model.image_shape, dtype=torch.uint8),)


def _exported(model: ImageClassifier) -> torch.export.ExportedProgram:
    return torch.export.export(model.module, _example(model), dynamic_shapes=[{0: torch.export.Dim.AUTO}])


def _write_torch_export(model: ImageClassifier, path: Path) -> None:
    extra = {f"{name}.json": text for name, text in _about(model).items()}
    program = _exported(model)
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # lines of source code and where they lie on this machine
    with path.open("wb") as file:
        torch.export.save(program, file, extra_files=extra)


def _read_torch_export(_model: ImageClassifier, path: Path) -> Callable[[Pixels], Probabilities]:
    with path.open("rb") as file:  # just written by us, so nothing in it is foreign
        return _run(torch.export.load(file).module())


def _write_state_dict(model: ImageClassifier, path: Path) -> None:
    # Clones, because safetensors refuses tensors that share their memory.
    weights = {name: tensor.detach().clone().contiguous() for name, tensor in _state(model.module).items()}
    save_file(weights, path, _about(model))


def _read_state_dict(model: ImageClassifier, path: Path) -> Callable[[Pixels], Probabilities]:
    module = copy.deepcopy(model.module)
    for tensor in _state(module).values():
        tensor.zero_()  # so that a weight that is not in the file shows
    module.load_state_dict(load_file(path), strict=True)
    return _run(module)


def _state(module: nn.Module) -> dict[str, Tensor]:
    state: dict[str, Tensor] = module.state_dict()
    return state


def _write_onnx(model: ImageClassifier, path: Path) -> None:
    program = torch.onnx.export(
        _exported(model),
        input_names=["images"],
        output_names=["probabilities"],
        dynamo=True,
        verbose=False,
    )
    assert program is not None
    for node in program.model.graph:
        node.metadata_props.clear()  # where the source lies on this machine
    program.model.metadata_props.update(_about(model))
    program.save(path, external_data=False)


def _read_onnx(_model: ImageClassifier, path: Path) -> Callable[[Pixels], Probabilities]:
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])

    def run(images: Pixels) -> Probabilities:
        (probabilities,) = session.run(None, {"images": images})
        return np.asarray(probabilities)

    return run


def _check_onnx_packages() -> None:
    for package in _ONNX_PACKAGES:
        try:
            importlib.import_module(package)
        except ImportError:
            raise TunekitError(
                f"the format onnx needs the package {package}: pip install 'tunekit[onnx]'"
            ) from None


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


_Writer = Callable[[ImageClassifier, Path], None]
_Reader = Callable[[ImageClassifier, Path], Callable[[Pixels], Probabilities]]
FORMATS: dict[str, tuple[str, _Writer, _Reader]] = {
    "onnx": (".onnx", _write_onnx, _read_onnx),
    "torch-export": (".pt2", _write_torch_export, _read_torch_export),
    "state-dict": (".weights.safetensors", _write_state_dict, _read_state_dict),
}
