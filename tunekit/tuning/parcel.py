"""A search as lines of text: how what is small and useful of it comes home where only text travels."""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
import re
import shutil
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tunekit.errors import SearchError
from tunekit.history import History
from tunekit.paths import SearchPaths, atomic_write, attempt_number, search_paths
from tunekit.tuning.reopening import locked
from tunekit.tuning.settings import SearchSettings

LARGEST = 10**9  # bytes of all files together; who has more copies the folder
_MARK = "=parcel "  # what else a program says may stand between the lines
_FORMAT = "1"
_PIECE = 3072  # bytes a line, which become 4096 signs
_WEIGHTS_OR_FINDINGS = re.compile(
    r"trials/[0-9]{4,9}/best\.safetensors|retrain/opening-[0-9]{1,9}/[A-Za-z0-9_-]+\.(json|png)"
)


def pack(paths: SearchPaths, largest: int = LARGEST) -> Iterator[str]:
    """Settings, space, split, history, report, what retraining found, and the weights of the best trials.

    Args:
        paths: of a search, which may be running.
        largest: bytes of all files together; the weights of the worst trials stay behind for it.
    Returns:
        Lines without their ends: a first one, then for each file its size and name, its bytes in base64 and
        their SHA-256, and a last one.
    Raises:
        SearchError: if there is too much even without weights.
    """
    yield f"{_MARK}parcel {_FORMAT} {paths.name}"
    count = 0
    for file in _contents(paths, largest):
        try:
            data = file.read_bytes()
        except FileNotFoundError:
            continue  # weights that a better trial's replaced meanwhile
        if file.suffix == paths.history.suffix:
            data = data[: data.rfind(b"\n") + 1]  # a line that is just being written may still change
        yield from _packed(data, _name(file, paths))
        count += 1
    yield f"{_MARK}end {count}"


def is_of_parcel(line: str) -> bool:
    """Whether a line is one of `pack`."""
    return line.startswith(_MARK)


def unpack(lines: Iterable[str], results_dir: Path, name: str, largest: int = LARGEST) -> SearchPaths:
    """Check what `pack` gave and lay it down as the search `name`, all or nothing.

    A search of that name that is there already is only brought up to date, and never loses a file.

    Args:
        lines: of `pack`, others between them.
        results_dir: where searches lie.
        name: of the search that is expected.
        largest: bytes of all files together.
    Raises:
        SearchError: if the lines are damaged, end early or hold what no search has, or if another search,
            or one that went on, has that name here.
    """
    home = search_paths(results_dir, name)
    marked = (line.removeprefix(_MARK).rstrip("\n") for line in lines if is_of_parcel(line))
    with _folder_beside(home) as arrived:
        _expect(next(marked, "nothing"), f"parcel {_FORMAT} {name}")
        count = 0
        while not (line := next(marked, "nothing")).startswith("end "):
            largest -= _receive(line, marked, arrived, largest)
            count += 1
        _expect(line, f"end {count}")
        _put(arrived, home)
    return home


def _contents(paths: SearchPaths, largest: int) -> list[Path]:
    findings = sorted(paths.retraining.folder.glob("opening-*/*.*"))
    files = [*_plain_files(paths), *(file for file in findings if _belongs(file, paths))]
    files = [file for file in files if file.is_file()]
    left = largest - sum(file.stat().st_size for file in files)
    if left < 0:
        raise SearchError(f"{paths.folder} has more than {largest:,} bytes to send: copy the folder instead")
    for trial in History.read(paths.history).ranked():
        weights = paths.trial(trial.id).best
        if weights.is_file() and weights.stat().st_size <= left:
            files.append(weights)
            left -= weights.stat().st_size
    return files


def _plain_files(paths: SearchPaths) -> tuple[Path, ...]:
    retraining = paths.retraining
    own = (paths.settings, paths.space, paths.split, paths.history, paths.report, paths.proposed_space)
    return (*own, paths.test_openings, retraining.settings, retraining.history)


def _belongs(file: Path, paths: SearchPaths) -> bool:
    """Whether a search has such a file, and this way of sending it does; so nothing leaves the folder."""
    name = file.relative_to(paths.folder).as_posix()
    return file in _plain_files(paths) or _WEIGHTS_OR_FINDINGS.fullmatch(name) is not None


def _name(file: Path, paths: SearchPaths) -> str:
    """How a file is called at home, where a trial has no attempts."""
    parts = file.relative_to(paths.folder).parts
    return Path(*(part for part in parts if not attempt_number(part))).as_posix()


def _packed(data: bytes, name: str) -> Iterator[str]:
    yield f"{_MARK}file {len(data)} {name}"
    for start in range(0, len(data), _PIECE):
        yield _MARK + base64.b64encode(data[start : start + _PIECE]).decode()
    yield f"{_MARK}sha256 {hashlib.sha256(data).hexdigest()}"


def _receive(heading: str, lines: Iterator[str], arrived: SearchPaths, largest: int) -> int:
    """Write one file; its size in bytes comes back."""
    found = re.fullmatch(r"file ([0-9]{1,15}) ([ -~]+)", heading)
    if found is None:
        raise _damaged(f"expected a file, but got {heading[:80]!r}")
    size, file = int(found[1]), arrived.folder / found[2]
    if not file.is_relative_to(arrived.folder) or not _belongs(file, arrived) or file.exists():
        raise _damaged(f"no search has a file {found[2][:80]!r}")
    if size > largest:
        raise _damaged(f"{found[2]} makes it larger than is allowed")
    digest, left = hashlib.sha256(), size
    with atomic_write(file) as temporary, open(temporary, "wb") as written:
        while left:
            piece = _piece(next(lines, ""), left)
            digest.update(piece)
            written.write(piece)
            left -= len(piece)
    _expect(next(lines, "nothing"), f"sha256 {digest.hexdigest()}")
    return size


def _piece(line: str, most: int) -> bytes:
    try:
        piece = base64.b64decode(line.encode("ascii"), validate=True)
    except (UnicodeEncodeError, binascii.Error):
        piece = b""
    if not 0 < len(piece) <= most:
        raise _damaged(f"expected {most} bytes more, but got {line[:80]!r}")
    return piece


def _expect(line: str, expected: str) -> None:
    if line != expected:
        raise _damaged(f"expected {expected!r}, but got {line[:120]!r}")


def _damaged(why: str) -> SearchError:
    return SearchError(f"what was sent cannot be used: {why}")


@contextmanager
def _folder_beside(home: SearchPaths) -> Iterator[SearchPaths]:
    """A folder that is gone, or has another name, after the block."""
    folder = home.folder.with_name(f".{home.name}.{uuid.uuid4().hex}")
    folder.mkdir(parents=True)
    try:
        yield SearchPaths(folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _put(arrived: SearchPaths, home: SearchPaths) -> None:
    settings = SearchSettings.load(arrived)
    if not home.folder.exists():
        arrived.folder.rename(home.folder)
        return
    if not home.settings.exists() or SearchSettings.load(home).search_id != settings.search_id:
        raise SearchError(f"{home.folder} is there and is another search: bring this one to another folder")
    with locked(home):
        _check_went_on(arrived.history, home.history)
        for file in sorted(file for file in arrived.folder.rglob("*") if file.is_file()):
            target = home.folder / file.relative_to(arrived.folder)
            target.parent.mkdir(parents=True, exist_ok=True)
            os.replace(file, target)


def _check_went_on(new: Path, old: Path) -> None:
    """A history only grows, so the older one is how the newer one begins."""
    if old.exists() and not (new.exists() and new.read_bytes().startswith(old.read_bytes())):
        raise SearchError(f"{old} has what did not come: the search went on here, and stays as it is")
