"""A search from beginning to end, and again after an interruption."""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from tunekit.data.pack import Pack
from tunekit.data.split import Split
from tunekit.errors import StorageError, TrackingError
from tunekit.history import History, Trial
from tunekit.paths import SearchPaths, tracking_artifacts
from tunekit.recipe import Recipe, describe
from tunekit.space import SearchSpace, load_space
from tunekit.tracking.runs import Outcome
from tunekit.tracking.server import check_reachable
from tunekit.tracking.writer import Teller, Tracker
from tunekit.tuning.assignment import Assignment
from tunekit.tuning.checkpoint_keeper import CheckpointKeeper
from tunekit.tuning.control import Control
from tunekit.tuning.earlier_search import earlier_searches
from tunekit.tuning.estimate import DiskNeed, Estimate, disk_need, estimate
from tunekit.tuning.failure_watch import FailureWatch
from tunekit.tuning.policy import SearchPolicy, Suggestion, policy_of, recipe_of
from tunekit.tuning.progress import View, size, trial_mark, trial_name
from tunekit.tuning.provision import first_weights_file
from tunekit.tuning.ray_session import Machine, Resources
from tunekit.tuning.reopening import locked, same_data
from tunekit.tuning.runner import announced
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
) -> SearchOutcome:
    """Run what is left of a search: all of a new one, or what an interruption left over.

    Args:
        paths: of a search that `begin_search` laid down.
        view: shown to a person.
        time_budget: seconds after which running trials are interrupted; they can be resumed.
        machine: what Ray may hand out.
        tell: gives an account of the search at its end, for MLflow.
        disk_budget: bytes that checkpoints may take from now on; None for as the search was told.
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
        keeper = CheckpointKeeper(
            paths, history, settings.keep_checkpoints, settings.repeats, settings.disk_budget
        )
        tracker = Tracker(
            paths,
            dataclasses.asdict(settings),
            settings.tracking_uri,
            tracking_artifacts(paths.folder.parent),
            partial(_described, space),
            settings.trial_seed,
        )
        for listener in (tracker.record, keeper.event, view.event):
            history.subscribe(listener)
        policy = policy_of(settings, space, history, earlier_searches(paths, settings.start_from, space))
        control = Control(paths, settings, policy, view.say)
        _warn_if_away(settings, view)
        problem = None
        with tracker:
            if not policy.has_ended(control.settings.trials):
                work = _SearchWork(paths, control, pack, policy, keeper, FailureWatch(settings.max_failures))
                asked = machine or Machine()
                problem = train_on_ray(work, paths, settings, pack, view, time_budget, asked, control)
            control.close()
            finished = policy.has_ended(control.settings.trials)
            try:
                if finished:
                    policy.stop_paused()
                _close_books(paths, space, history, keeper, tracker, finished, tell)
            except (StorageError, OSError) as error:  # a resume closes what a full disk leaves open
                finished, problem = False, problem or _disk_words(error)
                tracker.finish("interrupted")
            undelivered = tracker.close(_TRACKING_GRACE).undelivered
        control.close()  # that took a while
        history.close()
        return SearchOutcome(paths, history, finished, problem, time.monotonic() - started, undelivered)


def _disk_words(error: StorageError | OSError) -> str:
    if isinstance(error, StorageError):
        return str(error)
    return f"{error.filename} cannot be written: {error.strerror}"


def _load_settings(paths: SearchPaths, disk_budget: int | None) -> SearchSettings:
    settings = SearchSettings.load(paths)
    if disk_budget is None:
        return settings
    settings = dataclasses.replace(settings, disk_budget=disk_budget)
    settings.save(paths)
    return settings


def _warn_if_away(settings: SearchSettings, view: View) -> None:
    """A search that has begun needs no tracking server to go on."""
    try:
        check_reachable(settings.tracking_uri)
    except TrackingError as error:
        view.say(f"{error}. What MLflow lacks waits in the search's folder until it answers")


@dataclass(frozen=True)
class _SearchWork:
    """The part of a search in which trials run, as `train_on_ray` takes it."""

    paths: SearchPaths
    control: Control
    pack: Pack
    policy: SearchPolicy
    keeper: CheckpointKeeper
    failures: FailureWatch

    @property
    def settings(self) -> SearchSettings:
        """As they are now: a search can be extended while it runs."""
        return self.control.settings

    @property
    def history(self) -> History:
        return self.policy.history

    @property
    def trials(self) -> int:
        return self.settings.trials

    @property
    def epochs(self) -> int:
        return self.settings.epochs

    def next_comparison(self, trial: Trial) -> int:
        return self.policy.next_comparison(trial)

    def name(self, trial: Trial) -> str:
        return trial_name(trial)

    def measured(self) -> list[Recipe]:
        """A recipe for each network that trials may train, and one for each baseline."""
        space = self.policy.space
        by_name = {values["model.name"]: values for values in space.combinations("model.name")}
        proposed = [space.recipe(values) for values in by_name.values()] if self.settings.samples else []
        return proposed + [Recipe.from_flat(known.recipe) for known in self.settings.known_recipes()]

    def assignment(self, suggestion: Suggestion, resources: Resources) -> Assignment:
        trial = self.policy.history.trials[suggestion.trial_id]
        recipe = recipe_of(self.policy.space, trial)
        return Assignment(
            trial_id=trial.id,
            recipe=recipe.to_flat(),
            seed=self.settings.trial_seed(suggestion.trial_id),
            epochs=self.settings.epochs,
            reported=trial.epoch,
            pack=str(self.pack.folder),
            split=str(self.paths.split),
            folder=str(self.paths.trial(trial.id).folder),
            weights=first_weights_file(self.paths, recipe),
            cpus=resources.cpus_per_trial,
            gpus=resources.gpus_per_trial,
            on_oom=self.settings.on_oom,
        )

    def problem(self, trial: Trial) -> str | None:
        failing = None if trial.unfinished else self.failures.see(trial)
        if failing is not None:
            return f"{failing} ({self.paths.log} says more; --max-failures sets when a search stops)"
        if self.keeper.over_budget:
            return (
                f"its checkpoints take {size(self.keeper.taken)}, more than the disk budget, and all may "
                "still be needed ('tunekit resume --disk-budget' sets another)"
            )
        return None

    def plan(self, resources: Resources) -> str:
        left, total = self._trials_left, self.settings.trials
        done = f" ({total - left} are done)" if left < total else ""
        known = [_baselines(self._baselines_left)] if self._baselines_left else []
        known += ["the default recipe"] if self._default_left else []
        first = f", {' and '.join(known)} first and in full" if known else ""
        times = self.settings.repeats
        again = f"; what trains in full is trained {times} times" if times > 1 else ""
        trials = "1 trial" if left == 1 else f"{left} trials"
        return (
            f"Will run {trials}{done} of at most {self.settings.epochs} epochs{first}; "
            f"{self._stopping()}{again}; {resources.words()}"
        )

    @property
    def disk_budget(self) -> int | None:
        return self.settings.disk_budget

    def disk_need(self, weights: list[int], resources: Resources) -> DiskNeed:
        paused = self.policy.scheduler.most_paused(self.settings.trials)
        return disk_need(weights, resources.slots, self.settings.keep_checkpoints, paused)

    def estimate(self, seconds_per_image: list[float], resources: Resources) -> Estimate:
        return estimate(
            seconds_per_image,
            self.settings.train_images,
            self.settings.val_images,
            self._trials_left,
            self.settings.epochs,
            resources.slots,
            self.policy.scheduler.survivors(),
            self._baselines_left + self._default_left,
            self.settings.repeats,
        )

    @property
    def _trials_left(self) -> int:
        return self.settings.trials - sum(trial.over for trial in self._trials)

    @property
    def _baselines_left(self) -> int:
        return len(self.settings.baselines) - sum(trial.over for trial in self._trials if trial.baseline)

    @property
    def _default_left(self) -> bool:
        """Whether the default recipe is still to be trained: the first that is proposed."""
        proposed = [trial for trial in self._trials if not trial.baseline]
        return not proposed[0].over and proposed[0].default if proposed else self.settings.samples > 0

    @property
    def _trials(self) -> list[Trial]:
        return self.policy.history.recipes

    def _stopping(self) -> str:
        return self.policy.scheduler.words() if self.settings.samples else "no early stopping"


def _close_books(
    paths: SearchPaths,
    space: SearchSpace,
    history: History,
    keeper: CheckpointKeeper,
    tracker: Tracker,
    finished: bool,
    tell: Teller | None,
) -> None:
    """Leave summary, checkpoints and winner in MLflow, and a study on disk."""
    checkpoints = [(trial.id, paths.trial(trial.id).best) for trial in keeper.best_trials()]
    outcome: Outcome = "finished" if finished else "interrupted"
    winner = partial(_winner, checkpoints[0][1]) if checkpoints else None
    account = _account(paths, outcome, tell)
    tracker.finish(outcome, checkpoints, winner, *account)
    export_study(history, space, paths)


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


def _baselines(count: int) -> str:
    return "1 baseline" if count == 1 else f"{count} baselines"


def _described(space: SearchSpace, trial: Trial) -> str:
    words = trial.baseline or describe(recipe_of(space, trial))
    return " ".join(filter(None, (words, trial_mark(trial.default, trial.repeat_of))))


def _winner(file: Path) -> Classifier:
    from tunekit.tuning.winner import load_winner  # imports torch, which the driver needs only here

    return load_winner(file)
