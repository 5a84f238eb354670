"""A search from beginning to end, and again after an interruption."""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from tunekit.data.split import Split
from tunekit.errors import StorageError, TrackingError
from tunekit.history import History, Trial
from tunekit.paths import SearchPaths, tracking_artifacts
from tunekit.recipe import describe
from tunekit.space import SearchSpace, load_space
from tunekit.tracking.runs import Outcome
from tunekit.tracking.server import check_reachable
from tunekit.tracking.writer import Teller, Tracker
from tunekit.tuning.checkpoint_keeper import keeper_of
from tunekit.tuning.control import Control
from tunekit.tuning.earlier_search import earlier_searches
from tunekit.tuning.failure_watch import FailureWatch
from tunekit.tuning.policy import policy_of, recipe_of
from tunekit.tuning.progress import View, trial_mark
from tunekit.tuning.ray_session import Machine
from tunekit.tuning.reopening import locked, same_data
from tunekit.tuning.runner import announced
from tunekit.tuning.search_work import Preparation, SearchWork
from tunekit.tuning.settings import SearchSettings
from tunekit.tuning.study_export import export_study
from tunekit.tuning.training_on_ray import train_on_ray

if TYPE_CHECKING:
    from tunekit.tracking.model import Classifier

_log = logging.getLogger(__name__)

_TRACKING_GRACE = 120.0  # seconds that the end of a search waits for MLflow


@dataclass(frozen=True)
class SearchOutcome:
    """How a run of a search ended."""

    paths: SearchPaths
    history: History
    finished: bool  # False: interrupted or out of time, `tunekit resume` goes on
    problem: str | None  # why it was stopped, if going on was of no use
    seconds: float
    untracked_events: int  # not yet in MLflow


def run_search(
    paths: SearchPaths,
    view: View,
    time_budget: float | None = None,
    machine: Machine | None = None,
    tell: Teller | None = None,
    disk_budget: int | None = None,
    load_for_the_end: Callable[[], None] = lambda: None,
) -> SearchOutcome:
    """Run what is left of a search: all of a new one, or what an interruption left over.

    Args:
        paths: of a search that `begin_search` laid down.
        view: shown to a person.
        time_budget: seconds after which running trials are interrupted; they can be resumed.
        machine: what Ray may hand out.
        tell: gives an account of the search at its end, for MLflow.
        disk_budget: bytes that checkpoints may take from now on; None for as the search was told.
        load_for_the_end: imports what `tell` needs; called in a thread of its own when there is nothing more
            to begin while the last trials train, and some core is idle.
    Raises:
        SearchError: if another process runs this search, or its data changed.
        StorageError: if the checkpoints of a trial do not fit.
    """
    with locked(paths), announced(paths):
        started = time.monotonic()
        settings = _load_settings(paths, disk_budget)
        pack = same_data(settings)
        Split.load(paths.split)  # a damaged one is the user's to know, not each worker's
        space = load_space(paths.space).with_fixed(settings.fixed)
        history = History.read(paths.history)
        keeper = keeper_of(settings, paths, history)
        tracker = _tracker(paths, history, settings, space)
        for listener in (tracker.record, keeper.event, view.event):
            history.subscribe(listener)
        policy = policy_of(settings, space, history, earlier_searches(paths, settings.start_from, space))
        control = Control(paths, settings, policy, view.say)
        _warn_if_away(settings, view)
        preparation = Preparation(load_for_the_end)
        failures = FailureWatch(settings.max_failures)
        work = SearchWork(paths, control, pack, policy, keeper, failures, preparation)
        with tracker, closing(keeper):
            problem = _run_trials(work, view, time_budget, machine or Machine())
            preparation.join()
            finished, unwritten = _end(work, tracker, tell)
            undelivered = tracker.close(_TRACKING_GRACE).undelivered
        control.close()  # that took a while
        history.close()
        seconds = time.monotonic() - started
        return SearchOutcome(paths, history, finished, problem or unwritten, seconds, undelivered)


def _tracker(paths: SearchPaths, history: History, settings: SearchSettings, space: SearchSpace) -> Tracker:
    return Tracker(
        paths,
        history,
        dataclasses.asdict(settings),
        settings.tracking_uri,
        tracking_artifacts(paths.folder.parent),
        partial(_described, space),
        settings.trial_seed,
    )


def _run_trials(work: SearchWork, view: View, time_budget: float | None, machine: Machine) -> str | None:
    """Run what is left; why it was stopped, if going on is of no use."""
    control, problem = work.control, None
    if not work.policy.has_ended(work.trials):
        problem = train_on_ray(
            work, work.paths, work.settings, work.pack, view, time_budget, machine, control
        )
    control.close()
    return problem


def _end(work: SearchWork, tracker: Tracker, tell: Teller | None) -> tuple[bool, str | None]:
    """Close the books: whether the search is finished, and why they cannot be closed, if so."""
    finished = work.policy.has_ended(work.trials)
    try:
        if finished:
            work.policy.stop_paused()
        work.keeper.bring_home()
        _close_books(work, tracker, finished, tell)
    except (StorageError, OSError) as error:  # a resume closes what a full disk leaves open
        tracker.finish("interrupted")
        return False, _disk_words(error)
    return finished, None


def _disk_words(error: StorageError | OSError) -> str:
    if isinstance(error, StorageError):
        return str(error)
    return f"{error.filename} cannot be written: {error.strerror}"


def _load_settings(paths: SearchPaths, disk_budget: int | None) -> SearchSettings:
    settings = SearchSettings.load(paths)
    if disk_budget is None:
        return settings
    settings = dataclasses.replace(settings, disk_budget=disk_budget)
    settings.check()
    settings.save(paths)
    return settings


def _warn_if_away(settings: SearchSettings, view: View) -> None:
    """A search that has begun needs no tracking server to go on."""
    try:
        check_reachable(settings.tracking_uri)
    except TrackingError as error:
        view.say(f"{error}. What MLflow lacks waits in the search's folder until it answers")


def _close_books(work: SearchWork, tracker: Tracker, finished: bool, tell: Teller | None) -> None:
    """Leave summary, checkpoints and winner in MLflow, and a study on disk."""
    paths = work.paths
    checkpoints = [(trial.id, paths.trial(trial.id).best) for trial in work.keeper.best_trials()]
    outcome: Outcome = "finished" if finished else "interrupted"
    winner = partial(_winner, checkpoints[0][1]) if checkpoints else None
    account = _account(paths, outcome, tell)
    tracker.finish(outcome, checkpoints, winner, *account)
    export_study(work.history, work.policy.space, paths)


def _account(paths: SearchPaths, outcome: Outcome, tell: Teller | None) -> tuple[str | None, Sequence[Path]]:
    """An account that cannot be given costs the search nothing else of its end."""
    if tell is None:
        return None, ()
    try:
        return tell(paths, outcome)
    except OSError as error:
        _log.warning("no report of search %s: %s", paths.name, error)
        return None, ()
    except Exception:
        _log.exception("no report of search %s", paths.name)
        return None, ()


def _described(space: SearchSpace, trial: Trial) -> str:
    words = trial.baseline or describe(recipe_of(space, trial))
    return " ".join(filter(None, (words, trial_mark(trial.default, trial.repeat_of, trial.warm_start))))


def _winner(file: Path) -> Classifier:
    from tunekit.tuning.winner import load_winner  # imports torch, which the driver needs only here

    return load_winner(file)
