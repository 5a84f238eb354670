"""The files of a trial as its worker sees them."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from tunekit.data.pack import Pack, copied_pack
from tunekit.paths import TrialPaths, atomic_write
from tunekit.tuning.assignment import Assignment


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
