"""The part of a search in which trials run, as `train_on_ray` takes it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass

from tunekit.data.pack import Pack
from tunekit.history import History, Trial
from tunekit.paths import SearchPaths
from tunekit.recipe import Recipe
from tunekit.tuning.assignment import Assignment
from tunekit.tuning.checkpoint_keeper import CheckpointKeeper
from tunekit.tuning.control import Control
from tunekit.tuning.epochs_left import epochs_left
from tunekit.tuning.estimate import DiskNeed, Estimate, disk_need, estimate
from tunekit.tuning.failure_watch import FailureWatch
from tunekit.tuning.packing import heaviest_recipes
from tunekit.tuning.policy import SearchPolicy, Suggestion, recipe_of
from tunekit.tuning.prior import searches_in_words
from tunekit.tuning.progress import size, trial_name
from tunekit.tuning.provision import first_weights_file
from tunekit.tuning.resources import Resources
from tunekit.tuning.settings import SearchSettings


class Preparation:
    """Something that is done once, in a thread of its own, when there is time for it."""

    def __init__(self, work: Callable[[], None]) -> None:
        self._thread = threading.Thread(target=work, name="tunekit-preparation", daemon=True)

    def start(self) -> None:
        """Begin; returns at once, and does nothing the second time."""
        if self._thread.ident is None:
            self._thread.start()

    def join(self) -> None:
        """Wait for its end if it was begun."""
        if self._thread.ident is not None:
            self._thread.join()


@dataclass(frozen=True)
class SearchWork:
    """What a search is to those who run its trials."""

    paths: SearchPaths
    control: Control
    pack: Pack
    policy: SearchPolicy
    keeper: CheckpointKeeper
    failures: FailureWatch
    preparation: Preparation

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

    def epochs_left(self) -> float:
        return epochs_left(self.policy, self.settings)

    def name(self, trial: Trial) -> str:
        return trial_name(trial)

    def measured(self) -> list[Recipe]:
        """A recipe for each network that trials may train, and one for each baseline."""
        space = self.policy.space
        by_name = {values["model.name"]: values for values in space.combinations("model.name")}
        proposed = [space.recipe(values) for values in by_name.values()] if self.settings.samples else []
        return proposed + [Recipe.from_flat(known.recipe) for known in self.settings.known_recipes()]

    def heaviest(self) -> list[Recipe]:
        proposed = (
            heaviest_recipes(self.policy.space, min(self.pack.shape[:2])) if self.settings.samples else []
        )
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
            attempt=trial.attempts,
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

    def idle(self) -> None:
        self.preparation.start()

    def plan(self, resources: Resources) -> str:
        left, total = self._trials_left, self.settings.trials
        done = f" ({total - left} are done)" if left < total else ""
        known = [_counted("baseline", self._baselines_left)] if self._baselines_left else []
        known += ["the default recipe"] if self._default_left else []
        first = f", {' and '.join(known)} first and in full" if known else ""
        if count := self._warm_starts_left:
            first += f", then {_counted('warm start', count)} ({self._to_the_end_left} in full)"
        taught = searches_in_words(self.policy.teachers)
        first += f"; the sampler knows {taught}" if taught else ""
        times = self.settings.repeats
        again = f"; what trains in full is trained {times} times" if times > 1 else ""
        return (
            f"Will run {_counted('trial', left)}{done} of at most {self.settings.epochs} epochs{first}; "
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
            self._baselines_left + self._default_left + self._to_the_end_begun + self._to_the_end_left,
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
    def _warm_starts_left(self) -> int:
        proposals_left = self.settings.trials - len(self._trials) - self._default_left
        return max(0, min(len(self.policy.warm_starts_left()), proposals_left))

    @property
    def _to_the_end_left(self) -> int:
        """Warm starts to begin that are trained in full."""
        return min(self.policy.warm_starts_in_full_left(), self._warm_starts_left)

    @property
    def _to_the_end_begun(self) -> int:
        """Such warm starts that have not ended."""
        return sum(trial.to_the_end and not trial.over for trial in self._trials)

    @property
    def _trials(self) -> list[Trial]:
        return self.policy.history.recipes

    def _stopping(self) -> str:
        return self.policy.scheduler.words() if self.settings.samples else "no early stopping"


def _counted(what: str, count: int) -> str:
    return f"1 {what}" if count == 1 else f"{count} {what}s"
