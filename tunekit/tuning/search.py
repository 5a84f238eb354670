"""A search from beginning to end, and again after an interruption."""

from __future__ import annotations

import dataclasses
import os
import shlex
import shutil
import sys
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
from tunekit.data.split import Split, make_split
from tunekit.errors import SearchError
from tunekit.history import History
from tunekit.paths import SearchPaths, find_space, search_paths, tracking_artifacts
from tunekit.recipe import describe
from tunekit.space import SearchSpace, load_space
from tunekit.tracking.runs import Outcome
from tunekit.tracking.server import check_reachable, masked
from tunekit.tracking.writer import Tracker
from tunekit.tuning.assignment import Assignment
from tunekit.tuning.checkpoint_keeper import CheckpointKeeper
from tunekit.tuning.estimate import Measurement, MeasuringProcess, estimate
from tunekit.tuning.policy import SearchPolicy, Suggestion
from tunekit.tuning.progress import View, duration, tenths
from tunekit.tuning.ray_session import (
    Machine,
    Resources,
    check_shares,
    plan_resources,
    ray_session,
)
from tunekit.tuning.settings import SearchSettings, git_state, installed_versions
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


def begin_search(
    settings: SearchSettings, results_dir: Path, view: View, machine: Machine | None = None
) -> SearchPaths:
    """Check everything that was asked for and lay down the folder of a new search.

    Returns:
        The folder, with settings, space and split in it.
    Raises:
        TunekitError: naming what is wrong; then nothing was written.
    """
    settings.check()
    paths = search_paths(results_dir, settings.name)
    space_file = find_space(settings.space)
    space = load_space(space_file).with_fixed(settings.fixed)
    if not space.parameters:
        raise SearchError(f"{space_file}: nothing is left to vary: [space] is empty or all of it is fixed")
    _policy(settings, space, History())  # its arguments are checked before any work
    _check_free(paths)
    check_shares(settings.cpus_per_trial, settings.gpus_per_trial, machine or Machine())
    check_reachable(settings.tracking_uri)
    pack = open_dataset(
        settings.dataset, Path(settings.data_dir), settings.image_size, progress=tenths(view.say)
    )
    split = make_split(pack.train()[1], settings.val_fraction, settings.seed, settings.train_limit)
    settings = dataclasses.replace(
        settings,
        command=shlex.join(["tunekit", *sys.argv[1:]]),
        versions=installed_versions(),
        git=git_state(Path.cwd()),
        data_digest=pack.digest,
        train_images=len(split.train),
        val_images=len(split.validation),
    )
    paths.folder.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(space_file, paths.space)
    split.save(paths.split)
    settings.save(paths)  # last: a folder with settings is a search
    view.say(f"Search {settings.name}: {settings.dataset}, {_counts(pack, split)}, space {settings.space}")
    return paths


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
        keeper = CheckpointKeeper(paths, history, settings.keep_checkpoints)
        tracker = Tracker(
            paths,
            dataclasses.asdict(settings),
            settings.tracking_uri,
            tracking_artifacts(paths.folder.parent),
            lambda trial: describe(space.recipe(trial.params)),
            settings.trial_seed,
        )
        for listener in (tracker.record, keeper.event, view.event):
            history.subscribe(listener)
        policy = _policy(settings, space, history)
        with tracker:
            if not policy.has_ended(settings.samples):
                _SearchRun(paths, settings, pack, policy).run(view, time_budget, machine or Machine())
            finished = policy.has_ended(settings.samples)
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
                self.settings.samples, self.settings.cpus_per_trial, self.settings.gpus_per_trial
            )
            view.say(self._plan(resources))
            view.say(f"Writes to {self.paths.folder}, MLflow at {masked(self.settings.tracking_uri)}")
            view.say(self._time_needed(measuring.seconds_per_image(), resources))
            from tunekit.tuning.adapters import TrialDesk
            from tunekit.tuning.engine import run_trials

            view.begin(self.policy.history, self.settings.samples, self.settings.epochs, self.policy.rungs)
            desk = TrialDesk(self.policy, self.settings.samples, partial(self._assignment, resources))
            try:
                run_trials(desk, resources, self.paths.ray, time_budget)
            finally:
                view.end()

    def _measurement(self) -> Measurement:
        space = self.policy.space
        varied = space.parameters.get("model.name")
        models = map(str, varied.choices) if varied else [space.recipe({}).model.name]
        return Measurement(
            tuple(models),
            self.pack.shape,
            len(self.pack.classes),
            self.settings.cpus_per_trial or 1,
            self.settings.gpus_per_trial,
        )

    def _assignment(self, resources: Resources, suggestion: Suggestion) -> Assignment:
        return Assignment(
            trial_id=suggestion.trial_id,
            recipe=self.policy.space.recipe(suggestion.params).to_flat(),
            seed=self.settings.trial_seed(suggestion.trial_id),
            epochs=self.settings.epochs,
            reported=self.policy.history.trials[suggestion.trial_id].epoch,
            pack=str(self.pack.folder),
            split=str(self.paths.split),
            folder=str(self.paths.trial(suggestion.trial_id).folder),
            cpus=resources.cpus_per_trial,
            gpus=resources.gpus_per_trial,
        )

    @property
    def _trials_left(self) -> int:
        trials = self.policy.history.trials.values()
        return self.settings.samples - sum(not trial.unfinished for trial in trials)

    def _plan(self, resources: Resources) -> str:
        left, samples = self._trials_left, self.settings.samples
        done = f" ({samples - left} are done)" if left < samples else ""
        rungs = ", ".join(map(str, self.policy.rungs)) if self.policy.stops else ""
        epochs = "epochs" if len(self.policy.rungs) > 1 else "epoch"
        stopping = f"early stopping at {epochs} {rungs}" if rungs else "no early stopping"
        share = f"{resources.cpus_per_trial:g} CPU"
        if resources.gpus_per_trial:
            share += f" and {resources.gpus_per_trial:g} GPU"
        return (
            f"Will run {left} trials{done} of at most {self.settings.epochs} epochs, {stopping}; "
            f"{resources.slots} at a time with {share} each"
        )

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
            self.policy.rungs if self.policy.stops else (),
            self.settings.reduction_factor,
        )
        return (
            f"Training should take about {duration(seconds.expected)}, and {duration(seconds.at_most)} "
            f"if no trial stops early (from a batch of {len(seconds_per_image)} networks)"
        )


def _policy(settings: SearchSettings, space: SearchSpace, history: History) -> SearchPolicy:
    return SearchPolicy(
        space,
        max_epochs=settings.epochs,
        seed=settings.seed,
        grace_period=settings.grace_period,
        reduction_factor=settings.reduction_factor,
        sampler=settings.sampler,
        scheduler=settings.scheduler,
        history=history,
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


def _check_free(paths: SearchPaths) -> None:
    """A new search takes a name that is free, in a folder that can be written."""
    if paths.settings.exists():
        raise SearchError(
            f"a search called {paths.name!r} is there already: "
            f"'tunekit resume {paths.name}' goes on with it, another --name starts a new one"
        )
    existing = next(folder for folder in (paths.folder, *paths.folder.parents) if folder.exists())
    if not (existing.is_dir() and os.access(existing, os.W_OK | os.X_OK)):
        raise SearchError(f"{existing} cannot be written: choose another --results-dir")


@contextmanager
def _locked(paths: SearchPaths) -> Iterator[None]:
    """Only one process runs a search; a crash gives the lock back."""
    try:
        with FileLock(paths.lock, timeout=_LOCK_PATIENCE):
            yield
    except Timeout:
        raise SearchError(f"search {paths.name} is running in another process") from None


def _counts(pack: Pack, split: Split) -> str:
    height, width, channels = pack.shape
    return (
        f"{len(split.train):,} training and {len(split.validation):,} validation images "
        f"of {height}x{width}x{channels} in {len(pack.classes)} classes"
    )
