"""The policy of a search: which recipe to try next and which trial to stop. No Ray, no training.

Every decision is a pure function of the history and the seed. Whoever replays the same calls, or
builds a policy from a recorded history, gets the same next suggestion.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from tunekit.errors import SearchError, nearest
from tunekit.history import Event, History, Trial
from tunekit.recipe import Recipe, Value
from tunekit.space import Baseline, SearchSpace
from tunekit.tuning.asha import rung_epochs, survives
from tunekit.tuning.samplers import suggest_random, suggest_tpe
from tunekit.tuning.settings import SearchSettings

Decision = Literal["continue", "pause", "stop"]

SAMPLERS = ("rung-tpe", "random")
SCHEDULERS = ("asha", "none")

_ENOUGH_AT_A_RUNG = 16  # trials with a value at a rung before TPE is fitted on it
_RANDOM_SHARE = 0.1  # of the suggestions stay random, so that no part of the space is given up


@dataclass(frozen=True)
class Suggestion:
    """A trial to run: a new one, or one that goes on from its last checkpoint."""

    trial_id: int
    params: Mapping[str, Value]
    resumes: bool = False


def recipe_of(space: SearchSpace, trial: Trial) -> Recipe:
    """The whole recipe of a trial; a baseline's is its own and not the space's."""
    return Recipe.from_flat(trial.params) if trial.baseline else space.recipe(trial.params)


class SearchPolicy:
    """Proposes trials and judges their results; larger values are better."""

    def __init__(
        self,
        space: SearchSpace,
        *,
        max_epochs: int,
        seed: int = 0,
        grace_period: int = 3,
        reduction_factor: int = 3,
        sampler: str = "rung-tpe",
        scheduler: str = "asha",
        baselines: Sequence[Baseline] = (),
        history: History | None = None,
    ) -> None:
        """
        Args:
            space: what varies.
            max_epochs: epochs of a full training, at least 1.
            seed: of every draw.
            grace_period: the first rung, in epochs. One epoch is a trap: first epochs are noisy.
            reduction_factor: about one trial in so many goes on at each rung, at least 2.
            sampler: `rung-tpe` (TPE fitted on the highest rung that 16 trials reached, one
                suggestion in ten random) or `random`.
            scheduler: `asha` (stops at rungs) or `none`.
            baselines: known recipes that are tried first and never stopped early; those that lie in
                the space are the sampler's first observations.
            history: what happened before; trials in it that are unfinished are suggested first,
                with `resumes`. Events are appended to it.
        Raises:
            SearchError: if an argument breaks its rule.
        """
        _check("max_epochs", max_epochs, 1)
        _check("grace_period", grace_period, 1)
        _check("reduction_factor", reduction_factor, 2)
        _check_name("sampler", sampler, SAMPLERS)
        _check_name("scheduler", scheduler, SCHEDULERS)
        self.space = space
        self.max_epochs = max_epochs
        self.history = history if history is not None else History()
        self.rungs = rung_epochs(max_epochs, grace_period, reduction_factor)
        self.stops = scheduler == "asha"
        self._models = sampler == "rung-tpe"
        self._baselines = tuple(baselines)
        self._reduction_factor = reduction_factor
        self._seed = seed
        self._to_resume = deque(trial.id for trial in self._trials() if trial.unfinished)

    @property
    def has_trials_to_resume(self) -> bool:
        """Whether the next suggestion is one that goes on."""
        return bool(self._to_resume)

    def has_ended(self, samples: int) -> bool:
        """Whether `samples` trials were suggested and all of them have ended."""
        return len(self.history.trials) >= samples and not any(t.unfinished for t in self._trials())

    def next(self) -> Suggestion:
        """The trial to run next: an interrupted one first, then the baselines, then proposals."""
        if self._to_resume:
            trial = self.history.trials[self._to_resume.popleft()]
            self.history.append(Event("resume", trial.id))
            return Suggestion(trial.id, dict(trial.params), resumes=True)
        trial_id = len(self.history.trials)
        if trial_id < len(self._baselines):
            baseline = self._baselines[trial_id]
            self.history.append(
                Event("suggest", trial_id, params=dict(baseline.recipe), baseline=baseline.name)
            )
            return Suggestion(trial_id, baseline.recipe)
        params = self._propose(trial_id)
        self.history.append(Event("suggest", trial_id, params=params))
        return Suggestion(trial_id, params)

    def report(
        self, trial_id: int, epoch: int, value: float, metrics: Mapping[str, float] | None = None
    ) -> Decision:
        """Record one finished epoch and decide how the trial goes on.

        Args:
            trial_id: from `next`.
            epoch: 1 is the first. An epoch that the history has already (trained again after a
                crash) changes nothing.
            value: larger is better; a value that is not finite fails the trial.
            metrics: kept in the history beside the value.
        Returns:
            `stop` at the last epoch, on failure and when the trial lost at a rung (a baseline never
            does); else `continue`.
        """
        trial = self.history.trials[trial_id]
        if epoch <= trial.epoch:
            return "continue"
        if not math.isfinite(value):
            self.fail(trial_id, epoch, f"diverged: value is {value}")
            return "stop"
        result = Event("result", trial_id, epoch=epoch, value=value, metrics=metrics)
        end = self._end_after(trial_id, epoch, value)
        # Together, so that a crash never leaves a result whose decision nobody knows.
        self.history.append(result, *([end] if end else []))
        return "stop" if end else "continue"

    def complete(self, trial_id: int) -> None:
        """The trial has trained to its end."""
        if self.history.trials[trial_id].status != "completed":
            self.history.append(Event("complete", trial_id))

    def fail(self, trial_id: int, epoch: int, reason: str) -> None:
        """The recipe cannot be trained: it counts as the worst at its rung, and the sampler learns."""
        self.history.append(Event("fail", trial_id, epoch=epoch, reason=reason))

    def lose(self, trial_id: int, reason: str) -> None:
        """The machine failed the trial for good: neither sampler nor scheduler hold it against the recipe."""
        self.history.append(Event("lose", trial_id, reason=reason))

    def interrupt(self, trial_id: int) -> None:
        """The machine failed the trial once: it is suggested again and goes on from its checkpoint."""
        self._to_resume.append(trial_id)

    def values_at(self, rung: int) -> list[float]:
        """Values at the rung in the order of the trials; -inf for recipes that failed on their way to it."""
        values = []
        for trial in self._trials():
            if trial.failed_at is not None and self._rung_of(trial.failed_at) == rung:
                values.append(-math.inf)
            elif (value := trial.value_at(rung)) is not None:
                values.append(value)
        return values

    def _end_after(self, trial_id: int, epoch: int, value: float) -> Event | None:
        """The event that ends the trial with this result, if it ends."""
        if epoch >= self.max_epochs:
            return Event("complete", trial_id)
        at_a_rung = self.stops and epoch in self.rungs and not self.history.trials[trial_id].baseline
        if at_a_rung and not survives(value, self.values_at(epoch), self._reduction_factor):
            return Event("stop", trial_id, epoch=epoch)
        return None

    def _trials(self) -> list[Trial]:
        return list(self.history.trials.values())

    def _rung_of(self, epoch: int) -> int:
        """The rung that a trial in `epoch` is heading for."""
        return next((rung for rung in self.rungs if rung >= epoch), self.max_epochs)

    def _propose(self, trial_id: int) -> dict[str, Value]:
        # A generator for each suggestion, so that none depends on how many draws came before it.
        rng = np.random.default_rng((self._seed, trial_id))
        draw_seed = int(rng.integers(2**31))
        rung = self._fitting_rung()
        if rung is None or not self._models or rng.random() < _RANDOM_SHARE:
            return suggest_random(self.space, draw_seed)
        return suggest_tpe(self.space, self._observations(rung), self._pending(rung), draw_seed)

    def _fitting_rung(self) -> int | None:
        """The highest epoch of comparison that enough trials have reached."""
        for rung in (self.max_epochs, *reversed(self.rungs)):
            reached = sum(trial.value_at(rung) is not None for trial, _ in self._trials_in_space())
            if reached >= _ENOUGH_AT_A_RUNG:
                return rung
        return None

    def _observations(self, rung: int) -> list[tuple[Mapping[str, Value], float]]:
        """Params and value of every trial at the rung; recipes that failed before it as the worst."""
        scored = [(trial, params, trial.value_at(rung)) for trial, params in self._trials_in_space()]
        seen = [(params, value) for _, params, value in scored if value is not None]
        worst = min(value for _, value in seen)
        failed = [
            (params, worst)
            for trial, params, value in scored
            if value is None and trial.failed_at is not None and trial.failed_at <= rung
        ]
        return seen + failed

    def _pending(self, rung: int) -> list[Mapping[str, Value]]:
        return [
            params
            for trial, params in self._trials_in_space()
            if trial.unfinished and trial.value_at(rung) is None
        ]

    def _trials_in_space(self) -> list[tuple[Trial, Mapping[str, Value]]]:
        """Trials with their params in the space; a baseline outside of it teaches the sampler nothing."""
        return [
            (trial, params)
            for trial in self._trials()
            if (params := params_in_space(self.space, trial)) is not None
        ]


def policy_of(settings: SearchSettings, space: SearchSpace, history: History) -> SearchPolicy:
    """The policy of a search, which goes on from what `history` holds."""
    return SearchPolicy(
        space,
        max_epochs=settings.epochs,
        seed=settings.seed,
        grace_period=settings.grace_period,
        reduction_factor=settings.reduction_factor,
        sampler=settings.sampler,
        scheduler=settings.scheduler,
        baselines=settings.known_recipes(),
        history=history,
    )


def params_in_space(space: SearchSpace, trial: Trial) -> Mapping[str, Value] | None:
    """What the space would have had to propose for this trial; None for a baseline outside of its ranges."""
    return space.params_of(Recipe.from_flat(trial.params)) if trial.baseline else trial.params


def _check(name: str, value: int, low: int) -> None:
    if value < low:
        raise SearchError(f"{name} must be at least {low}, but got {value}")


def _check_name(what: str, name: str, known: tuple[str, ...]) -> None:
    if name not in known:
        raise SearchError(f"unknown {what} {name!r}{nearest(name, known)}")
