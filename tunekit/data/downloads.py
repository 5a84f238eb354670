"""The data sets that torchvision downloads: where their files lie, and how they are read.

torchvision takes 3 s to import, so it is imported only when a data set must be packed.
"""

from __future__ import annotations

import hashlib
import http.client
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tunekit.data.pack import Content, Part
from tunekit.errors import DataAbsentError, DataError

_SECONDS_TO_ANSWER = 10.0


@dataclass(frozen=True)
class Download:
    """Files of one data set; paths are relative to the data folder."""

    loader: str  # the class in torchvision.datasets
    folder: str
    files: Mapping[str, int | None]  # in `folder`, with their bytes where no MD5 is published
    archives: tuple[str, ...]  # what is downloaded

    def unpacked(self, data_dir: Path) -> list[Path]:
        """The files that are read, there or not."""
        return [data_dir / self.folder / name for name in self.files]

    def is_unpacked(self, data_dir: Path) -> bool:
        """Whether the files are there; not whether they are good."""
        return all(path.is_file() for path in self.unpacked(data_dir))

    def is_here(self, data_dir: Path) -> bool:
        """Whether the data set can be read without a network."""
        return self.is_unpacked(data_dir) or all((data_dir / name).is_file() for name in self.archives)


def _idx(loader: str) -> Download:
    folder = f"{loader}/raw"
    files = {
        "train-images-idx3-ubyte": 16 + 60_000 * 28 * 28,
        "train-labels-idx1-ubyte": 8 + 60_000,
        "t10k-images-idx3-ubyte": 16 + 10_000 * 28 * 28,
        "t10k-labels-idx1-ubyte": 8 + 10_000,
    }
    return Download(loader, folder, files, tuple(f"{folder}/{name}.gz" for name in files))


_CIFAR10_FILES = (*(f"data_batch_{part}" for part in range(1, 6)), "test_batch", "batches.meta")

DOWNLOADS = {
    "mnist": _idx("MNIST"),
    "fashion-mnist": _idx("FashionMNIST"),
    "cifar10": Download(
        "CIFAR10", "cifar-10-batches-py", dict.fromkeys(_CIFAR10_FILES), ("cifar-10-python.tar.gz",)
    ),
    "cifar100": Download(
        "CIFAR100",
        "cifar-100-python",
        dict.fromkeys(("train", "test", "meta")),
        ("cifar-100-python.tar.gz",),
    ),
}


def load_download(name: str, data_dir: Path) -> Content:
    """Read a data set of `DOWNLOADS`, downloading or unpacking it first if need be.

    Raises:
        DataAbsentError: if it is neither there nor downloadable.
        DataError: if a file is there and damaged.
    """
    import torchvision.datasets

    download = DOWNLOADS[name]
    loader = getattr(torchvision.datasets, download.loader)
    _check(download, loader, data_dir)
    if not download.is_unpacked(data_dir):
        _fetch(name, download, loader, data_dir)
    train, test = (loader(data_dir, train=is_train) for is_train in (True, False))
    part = _part(train)
    return Content(
        name=name,
        classes=tuple(train.classes),
        shape=_with_channels(train.data).shape[1:],
        train=part,
        test=_part(test),
        source=f"torchvision {download.loader}",
        source_checksum=_checksum(download.unpacked(data_dir)),
    )


def _check(download: Download, loader: Any, data_dir: Path) -> None:
    """Refuse damaged files here: torchvision would download over them, or stumble."""
    published = _published_md5(loader)
    if download.is_unpacked(data_dir):
        needed = download.unpacked(data_dir)
    else:
        needed = [data_dir / name for name in download.archives if (data_dir / name).is_file()]
    for path in needed:
        size = download.files.get(path.name)
        md5 = published.get(path.relative_to(data_dir).as_posix())
        if size not in (None, path.stat().st_size) or md5 not in (None, _md5(path)):
            raise DataError(f"{path} is damaged (not what was published): delete it and run again")


def _published_md5(loader: Any) -> dict[str, str]:
    """What torchvision checks, by path below the data folder."""
    if hasattr(loader, "resources"):
        return {f"{loader.__name__}/raw/{name}": md5 for name, md5 in loader.resources}
    meta = (loader.meta["filename"], loader.meta["md5"])
    batches = {
        f"{loader.base_folder}/{name}": md5 for name, md5 in (*loader.train_list, *loader.test_list, meta)
    }
    return {loader.filename: loader.tgz_md5, **batches}


def _fetch(name: str, download: Download, loader: Any, data_dir: Path) -> None:
    """Let torchvision download, check and unpack. A download that breaks off leaves no half file behind."""
    absent = [data_dir / archive for archive in download.archives if not (data_dir / archive).exists()]
    try:
        with _impatient_sockets():
            loader(data_dir, download=True)
    except BaseException as error:
        for path in absent:
            path.unlink(missing_ok=True)
        if isinstance(error, RuntimeError | OSError | http.client.HTTPException):
            raise DataAbsentError(_absent(name, download, data_dir, error)) from None
        raise


@contextmanager
def _impatient_sockets() -> Iterator[None]:
    """torchvision sets no time limit: without this, a network that drops packets holds for minutes."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(_SECONDS_TO_ANSWER)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def _absent(name: str, download: Download, data_dir: Path, error: Exception) -> str:
    reason = (str(error).strip() or type(error).__name__).splitlines()[-1].strip("<>")
    folder = (data_dir / download.archives[0]).parent
    wanted = ", ".join(Path(archive).name for archive in download.archives)
    if len(download.archives) == 1:
        wanted += f" (or the folder {download.folder})"
    return f"{name} is not in {data_dir} and cannot be downloaded ({reason}): put {wanted} in {folder}"


def _part(loaded: Any) -> Part:
    return Part.of(_with_channels(loaded.data), np.asarray(loaded.targets, dtype=np.int64))


def _with_channels(images: Any) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """(N, H, W) or (N, H, W, C) to (N, H, W, C)."""
    pixels = np.asarray(images, dtype=np.uint8)
    return pixels[..., None] if pixels.ndim == 3 else pixels


def _md5(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def _checksum(paths: list[Path]) -> str:
    total = hashlib.sha256()
    for path in paths:
        with open(path, "rb") as file:
            total.update(hashlib.file_digest(file, "sha256").digest())
    return total.hexdigest()
