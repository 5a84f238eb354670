"""Reading the pickles of CIFAR without running them.

A pickle is a program: it names functions and calls them. Here nothing that it names is looked up or called;
each call becomes a note of what would have been called, and of the notes only those that describe an array
of bytes are understood.
"""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np

from tunekit.data.pack import Images
from tunekit.errors import DataError


def read_plain_pickle(path: Path) -> dict[str, Any]:
    """The dictionary in a pickle of plain values and uint8 arrays, as Python 2 or 3 wrote it.

    Raises:
        DataError: if the file is damaged or holds anything else.
    """
    try:
        with open(path, "rb") as file:
            found = _Reader(io.BytesIO(file.read()), encoding="latin1").load()
        return {name: _array(value) if isinstance(value, _Call) else value for name, value in found.items()}
    except Exception as error:  # a pickle can be wrong in any way
        reason = f"no pickle of arrays and plain values: {type(error).__name__}"
        raise DataError(f"{path} is damaged ({reason}): delete it and run again") from None


class _Call:
    """Something that a pickle names or calls, and what it hands to it."""

    def __init__(self, name: str, arguments: tuple[Any, ...] = ()) -> None:
        self.name = name
        self.arguments = arguments
        self.state: Any = None

    def __call__(self, *arguments: Any) -> _Call:
        return _Call(self.name, arguments)

    def __setstate__(self, state: Any) -> None:
        self.state = state


# The one in C takes 32 GB for a file of ten bytes that names a place in its memory (LONG_BINPUT).
class _Reader(pickle._Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        return _Call(f"{module}.{name}")


def _array(call: _Call) -> Images:
    _, shape, dtype, by_column, content = call.state
    if dtype.name != "numpy.dtype" or dtype.arguments[0] not in ("u1", "|u1") or by_column:
        raise ValueError("not bytes by row")
    return np.frombuffer(_bytes(content), np.uint8).reshape(shape)


def _bytes(content: Any) -> bytes:
    """Python 2 wrote bytes as a text, Python 3 as a call of `_codecs.encode`."""
    if isinstance(content, _Call):
        content = content.arguments[0]
    return content if isinstance(content, bytes) else str(content).encode("latin1")
