"""The data sets that are known by name, and the one door to every data set."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tunekit.data.downloads import DOWNLOADS, load_download
from tunekit.data.folder import HOLD_OUT_SEED, TEST_FRACTION, load_folder, scan_folder
from tunekit.data.pack import Content, Pack, Part, ensure_pack
from tunekit.data.split import stratified_split
from tunekit.errors import DataError, nearest
from tunekit.paths import pack_folder

_FOLDER_IMAGE_SIZE = 64


@dataclass(frozen=True)
class DatasetInfo:
    """What is known of a data set before it is there."""

    name: str
    description: str
    classes: int
    train_images: int
    test_images: int
    shape: tuple[int, int, int]  # H, W, C


CATALOGUE: dict[str, DatasetInfo] = {
    info.name: info
    for info in (
        DatasetInfo("digits", "handwritten digits, inside scikit-learn", 10, 1_438, 359, (8, 8, 1)),
        DatasetInfo("mnist", "handwritten digits", 10, 60_000, 10_000, (28, 28, 1)),
        DatasetInfo("fashion-mnist", "pieces of clothing", 10, 60_000, 10_000, (28, 28, 1)),
        DatasetInfo("cifar10", "photos of animals and vehicles", 10, 50_000, 10_000, (32, 32, 3)),
        DatasetInfo("cifar100", "photos of 100 kinds of things", 100, 50_000, 10_000, (32, 32, 3)),
    )
}


def open_dataset(
    name: str,
    data_dir: Path,
    image_size: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Pack:
    """The packed data set called `name`, its training part verified; downloaded and packed if need be.

    Args:
        name: a name in `CATALOGUE`, else a folder of class folders (see `folder.py`).
        data_dir: where data sets lie and packs are kept.
        image_size: side in pixels of a folder's images (default 64). Named data sets keep their size.
        progress: called with (images read, images in all) while a folder is packed.
    Raises:
        DataAbsentError: if a named data set is neither there nor downloadable.
        DataError: if there is no such data set, or it cannot be read or written.
    """
    data_dir = data_dir.expanduser().resolve()
    if name in CATALOGUE:
        if image_size is not None:
            raise DataError(f"{name} keeps its own size: an image size is for folders of images")
        return ensure_pack(pack_folder(data_dir, name), lambda: _load_named(name, data_dir))
    folder = _without_tilde(Path(name))
    if not (name and folder.is_dir()):
        raise DataError(f"no data set called {name!r}, and no folder there{nearest(name, CATALOGUE)}")
    side = _FOLDER_IMAGE_SIZE if image_size is None else image_size
    if side < 1:
        raise DataError(f"the image size must be 1 pixel or more, but got {side}")
    images = scan_folder(folder)
    return ensure_pack(
        pack_folder(data_dir, images.key(side)), lambda: load_folder(images, side, progress), images.checksum
    )


def dataset_status(data_dir: Path) -> list[dict[str, Any]]:
    """Each data set of the catalogue as a plain dict, with its `state` in `data_dir`.

    Returns:
        The fields of `DatasetInfo`, and `state`: "packed", "downloaded" (its files are there),
        "included" (comes with scikit-learn) or "absent".
    """
    data_dir = data_dir.expanduser()
    return [
        {**asdict(info), "shape": list(info.shape), "state": _state(name, data_dir)}
        for name, info in CATALOGUE.items()
    ]


def _without_tilde(path: Path) -> Path:
    try:
        return path.expanduser()
    except RuntimeError:  # the home of somebody whom this machine does not know
        return path


def _state(name: str, data_dir: Path) -> str:
    try:
        Pack.open(pack_folder(data_dir, name))
    except DataError:
        if name not in DOWNLOADS:
            return "included"
        return "downloaded" if DOWNLOADS[name].is_here(data_dir) else "absent"
    return "packed"


def _load_named(name: str, data_dir: Path) -> Content:
    return load_download(name, data_dir) if name in DOWNLOADS else _load_digits()


def _load_digits() -> Content:
    """No official test set: a fixed part is held out. Values 0 to 16 become 0 to 255."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = np.rint(digits.images * 255 / 16).astype(np.uint8)[..., None]
    labels = digits.target.astype(np.int64)
    train, test = stratified_split(labels, TEST_FRACTION, HOLD_OUT_SEED)
    return Content(
        name="digits",
        classes=tuple(str(name) for name in digits.target_names),
        shape=images.shape[1:],
        train=Part.of(images[train], labels[train]),
        test=Part.of(images[test], labels[test]),
        source="scikit-learn load_digits",
        source_checksum=hashlib.sha256(images.tobytes() + labels.tobytes()).hexdigest(),
    )
