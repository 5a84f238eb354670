"""A search from beginning to end, and again after an interruption."""

from __future__ import annotations

import dataclasses
import os
import shlex
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from tunekit.data.datasets import open_dataset
from tunekit.data.pack import Pack
from tunekit.data.split import Split, make_split
from tunekit.errors import SearchError
from tunekit.history import History
from tunekit.models.build import build_model
from tunekit.paths import SearchPaths, find_space, search_paths, tracking_artifacts
from tunekit.recipe import Recipe, describe
from tunekit.space import SearchSpace, load_space
from tunekit.tracking.model import Classifier
from tunekit.tracking.runs import Outcome
from tunekit.tracking.server import check_reachable, masked
from tunekit.tracking.writer import Tracker
from tunekit.training.checkpoint import load_best
from tunekit.tuning.adapters import TrialDesk
from tunekit.tuning.assignment import Assignment
from tunekit.tuning.checkpoint_keeper import CheckpointKeeper
from tunekit.tuning.engine import run_trials
from tunekit.tuning.estimate import estimate
from tunekit.tuning.policy import SearchPolicy, Suggestion
from tunekit.tuning.progress import View, duration
from tunekit.tuning.ray_session import (
    Resources,
    measure_networks,
    plan_resources,
    ray_session,
)
from tunekit.tuning.settings import SearchSettings, git_state, installed_versions, settings_dict
from tunekit.tuning.study_export import export_study

_TRACKING_GRACE = 120.0  # seconds that the end of a search waits for MLflow


@dataclass(frozen=True)
class Machine:
    """What Ray may hand out; None for what it finds. GPUs that do not exist are logical."""

    cpus: int | None = None
    gpus: int | None = None


@dataclass(frozen=True)
class SearchOutcome:
    """How a run of a search ended."""

    paths: SearchPaths
    history: History
    finished: bool  # False: interrupted or out of time, `tunekit resume` goes on
    seconds: float
    untracked_events: int  # not yet in MLflow


def begin_search(settings: SearchSettings, results_dir: Path, view: View) -> SearchPaths:
    """Check everything that was asked for and lay down the folder of a new search.

    Returns:
        The folder, with settings, space and split in it.
    Raises:
        TunekitError: naming what is wrong; then nothing was written.
    """
    settings.check()
    paths = search_paths(results_dir.resolve(), settings.name)
    space_file = find_space(settings.space)
    space = load_space(space_file).with_fixed(settings.fixed)
    if not space.parameters:
        raise SearchError(f"{space_file}: nothing is left to vary: [space] is empty or all of it is fixed")
    _policy(settings, space, History())  # its arguments are checked before any work
    _check_free(paths)
    check_reachable(settings.tracking_uri)
    pack = open_dataset(settings.dataset, Path(settings.data_dir), settings.image_size)
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
            settings_dict(settings),
            settings.tracking_uri,
            tracking_artifacts(paths.folder.parent),
            lambda trial: describe(space.recipe(trial.params)),
            settings.trial_seed,
        )
        for listener in (tracker.record, keeper.event, view.event):
            history.subscribe(listener)
        policy = _policy(settings, space, history)
        with tracker:
            if not _all_ended(history, settings):
                _run_trials(paths, settings, policy, pack, view, time_budget, machine or Machine())
            finished = _all_ended(history, settings)
            undelivered = _close_books(paths, space, history, keeper, tracker, finished)
        history.close()
        return SearchOutcome(paths, history, finished, time.monotonic() - started, undelivered)


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


def _run_trials(
    paths: SearchPaths,
    settings: SearchSettings,
    policy: SearchPolicy,
    pack: Pack,
    view: View,
    time_budget: float | None,
    machine: Machine,
) -> None:
    view.say("Starting Ray on this machine ...")
    with ray_session(paths.log, machine.cpus, machine.gpus):
        resources = plan_resources(settings.samples, settings.cpus_per_trial, settings.gpus_per_trial)
        for line in _plan(paths, settings, policy, pack, resources):
            view.say(line)

        def assign(suggestion: Suggestion) -> Assignment:
            return _assignment(paths, settings, policy, pack, resources, suggestion)

        view.begin(policy.history, settings.samples, settings.epochs, policy.rungs)
        try:
            run_trials(TrialDesk(policy, settings.samples, assign), resources, paths.ray, time_budget)
        finally:
            view.end()


def _assignment(
    paths: SearchPaths,
    settings: SearchSettings,
    policy: SearchPolicy,
    pack: Pack,
    resources: Resources,
    suggestion: Suggestion,
) -> Assignment:
    return Assignment(
        trial_id=suggestion.trial_id,
        recipe=policy.space.recipe(suggestion.params).to_flat(),
        seed=settings.trial_seed(suggestion.trial_id),
        epochs=settings.epochs,
        reported=policy.history.trials[suggestion.trial_id].epoch,
        pack=str(pack.folder),
        split=str(paths.split),
        folder=str(paths.trial(suggestion.trial_id).folder),
        cpus=resources.cpus_per_trial,
        gpus=resources.gpus_per_trial,
    )


def _plan(
    paths: SearchPaths,
    settings: SearchSettings,
    policy: SearchPolicy,
    pack: Pack,
    resources: Resources,
) -> Iterator[str]:
    """What the search will do, in lines; measures a batch of each network on the way."""
    trials = policy.history.trials
    left = settings.samples - sum(not trial.unfinished for trial in trials.values())
    done = f" ({settings.samples - left} are done)" if left < settings.samples else ""
    stopping = (
        f"early stopping at epochs {', '.join(map(str, policy.rungs))}"
        if policy.stops
        else "no early stopping"
    )
    yield (
        f"Will run {left} trials{done} of at most {settings.epochs} epochs ({stopping}), "
        f"{resources.slots} at a time with {_share(resources)} each"
    )
    yield f"Writes to {paths.folder}, records in MLflow at {masked(settings.tracking_uri)}"
    models = _networks(policy.space)
    seconds = measure_networks(models, pack.shape, len(pack.classes), resources)
    time_needed = estimate(
        seconds,
        settings.train_images,
        settings.val_images,
        left,
        settings.epochs,
        resources.slots,
        policy.rungs if policy.stops else (),
        settings.reduction_factor,
    )
    yield (
        f"Training should take about {duration(time_needed.expected)}, at most about "
        f"{duration(time_needed.at_most)} (from one batch of {len(models)} networks)"
    )


def _networks(space: SearchSpace) -> list[str]:
    """The networks that the space can propose."""
    parameter = space.parameters.get("model.name")
    return [str(choice) for choice in parameter.choices] if parameter else [space.recipe({}).model.name]


def _share(resources: Resources) -> str:
    cpus = f"{resources.cpus_per_trial:g} CPU"
    return f"{cpus} and {resources.gpus_per_trial:g} GPU" if resources.gpus_per_trial else cpus


def _close_books(
    paths: SearchPaths,
    space: SearchSpace,
    history: History,
    keeper: CheckpointKeeper,
    tracker: Tracker,
    finished: bool,
) -> int:
    """Leave summary, checkpoints and winner in MLflow and a study on disk; returns undelivered events."""
    checkpoints = [(trial.id, paths.trial(trial.id).best) for trial in keeper.best_trials()]
    if checkpoints:
        winner_file = checkpoints[0][1]
        outcome: Outcome = "finished" if finished else "interrupted"
        tracker.finish(outcome, checkpoints, lambda: _classifier(winner_file))
    export_study(history, space, paths)
    return tracker.close(_TRACKING_GRACE).undelivered


def _classifier(file: Path) -> Classifier:
    """The network in a file of best weights."""
    best = load_best(file)
    model = build_model(Recipe.from_flat(best.recipe).model, best.image_shape, len(best.classes))
    model.load_state_dict(best.weights)
    return Classifier(model, best.image_shape, best.classes, best.mean, best.std)


def _all_ended(history: History, settings: SearchSettings) -> bool:
    trials = history.trials.values()
    return len(trials) >= settings.samples and not any(trial.unfinished for trial in trials)


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
        with FileLock(paths.lock, timeout=0):
            yield
    except Timeout:
        raise SearchError(f"search {paths.name} is running in another process") from None


def _counts(pack: Pack, split: Split) -> str:
    height, width, channels = pack.shape
    return (
        f"{len(split.train):,} training and {len(split.validation):,} validation images "
        f"of {height}x{width}x{channels} in {len(pack.classes)} classes"
    )
