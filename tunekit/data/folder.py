"""A folder of class folders as a data set: which images it has, and reading them.

    photos/cat/1.jpg               or   photos/train/cat/1.jpg
    photos/dog/old/2.png                photos/test/cat/9.jpg

Without `train/` and `test/`, a fixed part of each class is held out as test. Images may lie deeper
in a class folder. Other files, and names that begin with a dot, are ignored.
"""

from __future__ import annotations

import hashlib
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TypeVar

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from tunekit.data.pack import Content, Images, Labels, Part
from tunekit.data.split import stratified_split
from tunekit.errors import DataError

TEST_FRACTION = 0.2
HOLD_OUT_SEED = 20_250_101  # never changes: what was held out as test must stay unseen

_SUFFIXES = {".jpg", ".jpeg", ".png", ".webp"}
_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP")  # the last two: misnamed files are common
_READ_AT_ONCE = 128  # images; an unreadable one is reported before the next lot begins
_OF_A_THREAD = 16  # of them one after the other: to hand over each by itself costs as much as a small image
_FINER = 4  # times the size that is wanted: what a JPEG is decoded at, where it is larger than that
_GREY_MODES = {"1", "L", "LA", "La", "I", "I;16", "I;16L", "I;16B", "I;16N"}

Progress = Callable[[int, int], None]
T = TypeVar("T")


@dataclass(frozen=True)
class FolderImages:
    """The images of a folder, by part: paths, and the class number of each."""

    root: Path
    classes: tuple[str, ...]
    train: tuple[Path, ...]
    train_labels: Labels
    test: tuple[Path, ...]
    test_labels: Labels
    checksum: str  # changes with any image's name, size or time of change

    def key(self, side: int) -> str:
        """A name for the pack, which no other folder or size has."""
        readable = re.sub(r"[^A-Za-z0-9]+", "-", self.root.name).strip("-")[:40]
        return f"{readable}-{side}px-{hashlib.sha256(str(self.root).encode()).hexdigest()[:8]}"


def scan_folder(folder: Path) -> FolderImages:
    """List the images of a folder without opening them.

    Raises:
        DataError: if there are no two classes, a class has too few images, `train/` and `test/`
            differ in their classes, or a link leads out of the folder.
    """
    root = folder.resolve()
    if not {"train", "test"} <= {path.name for path in _entries(root, root) if path.is_dir()}:
        by_class = _images_by_class(root, root)
        _check_counts(by_class, root, 3, "to train, to validate and to test")
        return _hold_out(root, by_class)
    by_class, test_by_class = _images_by_class(root / "train", root), _images_by_class(root / "test", root)
    differing = sorted(by_class.keys() ^ test_by_class.keys())
    if differing:
        raise DataError(f"{root}: train and test have different classes ({differing[0]!r} is in one only)")
    _check_counts(by_class, root / "train", 2, "to train and to validate")
    _check_counts(test_by_class, root / "test", 1, "to test")
    train, train_labels = _flat(by_class)
    test, test_labels = _flat(test_by_class)
    checksum = _listing_checksum((*train, *test), root)
    return FolderImages(root, tuple(by_class), train, train_labels, test, test_labels, checksum)


def load_folder(images: FolderImages, side: int, progress: Progress | None = None) -> Content:
    """The content of a pack: grey if all images are grey, else RGB; `side` x `side` pixels.

    Images are turned as their EXIF says, laid on white where transparent, resized so that the
    shorter side fits, and cropped in the centre. Pixels are read when the pack is written.

    Raises:
        DataError: if an image cannot be read or is too large; also while the pack is written.
    """
    files = (*images.train, *images.test)
    channels = 1 if all(_each(_is_grey, files)) else 3
    read = partial(_read, height=side, width=side, channels=channels)

    def fill(out: Images, paths: Sequence[Path], done: int) -> None:
        for place, pixels in enumerate(_each(read, paths)):
            out[place] = pixels
            if progress is not None:
                progress(done + place + 1, len(files))

    return Content(
        name=images.root.name,
        classes=images.classes,
        shape=(side, side, channels),
        train=Part(images.train_labels, partial(fill, paths=images.train, done=0)),
        test=Part(images.test_labels, partial(fill, paths=images.test, done=len(images.train))),
        source=f"folder {images.root}",
        source_checksum=images.checksum,
    )


def image_files(folder: Path) -> list[Path]:
    """The images in a folder and the folders in it, sorted; not opened. Hidden names are left out.

    Raises:
        DataError: if a folder cannot be read or a link leads out of `folder`.
    """
    root = folder.resolve()
    return [folder / path.relative_to(root) for path in _images(root, root)]


def read_image(path: Path, height: int, width: int, channels: int) -> Images:
    """One image, prepared as `load_folder` prepares the images of a pack.

    Args:
        path: of a JPEG, PNG, WebP, GIF or BMP file, whatever its name.
        height, width: of the result, in pixels.
        channels: 1 (grey) or 3 (RGB).
    Returns:
        (height, width, channels) uint8.
    Raises:
        DataError: if the image cannot be read or is too large.
    """
    with _bombs_are_errors():
        return _read(path, height, width, channels)


def read_images(
    paths: Sequence[Path], height: int, width: int, channels: int
) -> Iterator[Images | DataError]:
    """What `read_image` gives or raises for each path, in order; several are read at once."""

    def attempt(path: Path) -> Images | DataError:
        try:
            return _read(path, height, width, channels)
        except DataError as error:
            return error

    return _each(attempt, paths)


def _hold_out(root: Path, by_class: dict[str, list[Path]]) -> FolderImages:
    paths, labels = _flat(by_class)
    train, test = stratified_split(labels, TEST_FRACTION, HOLD_OUT_SEED)
    return FolderImages(
        root=root,
        classes=tuple(by_class),
        train=tuple(paths[place] for place in train),
        train_labels=labels[train],
        test=tuple(paths[place] for place in test),
        test_labels=labels[test],
        checksum=_listing_checksum(paths, root),
    )


def _images_by_class(folder: Path, root: Path) -> dict[str, list[Path]]:
    classes = [path for path in _entries(folder, root) if path.is_dir()]
    if not classes:
        raise DataError(f"{folder} has no class folders: put the images of each class in a folder of its own")
    if len(classes) == 1:
        raise DataError(
            f"{folder} has only one class folder ({classes[0].name!r}), but at least 2 are needed"
        )
    for path in classes:
        if not path.name.isprintable():  # also names that are not UTF-8
            raise DataError(f"the name of class folder {str(path)!r} cannot be printed: rename it")
    return {path.name: list(_images(path, root)) for path in classes}


def _images(folder: Path, root: Path) -> Iterator[Path]:
    for path in _entries(folder, root):
        if path.is_dir():
            yield from _images(path, root)
        elif path.suffix.lower() in _SUFFIXES and path.is_file():  # no pipe, which would never end
            yield path


def _entries(folder: Path, root: Path) -> list[Path]:
    """What lies in a folder, sorted; hidden names left out."""
    try:
        paths = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    except OSError as error:
        raise DataError(f"cannot read {folder}: {error.strerror}") from None
    for path in paths:
        if path.is_symlink():
            _check_link(path, root)
    return paths


def _check_link(path: Path, root: Path) -> None:
    try:
        target = path.resolve(strict=True)
    except (OSError, RuntimeError):  # a circle is a RuntimeError before Python 3.13
        raise DataError(f"{path} is a link that leads nowhere") from None
    if not target.is_relative_to(root):
        raise DataError(f"{path} is a link that leads out of {root}")
    if path.is_relative_to(target):
        raise DataError(f"{path} is a link to a folder that it lies in")


def _check_counts(by_class: dict[str, list[Path]], folder: Path, least: int, purpose: str) -> None:
    for name, paths in by_class.items():
        if len(paths) < least:
            raise DataError(
                f"class folder {folder / name} has {len(paths)} images (JPEG, PNG or WebP), "
                f"but at least {least} are needed {purpose}"
            )


def _flat(by_class: dict[str, list[Path]]) -> tuple[tuple[Path, ...], Labels]:
    paths = tuple(path for paths in by_class.values() for path in paths)
    counts = [len(paths) for paths in by_class.values()]
    return paths, np.repeat(np.arange(len(counts), dtype=np.int64), counts)


def _listing_checksum(paths: Sequence[Path], root: Path) -> str:
    total = hashlib.sha256()
    for path in sorted(paths):
        try:
            status = path.stat()
        except OSError as error:
            raise DataError(f"cannot read image {path}: {error.strerror}") from None
        line = f"{path.relative_to(root).as_posix()}\0{status.st_size}\0{status.st_mtime_ns}\n"
        total.update(line.encode(errors="surrogateescape"))
    return total.hexdigest()


def _each(read: Callable[[Path], T], paths: Sequence[Path]) -> Iterator[T]:
    """`read` of each path, in order, in threads (Pillow decodes outside Python's lock)."""

    def read_some(some: Sequence[Path]) -> list[T]:
        return [read(path) for path in some]

    with ThreadPoolExecutor() as pool:
        for start in range(0, len(paths), _READ_AT_ONCE):
            lot = _cut(paths[start : start + _READ_AT_ONCE], _OF_A_THREAD)
            with _bombs_are_errors():
                found = list(pool.map(read_some, lot))
            yield from chain.from_iterable(found)


def _cut(paths: Sequence[Path], length: int) -> list[Sequence[Path]]:
    return [paths[start : start + length] for start in range(0, len(paths), length)]


@contextmanager
def _bombs_are_errors() -> Iterator[None]:
    """Holds for all threads, so it is entered by the one that starts them."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # odd metadata
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        yield


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    try:
        with Image.open(path, formats=_FORMATS) as image:
            yield image
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise DataError(
            f"image {path} is too large: it has more than {Image.MAX_IMAGE_PIXELS:,} pixels"
        ) from None
    except UnidentifiedImageError:
        raise DataError(f"cannot read image {path}: it is not a JPEG, PNG or WebP image") from None
    except Exception as error:  # on damaged files Pillow's decoders raise almost anything
        raise DataError(f"cannot read image {path}: {error}") from None


def _is_grey(path: Path) -> bool:
    with _opened(path) as image:
        return image.mode in _GREY_MODES


def _read(path: Path, height: int, width: int, channels: int) -> Images:
    """(height, width, channels) uint8."""
    with _opened(path) as image:
        # Large photos in a third of the time: libjpeg leaves out detail that the resize would average away.
        image.draft(None, (_FINER * width, _FINER * height))
        opaque = _on_white(_eight_bits(_upright(image))).convert("L" if channels == 1 else "RGB")
        fitted = ImageOps.fit(opaque, (width, height), Image.Resampling.BILINEAR)
        return np.asarray(fitted).reshape(height, width, channels)


def _upright(image: Image.Image) -> Image.Image:
    image.load()  # damaged pixels are an error, whatever becomes of the metadata
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # metadata that cannot be read say nothing of the pixels
        return image


def _eight_bits(image: Image.Image) -> Image.Image:
    """16-bit grey to 8 bits by scaling; Pillow's own conversion clips at 255."""
    if not image.mode.startswith("I"):
        return image
    values = np.asarray(image)
    scaled = np.empty(values.shape, np.uint8)
    for row, out in zip(values, scaled, strict=True):  # all at once, eight bytes a pixel fill memory
        out[:] = ((row.astype(np.int64) + 128) // 257).clip(0, 255)
    return Image.fromarray(scaled)


def _on_white(image: Image.Image) -> Image.Image:
    if not image.has_transparency_data:
        return image
    white = Image.new("RGBA", image.size, "white")
    white.alpha_composite(image.convert("RGBA"))
    return white
