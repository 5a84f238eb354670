"""Folders of images that are no data set, and packs and downloads that are not what they should be."""

from __future__ import annotations

import gzip
import io
import json
import os
import pickle
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.bad_input.foreign import Payload
from tests.bad_input.refusal import Refusal
from tunekit.data.datasets import open_dataset
from tunekit.data.folder import load_folder, scan_folder
from tunekit.data.pack import Pack
from tunekit.errors import DataError


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Two classes of four images."""
    folder = tmp_path / "photos"
    for name in ("cat", "dog"):
        (folder / name).mkdir(parents=True)
        for number in range(4):
            Image.new("RGB", (6, 4), (number, 0, 0)).save(folder / name / f"{number}.png")
    return folder


def nothing(folder: Path) -> None:
    for name in ("cat", "dog"):
        (folder / name).rename(folder.parent / name)


def images_alone(folder: Path) -> None:
    nothing(folder)
    (folder.parent / "cat" / "0.png").rename(folder / "0.png")


def one_class(folder: Path) -> None:
    (folder / "dog").rename(folder.parent / "dog")


def keep(count: int) -> Callable[[Path], None]:
    def remove(folder: Path) -> None:
        for file in sorted((folder / "dog").iterdir())[count:]:
            file.unlink()

    return remove


def divided(folder: Path) -> None:
    """`train/` has cat and dog, `test/` has cat and cow."""
    (folder / "train").mkdir()
    for name in ("cat", "dog"):
        (folder / name).rename(folder / "train" / name)
    for name in ("cat", "cow"):
        (folder / "test" / name).mkdir(parents=True)
        Image.new("RGB", (6, 4)).save(folder / "test" / name / "0.png")


def empty_test_class(folder: Path) -> None:
    divided(folder)
    (folder / "test" / "cow").rename(folder / "test" / "dog")
    (folder / "test" / "dog" / "0.png").unlink()


def link(name: str, target: str) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        (folder.parent / "secret").mkdir()
        (folder / name).symlink_to(target)

    return make


def called(name: bytes) -> Callable[[Path], None]:
    def rename(folder: Path) -> None:
        os.rename(folder / "cat", os.fsencode(folder) + b"/" + name)  # noqa: PTH104 - bytes, which no Path has

    return rename


def pipes_alone(folder: Path) -> None:
    keep(0)(folder)
    for number in range(4):
        os.mkfifo(folder / "dog" / f"{number}.png")  # reading one would never end


UNUSABLE = {
    "empty": (nothing, "photos has no class folders: put the images of each class in a folder"),
    "no class folders": (images_alone, "photos has no class folders"),
    "one class": (one_class, "photos has only one class folder ('cat'), but at least 2"),
    "a class of one image": (keep(1), "dog has 1 images (JPEG, PNG or WebP), but at least 3 are needed"),
    "an empty class": (keep(0), "dog has 0 images"),
    "a class of pipes": (pipes_alone, "dog has 0 images"),
    "train and test differ": (divided, "train and test have different classes ('cow' is in one only)"),
    "an empty class in test": (empty_test_class, "test/dog has 0 images"),
    "image link out": (link("cat/x.png", "../../secret"), "cat/x.png is a link that leads out of"),
    "class link out": (link("cow", "../secret"), "cow is a link that leads out of"),
    "absolute link out": (link("cow", "/etc"), "cow is a link that leads out of"),
    "link to nothing": (link("cat/x.png", "nothing.png"), "cat/x.png is a link that leads nowhere"),
    "link to itself": (link("cat/x.png", "x.png"), "cat/x.png is a link that leads nowhere"),
    "link up": (link("cat/x", ".."), "cat/x is a link to a folder that it lies in"),
    "line break in a class": (called(b"a\nb"), r"photos/a\nb' cannot be printed: rename it"),
    "escape codes in a class": (called(b"\x1b[31mcat"), r"photos/\x1b[31mcat' cannot be printed"),
    "class turned round": (called("\u202ecat".encode()), r"photos/\u202ecat' cannot be printed"),
    "class that is no UTF-8": (called(b"caf\xe9"), r"photos/caf\udce9' cannot be printed"),
}


@pytest.mark.parametrize("name", UNUSABLE)
def test_an_unusable_folder(name: str, refused: Refusal, photos: Path) -> None:
    damage, words = UNUSABLE[name]
    damage(photos)
    refused(["datasets", "prepare", "photos"], words)
    refused(["search", "photos", "--space", "resnet"], words)


@pytest.mark.parametrize(
    "name",
    [
        "two words",
        "it's",
        '"cat"',
        "猫",
        "\U0001f642",
        "e\u0301",
        "قطة",
        "..cat",
        "-cat",
        "cat\\dog",
        "c" * 255,
    ],
)
def test_a_class_may_have_any_name_that_can_be_printed(name: str, photos: Path, tmp_path: Path) -> None:
    if name.startswith("."):
        name = f"c{name}"  # hidden ones are left out
    called(name.encode())(photos)
    assert set(open_dataset(str(photos), tmp_path / "data", 4).classes) == {name, "dog"}


def test_a_file_is_no_data_set(refused: Refusal, tmp_path: Path) -> None:
    (tmp_path / "photos.zip").write_bytes(b"PK")
    refused(["datasets", "prepare", "photos.zip"], "photos.zip', and no folder there")


def test_an_image_that_vanishes_after_the_scan(photos: Path) -> None:
    images = scan_folder(photos)
    (photos / "dog" / "3.png").unlink()
    with pytest.raises(DataError, match=r"cannot read image .*dog/3.png: .*No such file"):
        load_folder(images, 4)


def test_an_image_that_changes_while_it_is_packed(photos: Path) -> None:
    images = scan_folder(photos)
    content = load_folder(images, 4)
    for file in images.train:
        file.write_bytes(b"not an image any more")
    with pytest.raises(DataError, match=r"cannot read image .*: it is not a JPEG, PNG or WebP image"):
        content.train.fill(np.zeros((len(images.train), 4, 4, 3), np.uint8))


# ---- packs


def pack_json(**changes: object) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        saved = json.loads((folder / "pack.json").read_text())
        (folder / "pack.json").write_text(json.dumps({**saved, **changes}))

    return change


def array(name: str, content: object) -> Callable[[Path], None]:
    """Another array, and a pack.json that says so: size and checksum are right."""

    def replace(folder: Path) -> None:
        import hashlib

        file = folder / name
        with open(file, "wb") as out:
            np.save(out, np.asarray(content), allow_pickle=True)
        saved = json.loads((folder / "pack.json").read_text())
        digest = hashlib.sha256(file.read_bytes()).hexdigest()
        saved["files"][name] = {"size": file.stat().st_size, "sha256": digest}
        (folder / "pack.json").write_text(json.dumps(saved))

    return replace


def text(content: bytes) -> Callable[[Path], object]:
    return lambda folder: (folder / "pack.json").write_bytes(content)


FOREIGN_PACKS: dict[str, Callable[[Path], object]] = {
    "no JSON": text(b"{"),
    "binary": text(bytes(range(256))),
    "a list": text(b"[]"),
    "a number": text(b"3"),
    "lists in lists": text(b"[" * 100_000),
    "another format": pack_json(format=99),
    "an unknown field": pack_json(colour="red"),
    "no files": pack_json(files={}),
    "a path out": pack_json(files={"../../x.npy": {"size": 0, "sha256": ""}}),
    "a shape of words": pack_json(shape=["a", "b", "c"]),
    "a shape of 2": pack_json(shape=[8, 8]),
    "another shape": pack_json(shape=[4, 16, 1]),
    "a count below 0": pack_json(train_count=-1),
    "a count too large": pack_json(train_count=10**9),
    "a mean of words": pack_json(mean=["x"]),
    "a mean of NaN": pack_json(mean=[float("nan")]),
    "no mean": pack_json(mean=[]),
    "classes of numbers": pack_json(classes=[1, 2]),
    "an array cut off": lambda folder: os.truncate(folder / "train_images.npy", 1000),
    "an array gone": lambda folder: (folder / "train_labels.npy").unlink(),
    "an array changed": lambda folder: _flip(folder / "train_images.npy"),
    "an array of floats": array("train_images.npy", np.zeros((1438, 8, 8, 1))),
    "labels of 32 bits": array("train_labels.npy", np.zeros(1438, np.int32)),
    "labels of other length": array("train_labels.npy", np.zeros(3, np.int64)),
}


def _flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[-1] ^= 255
    file.write_bytes(content)


@pytest.mark.parametrize("name", FOREIGN_PACKS)
def test_a_pack_that_is_not_as_it_was_written_is_packed_again(
    name: str, digits: Pack, tmp_path: Path
) -> None:
    folder = open_dataset("digits", tmp_path).folder
    FOREIGN_PACKS[name](folder)
    again = open_dataset("digits", tmp_path)
    assert again.digest == digits.digest
    assert np.array_equal(again.train()[0], digits.train()[0])
    assert sorted(path.name for path in folder.parent.iterdir()) == [".digits.lock", "digits"]


@pytest.mark.parametrize("part", ["train", "test"])
def test_a_pickle_in_a_pack_does_not_run(part: str, tmp_path: Path) -> None:
    folder = open_dataset("digits", tmp_path).folder
    array(f"{part}_labels.npy", np.array([Payload(tmp_path / "ran")], dtype=object))(folder)
    pack = Pack.open(folder)
    with pytest.raises(DataError, match=rf"{part}_labels.npy is not an array that can be read"):
        pack.train() if part == "train" else pack.open_test()
    assert not (tmp_path / "ran").exists()


# ---- downloads


def idx(name: str, damage: Callable[[Path], object]) -> Callable[[Path], None]:
    """The four files of MNIST, all zero, one of them damaged."""

    def lay_down(data_dir: Path) -> None:
        folder = data_dir / "MNIST" / "raw"
        folder.mkdir(parents=True)
        for part, count in (("train", 60_000), ("t10k", 10_000)):
            sizes = b"".join(n.to_bytes(4, "big") for n in (count, 28, 28))
            images, labels = folder / f"{part}-images-idx3-ubyte", folder / f"{part}-labels-idx1-ubyte"
            images.write_bytes(b"\0\0\x08\x03" + sizes)
            os.truncate(images, 16 + count * 784)  # zeros that take no room
            labels.write_bytes(b"\0\0\x08\x01" + sizes[:4] + bytes(count))
        damage(folder / name)

    return lay_down


def put(place: int, value: int) -> Callable[[Path], None]:
    def change(file: Path) -> None:
        with open(file, "rb+") as opened:
            opened.seek(place)
            opened.write(bytes([value]))

    return change


def cut(file: Path) -> None:
    os.truncate(file, file.stat().st_size - 1)


def gz(content: bytes) -> Callable[[Path], None]:
    def lay_down(data_dir: Path) -> None:
        folder = data_dir / "MNIST" / "raw"
        folder.mkdir(parents=True)
        for name in ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1"):
            (folder / f"{name}-ubyte.gz").write_bytes(content)

    return lay_down


def tar(*members: tarfile.TarInfo) -> Callable[[Path], None]:
    def lay_down(data_dir: Path) -> None:
        data_dir.mkdir(parents=True)
        with tarfile.open(data_dir / "cifar-10-python.tar.gz", "w:gz") as archive:
            for member in members:
                member.size = 5 if member.isreg() else 0
                archive.addfile(member, io.BytesIO(b"words") if member.isreg() else None)

    return lay_down


def member(name: str, kind: bytes = tarfile.REGTYPE, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def cifar_batches(data_dir: Path) -> None:
    folder = data_dir / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    for name in (*(f"data_batch_{number}" for number in range(1, 6)), "test_batch", "batches.meta"):
        (folder / name).write_bytes(pickle.dumps(Payload(data_dir.parent / "ran")))


def cifar_archive(content: bytes) -> Callable[[Path], None]:
    def lay_down(data_dir: Path) -> None:
        data_dir.mkdir(parents=True)
        (data_dir / "cifar-10-python.tar.gz").write_bytes(content)

    return lay_down


DOWNLOADS = {
    "images cut off": (
        "mnist",
        idx("train-images-idx3-ubyte", cut),
        "train-images-idx3-ubyte",
    ),
    "labels cut off": ("mnist", idx("t10k-labels-idx1-ubyte", cut), "t10k-labels-idx1-ubyte"),
    "wrong magic": ("mnist", idx("train-images-idx3-ubyte", put(2, 9)), "is damaged"),
    "wrong number of sides": ("mnist", idx("train-labels-idx1-ubyte", put(3, 3)), "is damaged"),
    "counts that do not match": ("mnist", idx("train-images-idx3-ubyte", put(7, 0)), "is damaged"),
    "a label that is no class": ("mnist", idx("train-labels-idx1-ubyte", put(100, 77)), "is damaged"),
    "gz of something else": ("mnist", gz(gzip.compress(b"words")), "train-images-idx3-ubyte.gz is damaged"),
    "gz cut off": ("mnist", gz(gzip.compress(b"words")[:-5]), "is damaged (not what was published)"),
    "no gz": ("mnist", gz(b"words"), "is damaged (not what was published)"),
    "tar out of the folder": ("cifar10", tar(member("../evil")), "cifar-10-python.tar.gz is damaged"),
    "tar absolute": ("cifar10", tar(member("/tmp/tunekit-evil")), "is damaged (not what was published)"),
    "tar with a link": ("cifar10", tar(member("x", tarfile.SYMTYPE, "/etc/passwd")), "is damaged"),
    "tar with a hard link": ("cifar10", tar(member("x", tarfile.LNKTYPE, "../evil")), "is damaged"),
    "tar with a device": ("cifar10", tar(member("x", tarfile.CHRTYPE)), "is damaged"),
    "tar cut off": ("cifar10", cifar_archive(gzip.compress(b"words" * 99)[:-9]), "is damaged"),
    "no tar": ("cifar10", cifar_archive(b"<html>404</html>"), "is damaged"),
    "a pickle with a payload": ("cifar10", cifar_batches, "is damaged (not what was published)"),
}


@pytest.mark.parametrize("name", DOWNLOADS)
def test_a_download_that_is_not_what_was_published(name: str, refused: Refusal, tmp_path: Path) -> None:
    dataset, lay_down, words = DOWNLOADS[name]
    lay_down(tmp_path / "data")
    (tmp_path / "data" / "packed").mkdir()
    refused(["datasets", "prepare", dataset, "--data-dir", "data"], [str(tmp_path / "data"), words])
    assert not Path("/tmp/tunekit-evil").exists()


@pytest.mark.usefixtures("no_network")
def test_what_is_absent_and_cannot_be_downloaded_says_where_to_put_it(
    refused: Refusal, tmp_path: Path
) -> None:
    (tmp_path / "data" / "packed").mkdir(parents=True)
    (tmp_path / "data" / "MNIST" / "raw").mkdir(parents=True)
    refused(
        ["datasets", "prepare", "mnist", "--data-dir", "data"],
        [f"mnist is not in {tmp_path / 'data'} and cannot be downloaded", "put train-images-idx3-ubyte.gz"],
    )
