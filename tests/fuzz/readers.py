"""Each reader of foreign bytes with small valid files for it, made on the spot.

A reader either reads or refuses: by a TunekitError, or by the one other class that its docstring names.
"""

from __future__ import annotations

import gzip
import io
import json
import pickle
import struct
import tarfile
import tomllib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from tests.search_on_disk import lay_down_search
from tunekit.data.downloads import DOWNLOADS, load_download
from tunekit.data.folder import read_image
from tunekit.data.pack import Content, Pack, Part, ensure_pack
from tunekit.data.plain_pickle import read_plain_pickle
from tunekit.data.split import Split, make_split
from tunekit.errors import TunekitError
from tunekit.history import History
from tunekit.models.first_weights import FirstWeights
from tunekit.models.pretrained import read_weights
from tunekit.paths import SearchPaths
from tunekit.recipe import Recipe
from tunekit.retraining.findings import find_result
from tunekit.retraining.trainings import Trainings
from tunekit.space import SearchSpace, load_space
from tunekit.tracking.archive import load_exported
from tunekit.tracking.writer import tracked
from tunekit.training.checkpoint import load_best, load_checkpoint, save_best, save_checkpoint
from tunekit.tuning.prior import read_prior
from tunekit.tuning.settings import SearchSettings

SPACE = """description = "a small one"
baselines = ["A-mnist-vgg*"]
[fixed]
"schedule.name" = "cosine"
[space]
"optim.name" = { choices = ["sgd", "adamw"], role = "scientific" }
"optim.lr" = { low = 1e-4, high = 1.0, log = true }
"optim.momentum" = { low = 0.0, high = 0.9, step = 0.1, when = { "optim.name" = ["sgd"] } }
"model.depth" = { low = 1, high = 6 }
[[baseline]]
name = "mine"
recipe = { "optim.lr" = 0.01 }
"""


@dataclass(frozen=True)
class Reader:
    """Something that reads foreign bytes, and files that it reads."""

    name: str
    samples: Callable[[Path], Sequence[bytes]]  # given an empty folder: whole files
    file: str  # where in that folder the bytes to read lie
    read: Callable[[Path], object]  # given the folder
    refusal: type[Exception] = TunekitError
    by_checksum: bool = False  # takes the published bytes alone, so refuses the samples too


def refused(reader: Reader, folder: Path, content: bytes) -> bool:
    """Whether `reader` refuses the bytes. Whatever else it raises is a defect."""
    (folder / reader.file).write_bytes(content)
    try:
        reader.read(folder)
    except reader.refusal:
        return True
    return False


def _idx(values: np.ndarray[Any, Any]) -> bytes:
    return struct.pack(f">BBBB{values.ndim}I", 0, 0, 8, values.ndim, *values.shape) + values.tobytes()


_LABELS = np.arange(12, dtype=np.uint8) % 10
_MNIST = {
    "train-images-idx3-ubyte": _idx(np.arange(12 * 16, dtype=np.uint8).reshape(12, 4, 4)),
    "train-labels-idx1-ubyte": _idx(_LABELS),
    "t10k-images-idx3-ubyte": _idx(np.zeros((12, 4, 4), np.uint8)),
    "t10k-labels-idx1-ubyte": _idx(_LABELS),
}


def _mnist(file: str, folder: Path) -> list[bytes]:
    raw = folder / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for name, content in _MNIST.items():
        (raw / name).write_bytes(content)
    return [_MNIST[file]]


def _read_mnist(folder: Path) -> object:
    """As MNIST, whose own files are of fixed sizes and too large for this."""
    known = DOWNLOADS["mnist"]
    DOWNLOADS["mnist"] = replace(known, files={name: len(content) for name, content in _MNIST.items()})
    try:
        return load_download("mnist", folder)
    finally:
        DOWNLOADS["mnist"] = known


def _mnist_archives(folder: Path) -> list[bytes]:
    raw = folder / "MNIST" / "raw"
    raw.mkdir(parents=True)
    archives = {name: gzip.compress(content, mtime=0) for name, content in _MNIST.items()}
    for name, content in archives.items():
        (raw / f"{name}.gz").write_bytes(content)
    return [archives["train-labels-idx1-ubyte"]]


def _cifar_batch(folder: Path) -> list[bytes]:
    pixels = np.arange(2 * 3072, dtype=np.uint32).astype(np.uint8).reshape(2, 3072)
    batch = {"data": pixels, "labels": [0, 1], "filenames": ["a.png", "b.png"], "batch_label": "one"}
    return [pickle.dumps(batch, protocol) for protocol in (0, 2, 4)]


def _cifar_archive(folder: Path) -> list[bytes]:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        info = tarfile.TarInfo("cifar-10-batches-py/data_batch_1")
        info.size = 4
        tar.addfile(info, io.BytesIO(b"data"))
    return [buffer.getvalue()]


def _images(folder: Path) -> list[bytes]:
    values = (np.arange(64, dtype=np.uint32) * 811).astype(np.uint16)
    colours = Image.fromarray(values.astype(np.uint8).repeat(3).reshape(8, 8, 3))
    frames = [colours, colours.rotate(90)]
    return [
        *(_encoded(colours, kind) for kind in ("JPEG", "PNG", "WEBP", "GIF", "BMP")),
        *(_encoded(colours.convert(mode), "PNG") for mode in ("1", "P", "LA", "RGBA")),
        *(_encoded(colours.convert("CMYK"), "JPEG"), _encoded(Image.fromarray(values.reshape(8, 8)), "PNG")),
        *(_encoded(frames[0], kind, save_all=True, append_images=frames[1:]) for kind in ("GIF", "WEBP")),
        _encoded(colours, "JPEG", exif=_exif(), quality=95, progressive=True),
    ]


def _encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def _exif() -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation
    return exif


def _pack(file: str, folder: Path) -> list[bytes]:
    images = np.arange(12 * 16, dtype=np.uint8).reshape(12, 4, 4, 1)
    part = Part.of(images, (_LABELS % 2).astype(np.int64))
    ensure_pack(folder / "pack", lambda: Content("made", ("a", "b"), (4, 4, 1), part, part, "made", "0"))
    return [(folder / "pack" / file).read_bytes()]


def _read_pack(folder: Path) -> object:
    pack = Pack.open(folder / "pack")
    images, labels = pack.train()
    return pack.digest, int(images.sum()), labels[0], images.shape == (pack.train_count, *pack.shape)


def _split(folder: Path) -> list[bytes]:
    make_split(np.arange(40, dtype=np.int64) % 4, 0.25, 0, 20).save(folder / "split.npz")
    return [(folder / "split.npz").read_bytes()]


def _checkpoint(folder: Path) -> list[bytes]:
    state = {"weights": {"a": torch.arange(6.0).view(2, 3)}, "epoch": 3, "name": "x", "of": [1, (2.5, None)]}
    save_checkpoint(folder / "last.pt", state)
    return [(folder / "last.pt").read_bytes()]


def _best(folder: Path) -> list[bytes]:
    described = {
        "recipe": Recipe().to_flat(),
        "epoch": 3,
        "val_accuracy": 0.5,
        "classes": ["a", "b"],
        "image_shape": [8, 8, 1],
        "mean": [0.5],
        "std": [0.25],
    }
    save_best(folder / "best.safetensors", torch.nn.Linear(2, 3), described)
    return [(folder / "best.safetensors").read_bytes()]


def _first_weights(folder: Path) -> list[bytes]:
    weights = FirstWeights({"a": torch.arange(6.0).view(2, 3)}, "resnet8", "none", True, "random")
    weights.write(folder / "first.safetensors")
    return [(folder / "first.safetensors").read_bytes()]


def _torch_weights(folder: Path) -> list[bytes]:
    def saved(content: object, zipped: bool) -> bytes:
        buffer = io.BytesIO()
        torch.save(content, buffer, _use_new_zipfile_serialization=zipped)
        return buffer.getvalue()

    weights = torch.nn.Linear(2, 3).state_dict()
    return [saved({"state_dict": weights}, zipped) for zipped in (True, False)]


def _exported(folder: Path) -> list[bytes]:
    example = (torch.zeros(2, 3),)
    program = torch.export.export(torch.nn.Linear(3, 2).eval(), example)
    torch.export.save(program, folder / "model.pt2")
    return [(folder / "model.pt2").read_bytes()]


def _search(file: str, folder: Path) -> list[bytes]:
    paths = lay_down_search(folder, "s")
    return [(paths.folder / file).read_bytes()]


def _prior(folder: Path) -> list[bytes]:
    trials = [
        {"params": {"optim.lr": 0.1, "optim.name": "adamw"}, "values": [0.5, 0.9][:n]} for n in range(3)
    ]
    return [json.dumps({"searches": [{"dataset": "d", "epochs": [3, 27], "trials": trials}]}).encode()]


def _read_prior(folder: Path, packed: bool) -> object:
    content = (folder / "s.prior.json.gz").read_bytes()
    if not packed:
        (folder / "s.prior.json.gz").write_bytes(gzip.compress(content))
    return read_prior(folder, replace(SearchSpace.from_dict(tomllib.loads(SPACE)), prior="s.prior.json.gz"))


def _settings(folder: Path) -> object:
    return SearchSettings.load(SearchPaths(folder / "s"))


def _tracked(folder: Path) -> list[bytes]:
    return [json.dumps({"events": 9, "run_id": "0" * 32, "tracking_uri": "http://host"}).encode()]


def _result(folder: Path) -> list[bytes]:
    (folder / "retrain" / "opening-1").mkdir(parents=True)
    tables = {key: {"a": 0.5} for key in ("request", "recipe", "model")}
    lists = {key: [{"b": "c"}] for key in ("standings", "verdicts", "test", "earlier_openings")}
    words = dict.fromkeys(("search", "key", "dataset", "winner"), "w")
    rest = {"format": 1, "opening": {"number": 1}, "test_images": 3, "registration": None}
    return [json.dumps({**tables, **lists, **words, **rest}).encode()]


def _trainings(folder: Path) -> list[bytes]:
    (folder / "retrain").mkdir()
    fields = {"recipe": Recipe().to_flat(), "seed": 1, "epochs": 2, "part": "train", "name": "trial 01"}
    return [json.dumps([{**fields, "params": {"optim.lr": 0.1}, "baseline": None}]).encode()]


READERS = (
    *(
        Reader(f"mnist {name.partition('-idx')[0]}", partial(_mnist, name), f"MNIST/raw/{name}", _read_mnist)
        for name in ("train-images-idx3-ubyte", "train-labels-idx1-ubyte")
    ),
    Reader(
        "mnist archive",
        _mnist_archives,
        "MNIST/raw/train-labels-idx1-ubyte.gz",
        lambda folder: load_download("mnist", folder),
        by_checksum=True,
    ),
    Reader("cifar batch", _cifar_batch, "data_batch_1", lambda folder: _batch(folder / "data_batch_1")),
    Reader(
        "cifar archive",
        _cifar_archive,
        "cifar-10-python.tar.gz",
        lambda folder: load_download("cifar10", folder),
        by_checksum=True,
    ),
    Reader("image", _images, "image", lambda folder: read_image(folder / "image", 8, 8, 3)),
    Reader("pack.json", partial(_pack, "pack.json"), "pack/pack.json", _read_pack),
    Reader("pack images", partial(_pack, "train_images.npy"), "pack/train_images.npy", _read_pack),
    Reader("pack labels", partial(_pack, "train_labels.npy"), "pack/train_labels.npy", _read_pack),
    Reader("split.npz", _split, "split.npz", lambda folder: Split.load(folder / "split.npz")),
    Reader("space", lambda folder: [SPACE.encode()], "s.toml", lambda folder: load_space(folder / "s.toml")),
    Reader("prior", _prior, "s.prior.json.gz", partial(_read_prior, packed=False)),
    Reader(
        "packed prior",
        lambda folder: [gzip.compress(text) for text in _prior(folder)],
        "s.prior.json.gz",
        partial(_read_prior, packed=True),
    ),
    Reader("search.json", partial(_search, "search.json"), "s/search.json", _settings),
    Reader(
        "history.jsonl",
        partial(_search, "history.jsonl"),
        "s/history.jsonl",
        lambda folder: History.read(folder / "s" / "history.jsonl"),
    ),
    Reader("tracked.json", _tracked, "tracked.json", lambda folder: tracked(folder / "tracked.json")),
    Reader(
        "result.json",
        _result,
        "retrain/opening-1/result.json",
        lambda folder: find_result(SearchPaths(folder)),
    ),
    Reader(
        "trainings.json",
        _trainings,
        "retrain/trainings.json",
        lambda folder: Trainings(SearchPaths(folder).retraining),
    ),
    Reader("last.pt", _checkpoint, "last.pt", lambda folder: load_checkpoint(folder / "last.pt")),
    Reader("best weights", _best, "best.safetensors", lambda folder: load_best(folder / "best.safetensors")),
    Reader(
        "first weights",
        _first_weights,
        "first.safetensors",
        lambda folder: FirstWeights.read(folder / "first.safetensors"),
    ),
    Reader(
        "foreign safetensors",
        _best,
        "best.safetensors",
        lambda folder: read_weights(folder / "best.safetensors"),
    ),
    Reader(
        "foreign weights", _torch_weights, "weights.pt", lambda folder: read_weights(folder / "weights.pt")
    ),
    # A ValueError, which the registry says in its own words.
    Reader(
        "model archive",
        _exported,
        "model.pt2",
        lambda folder: load_exported(folder / "model.pt2"),
        ValueError,
    ),
)


def _batch(file: Path) -> object:
    batch = read_plain_pickle(file)
    return {name: np.asarray(value) for name, value in batch.items() if name in ("data", "labels")}
