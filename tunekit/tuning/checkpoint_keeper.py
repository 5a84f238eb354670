"""Which checkpoints stay on disk while a search runs."""

from __future__ import annotations

from tunekit.history import Event, History, Trial
from tunekit.paths import SearchPaths

_REASONS_TO_TIDY = ("complete", "stop", "pause", "fail", "lose")


class CheckpointKeeper:
    """Deletes what no one can need again as trials end or pause: it listens to the history.

    A trial that is over never goes on, so its last state goes; a paused one may. The best weights of a
    recipe stay while it is among the best `keep`: those of its first trial, repeats only judge it. A
    recipe that dropped out never returns, since bests only rise, and one whose mean may still fall
    because not all of its `repeats` have ended stays beside them.
    """

    def __init__(self, paths: SearchPaths, history: History, keep: int, repeats: int = 1) -> None:
        self._paths = paths
        self._history = history
        self._keep = keep
        self._repeats = repeats

    def event(self, event: Event) -> None:
        """Tidy up after a trial that ended or paused."""
        if event.kind not in _REASONS_TO_TIDY:
            return
        if self._history.trials[event.trial].over:
            self._paths.trial(event.trial).last.unlink(missing_ok=True)
        kept = {trial.id for trial in self.best_trials()}
        for trial in self._history.trials.values():
            if not (trial.unfinished or trial.id in kept or self._undecided(trial)):
                self._paths.trial(trial.id).best.unlink(missing_ok=True)

    def best_trials(self) -> list[Trial]:
        """The first trials of the best recipes that have a result, best first, at most `keep`."""
        ranked = [trial for trial in self._history.ranked() if trial.repeat_of is None]
        return [trial for trial in ranked if trial.best is not None][: self._keep]

    def _undecided(self, trial: Trial) -> bool:
        """Whether repeats of this recipe are still to come in."""
        if trial.repeat_of is not None or trial.status != "completed":
            return False
        return sum(other.over for other in self._history.repeats(trial)) < self._repeats - 1
