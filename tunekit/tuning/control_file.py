"""What other processes ask of a search, and what they are answered: a file of JSON lines that only grows.

Whoever asks may be on another machine that sees the same folder. A line that was torn off or that
nobody here understands is passed over: no line can stop a search.
"""

from __future__ import annotations

import json
import os
import socket
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from filelock import FileLock

from tunekit.errors import StorageError
from tunekit.paths import SearchPaths, append_whole
from tunekit.tracking.runs import user_name

Kind = Literal["extend", "stop", "stop_trial"]
"""
extend      more samples: `samples` in all, or `more` than there are
stop        the search ends as if interrupted: it can be resumed
stop_trial  the trial `trial` ends after the epoch that it is in
"""

MOST_SAMPLES = 10**6  # of a search
_PATIENCE = 5.0  # seconds; a line is added in a blink
_LONGEST_TEXT = 1000  # characters


def _asker() -> str:
    return f"{user_name()}@{socket.gethostname()}"


@dataclass(frozen=True)
class Request:
    """Something that is asked of a search."""

    kind: Kind
    samples: int | None = None  # in all
    more: int | None = None  # samples on top of those that there are
    trial: int | None = None
    by: str = field(default_factory=_asker)
    time: float = field(default_factory=time.time)  # seconds since 1970
    id: str = field(default_factory=lambda: uuid.uuid4().hex)


@dataclass(frozen=True)
class Answer:
    """What came of it. It is written before it is done: whoever reads it later sees to it that it is."""

    answers: str  # the id of the request
    done: bool  # False: refused
    words: str  # one line for a person
    samples: int | None = None  # of an extended search, in all
    running: bool = False  # whether the search goes on by itself
    time: float = field(default_factory=time.time)  # seconds since 1970


class ControlFile:
    """The file as one process reads it: each line once."""

    def __init__(self, paths: SearchPaths) -> None:
        self._paths = paths
        self._read = 0  # bytes

    def append(self, entry: Request | Answer) -> None:
        """Add a line; on the medium when this returns.

        Raises:
            StorageError: if it cannot be written; then nothing was added.
        """
        fields = {name: value for name, value in vars(entry).items() if value is not None}
        try:
            with FileLock(self._paths.control_lock, timeout=_PATIENCE):
                self._write(json.dumps(fields).encode() + b"\n")
        except OSError as error:
            raise StorageError(f"{self._paths.control} cannot be written: {error.strerror}") from None

    def new(self) -> list[Request | Answer]:
        """What was added since the last call."""
        try:
            # Opened each time: only then does a network file system look what others have written.
            with open(self._paths.control, "rb", buffering=0) as file:
                size = os.fstat(file.fileno()).st_size
                if size < self._read:  # a person emptied it
                    self._read = 0
                if size == self._read:
                    return []
                file.seek(self._read)
                lines = file.read().split(b"\n")[:-1]  # what follows the last newline is still being written
        except OSError:
            return []
        self._read += sum(len(line) + 1 for line in lines)
        return [entry for entry in map(_entry, lines) if entry is not None]

    def _write(self, line: bytes) -> None:
        with open(self._paths.control, "ab+", buffering=0) as file:
            end = file.seek(0, os.SEEK_END)
            file.seek(max(end - 1, 0))
            if file.read(1) not in (b"", b"\n"):  # a writer was killed
                line = b"\n" + line
            append_whole(file, line)


_FIELD_TYPES: Mapping[str, tuple[type, ...]] = {
    **dict.fromkeys(("samples", "more", "trial"), (int,)),
    **dict.fromkeys(("done", "running"), (bool,)),
    "time": (int, float),
}


def _entry(line: bytes) -> Request | Answer | None:
    """What a line says; None for one that is not understood."""
    try:
        fields: dict[str, Any] = json.loads(line)
        for name, value in fields.items():
            _check_field(name, value)
        entry = Answer(**fields) if "answers" in fields else Request(**fields)
    except (ValueError, TypeError, AttributeError, RecursionError):
        return None
    known = isinstance(entry, Answer) or ("id" in fields and _is_whole(entry))
    return entry if known else None


def _is_whole(request: Request) -> bool:
    if request.kind == "extend":
        return (request.samples is None) != (request.more is None)
    return request.kind in get_args(Kind) and (request.kind == "stop") == (request.trial is None)


def _check_field(name: str, value: object) -> None:
    if type(value) not in _FIELD_TYPES.get(name, (str,)):
        raise ValueError(f"{name} cannot be {value!r}")
    if isinstance(value, int) and not 0 <= value <= MOST_SAMPLES:
        raise ValueError(f"{name} cannot be {value}")
    if isinstance(value, str) and not (value.isprintable() and len(value) <= _LONGEST_TEXT):
        raise ValueError(f"{name} cannot be shown")  # it goes to the terminal of whoever runs the search
