"""A place that every node reaches by its URI, for checkpoints: an object store or a folder."""

from __future__ import annotations

import platform
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, parse_qsl, urlsplit

from tunekit.errors import SearchError, StorageError
from tunekit.paths import atomic_write

_SCHEMES = ("s3", "gs", "gcs", "abfs", "abfss", "file")
_ACCEPTED = (
    "s3://BUCKET/FOLDER, gs://BUCKET/FOLDER, abfss://CONTAINER@ACCOUNT.dfs.core.windows.net/FOLDER, "
    "file:///FOLDER or a folder"
)
_SECRET = re.compile(r"key|secret|token|pass|sig", re.IGNORECASE)
_LONGEST_REASON = 300  # characters


def storage_uri(given: str) -> str:
    """What `--storage` says, as every node can read it: a folder's path becomes absolute.

    Raises:
        SearchError: as `check_storage_uri`.
    """
    uri = given if ":/" in given or not given.isprintable() else str(Path(given).expanduser().resolve())
    check_storage_uri(uri)
    return uri


def check_storage_uri(uri: str) -> None:
    """Check the form of a URI; nothing is asked of the place that it names.

    Raises:
        SearchError: if it is of another kind, or has a login or a key in it, which would stand in files and
            logs; the message does not repeat it.
    """
    if uri.startswith("/") and uri.isprintable():
        return
    try:
        parts = urlsplit(uri)
    except ValueError:
        parts = urlsplit("")
    nowhere = bool(parts.netloc) == (parts.scheme == "file")
    if parts.scheme not in _SCHEMES or nowhere or not uri.isprintable():
        raise SearchError(f"--storage must be {_ACCEPTED}, but got {_short(uri)}")
    if _has_login(parts):
        raise SearchError(
            "--storage must have no login and no key in it: each node takes them from its environment "
            "(say, AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY)"
        )


def _short(uri: str) -> str:
    """What is no URI may still hold a password."""
    return repr(re.sub(r"//.*@", "//***@", uri)[:100])


def _has_login(parts: SplitResult) -> bool:
    user, at, _ = parts.netloc.rpartition("@")
    container = parts.scheme in ("abfs", "abfss") and ":" not in user
    return bool(at and not container and user != "anonymous") or any(
        _SECRET.search(name) for name, _ in parse_qsl(parts.query, True)
    )


@dataclass(frozen=True)
class Storage:
    """Files below a folder of this machine, and objects of the same relative names below a URI.

    An object is replaced as a whole or not at all. Plain values, so that any process can be given one.
    Every method raises StorageError, in one line, if the place cannot be reached or refuses.
    """

    uri: str
    folder: str  # below the URI
    root: str  # the folder of this machine

    def push(self, file: Path) -> None:
        """Put a file there."""
        system, name = self._place(file)
        with _said(self.uri, "written"):
            _copy(_local(), str(file), system, name)

    def pull(self, file: Path, to: Path | None = None) -> bool:
        """Bring a file from there, to its own place or another, atomically; False if it is not there."""
        system, name = self._place(file)
        with _said(self.uri, "read"):
            try:
                _copy(system, name, _local(), str(to or file))
            except FileNotFoundError:
                return False
        return True

    def copy(self, file: Path, to: Path) -> None:
        """Copy a file there to another there, which is replaced."""
        system, name = self._place(file)
        with _said(self.uri, "written"):
            if system.type_name == "local":
                _copy(system, name, system, self._place(to)[1])
            else:
                system.copy_file(name, self._place(to)[1])

    def drop(self, file: Path) -> None:
        """Delete a file there, if it is there."""
        system, name = self._place(file)
        with _said(self.uri, "written"):
            try:
                system.delete_file(name)
            except FileNotFoundError:
                return

    def files(self, folder: Path) -> list[Path]:
        """The files there below `folder`, by the names that they have or would have here."""
        from pyarrow.fs import FileSelector, FileType

        system, name = self._place(folder)
        with _said(self.uri, "read"):
            found = system.get_file_info(FileSelector(name, recursive=True, allow_not_found=True))
        names = [info.path.removeprefix(name).lstrip("/") for info in found if info.type == FileType.File]
        return [folder / one for one in names if not Path(one).name.startswith(".")]  # half-written

    def _place(self, file: Path) -> tuple[Any, str]:
        """The file system and the name there of a file below the root."""
        relative = file.relative_to(self.root).as_posix()
        with _said(self.uri, "read"):
            system, base = _opened(self.uri)
        return system, "/".join(part for part in (base.rstrip("/"), self.folder, relative) if part != ".")


@lru_cache(maxsize=8)
def _opened(uri: str) -> tuple[Any, str]:
    from pyarrow.fs import FileSystem

    system, base = FileSystem.from_uri(uri)
    return system, base


def _local() -> Any:
    from pyarrow.fs import LocalFileSystem

    return LocalFileSystem()


def _copy(source: Any, name: str, target: Any, to: str) -> None:
    """An object store shows an object when all of it is there; a folder needs help with that."""
    from pyarrow.fs import copy_files

    if target.type_name != "local":
        copy_files(name, to, source_filesystem=source, destination_filesystem=target)
        return
    with atomic_write(Path(to)) as temporary:
        if source.type_name == "local":
            shutil.copyfile(name, temporary)
        else:
            copy_files(name, str(temporary), source_filesystem=source, destination_filesystem=target)


@contextmanager
def _said(uri: str, what: str) -> Iterator[None]:
    """Whatever pyarrow raises inside the block is one line, which names this node: others may reach it."""
    from pyarrow import ArrowException

    try:
        yield
    except (OSError, ArrowException) as error:
        reason = " ".join(str(error).split())[:_LONGEST_REASON]
        raise StorageError(f"storage {uri} cannot be {what} from {platform.node()}: {reason}") from None
