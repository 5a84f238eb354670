"""The data sets that torchvision downloads: where their files lie, and how they are read.

torchvision takes 3 s to import, so it is imported only when a data set must be packed. It knows the addresses
and the checksums; the files are read here, since it runs what a pickle of CIFAR says.
"""

from __future__ import annotations

import hashlib
import http.client
import math
import socket
import tarfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tunekit.data.pack import Content, Images, Labels, Part
from tunekit.data.plain_pickle import read_plain_pickle
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
    read = _read_cifar if loader.__name__.startswith("CIFAR") else _read_idx
    classes, train, test = read(loader, download.unpacked(data_dir))
    height, width, channels = train[0].shape[1:]
    if test[0].shape[1:] != (height, width, channels):
        raise _damaged(data_dir / download.folder, "train and test have images of two sizes")
    return Content(
        name=name,
        classes=classes,
        shape=(height, width, channels),
        train=Part.of(*train),
        test=Part.of(*test),
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
            raise _damaged(path, "not what was published")


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
        if isinstance(error, tarfile.TarError | EOFError | zlib.error):
            raise _damaged(data_dir / download.archives[0], "it does not unpack") from None
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


_Read = tuple[tuple[str, ...], tuple[Images, Labels], tuple[Images, Labels]]  # classes, train, test


def _read_idx(loader: Any, files: Sequence[Path]) -> _Read:
    """MNIST and its like: a file of images (N, H, W) and one of labels for train, and both for test."""
    images, labels, test_images, test_labels = (_idx_array(path) for path in files)
    classes = tuple(loader.classes)
    return (
        classes,
        _checked(images[..., None], labels, classes, files[1]),
        _checked(test_images[..., None], test_labels, classes, files[3]),
    )


def _idx_array(path: Path) -> Images:
    """The bytes of an IDX file, in the shape that its head says.

    Source: LeCun, Cortes and Burges, "The MNIST database", the section on file formats.
    """
    content = np.fromfile(path, np.uint8)
    sides = 3 if "images" in path.name else 1
    head = 4 + 4 * sides
    shape = content[4:head].view(">u4").tolist()
    if content[:4].tolist() != [0, 0, 8, sides] or math.prod(shape) != len(content) - head or 0 in shape:
        raise _damaged(path, "its head does not say what is in it")
    return content[head:].reshape(shape)


def _read_cifar(loader: Any, files: Sequence[Path]) -> _Read:
    """CIFAR: batches of images (N, 3 * 32 * 32) with labels, test behind train, and the classes last."""
    *train, test, meta = files
    names = read_plain_pickle(meta).get(loader.meta["key"])
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise _damaged(meta, "it has no names of classes")
    classes = tuple(names)
    images, labels = zip(*(_cifar_batch(path, classes) for path in train), strict=True)
    return classes, (np.concatenate(images), np.concatenate(labels)), _cifar_batch(test, classes)


def _cifar_batch(path: Path, classes: Sequence[str]) -> tuple[Images, Labels]:
    batch = read_plain_pickle(path)
    try:
        images = batch["data"].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
        labels = np.asarray(batch.get("labels", batch.get("fine_labels")), np.uint8)
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError):
        raise _damaged(path, "it has no images with labels") from None
    return _checked(images, labels, classes, path)


def _checked(images: Images, labels: Images, classes: Sequence[str], path: Path) -> tuple[Images, Labels]:
    if not len(images) or labels.shape != (len(images),):
        raise _damaged(path, "it does not have a label for each image")
    if labels.max() >= len(classes):
        raise _damaged(path, "a label is no class")
    return images, labels.astype(np.int64)


def _damaged(path: Path, reason: str) -> DataError:
    return DataError(f"{path} is damaged ({reason}): delete it and run again")


def _md5(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def _checksum(paths: list[Path]) -> str:
    total = hashlib.sha256()
    for path in paths:
        with open(path, "rb") as file:
            total.update(hashlib.file_digest(file, "sha256").digest())
    return total.hexdigest()
