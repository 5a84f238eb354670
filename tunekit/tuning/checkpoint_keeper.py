"""Which checkpoints stay on disk while a search runs."""

from __future__ import annotations

from tunekit.history import Event, History, Trial
from tunekit.paths import SearchPaths
from tunekit.tuning.checkpoints import Checkpoints, LocalCheckpoints, checkpoints_of
from tunekit.tuning.settings import SearchSettings

_REASONS_TO_TIDY = ("complete", "stop", "pause", "fail", "lose")


class CheckpointKeeper:
    """Deletes what no one can need again as trials end or pause: it listens to the history.

    A trial that is over never goes on, so its last state goes; a paused one may. The best weights of a
    recipe stay while it is among the best `keep`: those of its first trial, repeats only judge it. A
    recipe that dropped out never returns, since bests only rise, and one whose mean may still fall
    because not all of its `repeats` have ended stays beside them.

    Where a budget is not enough, best weights go too, the winner's never.
    """

    def __init__(
        self,
        paths: SearchPaths,
        history: History,
        keep: int,
        repeats: int = 1,
        budget: int | None = None,
        checkpoints: Checkpoints | None = None,
    ) -> None:
        """
        Args:
            paths: of the search.
            history: of the search, as far as it is known.
            keep: recipes whose best weights stay.
            repeats: trainings of a recipe that trains to its end.
            budget: bytes that checkpoints may take; None for as many as there are.
            checkpoints: where they lie; None for the folder of the search.
        """
        self._checkpoints = checkpoints or LocalCheckpoints(paths)
        self._history = history
        self._keep = keep
        self._repeats = repeats
        self._budget = budget
        self._sizes: dict[int, int] = {}  # bytes here of the checkpoints of each trial that has some
        for trial in history.trials.values():
            if trial.over:  # else a process that was killed, or a worker that was cut off, left something
                self._checkpoints.settle(trial)
            self._measure(trial)

    @property
    def taken(self) -> int:
        """Bytes of all checkpoints."""
        return sum(self._sizes.values())

    @property
    def over_budget(self) -> bool:
        """Whether what may still be needed takes more than the budget."""
        return self._budget is not None and self.taken > self._budget

    def event(self, event: Event) -> None:
        """Tidy up after a trial that ended or paused; see what it takes after each epoch."""
        if event.kind not in (*_REASONS_TO_TIDY, "result"):
            return
        trial = self._history.trials[event.trial]
        if event.kind == "result":
            self._checkpoints.written(trial)
        else:
            self._tidy(trial)
        self._measure(trial)
        self._make_room()

    def best_trials(self) -> list[Trial]:
        """The first trials of the best recipes that have a result, best first, at most `keep`."""
        return self._history.leaders(self._keep)

    def bring_home(self) -> None:
        """Have the weights of the best trials in the search's folder, wherever they were trained.

        Raises:
            StorageError: if they cannot be brought there.
        """
        self._checkpoints.bring_home(self.best_trials())

    def close(self) -> None:
        """Finish what was begun."""
        self._checkpoints.close()

    def _tidy(self, ended: Trial) -> None:
        self._checkpoints.settle(ended)
        self._measure(ended)
        kept = {trial.id for trial in self.best_trials()}
        for trial in [self._history.trials[trial_id] for trial_id in self._sizes]:
            if trial.id not in kept:
                self._drop_best(trial)

    def _make_room(self) -> None:
        if self.over_budget:
            for trial in reversed(self.best_trials()[1:]):
                if self.over_budget:
                    self._drop_best(trial)

    def _drop_best(self, trial: Trial) -> None:
        if not (trial.unfinished or self._undecided(trial)):
            self._checkpoints.drop_best(trial)
            self._measure(trial)

    def _measure(self, trial: Trial) -> None:
        taken = self._checkpoints.taken(trial)
        if taken is None:
            self._sizes.pop(trial.id, None)
        else:
            self._sizes[trial.id] = taken

    def _undecided(self, trial: Trial) -> bool:
        """Whether repeats of this recipe are still to come in."""
        if trial.repeat_of is not None or trial.status != "completed":
            return False
        return sum(other.over for other in self._history.repeats(trial)) < self._repeats - 1


def keeper_of(settings: SearchSettings, paths: SearchPaths, history: History) -> CheckpointKeeper:
    """The keeper of a search's checkpoints, wherever they lie."""
    return CheckpointKeeper(
        paths,
        history,
        settings.keep_checkpoints,
        settings.repeats,
        settings.disk_budget,
        checkpoints_of(settings, paths),
    )
