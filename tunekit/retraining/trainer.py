"""Trains what a retraining wants, on Ray and into MLflow, and goes on where an interruption left it."""

from __future__ import annotations

import dataclasses
import shlex
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import numpy as np

from tunekit.data.pack import Pack
from tunekit.data.split import Split
from tunekit.errors import SearchError
from tunekit.history import Event, History, Trial
from tunekit.paths import RetrainingPaths, SearchPaths, TrialPaths, tracking_artifacts
from tunekit.recipe import Recipe
from tunekit.retraining.trainings import PlannedTraining, RetrainingPolicy, Trainings
from tunekit.tracking.server import masked
from tunekit.tracking.writer import Tracker
from tunekit.tuning.assignment import Assignment
from tunekit.tuning.checkpoints import checkpoints_of
from tunekit.tuning.estimate import DiskNeed, Estimate, disk_need, estimate
from tunekit.tuning.progress import View
from tunekit.tuning.provision import first_weights_file
from tunekit.tuning.ray_session import Machine
from tunekit.tuning.resources import Resources
from tunekit.tuning.settings import SearchSettings
from tunekit.tuning.training_on_ray import train_on_ray
from tunekit.tuning.trial_policy import Suggestion

_TRACKING_GRACE = 120.0  # seconds that the end waits for MLflow
_TRAINED = ("completed", "failed")  # never to be trained again


class Trainer:
    """The trainings of one search's retraining. Use it in a `with` block: MLflow is written meanwhile."""

    def __init__(
        self,
        paths: SearchPaths,
        settings: SearchSettings,
        pack: Pack,
        view: View,
        time_budget: float | None,
        machine: Machine,
    ) -> None:
        """
        Args:
            paths: of the search.
            settings: of the search, with the resources of a training.
            pack: its images.
            view: shown to a person.
            time_budget: seconds for all trainings, or None.
            machine: what Ray may hand out.
        Raises:
            SearchError: if the record of earlier trainings is damaged.
        """
        self.paths: RetrainingPaths = paths.retraining
        self._search = paths
        self._settings = settings
        self._pack = pack
        self._view = view
        self._deadline = None if time_budget is None else time.monotonic() + time_budget
        self._machine = machine
        self._trainings = Trainings(self.paths)
        self.history = History.read(self.paths.history)
        if max(self.history.trials, default=-1) >= len(self.planned):
            raise SearchError(f"{self.paths.settings} does not know all trainings of {self.paths.history}")
        self.lost: list[str] = []  # of the latest `train`: what the machine failed, and why, a line each
        self._checkpoints = checkpoints_of(settings, self.paths)
        self._tracker = self._new_tracker()
        for listener in (self._tracker.record, self._tidy, view.event):
            self.history.subscribe(listener)

    @property
    def planned(self) -> Sequence[PlannedTraining]:
        """Every training that was ever asked for, by id."""
        return self._trainings.planned

    def train(self, wanted: Sequence[PlannedTraining]) -> list[int] | None:
        """Train what of `wanted` was not trained before.

        Returns:
            The id of each; None if the time was up, or trainings were interrupted or lost to the machine.
        Raises:
            SearchError: if the disk is full.
            StorageError: if the search's storage cannot be used.
        """
        ids = self._trainings.ids_of(wanted)
        policy = RetrainingPolicy(self.planned, ids, self.history)
        if not policy.left:
            self._bring_home(ids)
            return ids
        if any(training.part == "train+val" for training in wanted):
            _save_whole_split(self._search, self.paths)
        left = None if self._deadline is None else max(1.0, self._deadline - time.monotonic())
        work = _RetrainingWork(self._search, self._settings, self._pack, self.planned, policy)
        problem = train_on_ray(work, self.paths, self._settings, self._pack, self._view, left, self._machine)
        if problem is not None:
            raise SearchError(f"retraining stopped: {problem}; the same command goes on")
        trials = [self.history.trials[training] for training in ids if training in self.history.trials]
        self.lost = [f"{self.planned[one.id].words}: {one.reason}" for one in trials if one.status == "lost"]
        self._bring_home(ids)
        return None if policy.left or self.lost else ids

    def files(self, training: int) -> TrialPaths:
        """The files of a training."""
        return self.paths.trial(training)

    def finish(self, finished: bool) -> int:
        """Close the books; returns how many events MLflow does not have yet."""
        self._tracker.finish("finished" if finished else "interrupted")
        undelivered = self._tracker.close(_TRACKING_GRACE).undelivered
        self.history.close()
        return undelivered

    def __enter__(self) -> Trainer:
        self._tracker.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._tracker.__exit__(kind, error, trace)
        self._checkpoints.close()
        self.history.close()

    def _bring_home(self, ids: Sequence[int]) -> None:
        """Have the networks that were trained here, wherever that was."""
        ended = [one for one in map(self.history.trials.get, ids) if one and one.status in _TRAINED]
        self._checkpoints.bring_home(one for one in ended if not self.files(one.id).best.exists())

    def _tidy(self, event: Event) -> None:
        """What a training needs to go on is not needed behind its end; after a loss it may be."""
        if event.kind in ("complete", "fail"):
            self._checkpoints.settle(self.history.trials[event.trial])

    def _new_tracker(self) -> Tracker:
        return Tracker(
            self.paths,
            self.history,
            self._shown_in_mlflow(),
            self._settings.tracking_uri,
            tracking_artifacts(self._search.folder.parent),
            lambda trial: self.planned[trial.id].words,
            lambda trial_id: self.planned[trial_id].seed,
        )

    def _shown_in_mlflow(self) -> dict[str, Any]:
        settings = self._settings
        name = f"retrain-best {settings.name}"
        command = shlex.join(["tunekit", *map(masked, sys.argv[1:])])
        kept = (
            "dataset",
            "space",
            "train_images",
            "val_images",
            "data_dir",
            "data_digest",
            "versions",
            "git",
        )
        return {
            **{field: getattr(settings, field) for field in kept},
            "name": name,
            "search_id": f"{settings.search_id}-retraining",
            "created": time.time(),
            "command": command,
            "note": f"**{name}**: the best recipes of the search, each with several seeds.\n\n"
            "Each child run is a training. The folders `opening-1`, ... hold what each opening of the "
            "test set found.",
        }


@dataclass(frozen=True)
class _RetrainingWork:
    """Trainings as `train_on_ray` takes them."""

    search: SearchPaths
    settings: SearchSettings
    pack: Pack
    planned: Sequence[PlannedTraining]
    policy: RetrainingPolicy

    @property
    def history(self) -> History:
        return self.policy.history

    @property
    def trials(self) -> int:
        """With those of earlier calls that this one does not want, since the history has them too."""
        return len({*self.policy.history.trials, *self.policy.wanted})

    @property
    def epochs(self) -> int:
        return max(self.planned[training].epochs for training in self.policy.wanted)

    def next_comparison(self, trial: Trial) -> int:
        return self.planned[trial.id].epochs

    def epochs_left(self) -> float:
        return self.policy.epochs_left()

    def name(self, trial: Trial) -> str:
        return self.planned[trial.id].words

    def measured(self) -> list[Recipe]:
        return [Recipe.from_flat(self.planned[training].recipe) for training in self.policy.left]

    def heaviest(self) -> list[Recipe]:
        return list(dict.fromkeys(self.measured()))

    def assignment(self, suggestion: Suggestion, resources: Resources) -> Assignment:
        training, paths = self.planned[suggestion.trial_id], self.search.retraining
        whole = training.part == "train+val"
        trial = self.policy.history.trials[suggestion.trial_id]
        return Assignment(
            trial_id=trial.id,
            recipe=training.recipe,
            seed=training.seed,
            epochs=training.epochs,
            reported=trial.epoch,
            pack=str(self.pack.folder),
            split=str(paths.whole_split if whole else self.search.split),
            folder=str(paths.trial(trial.id).folder),
            attempt=trial.attempts,
            weights=first_weights_file(self.search, Recipe.from_flat(training.recipe)),
            cpus=resources.cpus_per_trial,
            gpus=resources.gpus_per_trial,
            on_oom=self.settings.on_oom,
            keep_last=whole,  # its validation images are among those that it trains on: no epoch is better
        )

    def problem(self, trial: Trial) -> str | None:
        return None  # a recipe that fails with every seed is a finding

    def idle(self) -> None:
        """Nothing: the networks that are examined next load what they need themselves."""

    def plan(self, resources: Resources) -> str:
        wanted = [self.planned[training] for training in self.policy.wanted]
        names = list(dict.fromkeys(training.name for training in wanted))
        done = len(wanted) - len(self.policy.left)
        part = " on training and validation images" if wanted[0].part == "train+val" else ""
        seeds = len(wanted) // len(names)
        return (
            f"Will train {', '.join(names)}{part}, with {seeds} seed{'s' * (seeds > 1)} each: "
            f"{len(wanted)} trainings{f' ({done} are done)' if done else ''} of {self._epochs_words()}, "
            f"none stopped early; {resources.words()}"
        )

    @property
    def disk_budget(self) -> int | None:
        return None

    def disk_need(self, weights: list[int], resources: Resources) -> DiskNeed:
        return disk_need(weights, resources.slots, keep=len(self.planned), paused=0)

    def _epochs_words(self) -> str:
        epochs = sorted({self.planned[training].epochs for training in self.policy.wanted})
        span = f"{epochs[0]}" if len(epochs) == 1 else f"{epochs[0]} to {epochs[-1]}"
        return f"{span} epoch{'s' * (epochs[-1] > 1)}"

    def estimate(self, seconds_per_image: list[float], resources: Resources) -> Estimate:
        left = self.policy.left
        whole = self.planned[left[0]].part == "train+val"
        train, val = self.settings.train_images, self.settings.val_images
        epochs = round(np.mean([self.planned[training].epochs for training in left]))
        return estimate(
            seconds_per_image,
            train + val * whole,
            val,
            len(left),
            epochs,
            resources.slots,
            in_full=len(left),
        )


def _save_whole_split(search: SearchPaths, paths: RetrainingPaths) -> None:
    """All images train; those that validated still do, but judge nothing any more."""
    split = Split.load(search.split)
    every = np.sort(np.concatenate([split.train, split.validation]))
    dataclasses.replace(split, train=every).save(paths.whole_split)
