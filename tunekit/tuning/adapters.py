"""Ray Tune's Searcher, TrialScheduler and Stopper as thin doors to one policy."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ray.tune import Stopper
from ray.tune.experiment import Trial as RayTrial
from ray.tune.progress_reporter import TrialProgressCallback
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from tunekit.errors import StorageError
from tunekit.history import Trial
from tunekit.tuning.assignment import Assignment
from tunekit.tuning.control import Control
from tunekit.tuning.resources import Room
from tunekit.tuning.trial_policy import Suggestion, TrialPolicy

_log = logging.getLogger(__name__)

_ATTEMPTS = 3  # how often a trial may be started without getting an epoch further when machines fail it
_RAY_OUT_OF_MEMORY = ("OutOfMemoryError", "low on memory")  # in the words of its memory monitor


class TrialDesk:
    """Hands out the trials of one search and takes their results: what the adapters share.

    Where going on is of no use (a full disk, one failure after the other) it has a `problem`: then it
    takes nothing more, and what runs is as if interrupted.
    """

    def __init__(
        self,
        policy: TrialPolicy,
        samples: int,
        assign: Callable[[Suggestion], Assignment],
        look_after: Callable[[Trial], str | None] = lambda trial: None,
        control: Control | None = None,
        idle: Callable[[], None] = lambda: None,
    ) -> None:
        """
        Args:
            policy: decides.
            samples: trials in the whole search, baselines among them, repeats not.
            assign: turns a suggestion into what a worker needs.
            look_after: is shown each trial that got an epoch further or ended, and says in one line if
                going on is of no use.
            control: carries out what other processes ask meanwhile.
            idle: is called when a trial could begin and there is none: may be often, and must return at once.
        """
        self.policy = policy
        self.problem: str | None = None  # why the trials were stopped, in one line
        self._samples = samples
        self._assign = assign
        self._look_after = look_after
        self._control = control
        self._idle = idle
        self._trial_of: dict[str, int] = {}  # Ray's id of an attempt to the trial's
        self._lost_attempts: Counter[int] = Counter()

    @property
    def finished(self) -> bool:
        """Whether every trial has ended, or none is to go on."""
        return self.problem is not None or self.policy.has_ended(self._samples)

    def asked_to_end(self) -> bool:
        """Do what other processes ask; returns whether that is to end the search. May be called often."""
        if self._control is None:
            return False
        with self._noting_problems():
            self._control.attend()
        self._samples = self._control.settings.trials
        return self._control.stopping

    def hand_out(self, ray_id: str) -> Assignment | None:
        """The next trial, or None while there is none: then running ones may still bring one about."""
        if self.problem is None and self.policy.has_next(self._samples):
            with self._noting_problems():
                suggestion = self.policy.next(self._samples)
                self._trial_of[ray_id] = suggestion.trial_id
                return self._assign(suggestion)
        self._idle()
        return None

    def take(self, ray_id: str, result: dict[str, Any]) -> bool:
        """Record a result; returns whether the trial goes on."""
        if self.problem is None:
            with self._noting_problems():
                trial_id = self._trial_of[ray_id]
                goes_on = self._record(trial_id, result)
                self.problem = self._look_after(self.policy.history.trials[trial_id])
                return goes_on and self.problem is None
        return False

    def forget(self, ray_id: str) -> None:
        """Nothing more will be said of this attempt at a trial."""
        del self._trial_of[ray_id]

    def attempt_lost(self, ray_id: str, reason: str) -> None:
        """A worker or its machine failed: hand the trial out again, or give it up."""
        self._lose_attempt(self._trial_of[ray_id], reason)

    def attempts_lost(self, reason: str) -> None:
        """All that runs is gone."""
        for trial_id in sorted(self.policy.history.running):
            if self.policy.in_training(trial_id):
                self._lose_attempt(trial_id, reason)

    def _lose_attempt(self, trial_id: int, reason: str) -> None:
        if self.problem is not None:
            return
        self._lost_attempts[trial_id] += 1
        _log.error("trial %d, attempt %d: %s", trial_id, self._lost_attempts[trial_id], reason)
        with self._noting_problems():
            if self._lost_attempts[trial_id] < _ATTEMPTS:
                self.policy.interrupt(trial_id)
                return
            self._give_up(trial_id, reason)
            self.problem = self._look_after(self.policy.history.trials[trial_id])

    @contextmanager
    def _noting_problems(self) -> Iterator[None]:
        """What the disk cannot take is a problem of the search, not the end of this process."""
        try:
            yield
        except StorageError as error:
            self.problem = str(error)

    def _record(self, trial_id: int, result: dict[str, Any]) -> bool:
        if "problem" in result:  # of the trial's machine: another trial would meet it too
            raise StorageError(result["problem"])
        self._lost_attempts.pop(trial_id, None)  # it got on: machines that fail now and then cost no trial
        if "failure" in result:
            self.policy.fail(trial_id, result["epoch"], result["failure"])
            return False
        metrics = {name: float(result[name]) for name in _METRICS}
        worker = f"{result['hostname']}:{result['pid']}" if "pid" in result else None
        decision = self.policy.report(trial_id, result["epoch"], result["val_accuracy"], metrics, worker)
        return decision == "continue"

    def _give_up(self, trial_id: int, reason: str) -> None:
        """Ray ends a worker when its machine's memory is nearly full: once may be a neighbour's fault,
        every time is the recipe's."""
        if any(words in reason for words in _RAY_OUT_OF_MEMORY):
            epoch = self.policy.history.trials[trial_id].epoch + 1
            self.policy.fail(trial_id, epoch, f"out of memory: Ray ended its worker {_ATTEMPTS} times")
        else:
            self.policy.lose(trial_id, reason.strip().splitlines()[-1])


_METRICS = (
    "train_loss",
    "train_accuracy",
    "val_loss",
    "learning_rate",
    "epoch_seconds",
    "images_per_second",
    "trainable_parameters",
    "micro_batches",
)


class _NotSaved:
    """Ray pickles searchers and schedulers into its snapshots; ours is the history: nothing goes there."""

    def __getstate__(self) -> dict[str, Any]:
        return {}


class PolicySearcher(_NotSaved, Searcher):  # type: ignore[misc]
    """Asks the desk for the next trial when there is room for it: a cluster may grow and shrink."""

    def __init__(self, desk: TrialDesk, room: Room) -> None:
        """
        Args:
            desk: hands out trials.
            room: says how many trials may have begun and not ended.
        """
        super().__init__()
        self._desk = desk
        self._room = room
        self._begun: set[str] = set()  # and not ended

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        if self._desk.finished:
            return str(Searcher.FINISHED)
        if len(self._begun) >= self._room.trials:
            return None
        assignment = self._desk.hand_out(trial_id)
        if assignment is None:
            return None
        self._begun.add(trial_id)
        return asdict(assignment)

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        self._begun.discard(trial_id)  # the desk hears of every end from the scheduler

    def save(self, checkpoint_path: str) -> None:
        """Nothing: see `_NotSaved`."""

    def restore(self, checkpoint_path: str) -> None:
        raise AssertionError("a search resumes from its history, never from Ray's snapshot")


class PolicyScheduler(_NotSaved, FIFOScheduler):  # type: ignore[misc]
    """Brings every result to the desk, and stops the trial when the policy says so.

    A trial that pauses is stopped too, so that its worker is free; it goes on as a new trial of Ray's.
    The only door for results: Ray tells the searcher nothing of the result that stops a trial.
    """

    def __init__(self, desk: TrialDesk, room: Room) -> None:
        """
        Args:
            desk: takes results.
            room: says how many trials can train at the same time.
        """
        super().__init__()
        self._desk = desk
        self._room = room
        self._live: list[RayTrial] = []  # in the order in which they were handed out

    def on_trial_add(self, tune_controller: Any, trial: RayTrial) -> None:
        self._live.append(trial)

    def choose_trial_to_run(self, tune_controller: Any) -> RayTrial | None:
        """The oldest trial for which no process is being started: what a process that is free takes.

        Tune's own choice, the oldest of all, gives it a trial whose process is being started, and ends that
        one: where trials are shorter than a start, process after process dies so, and few ever train.
        """
        for trial in [trial for trial in self._live if trial.is_finished()]:
            self._live.remove(trial)
            self._desk.forget(trial.trial_id)
            _forget(tune_controller, trial)
        waiting = [trial for trial in self._live if trial.status == RayTrial.PENDING]
        starting = self._room.slots - (len(self._live) - len(waiting)) - 1
        return waiting[min(max(starting, 0), len(waiting) - 1)] if waiting else None

    def on_trial_result(self, tune_controller: Any, trial: RayTrial, result: dict[str, Any]) -> str:
        goes_on = self._desk.take(trial.trial_id, result)
        return str(TrialScheduler.CONTINUE if goes_on else TrialScheduler.STOP)

    def on_trial_error(self, tune_controller: Any, trial: RayTrial) -> None:
        # Its own file, which is there before Ray copies it to the results folder (whose disk may be full).
        self._desk.attempt_lost(trial.trial_id, Path(trial.error_file).read_text(encoding="utf-8"))


def _forget(tune_controller: Any, trial: RayTrial) -> None:
    """Let go of an ended trial. Tune keeps every trial to the end, 5 kB each, and then writes another 4 kB of
    JSON of each to its snapshot; the history has what was in them.

    All but the list are private to Ray 2.60's controller: one that names them otherwise keeps its trials.
    """
    tune_controller.get_trials().remove(trial)
    controller = getattr(tune_controller, "_tune_controller", None)
    for name in ("_stopped_trials", "_failed_trials", "_trials_to_cache"):
        getattr(controller, name, set()).discard(trial)
    getattr(controller, "_trial_metadata", {}).pop(trial.trial_id, None)


class NoPrinter(TrialProgressCallback):  # type: ignore[misc]
    """Takes the place of the one that Tune adds, which prints every result and keeps every trial."""

    def on_trial_result(self, *args: Any, **info: Any) -> None: ...
    def on_trial_error(self, *args: Any, **info: Any) -> None: ...
    def on_trial_complete(self, *args: Any, **info: Any) -> None: ...


class DeskStopper(_NotSaved, Stopper):  # type: ignore[misc]
    """Ends all trials when the desk has a problem, somebody asks for it or the time is up, whatever the
    machine's clock does."""

    def __init__(self, desk: TrialDesk, time_budget: float | None) -> None:
        self._desk = desk
        self._deadline = None if time_budget is None else time.monotonic() + time_budget

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """Nothing: the scheduler ends single trials."""
        return False

    def stop_all(self) -> bool:
        late = self._deadline is not None and time.monotonic() >= self._deadline
        return late or self._desk.asked_to_end() or self._desk.problem is not None
