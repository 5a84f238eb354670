"""The lock of the test set: the one place that opens it, and it never opens it without writing it down."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

from tunekit.data.pack import Images, Labels, Pack
from tunekit.errors import SearchError
from tunekit.paths import SearchPaths, atomic_write, list_searches
from tunekit.tracking.runs import user_name


@dataclass(frozen=True)
class Opening:
    """One opening of a test set."""

    number: int  # 1 is the search's first
    search: str
    time: float  # seconds since 1970
    user: str
    host: str
    recipes: tuple[str, ...]  # whose networks were tested
    data: str  # the digest of the test images


class OpenedTestSet(NamedTuple):
    """Test images that were opened."""

    images: Images  # (N, H, W, C) uint8
    labels: Labels  # (N,) int64
    opening: Opening


def open_test_set(paths: SearchPaths, pack: Pack, recipes: Sequence[str]) -> OpenedTestSet:
    """Record, on disk first, that the test set of `pack` is opened for `recipes`, and open it.

    Raises:
        DataError: if the test files are damaged.
        SearchError: if the record cannot be read or written.
    """
    opening = Opening(
        number=len(openings(paths)) + 1,
        search=paths.name,
        time=time.time(),
        user=user_name(),
        host=socket.gethostname(),
        recipes=tuple(recipes),
        data=pack.test_digest,
    )
    _record(paths.test_openings, opening)
    return OpenedTestSet(*pack.open_test(), opening)


def openings(paths: SearchPaths) -> list[Opening]:
    """The openings of a search, oldest first.

    Raises:
        SearchError: if the record is damaged.
    """
    if not paths.test_openings.exists():
        return []
    try:
        lines = paths.test_openings.read_text(encoding="utf-8").splitlines()
        return [_opening(json.loads(line)) for line in lines]
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        raise SearchError(f"{paths.test_openings}: not a record of openings ({error})") from None


def openings_of_data(results_dir: Path, data: str) -> list[Opening]:
    """The openings of one test set by all searches below `results_dir`, oldest first."""
    found = [opening for paths in list_searches(results_dir) for opening in openings(paths)]
    return sorted((one for one in found if one.data == data), key=lambda opening: opening.time)


def _opening(fields: dict[str, object]) -> Opening:
    opening = Opening(**{**fields, "recipes": tuple(fields["recipes"])})  # type: ignore[arg-type]
    if type(opening.number) is not int or not isinstance(opening.time, int | float):
        raise ValueError("number or time is no number")
    return opening


def _record(file: Path, opening: Opening) -> None:
    before = file.read_text(encoding="utf-8") if file.exists() else ""
    try:
        with atomic_write(file) as temporary:
            temporary.write_text(before + json.dumps(asdict(opening)) + "\n", encoding="utf-8")
    except OSError as error:
        raise SearchError(f"{file}: the opening cannot be recorded ({error.strerror})") from None
