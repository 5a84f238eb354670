"""Which checkpoints stay on disk while a search runs."""

from __future__ import annotations

from tunekit.history import Event, History, Trial
from tunekit.paths import SearchPaths

_ENDS = ("complete", "stop", "fail", "lose")


class CheckpointKeeper:
    """Deletes what no one can need again as trials end: it listens to the history.

    A trial that has ended never goes on, so its last state goes. Its best weights stay while it is
    among the best `keep` trials; a trial that dropped out never returns, since bests only rise.
    """

    def __init__(self, paths: SearchPaths, history: History, keep: int) -> None:
        self._paths = paths
        self._history = history
        self._keep = keep

    def event(self, event: Event) -> None:
        """Tidy up after a trial that ended."""
        if event.kind not in _ENDS:
            return
        self._paths.trial(event.trial).last.unlink(missing_ok=True)
        kept = {trial.id for trial in self.best_trials()}
        for trial in self._history.trials.values():
            if not trial.unfinished and trial.id not in kept:
                self._paths.trial(trial.id).best.unlink(missing_ok=True)

    def best_trials(self) -> list[Trial]:
        """The best trials that have a result, best first, at most `keep`."""
        return [trial for trial in self._history.ranked() if trial.best is not None][: self._keep]
