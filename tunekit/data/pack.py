"""Packed data sets: uint8 arrays on disk, memory-mapped, so that all trials of a node share their pages.

<folder>/pack.json           what is packed, and the size and SHA-256 of each array file
<folder>/train_images.npy    (N, H, W, C) uint8
<folder>/train_labels.npy    (N,) int64
<folder>/test_images.npy     as above; not read by anything but `open_test`
<folder>/test_labels.npy
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray

from tunekit.errors import DataError

Images = NDArray[np.uint8]
Labels = NDArray[np.int64]

_FORMAT = 1
_TRAIN = ("train_images.npy", "train_labels.npy")
_TEST = ("test_images.npy", "test_labels.npy")
_COUNTED_AT_ONCE = 2**22  # pixels of one channel; counting takes 8 bytes for each


@dataclass(frozen=True)
class Part:
    """Images on their way into a pack: their labels, and what writes the pixels."""

    labels: Labels  # (N,)
    fill: Callable[[Images], None]  # is given (N, H, W, C) to write to

    @classmethod
    def of(cls, images: Images, labels: Labels) -> Part:
        """A part whose images (N, H, W, C) are in memory already."""

        def fill(out: Images) -> None:
            out[:] = images

        return cls(labels, fill)


@dataclass(frozen=True)
class Content:
    """All that goes into a pack."""

    name: str
    classes: tuple[str, ...]  # label k is called classes[k]
    shape: tuple[int, int, int]  # H, W, C
    train: Part
    test: Part
    source: str  # what it was made from, in words
    source_checksum: str


@dataclass(frozen=True)
class PackedFile:
    """What a file of a pack must be."""

    size: int  # bytes
    sha256: str


@dataclass(frozen=True)
class Pack:
    """A packed data set. Cheap to open and to pickle: it holds no array."""

    folder: Path
    name: str
    classes: tuple[str, ...]
    shape: tuple[int, int, int]  # H, W, C
    train_count: int
    test_count: int
    mean: tuple[float, ...]  # of each channel of the training part, 0 to 1
    std: tuple[float, ...]
    source: str
    source_checksum: str
    files: Mapping[str, PackedFile]

    @classmethod
    def open(cls, folder: Path) -> Pack:
        """Read the description; look at the sizes of the arrays, not into them.

        Raises:
            DataError: if there is no usable pack.
        """
        pack = cls.described(folder)
        for name, file in pack.files.items():
            path = folder / name
            if not path.is_file() or path.stat().st_size != file.size:
                raise DataError(f"{path} is absent or not {file.size:,} bytes long")
        return pack

    @classmethod
    def described(cls, folder: Path) -> Pack:
        """Read `pack.json` alone: what a pack is whose arrays may lie elsewhere.

        Raises:
            DataError: if it is absent, damaged or of another version.
        """
        try:
            saved = json.loads((folder / "pack.json").read_text(encoding="utf-8"))
            if saved.pop("format") != _FORMAT:
                raise DataError(f"{folder} was packed by another version of tunekit")
            return _from_json(folder, saved)
        except FileNotFoundError:
            raise DataError(f"there is no packed data set in {folder}") from None
        except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            if isinstance(error, DataError):
                raise
            raise DataError(f"{folder / 'pack.json'} is damaged: {error}") from None

    @property
    def digest(self) -> str:
        """16 hex digits that name the training data."""
        return self._digest(_TRAIN)

    @property
    def test_digest(self) -> str:
        """16 hex digits that name the test data, without opening them."""
        return self._digest(_TEST)

    def verify(self) -> bool:
        """Whether the training arrays are those that were written (reads them all, no test file)."""
        try:
            self._load(_TRAIN)
        except DataError:  # a pack of others may describe arrays that are none of ours
            return False
        return all(self._is_as_written(name) for name in _TRAIN)

    def train(self) -> tuple[Images, Labels]:
        """Images (N, H, W, C) uint8 and labels (N,) int64, memory-mapped.

        Writing to them changes this process's copy only (torch refuses to wrap read-only arrays).
        """
        return self._load(_TRAIN)

    def open_test(self) -> tuple[Images, Labels]:
        """The test part in the form of `train`. Only `retraining/test_set.py` calls this, which records it.

        Raises:
            DataError: if the files are not those that were written.
        """
        for name in _TEST:
            if not self._is_as_written(name):
                raise DataError(f"{self.folder / name} is damaged: delete {self.folder} and pack again")
        return self._load(_TEST)

    def _digest(self, names: tuple[str, str]) -> str:
        sums = "".join(self.files[name].sha256 for name in names)
        return hashlib.sha256(sums.encode()).hexdigest()[:16]

    def _load(self, names: tuple[str, str]) -> tuple[Images, Labels]:
        count = self.train_count if names == _TRAIN else self.test_count
        images = self._array(names[0], np.uint8, (count, *self.shape))
        return images, self._array(names[1], np.int64, (count,))

    def _array(self, name: str, dtype: type[np.generic], shape: tuple[int, ...]) -> NDArray[Any]:
        path = self.folder / name
        try:
            array: NDArray[Any] = np.load(path, mmap_mode="c", allow_pickle=False)
        except Exception as error:  # numpy has a class for each kind of damage
            raise DataError(f"{path} is not an array that can be read: {error}") from None
        if (array.dtype, array.shape) != (np.dtype(dtype), shape):
            raise DataError(
                f"{path} must be {np.dtype(dtype)} {shape}, but is {array.dtype} {array.shape}: "
                f"delete {self.folder} and pack again"
            )
        return array

    def _is_as_written(self, name: str) -> bool:
        try:
            return _sha256(self.folder / name) == self.files[name].sha256
        except OSError:
            return False


def ensure_pack(folder: Path, load: Callable[[], Content], source_checksum: str | None = None) -> Pack:
    """The pack in `folder` if it is whole, else a new one from `load`.

    Several processes may ask at once: one builds, the others wait and take what it built.

    Args:
        folder: where the pack lies or will lie.
        load: gives the content; called only if there is no good pack.
        source_checksum: a pack from a source with another checksum is not good; None takes any.
    Raises:
        DataError: if the folder cannot be written, or from `load`.
    """
    pack = _whole_pack(folder, source_checksum)
    if pack is not None:
        return pack
    with _locked(folder):
        return _whole_pack(folder, source_checksum) or _write(folder, load())


def copied_pack(source: Path, folder: Path) -> Pack:
    """The pack in `folder` if it is the one in `source`, else a copy of that.

    Several processes may ask at once: one copies, the others wait.

    Raises:
        DataError: if there is no pack in `source`, or the folder cannot be written.
    """
    wanted = Pack.open(source)
    return fetched_pack(wanted, folder, lambda temporary: _copy_files(wanted, temporary))


def fetched_pack(wanted: Pack, folder: Path, fetch: Callable[[Path], None]) -> Pack:
    """The pack in `folder` if it is `wanted`, else what `fetch` brings.

    Several processes may ask at once: one fetches, the others wait.

    Args:
        wanted: as its description says.
        folder: where the pack lies or will lie.
        fetch: puts the arrays of `wanted` and its `pack.json` into the folder that it is given.
    Raises:
        DataError: if the folder cannot be written, or what came is another pack or damaged.
    """
    if _is_copy(folder, wanted):
        return Pack.open(folder)
    with _locked(folder):
        if not _is_copy(folder, wanted):
            _build(folder, lambda temporary: _fetch(wanted, temporary, fetch))
    return Pack.open(folder)


def _fetch(wanted: Pack, folder: Path, fetch: Callable[[Path], None]) -> None:
    fetch(folder)
    if not (_is_copy(folder, wanted) and Pack.open(folder).verify()):
        raise DataError(f"{wanted.name} did not arrive in {folder.parent} as it was packed: try again")


def _is_copy(folder: Path, wanted: Pack) -> bool:
    try:
        return Pack.open(folder).files == wanted.files
    except DataError:
        return False


def _copy_files(source: Pack, folder: Path) -> None:
    for name in (*source.files, "pack.json"):
        shutil.copyfile(source.folder / name, folder / name)


def _whole_pack(folder: Path, source_checksum: str | None) -> Pack | None:
    try:
        pack = Pack.open(folder)
    except DataError:
        return None
    if source_checksum not in (None, pack.source_checksum):
        return None
    return pack if pack.verify() else None


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    lock = FileLock(folder.with_name(f".{folder.name}.lock"))
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except OSError as error:
        raise DataError(f"cannot write to {folder.parent}: {error.strerror or error}") from None
    try:
        yield
    finally:
        lock.release()


def _write(folder: Path, content: Content) -> Pack:
    _build(folder, lambda temporary: _fill(temporary, content))
    return Pack.open(folder)


def _build(folder: Path, fill: Callable[[Path], None]) -> None:
    """Build beside `folder` and move into place. Call it under the lock."""
    for left_over in folder.parent.glob(f".{folder.name}.building.*"):
        shutil.rmtree(left_over, ignore_errors=True)
    temporary = _temporary(folder)
    try:
        temporary.mkdir()
        fill(temporary)
        _replace(folder, temporary)
    except OSError as error:
        raise DataError(f"cannot write {folder}: {error.strerror or error}") from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _fill(folder: Path, content: Content) -> None:
    for (images_name, labels_name), part in ((_TRAIN, content.train), (_TEST, content.test)):
        shape = (len(part.labels), *content.shape)
        images = np.lib.format.open_memmap(folder / images_name, mode="w+", dtype=np.uint8, shape=shape)
        _reserve(folder / images_name)
        part.fill(images)
        images.flush()
        np.save(folder / labels_name, part.labels.astype(np.int64))
    mean, std = channel_statistics(np.load(folder / _TRAIN[0], mmap_mode="r"))
    pack = Pack(
        folder=folder,
        name=content.name,
        classes=content.classes,
        shape=content.shape,
        train_count=len(content.train.labels),
        test_count=len(content.test.labels),
        mean=mean,
        std=std,
        source=content.source,
        source_checksum=content.source_checksum,
        files={name: _packed_file(folder / name) for name in (*_TRAIN, *_TEST)},
    )
    (folder / "pack.json").write_text(json.dumps(_to_json(pack), indent=2), encoding="utf-8")


def _reserve(file: Path) -> None:
    """Take the file's room on the disk now: where a memory map finds none, SIGBUS ends the process."""
    if sys.platform == "linux":
        with open(file, "rb+") as opened:
            os.posix_fallocate(opened.fileno(), 0, file.stat().st_size)


def _replace(folder: Path, temporary: Path) -> None:
    """A folder that is not empty cannot be replaced in one step: the damaged one moves away first."""
    if not folder.exists():
        temporary.rename(folder)
        return
    damaged = _temporary(folder)
    folder.rename(damaged)
    temporary.rename(folder)
    if damaged.is_dir():
        shutil.rmtree(damaged, ignore_errors=True)
    else:
        damaged.unlink()


def _temporary(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.building.{uuid.uuid4().hex}")


def channel_statistics(images: Images) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel, in units of 0 to 1, exact to float64.

    Args:
        images: (N, H, W, C) uint8, perhaps larger than memory: counted a few at a time.
    """
    pixels = images.reshape(-1, images.shape[-1])
    counts = np.zeros((256, pixels.shape[1]), dtype=np.int64)
    for start in range(0, len(pixels), _COUNTED_AT_ONCE):
        for channel, values in enumerate(pixels[start : start + _COUNTED_AT_ONCE].T):
            counts[:, channel] += np.bincount(values, minlength=256)
    values = np.arange(256, dtype=np.float64)[:, None] / 255
    mean = (counts * values).sum(0) / len(pixels)
    std = np.sqrt((counts * (values - mean) ** 2).sum(0) / len(pixels))
    return tuple(mean.tolist()), tuple(std.tolist())


def _packed_file(path: Path) -> PackedFile:
    return PackedFile(path.stat().st_size, _sha256(path))


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _to_json(pack: Pack) -> dict[str, Any]:
    saved = {"format": _FORMAT, **asdict(pack)}
    del saved["folder"]  # a pack may be moved
    return saved


def _from_json(folder: Path, saved: dict[str, Any]) -> Pack:
    files = {name: PackedFile(**saved["files"][name]) for name in (*_TRAIN, *_TEST)}
    tuples = {key: tuple(saved[key]) for key in ("classes", "shape", "mean", "std")}
    pack = Pack(**{**saved, **tuples, "folder": folder, "files": files})
    _check_types(pack)
    return pack


def _check_types(pack: Pack) -> None:
    height_width_channels = [*pack.shape, pack.train_count, pack.test_count]
    if len(pack.shape) != 3 or not all(type(n) is int and n > 0 for n in height_width_channels):
        raise ValueError("its shape or its counts are no whole numbers above 0")
    numbers = (*pack.mean, *pack.std)
    if len(numbers) != 2 * pack.shape[2] or not all(type(n) is float and isfinite(n) for n in numbers):
        raise ValueError("its mean or std is not a number for each channel")
    if not all(isinstance(text, str) for text in (*pack.classes, pack.name, pack.source)):
        raise ValueError("its names are no text")
