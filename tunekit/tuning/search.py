"""A search from beginning to end, and again after an interruption."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock, Timeout

from tunekit.data.datasets import open_dataset
from tunekit.data.pack import Pack
from tunekit.errors import SearchError
from tunekit.history import History, Trial
from tunekit.paths import SearchPaths, tracking_artifacts
from tunekit.recipe import Recipe, describe
from tunekit.space import SearchSpace, load_space
from tunekit.tracking.runs import Outcome
from tunekit.tracking.server import check_reachable, masked
from tunekit.tracking.writer import Tracker
from tunekit.tuning.assignment import Assignment
from tunekit.tuning.checkpoint_keeper import CheckpointKeeper
from tunekit.tuning.earlier_search import earlier_searches
from tunekit.tuning.estimate import Measurement, MeasuringProcess, estimate
from tunekit.tuning.policy import SearchPolicy, Suggestion, policy_of, recipe_of
from tunekit.tuning.progress import View, duration, trial_mark
from tunekit.tuning.provision import weights_key
from tunekit.tuning.ray_session import (
    Machine,
    Resources,
    plan_resources,
    ray_session,
)
from tunekit.tuning.settings import SearchSettings
from tunekit.tuning.study_export import export_study

if TYPE_CHECKING:
    from tunekit.tracking.model import Classifier

_LOCK_PATIENCE = 1.0  # seconds; a listing of searches holds the lock for a blink
_TRACKING_GRACE = 120.0  # seconds that the end of a search waits for MLflow


@dataclass(frozen=True)
class SearchOutcome:
    """How a run of a search ended."""

    paths: SearchPaths
    history: History
    finished: bool  # False: interrupted or out of time, `tunekit resume` goes on
    seconds: float
    untracked_events: int  # not yet in MLflow


def run_search(
    paths: SearchPaths, view: View, time_budget: float | None = None, machine: Machine | None = None
) -> SearchOutcome:
    """Run what is left of a search: all of a new one, or what an interruption left over.

    Args:
        paths: of a search that `begin_search` laid down.
        view: shown to a person.
        time_budget: seconds after which running trials are interrupted; they can be resumed.
        machine: what Ray may hand out.
    Raises:
        SearchError: if another process runs this search, or its data changed.
    """
    with _locked(paths):
        started = time.monotonic()
        settings = SearchSettings.load(paths)
        check_reachable(settings.tracking_uri)
        pack = _same_data(settings)
        space = load_space(paths.space).with_fixed(settings.fixed)
        history = History.read(paths.history)
        keeper = CheckpointKeeper(paths, history, settings.keep_checkpoints, settings.repeats)
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
        with tracker:
            if not policy.has_ended(settings.trials):
                _SearchRun(paths, settings, pack, policy).run(view, time_budget, machine or Machine())
            finished = policy.has_ended(settings.trials)
            if finished:
                policy.stop_paused()
            _close_books(paths, space, history, keeper, tracker, finished)
            undelivered = tracker.close(_TRACKING_GRACE).undelivered
        history.close()
        return SearchOutcome(paths, history, finished, time.monotonic() - started, undelivered)


@dataclass(frozen=True)
class _SearchRun:
    """The part of a search in which trials run."""

    paths: SearchPaths
    settings: SearchSettings
    pack: Pack
    policy: SearchPolicy

    def run(self, view: View, time_budget: float | None, machine: Machine) -> None:
        view.say("Starting Ray on this machine ...")
        with (
            closing(MeasuringProcess(self._measurement())) as measuring,
            ray_session(self.paths.log, machine),
        ):
            resources = plan_resources(
                self.settings.trials, self.settings.cpus_per_trial, self.settings.gpus_per_trial
            )
            view.say(self._plan(resources))
            view.say(f"Writes to {self.paths.folder}, MLflow at {masked(self.settings.tracking_uri)}")
            view.say(self._time_needed(measuring.seconds_per_image(), resources))
            from tunekit.tuning.adapters import TrialDesk
            from tunekit.tuning.engine import run_trials

            view.begin(
                self.policy.history, self.settings.trials, self.settings.epochs, self.policy.next_comparison
            )
            desk = TrialDesk(self.policy, self.settings.trials, partial(self._assignment, resources))
            try:
                run_trials(desk, resources, self.paths.ray, time_budget)
            finally:
                view.end()

    def _measurement(self) -> Measurement:
        return Measurement(
            tuple(recipe.to_flat() for recipe in self._measured()),
            self.pack.shape,
            len(self.pack.classes),
            self.settings.cpus_per_trial or 1,
            self.settings.gpus_per_trial,
        )

    def _measured(self) -> list[Recipe]:
        """A recipe for each network that trials may train, and one for each baseline."""
        space = self.policy.space
        by_name = {values["model.name"]: values for values in space.combinations("model.name")}
        proposed = [space.recipe(values) for values in by_name.values()] if self.settings.samples else []
        return proposed + [Recipe.from_flat(known.recipe) for known in self.settings.known_recipes()]

    def _assignment(self, resources: Resources, suggestion: Suggestion) -> Assignment:
        trial = self.policy.history.trials[suggestion.trial_id]
        recipe = recipe_of(self.policy.space, trial)
        weights = self.paths.first_weights(weights_key(recipe)) if recipe.init != "random" else None
        return Assignment(
            trial_id=trial.id,
            recipe=recipe.to_flat(),
            seed=self.settings.trial_seed(suggestion.trial_id),
            epochs=self.settings.epochs,
            reported=trial.epoch,
            pack=str(self.pack.folder),
            split=str(self.paths.split),
            folder=str(self.paths.trial(trial.id).folder),
            weights=str(weights) if weights else None,
            cpus=resources.cpus_per_trial,
            gpus=resources.gpus_per_trial,
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

    def _plan(self, resources: Resources) -> str:
        left, total = self._trials_left, self.settings.trials
        done = f" ({total - left} are done)" if left < total else ""
        known = [_baselines(self._baselines_left)] if self._baselines_left else []
        known += ["the default recipe"] if self._default_left else []
        first = f", {' and '.join(known)} first and in full" if known else ""
        times = self.settings.repeats
        again = f"; what trains in full is trained {times} times" if times > 1 else ""
        trials = "1 trial" if left == 1 else f"{left} trials"
        share = f"{resources.cpus_per_trial:g} CPU"
        if resources.gpus_per_trial:
            share += f" and {resources.gpus_per_trial:g} GPU"
        return (
            f"Will run {trials}{done} of at most {self.settings.epochs} epochs{first}; "
            f"{self._stopping()}{again}; {resources.slots} at a time with {share} each"
        )

    def _stopping(self) -> str:
        return self.policy.scheduler.words() if self.settings.samples else "no early stopping"

    def _time_needed(self, seconds_per_image: list[float] | None, resources: Resources) -> str:
        if seconds_per_image is None:
            return "No time estimate: a batch could not be measured"
        seconds = estimate(
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
        stops = seconds.at_most > seconds.expected
        at_most = f", and {duration(seconds.at_most)} if no trial stops early" if stops else ""
        return (
            f"Training should take about {duration(seconds.expected)}{at_most} "
            f"(from a batch each of {len(seconds_per_image)} recipes)"
        )


def _close_books(
    paths: SearchPaths,
    space: SearchSpace,
    history: History,
    keeper: CheckpointKeeper,
    tracker: Tracker,
    finished: bool,
) -> None:
    """Leave summary, checkpoints and winner in MLflow, and a study on disk."""
    checkpoints = [(trial.id, paths.trial(trial.id).best) for trial in keeper.best_trials()]
    outcome: Outcome = "finished" if finished else "interrupted"
    winner = partial(_winner, checkpoints[0][1]) if checkpoints else None
    tracker.finish(outcome, checkpoints, winner)
    export_study(history, space, paths)


def _baselines(count: int) -> str:
    return "1 baseline" if count == 1 else f"{count} baselines"


def _described(space: SearchSpace, trial: Trial) -> str:
    words = trial.baseline or describe(recipe_of(space, trial))
    return " ".join(filter(None, (words, trial_mark(trial.default, trial.repeat_of))))


def _winner(file: Path) -> Classifier:
    from tunekit.tuning.winner import load_winner  # imports torch, which the driver needs only here

    return load_winner(file)


def _same_data(settings: SearchSettings) -> Pack:
    pack = open_dataset(settings.dataset, Path(settings.data_dir), settings.image_size)
    if pack.digest != settings.data_digest:
        raise SearchError(
            f"the images of {settings.dataset} changed since search {settings.name} began: start a new search"
        )
    return pack


@contextmanager
def _locked(paths: SearchPaths) -> Iterator[None]:
    """Only one process runs a search; a crash gives the lock back."""
    try:
        with FileLock(paths.lock, timeout=_LOCK_PATIENCE):
            yield
    except Timeout:
        raise SearchError(f"search {paths.name} is running in another process") from None
