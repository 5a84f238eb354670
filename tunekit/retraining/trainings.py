"""The trainings of a retraining: one for each recipe and seed. What was trained once is not trained again."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Literal

from tunekit.errors import SearchError
from tunekit.history import Event, History, Trial
from tunekit.paths import RetrainingPaths, atomic_write
from tunekit.recipe import Value
from tunekit.retraining.candidates import Candidate
from tunekit.tuning.schedulers import Decision
from tunekit.tuning.settings import SearchSettings
from tunekit.tuning.trial_policy import Suggestion, TrialPolicy

Part = Literal["train", "train+val"]

_FIRST_SEED = 90_000  # behind those of the search's trials


@dataclass(frozen=True)
class PlannedTraining:
    """One recipe, trained once."""

    recipe: Mapping[str, Value]  # every key, dotted
    seed: int
    epochs: int
    part: Part  # the images that train
    name: str  # of the candidate
    params: Mapping[str, Value]
    baseline: str | None = None

    @property
    def words(self) -> str:
        """`trial 07 seed 90001`, `trial 07 on train+val seed 90001`."""
        part = " on train+val" if self.part == "train+val" else ""
        return f"{self.name}{part} seed {self.seed}"

    def same_as(self, other: PlannedTraining) -> bool:
        """Whether both give the same weights, whatever they are called."""
        mine = (self.recipe, self.seed, self.epochs, self.part)
        return mine == (other.recipe, other.seed, other.epochs, other.part)


def seeds_of(settings: SearchSettings, count: int) -> list[int]:
    """`count` seeds that no trial of the search had, always the same ones."""
    return [settings.trial_seed(_FIRST_SEED + number) for number in range(count)]


def plan(candidate: Candidate, seed: int, part: Part = "train") -> PlannedTraining:
    """The training of a candidate with one seed."""
    return PlannedTraining(
        candidate.recipe.to_flat(),
        seed,
        candidate.epochs,
        part,
        candidate.name,
        candidate.params,
        candidate.baseline,
    )


class Trainings:
    """Every training of a search's retraining that was ever asked for; a training's id is its place."""

    def __init__(self, paths: RetrainingPaths) -> None:
        """Reads what earlier calls asked for.

        Raises:
            SearchError: if the file is damaged.
        """
        self._paths = paths
        self.planned: list[PlannedTraining] = []
        if paths.settings.exists():
            self.planned = _read(paths)

    def ids_of(self, wanted: Sequence[PlannedTraining]) -> list[int]:
        """The ids of `wanted`; those that nobody asked for before are added, and kept on disk."""
        ids = [self._id_of(training) for training in wanted]
        with atomic_write(self._paths.settings) as temporary:
            content = json.dumps([asdict(training) for training in self.planned], indent=1)
            temporary.write_text(content + "\n", encoding="utf-8")
        return ids

    def _id_of(self, wanted: PlannedTraining) -> int:
        for place, known in enumerate(self.planned):
            if known.same_as(wanted):
                self.planned[place] = wanted  # the search may have given its recipe another name since
                return place
        self.planned.append(wanted)
        return len(self.planned) - 1


def _read(paths: RetrainingPaths) -> list[PlannedTraining]:
    try:
        saved = json.loads(paths.settings.read_text(encoding="utf-8"))
        return [PlannedTraining(**fields) for fields in saved]
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise SearchError(f"{paths.settings}: not the trainings of a search ({error})") from None


class RetrainingPolicy(TrialPolicy):
    """Trains what is wanted to its last epoch, in order. Nothing is stopped early, and nothing chosen."""

    def __init__(self, planned: Sequence[PlannedTraining], wanted: Sequence[int], history: History) -> None:
        """
        Args:
            planned: every training, by id.
            wanted: the ids to train.
            history: what happened before. What has ended stays; what was interrupted goes on, and what
                the machine lost is tried again.
        """
        begun = [training for training in wanted if training in history.trials]
        super().__init__(history, [one for one in begun if history.trials[one].status in ("running", "lost")])
        self._planned = planned
        self.wanted = tuple(wanted)
        self._to_begin = deque(training for training in wanted if training not in history.trials)

    @property
    def left(self) -> list[int]:
        """The wanted trainings that have not ended."""
        trials = self.history.trials
        waiting = {*self._to_resume, *self._to_begin}
        return [number for number in self.wanted if number in waiting or trials[number].unfinished]

    def epochs_left(self) -> int:
        """Epochs of the wanted trainings that are not trained yet."""
        trials = self.history.trials
        left = [number for number in self.wanted if number not in trials or not trials[number].over]
        trained = sum(trials[number].epoch for number in left if number in trials)
        return sum(self._planned[number].epochs for number in left) - trained

    def has_next(self, samples: int) -> bool:
        """Whether a training waits."""
        return bool(self._to_resume or self._to_begin)

    def has_ended(self, samples: int) -> bool:
        """Whether none waits and none runs."""
        return not self.left

    def next(self, samples: int) -> Suggestion:
        """The training to run next: an interrupted one first."""
        if self._to_resume:
            return self._resume(self._to_resume.popleft())
        number = self._to_begin.popleft()
        training = self._planned[number]
        self.history.append(
            Event(
                "suggest",
                number,
                params=dict(training.params),
                baseline=training.baseline,
                seen_validation=training.part == "train+val" or None,
            )
        )
        return Suggestion(number, training.params)

    def _decide(self, trial: Trial, epoch: int, value: float) -> tuple[Decision, Event | None]:
        """To the last epoch, whatever the value."""
        if epoch < self._planned[trial.id].epochs:
            return "continue", None
        return "stop", Event("complete", trial.id)
