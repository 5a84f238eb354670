"""The policy of a search: which recipe to try next, which trial to stop or pause. No Ray, no training.

Every decision is a pure function of the history and the seed. Whoever replays the same calls, or
builds a policy from a recorded history, gets the same next suggestion.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from itertools import chain
from typing import Any

import numpy as np

from tunekit.errors import SearchError, nearest
from tunekit.history import Event, History, Trial
from tunekit.recipe import Recipe, Value
from tunekit.space import Baseline, Params, SearchSpace
from tunekit.tuning.evidence import EarlierSearch, Evidence, Observation, observe
from tunekit.tuning.expected_change import ExpectedChange
from tunekit.tuning.proposals import SAMPLERS as SAMPLERS
from tunekit.tuning.proposals import propose
from tunekit.tuning.rung_model import RungModel, taught_by
from tunekit.tuning.samplers import suggest_random
from tunekit.tuning.schedulers import SCHEDULERS as SCHEDULERS
from tunekit.tuning.schedulers import Decision as Decision
from tunekit.tuning.schedulers import make_scheduler, values_at
from tunekit.tuning.settings import SearchSettings
from tunekit.tuning.trial_policy import Suggestion as Suggestion
from tunekit.tuning.trial_policy import TrialPolicy

_TRIES = 20  # to propose a recipe that is new, by the sampler and then at random
_APART = 1_000_000  # between the seeds of those tries; more than a search has trials
# Warm starts that are trained to their end. They show what recipes are worth there that begin slowly and end
# well, which by the first comparisons alone a search may never see; with the default recipe they are as many
# as the model needs at a rung.
_WARM_STARTS_IN_FULL = 3


_Key = tuple[Value | None, ...]  # params, to be looked up: a value for each parameter of the space


def recipe_of(space: SearchSpace, trial: Trial) -> Recipe:
    """The whole recipe of a trial; a baseline's is its own and not the space's."""
    return Recipe.from_flat(trial.params) if trial.baseline else space.recipe(trial.params)


class SearchPolicy(TrialPolicy):
    """Proposes trials and judges their results; larger values are better."""

    def __init__(
        self,
        space: SearchSpace,
        *,
        max_epochs: int,
        seed: int = 0,
        grace_period: int = 3,
        reduction_factor: int = 3,
        sampler: str = "portfolio",
        scheduler: str = "asha-promotion",
        baselines: Sequence[Baseline] = (),
        earlier: Sequence[EarlierSearch] = (),
        repeats: int = 1,
        history: History | None = None,
    ) -> None:
        """
        Args:
            space: what varies.
            max_epochs: epochs of a full training, at least 1.
            seed: of every draw.
            grace_period: the first rung, in epochs. One epoch is a trap: first epochs are noisy.
            reduction_factor: about one trial in so many goes on at each rung, at least 2.
            sampler: one of `SAMPLERS`; what each does stands in proposals.py.
            scheduler: one of `SCHEDULERS`; what each does stands in schedulers.py.
            baselines: known recipes that are tried first and never stopped early; those that lie in
                the space are the sampler's first observations.
            earlier: searches that came before, oldest first: their best recipes are tried after the
                default one, and the sampler believes what they found until this search knows better.
            repeats: how often a recipe that trained to its end is trained, each time with another seed.
            history: what happened before; trials in it that are unfinished are suggested first,
                with `resumes`. Events are appended to it.
        Raises:
            SearchError: if an argument breaks its rule.
        """
        _check("max_epochs", max_epochs, 1)
        _check("grace_period", grace_period, 1)
        _check("reduction_factor", reduction_factor, 2)
        _check("repeats", repeats, 1)
        _check_name("sampler", sampler, SAMPLERS)
        _check_name("scheduler", scheduler, SCHEDULERS)
        self.space = space
        self.max_epochs = max_epochs
        history = history if history is not None else History()
        super().__init__(history, [trial.id for trial in history.trials.values() if trial.unfinished])
        self.scheduler = make_scheduler(scheduler, max_epochs, grace_period, reduction_factor, seed)
        self.rungs = self.scheduler.rungs  # epochs at which trials can be compared, whoever compares them
        self._sampler = sampler
        self._baselines = tuple(baselines)
        self._earlier = tuple(earlier)
        self._repeats = repeats
        self._seed = seed
        self._tried: set[_Key] = set().union(*map(self._tried_by, history.trials.values()))
        self._untried = space.every()
        self._next_untried: Params | None = next(self._untried, None)
        self._change = ExpectedChange(
            space,
            [search.evidence for search in self.teachers],
            max_epochs,
            lambda trial: params_in_space(space, trial),
        )
        self._board = self.scheduler.board(self._change.worth)
        self._observed: dict[int, Observation] = {}
        for event in history.events:
            self._see(event)
        history.subscribe(self._see)

    def has_next(self, samples: int) -> bool:
        """Whether there is a trial to run now, in a search of `samples` trials (repeats come on top)."""
        if self._to_resume or self._promoted() is not None or self._to_repeat() is not None:
            return True
        if len(self.history.recipes) >= samples:
            return self._paused_leader() is not None
        baselines_left = len(self.history.trials) < len(self._baselines)
        return baselines_left or not self._exhausted() or self._paused_leader() is not None

    def has_ended(self, samples: int) -> bool:
        """Whether no trial runs and none can follow: `samples` were suggested, or the space has no more."""
        return not self.history.running and not self.has_next(samples)

    def next(self, samples: float = math.inf) -> Suggestion:
        """The trial to run next, in a search of `samples` trials (repeats come on top).

        An interrupted one first, then the baselines, then what is promoted, then what is repeated, then
        proposals: the space's default recipe, the warm starts, and then what the sampler proposes. No
        recipe is proposed twice. When there are no more proposals, the best trial of all goes on if it is
        paused: what wins a search was trained in full.

        Paused trials that can never go on are stopped before, so that nobody keeps their checkpoints.

        Raises:
            SearchError: if every recipe of the space was proposed; `has_next` says so before.
        """
        self._stop_hopeless(samples)
        if self._to_resume:
            return self._resume(self._to_resume.popleft())
        if len(self.history.trials) < len(self._baselines):
            baseline = self._baselines[len(self.history.trials)]
            return self._suggest(baseline.recipe, baseline=baseline.name)
        if (promoted := self._promoted()) is not None:
            return self._resume(promoted)
        if (again := self._to_repeat()) is not None:
            return self._suggest(again.params, baseline=again.baseline, repeat_of=again.id)
        if (len(self.history.recipes) >= samples or self._exhausted()) and (leader := self._paused_leader()):
            return self._resume(leader.id)
        default = self.space.default_params()
        if len(self.history.recipes) == len(self._baselines) and self._key(default) not in self._tried:
            return self._suggest(default, default=True)
        if warm_starts := self.warm_starts_left():
            in_full = True if self.warm_starts_in_full_left() else None
            return self._suggest(warm_starts[0], warm_start=True, to_the_end=in_full)
        return self._suggest(self._propose_new(len(self.history.trials)))

    def warm_starts_left(self) -> list[Params]:
        """Recipes still to be tried before the sampler's own: the best of earlier searches, then the space's.

        An even draw of the space has none of its own.
        """
        own = self.space.warm_start_params() if self._sampler != "random" else []
        best = [params for search in self._earlier for params in search.best]
        untried = {self._key(params): params for params in [*best, *own]}
        return [params for key, params in untried.items() if key not in self._tried]

    def warm_starts_in_full_left(self) -> int:
        """How many of `warm_starts_left` are trained to their end, whatever the scheduler thinks of them."""
        done = sum(trial.to_the_end for trial in self.history.recipes)
        return min(max(_WARM_STARTS_IN_FULL - done, 0), len(self.warm_starts_left()))

    def complete(self, trial_id: int) -> None:
        """The trial has trained to its end."""
        if self.history.trials[trial_id].status != "completed":
            self.history.append(Event("complete", trial_id))

    def stop_paused(self) -> None:
        """The search has ended: no paused trial will go on."""
        for trial in self.history.trials.values():
            if trial.status == "paused":
                self.history.append(Event("stop", trial.id, epoch=trial.rung))

    def values_at(self, rung: int) -> list[float]:
        """Values at the rung in the order of the trials; -inf for recipes that failed on their way to it."""
        return list(values_at(rung, self.history.recipes, self.rungs, self.max_epochs).values())

    def next_comparison(self, trial: Trial) -> int:
        """The next epoch after which the trial may be stopped or paused, or its last."""
        return self.max_epochs if trial.in_full else self.scheduler.next_comparison(trial)

    def _decide(self, trial: Trial, epoch: int, value: float) -> tuple[Decision, Event | None]:
        """Baselines, the default recipe, the first warm starts and repeats are never stopped or paused."""
        if epoch >= self.max_epochs:
            return "stop", Event("complete", trial.id)
        if trial.in_full:
            return "continue", None
        decision = self.scheduler.decide(trial, epoch, value, self._board)
        return decision, None if decision == "continue" else Event(decision, trial.id, epoch=epoch)

    def _promoted(self) -> int | None:
        return self.scheduler.promotion(self._board)

    def _stop_hopeless(self, samples: float) -> None:
        if samples == math.inf:
            return
        leader = self.history.best()
        for number in self.scheduler.hopeless(self._board, int(samples)):
            trial = self.history.trials[number]
            if trial is not leader:  # who may yet go on when all others have ended
                self.history.append(Event("stop", number, epoch=trial.rung))

    def _paused_leader(self) -> Trial | None:
        """The best trial of all, if it is paused and nothing runs that might still be better."""
        leader = self.history.best()
        waits = leader is not None and leader.status == "paused"
        return leader if waits and not self.history.running else None

    def _to_repeat(self) -> Trial | None:
        """The first recipe that trained to its end and was not trained often enough."""
        if self._repeats == 1:
            return None
        completed = (trial for trial in self.history.recipes if trial.status == "completed")
        return next((t for t in completed if len(self.history.repeats(t)) < self._repeats - 1), None)

    def _suggest(self, params: Params, **fields: Any) -> Suggestion:
        trial_id = len(self.history.trials)
        self.history.append(Event("suggest", trial_id, params=dict(params), **fields))
        self._tried |= self._tried_by(self.history.trials[trial_id])
        return Suggestion(trial_id, params)

    def _tried_by(self, trial: Trial) -> set[_Key]:
        """What the space need not propose again: the trial's params, if they say all of its recipe."""
        params = params_in_space(self.space, trial)
        if params is None or (trial.baseline and self.space.recipe(params) != recipe_of(self.space, trial)):
            return set()
        return {self._key(params)}

    def _key(self, params: Params) -> _Key:
        return tuple(params.get(name) for name in self.space.parameters)

    def _exhausted(self) -> bool:
        """Whether every recipe that the space can propose was tried."""
        while self._next_untried is not None and self._key(self._next_untried) in self._tried:
            self._next_untried = next(self._untried, None)
        return self._next_untried is None

    def _propose_new(self, trial_id: int) -> Params:
        """A proposal that no earlier trial had: the sampler's, a random one, or any that is left."""
        draws = [trial_id + attempt * _APART for attempt in range(2 * _TRIES)]
        proposals: Iterator[Params] = chain(
            (self._propose(draw) for draw in draws[:_TRIES]),
            (suggest_random(self.space, self._draw_seed(draw)) for draw in draws[_TRIES:]),
            self.space.every(),
        )
        new = next((params for params in proposals if self._key(params) not in self._tried), None)
        if new is None:
            raise SearchError(f"all {len(self._tried)} recipes of the space were tried")
        return new

    def _draw_seed(self, draw: int) -> int:
        return int(np.random.default_rng((self._seed, draw)).integers(2**31))

    def _trials(self) -> list[Trial]:
        return list(self.history.trials.values())

    def _propose(self, draw: int) -> dict[str, Value]:
        # A generator for each suggestion, so that none depends on how many draws came before it.
        return propose(self._sampler, self.space, self.evidence(), self._taught, (self._seed, draw))

    @cached_property
    def _taught(self) -> RungModel | None:
        """By the searches that came before, which do not change."""
        return taught_by(self.space, [search.evidence.ends() for search in self.teachers])

    @property
    def teachers(self) -> tuple[EarlierSearch, ...]:
        """The searches that came before, as far as the sampler learns from them: an even draw does not."""
        return self._earlier if self._sampler != "random" else ()

    def evidence(self) -> Evidence:
        """What the sampler may know: baselines outside of the space and repeats teach it nothing."""
        return Evidence(tuple(self._observed.values()), (*self.rungs, self.max_epochs))

    def _see(self, event: Event) -> None:
        """Keep up with the history: what follows from one more event of it."""
        trial = self.history.trials[event.trial]
        if trial.repeat_of is None:
            self._board.see(event, trial)
            self._change.see(event, trial)
            params = params_in_space(self.space, trial)
            if params is not None:
                seen = observe(trial, params, self.rungs, self.max_epochs)
                worth = {rung: self._board.rung(rung).values.get(trial.id) for rung in self.rungs}
                known = {rung: value for rung, value in worth.items() if value is not None}
                self._observed[trial.id] = replace(seen, values={**seen.values, **known})


def policy_of(
    settings: SearchSettings, space: SearchSpace, history: History, earlier: Sequence[EarlierSearch] = ()
) -> SearchPolicy:
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
        earlier=earlier,
        repeats=settings.repeats,
        history=history,
    )


def params_in_space(space: SearchSpace, trial: Trial) -> Params | None:
    """What the space would have had to propose for this trial; None for a baseline outside of its ranges."""
    return space.params_of(Recipe.from_flat(trial.params)) if trial.baseline else trial.params


def _check(name: str, value: int, low: int) -> None:
    if value < low:
        raise SearchError(f"{name} must be at least {low}, but got {value}")


def _check_name(what: str, name: str, known: tuple[str, ...]) -> None:
    if name not in known:
        raise SearchError(f"unknown {what} {name!r}{nearest(name, known)}")
