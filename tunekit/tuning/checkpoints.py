"""Where the checkpoints of trials lie, as the driver sees them: beside the search, or in a storage."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Protocol

from tunekit.errors import StorageError
from tunekit.history import Trial
from tunekit.paths import SearchPaths, attempt_number, remove_half_written
from tunekit.tuning.settings import SearchSettings
from tunekit.tuning.storage import Storage
from tunekit.tuning.stored_search import storage_of

_log = logging.getLogger(__name__)


class Checkpoints(Protocol):
    """What is done with them. Nothing here takes long but `bring_home` and `close`."""

    def taken(self, trial: Trial) -> int | None:
        """Bytes on this machine's disk; None if the trial has no checkpoint anywhere."""

    def written(self, trial: Trial) -> None:
        """The trial got an epoch further, so it has checkpoints."""

    def settle(self, trial: Trial) -> None:
        """The trial pauses or is over. Once it is over, only the weights of its best epoch are kept."""

    def drop_best(self, trial: Trial) -> None:
        """Nobody needs the weights of its best epoch."""

    def bring_home(self, trials: Iterable[Trial]) -> None:
        """Have the best weights of these trials in the search's folder.

        Raises:
            StorageError: if they cannot be brought there.
        """

    def close(self) -> None:
        """Finish what was begun."""


def checkpoints_of(settings: SearchSettings, paths: SearchPaths) -> Checkpoints:
    """Those of a search, or of its retraining."""
    storage = storage_of(settings, paths)
    return LocalCheckpoints(paths) if storage is None else StoredCheckpoints(paths, storage)


class LocalCheckpoints:
    """In the search's folder, which all workers see."""

    def __init__(self, paths: SearchPaths) -> None:
        self._paths = paths

    def taken(self, trial: Trial) -> int | None:
        """Bytes on this machine's disk; None if there are none."""
        there = self._paths.trial(trial.id).checkpoints()
        return sum(file.stat().st_size for file in there) if there else None

    def written(self, trial: Trial) -> None:
        """They are seen when they are there."""

    def settle(self, trial: Trial) -> None:
        """The trial pauses or is over. Once it is over, only the weights of its best epoch are kept."""
        files = self._paths.trial(trial.id)
        for folder in (files.folder, *(attempt.folder for attempt in files.attempts().values())):
            remove_half_written(folder)  # of a worker that was killed
        if trial.over:
            files.settle()

    def drop_best(self, trial: Trial) -> None:
        """Nobody needs the weights of its best epoch."""
        self._paths.trial(trial.id).drop_best()

    def bring_home(self, trials: Iterable[Trial]) -> None:
        """They are there."""

    def close(self) -> None:
        """Nothing is left to do."""


class StoredCheckpoints:
    """In a storage. A thread deletes there, so that nobody waits for it; what it cannot delete stays."""

    def __init__(self, paths: SearchPaths, storage: Storage) -> None:
        self._paths = paths
        self._storage = storage
        self._dropped: set[int] = set()
        self._deleting: ThreadPoolExecutor | None = None
        self._failing = self._closing = False

    def taken(self, trial: Trial) -> int | None:
        """Bytes on this machine's disk; None if the trial has no checkpoint anywhere."""
        home = self._paths.trial(trial.id).checkpoints()
        return None if trial.id in self._dropped else sum(file.stat().st_size for file in home)

    def written(self, trial: Trial) -> None:
        """The trial got an epoch further, so it has checkpoints."""
        self._dropped.discard(trial.id)

    def settle(self, trial: Trial) -> None:
        """The trial pauses or is over. Once it is over, only the weights of its best epoch are kept."""
        best = self._paths.trial(trial.id).best.name
        if trial.over:
            self._delete(trial, lambda there: [file for file in there if file not in _newest(there, best)])

    def drop_best(self, trial: Trial) -> None:
        """Nobody needs the weights of its best epoch."""
        home = self._paths.trial(trial.id)
        home.drop_best()
        self._dropped.add(trial.id)
        self._delete(trial, lambda there: [file for file in there if file.name == home.best.name])

    def bring_home(self, trials: Iterable[Trial]) -> None:
        """Have the best weights of these trials in the search's folder.

        Raises:
            StorageError: if they cannot be brought there.
        """
        for trial in trials:
            home = self._paths.trial(trial.id)
            for file in _newest(self._storage.files(home.folder), home.best.name):
                self._storage.pull(file, home.best)

    def close(self) -> None:
        """Delete what is left to delete, unless the storage does not answer."""
        if self._deleting is not None:
            self._closing = True
            self._deleting.shutdown()
            self._deleting, self._closing = None, False

    def _delete(self, trial: Trial, chosen: Callable[[list[Path]], list[Path]]) -> None:
        """Delete the chosen ones of the attempts that there were until now: a later one may need its own."""
        self._deleting = self._deleting or ThreadPoolExecutor(1, "deletes-checkpoints")
        self._deleting.submit(self._delete_now, self._paths.trial(trial.id).folder, trial.attempts, chosen)

    def _delete_now(self, folder: Path, attempts: int, chosen: Callable[[list[Path]], list[Path]]) -> None:
        if self._failing and self._closing:
            return
        try:
            there = self._storage.files(folder)
            for file in chosen([file for file in there if attempt_number(file.parent.name) <= attempts]):
                self._storage.drop(file)
            self._failing = False
        except StorageError as error:
            self._failing = True
            _log.warning("checkpoints of trial %s stay: %s", folder.name, error)
        except Exception:
            _log.exception("checkpoints of trial %s stay", folder.name)


def _newest(there: Iterable[Path], name: str) -> list[Path]:
    """Of the files of this name that of the newest attempt, if there is one."""
    files = sorted((file for file in there if file.name == name), key=_attempt)
    return files[-1:]


def _attempt(file: Path) -> int:
    return attempt_number(file.parent.name)
