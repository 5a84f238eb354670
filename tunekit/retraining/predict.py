"""What a model says about images in files."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from tunekit.data.folder import image_files, read_images
from tunekit.errors import DataError
from tunekit.retraining.model_source import ImageClassifier


@dataclass(frozen=True)
class Prediction:
    """What the model says of one image, or why it says nothing."""

    image: Path
    classes: list[tuple[str, float]]  # with its probability, the most probable first; empty if unreadable
    problem: str = ""  # one line, which names the image


def predict(model: ImageClassifier, paths: Sequence[Path], batch: int = 64) -> Iterator[Prediction]:
    """Name the images in files and folders, in order; an unreadable one does not lose the others.

    Images are prepared as those of a folder's data set are: turned, cropped and resized to the model's shape.

    Args:
        model: that sees the images.
        paths: of images, and of folders that are searched for images.
        batch: images that the model sees at once.
    """
    for found in _found(paths):
        if isinstance(found, Prediction):
            yield found
            continue
        for start in range(0, len(found), batch):
            yield from _predict_batch(model, found[start : start + batch])


def _found(paths: Iterable[Path]) -> Iterator[list[Path] | Prediction]:
    """Runs of images in order, and between them the folders that have none."""
    images: list[Path] = []
    for path in paths:
        found = _images_of(path)
        if isinstance(found, list):
            images += found
        else:
            yield images
            yield found
            images = []
    yield images


def _images_of(path: Path) -> list[Path] | Prediction:
    if path.exists() and not (path.is_file() or path.is_dir()):  # a pipe would never end
        return Prediction(path, [], f"cannot read image {path}: it is no file")
    if not path.is_dir():
        return [path]
    try:
        images = image_files(path)
    except DataError as error:
        return Prediction(path, [], str(error))
    return images or Prediction(path, [], f"folder {path} has no images (JPEG, PNG or WebP)")


def _predict_batch(model: ImageClassifier, paths: Sequence[Path]) -> Iterator[Prediction]:
    read = list(read_images(paths, *model.image_shape))
    pixels = [image for image in read if not isinstance(image, DataError)]
    rows = iter(_probabilities(model, np.stack(pixels)) if pixels else ())
    for path, image in zip(paths, read, strict=True):
        if isinstance(image, DataError):
            yield Prediction(path, [], str(image))
        else:
            yield Prediction(path, _ranked(model.classes, next(rows)))


def _probabilities(model: ImageClassifier, images: np.ndarray) -> list[list[float]]:
    with torch.no_grad():
        probabilities: list[list[float]] = model.module(torch.from_numpy(images)).tolist()
    return probabilities


def _ranked(classes: Sequence[str], probabilities: Sequence[float]) -> list[tuple[str, float]]:
    return sorted(zip(classes, probabilities, strict=True), key=lambda pair: -pair[1])
