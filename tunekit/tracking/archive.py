"""Reading a network that torch.export saved, without running what a stranger wrote into the file.

`torch.export.load` is not safe on a foreign file. Seen in torch 2.15.0, each tried with a file made for it:

- weights, constants and the example input are unpickled with `weights_only=False` if the file says so,
  and a compiled library in the file is loaded (torch/export/pt2_archive/_package.py);
- sizes are texts that `sympy.sympify` evaluates, guards are Python source, and the names of nodes
  become Python source (torch/_export/serde/serialize.py, torch/export/_unlift.py). None of these is a
  pickle, so MLflow's own check for pickles does not see them.

So nothing is handed to torch but a copy, made here, of what was looked at: raw tensors, and a graph in which
every text is a plain word, a size or the name of an ATen operator. What is not of that kind is refused.
This cannot protect from a mistake in torch's own kernels.
"""

from __future__ import annotations

import io
import json
import re
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import nn

_ROOT = "archive"
_GRAPH = "models/model.json"
_EXAMPLE = "data/sample_inputs/model.pt"
_CONFIGS = ("data/weights/model_weights_config.json", "data/constants/model_constants_config.json")
_TENSOR = re.compile(r"data/(weights/weight|constants/tensor)_\d+")
_NOTES = ("archive_format", "archive_version", "byteorder", ".data/version", ".data/serialization_id")

_WORD = re.compile(r"[\w.+-]*", re.ASCII)
# As sympy writes an expression of sizes: Mul(Integer(49), Symbol('s34', positive=True, integer=True))
_SIZE = re.compile(
    r"(?:Symbol\('[su]\d+'(?:, (?:positive|integer|nonnegative|negative)=(?:True|False))*\)"
    r"|Integer\(-?\d+\)|Mul\(|Add\(|\)|, )+"
)
# ATen computes with tensors, but for the operators that write and map files.
_OPERATOR = re.compile(
    r"torch\.ops\.aten\.(?!(?:from_file|save)\.)\w+\.\w+"
    r"|_operator\.(?:add|sub|mul|floordiv|mod|neg|getitem|eq|ne|lt|le|gt|ge)",
    re.ASCII,
)
_CONTAINERS = (None, "builtins.tuple", "builtins.list", "builtins.dict")
_KEYS = re.compile(r'None|null|\[("\w*"(, )?)*\]', re.ASCII)  # of a dictionary


def load_exported(file: Path) -> nn.Module:
    """The network in a file of `torch.export.save`, on the CPU; nothing in the file can run code.

    Raises:
        ValueError: if the file is damaged or holds anything but tensors and a plain graph.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            copy = _checked_copy(archive)
        return torch.export.load(copy).module()
    except Exception as error:  # zipfile, json and torch raise a different class for each kind of damage
        raise ValueError(" ".join(f"{file.name}: {error}".split())[:300]) from error


def _checked_copy(archive: zipfile.ZipFile) -> io.BytesIO:
    """Torch reads zip files with another library, which may see another file: so it gets this one."""
    copy = io.BytesIO()
    with zipfile.ZipFile(copy, "w") as checked:
        for entry in archive.infolist():
            name = entry.filename.partition("/")[2]
            checked.writestr(f"{_ROOT}/{name}", _checked_record(name, archive.read(entry)))
    copy.seek(0)
    return copy


def _checked_record(name: str, content: bytes) -> bytes:
    if _TENSOR.fullmatch(name):
        return content
    if name == _EXAMPLE:
        return b""  # a pickle, which only serves to show an example
    if name == _GRAPH:
        return _checked_graph(json.loads(content))
    if name in _CONFIGS:
        return _checked_config(json.loads(content))
    if name in _NOTES and _WORD.fullmatch(content.decode().strip()):
        return content
    raise ValueError(f"record {name!r} does not belong in it")


def _checked_config(config: dict[str, Any]) -> bytes:
    """Which record is which tensor; none of them may be a pickle."""
    _check_words(config)
    for name, tensor in config["config"].items():
        if tensor["use_pickle"] is not False or not re.fullmatch(r"(weight|tensor)_\d+", tensor["path_name"]):
            raise ValueError(f"tensor {name!r} is not stored as raw numbers")
    return json.dumps(config).encode()


def _checked_graph(graph: dict[str, Any]) -> bytes:
    _check_words(graph)
    if graph["guards_code"]:
        raise ValueError("it has guards, which are Python source")
    return json.dumps(graph).encode()


def _check_words(value: Any, key: str = "") -> None:
    """Refuse every text that is not of the kind that belongs under its key; empties `metadata`."""
    if isinstance(value, dict):
        if "metadata" in value:
            value["metadata"] = {}  # where in the source a node came from: read for error messages only
        for name, inner in value.items():
            _check_text(name, "")
            _check_words(inner, name)
    elif isinstance(value, list):
        for inner in value:
            _check_words(inner, key)
    elif isinstance(value, str):
        _check_text(value, key)


def _check_text(text: str, key: str) -> None:
    if key in ("in_spec", "out_spec"):
        _check_containers(json.loads(text))
        return
    rule = {"expr_str": _SIZE, "target": _OPERATOR}.get(key, _WORD)
    if not rule.fullmatch(text):
        raise ValueError(f"{text[:60]!r} does not belong in a graph{f' as {key}' if key else ''}")


def _check_containers(spec: Any) -> None:
    """How inputs and outputs are nested: in plain containers, not in classes that the file names."""
    if isinstance(spec, list):
        for inner in spec:
            _check_containers(inner)
    elif isinstance(spec, dict):
        if spec["type"] not in _CONTAINERS or not _KEYS.fullmatch(str(spec["context"])):
            raise ValueError(f"{str(spec)[:60]!r} is no plain container")
        _check_containers(spec["children_spec"])
