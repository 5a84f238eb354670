"""What every return to a search's folder begins with: its lock, and data that are as they were."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from tunekit.data.datasets import open_dataset
from tunekit.data.pack import Pack
from tunekit.errors import SearchError
from tunekit.paths import SearchPaths, remove_half_written
from tunekit.tuning.settings import SearchSettings

_LOCK_PATIENCE = 1.0  # seconds; a listing of searches holds the lock for a blink


@contextmanager
def locked(paths: SearchPaths) -> Iterator[None]:
    """Only one process works on a search; a crash gives the lock back, and its half files go.

    Raises:
        SearchError: if another process does.
    """
    try:
        with FileLock(paths.lock, timeout=_LOCK_PATIENCE):
            for folder in (
                paths.folder,
                *paths.folder.glob("trials/*"),
                *paths.folder.glob("trials/*/attempt-*"),
                *paths.folder.glob("retrain/trials/*"),
                *paths.folder.glob("retrain/trials/*/attempt-*"),
            ):
                remove_half_written(folder)
            yield
    except Timeout:
        raise SearchError(f"search {paths.name} is running in another process") from None


def same_data(settings: SearchSettings) -> Pack:
    """The data set of a search.

    Raises:
        DataError: if it cannot be read.
        SearchError: if it is not the one that the search began with.
    """
    pack = open_dataset(settings.dataset, Path(settings.data_dir), settings.image_size)
    if pack.digest != settings.data_digest:
        raise SearchError(
            f"the images of {settings.dataset} changed since search {settings.name} began: start a new search"
        )
    return pack
