"""The files of a trial as its worker sees them: in a folder that all nodes share, or from a storage."""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from tunekit.data.pack import Pack, copied_pack, fetched_pack
from tunekit.errors import DataError, StorageError
from tunekit.paths import TrialPaths, atomic_write, attempt_number
from tunekit.tuning.assignment import Assignment
from tunekit.tuning.storage import Storage


def node_files(assignment: Assignment) -> NodeFiles:
    """Those of the kind that the assignment says."""
    return (
        NodeFiles(assignment) if assignment.storage is None else StoredFiles(assignment, assignment.storage)
    )


class NodeFiles:
    """Those in the folder of the search, which this node sees.

    An attempt goes on from the newest one before it that has a state, and writes to a folder of its own. So
    a worker that was cut off from the cluster, and comes back when the trial has gone on elsewhere, can
    write what it wants and when: nobody reads it any more. That needs no lock and no clock, and leaves no
    moment between checking and writing.
    """

    def __init__(self, assignment: Assignment) -> None:
        self._assignment = assignment
        self._trial = TrialPaths(Path(assignment.folder))
        self.own = self._trial.attempt(assignment.attempt)  # where this attempt writes

    def pack(self) -> Pack:
        """The images on this node: copied from where all nodes see them, once."""
        shared = self._assignment.shared_pack
        folder = Path(self._assignment.pack)
        return Pack.open(folder) if shared is None else copied_pack(Path(shared), folder)

    def split(self) -> Path:
        """Which images train and which validate."""
        return Path(self._assignment.split)

    def weights(self) -> Path | None:
        """First weights; None for random ones."""
        return Path(self._assignment.weights) if self._assignment.weights else None

    def state(self) -> Path:
        """The state to go on from, which need not be there."""
        last = self._trial.last
        if last.exists() and last.parent != self.own.folder:
            self._carry_best(TrialPaths(last.parent))
        return last

    def wrote(self, file: Path) -> None:
        """A file of this attempt was written; with its first state those before it are of no use."""
        if file == self.own.last:
            for number, attempt in self._trial.attempts().items():
                if number < self._assignment.attempt:
                    shutil.rmtree(attempt.folder, ignore_errors=True)

    def close(self) -> None:
        """The trial ends here, or goes on elsewhere."""

    def _carry_best(self, before: TrialPaths) -> None:
        """The weights of the best epoch belong to the state, whoever writes to the other folder later."""
        best = before.best
        if before == self._trial and best.exists():  # of a tunekit that knew no attempts
            self.own.folder.mkdir(parents=True, exist_ok=True)
            os.replace(best, self.own.best)
        elif best.exists():
            with atomic_write(self.own.best) as temporary:
                shutil.copyfile(best, temporary)


class StoredFiles(NodeFiles):
    """Copies on this node of what a storage has, in a folder that its user alone can read.

    The storage is the truth: a state that lies on this node is never believed. What was written is there
    before the epoch's result is told; best weights first, so that a state never lacks them.
    """

    def __init__(self, assignment: Assignment, uri: str) -> None:
        """
        Args:
            assignment: of the trial, with the paths of the driver's machine.
            uri: of the storage.
        Raises:
            StorageError: if the folder belongs to somebody else.
        """
        root = private_folder(assignment.storage_folder)
        self._driver_root = Path(assignment.storage_root)
        self._root = root
        self._storage = Storage(uri, assignment.storage_folder, str(root))
        self._before: list[Path] = []  # what earlier attempts left in the storage
        super().__init__(replace(assignment, folder=str(self._here(assignment.folder))))
        shutil.rmtree(self._trial.folder, ignore_errors=True)  # of a process that was killed

    def pack(self) -> Pack:
        """The images on this node: brought from the storage, once."""
        shared, folder = self._assignment.shared_pack, Path(self._assignment.pack)
        if shared is None:
            return Pack.open(folder)
        with tempfile.TemporaryDirectory(dir=self._root) as described:
            self._fetch_pack(("pack.json",), shared, Path(described))
            wanted = Pack.described(Path(described))
        return fetched_pack(
            wanted, folder, lambda to: self._fetch_pack((*wanted.files, "pack.json"), shared, to)
        )

    def split(self) -> Path:
        """Which images train and which validate."""
        return self._brought(self._assignment.split)

    def weights(self) -> Path | None:
        """First weights; None for random ones."""
        return self._brought(self._assignment.weights) if self._assignment.weights else None

    def state(self) -> Path:
        """The state to go on from, which need not be there."""
        there = self._storage.files(self._trial.folder)
        states = [file for file in there if file.name == self.own.last.name]
        newest = max((attempt_number(file.parent.name) for file in states), default=0)
        if not newest:
            return self.own.last
        before = self._trial.attempt(newest)
        self._storage.pull(before.last)
        if before != self.own and before.best in there:  # they belong to the state, as in the shared folder
            self._storage.copy(before.best, self.own.best)
        self._before = [file for file in there if attempt_number(file.parent.name) < self._assignment.attempt]
        return before.last

    def wrote(self, file: Path) -> None:
        """A file of this attempt was written; with its first state those before it are of no use."""
        self._storage.push(file)
        while file == self.own.last and self._before:
            with suppress(StorageError):  # the driver deletes all of the trial when it is over
                self._storage.drop(self._before.pop())

    def close(self) -> None:
        """The trial ends here, or goes on elsewhere: nothing of it stays on this node."""
        shutil.rmtree(self._trial.folder, ignore_errors=True)

    def _here(self, file: str) -> Path:
        """Where a file of the search lies on this node."""
        return self._root / Path(file).relative_to(self._driver_root)

    def _brought(self, name: str) -> Path:
        """A file that never changes."""
        file = self._here(name)
        if not (file.exists() or self._storage.pull(file)):
            raise StorageError(f"storage {self._storage.uri} has no {self._storage.folder}/{file.name}")
        return file

    def _fetch_pack(self, names: tuple[str, ...], folder: str, to: Path) -> None:
        there = Storage(self._storage.uri, folder, str(to))
        for name in names:
            if not there.pull(to / name):
                raise DataError(f"storage {there.uri} has no {folder}/{name}")


def private_folder(name: str) -> Path:
    """A folder for temporary files of this user alone, made if need be.

    Args:
        name: a plain word that tells one search from all others.
    Raises:
        StorageError: if somebody else made a folder, or a link, of that name.
    """
    folder = _private(name)
    folder.mkdir(mode=0o700, exist_ok=True)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise StorageError(f"{folder} is not a folder of this user alone: remove it")
    return folder


def remove_private_folder(name: str) -> None:
    """Remove that folder and all in it."""
    shutil.rmtree(_private(name), ignore_errors=True)


def _private(name: str) -> Path:
    return Path(tempfile.gettempdir()) / f"tunekit-{os.getuid()}-{name}"
