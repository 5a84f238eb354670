"""How the values of one key compare once the rest was tuned, and how known recipes fared here.

A value is judged by the best third of its trials, not by all: the others are the price of finding out how
to set the rest. Every trial that ended counts towards the third, one that was stopped early among the
worse, so that no value gains by having lost most of its trials.
Source: Godbole et al. 2023, "Deep Learning Tuning Playbook", on scientific and nuisance hyperparameters.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tunekit.baselines import Baseline
from tunekit.history import Trial
from tunekit.recipe import Recipe, Value, recipe_key
from tunekit.reporting.facts import Facts, trials_by_value
from tunekit.retraining.findings import find_result
from tunekit.space import Parameter
from tunekit.tuning.evidence import with_failures_worst
from tunekit.tuning.schedulers import values_at

ENOUGH = 6  # trials of a value before it is compared: its best third are two then
_MOST_VALUES = 12  # of a range of whole numbers; more are no longer a choice
_DRAWS = 1000
_NOISE = 0.05  # a difference that permuted trials reach more often than this is called noise
_LEVEL = 0.95
_SEED = 0
_ROUNDING = 1e-12

_Numbers = NDArray[np.float64]


@dataclass(frozen=True)
class ValueEffect:
    """One value of a key, and how its trials fared."""

    value: Value
    trials: int  # that have a value at the rung, failed, or were stopped or paused before it
    best: float | None  # validation accuracy, 0 to 1, at any epoch
    top_mean: float | None  # mean validation accuracy of its best third at the rung, 0 to 1
    top_count: int  # trials in that mean
    difference: float | None  # `top_mean` minus that of the leading value; None for the leading one
    low: float | None  # 95 % interval of the difference; None with too few trials
    high: float | None
    words: str
    beyond_noise: bool = False  # whether the difference is more than chance explains


@dataclass(frozen=True)
class KeyEffects:
    """The values of one key, the leading one first."""

    key: str
    rung: int  # the epoch at which they are compared
    values: tuple[ValueEffect, ...]
    words: str


@dataclass(frozen=True)
class FactorRow:
    """A known recipe: what was reported of it, and what came of it here."""

    baseline: str
    varied: str  # in which keys it differs from the nearest earlier one
    reported: float | None  # test accuracy as its source reports it, 0 to 1
    reproduced: float | None  # accuracy here, 0 to 1
    reproduced_from: str  # `search, 1 seed` (validation images), `retrain, 5 seeds, test set`, or why none
    best_found: float | None  # the best validation accuracy of the search, 0 to 1


@dataclass(frozen=True)
class _Group:
    """The trials of one value that can be judged at a rung."""

    value: Value
    trials: Sequence[Trial]
    at_rung: Mapping[int, float]  # by trial; -inf where the recipe failed

    @property
    def top_count(self) -> int:
        """How many trials are its best third: at least 1, and no more than came to the rung."""
        finite = sum(value > -np.inf for value in self.at_rung.values())
        return min(max(1, len(self.trials) // 3), finite)

    def arrived(self) -> bool:
        """Whether its best third came to the rung, or failed on the way."""
        return len(self.at_rung) >= max(1, len(self.trials) // 3)

    def top_mean(self) -> float | None:
        top = sorted(self.at_rung.values(), reverse=True)[: self.top_count]
        return float(np.mean(top)) if top else None

    def floored(self, lowest: float) -> _Numbers:
        """A value for every trial, `lowest` for those that failed or did not come so far."""
        values = [self.at_rung.get(trial.id, -np.inf) for trial in self.trials]
        floored: _Numbers = np.maximum(values, lowest)
        return floored


@dataclass(frozen=True)
class _Contrast:
    """How sure a difference to the leading value is."""

    low: float  # 95 % interval
    high: float
    chance: float  # how often trials that change places differ as much

    @property
    def beyond_noise(self) -> bool:
        return not self.low <= 0 <= self.high and self.chance <= _NOISE

    def text(self) -> str:
        verdict = "beyond noise" if self.beyond_noise else "within noise"
        return f"{verdict} (95 %: {self.low:+.4f} to {self.high:+.4f}, p = {self.chance:.2g})"


def scientific_effects(facts: Facts) -> list[KeyEffects]:
    """The effects of each key that the space calls scientific and that took two values or more."""
    keys = [parameter.name for parameter in facts.space.parameters.values() if parameter.role == "scientific"]
    found = [key_effects(facts, key) for key in keys]
    return [effects for effects in found if effects is not None and len(effects.values) > 1]


def key_effects(facts: Facts, key: str) -> KeyEffects | None:
    """How the values of `key` compare after the rest was tuned.

    They are compared at the last rung to which the best third of each value's trials came, of the values
    with at least 6 trials. Repeats are left out. The 95 % interval of a difference resamples the trials of
    both values (percentile bootstrap, seeded). It is too narrow for few trials, so a difference is called
    beyond noise only if trials that change places between the two values seldom reach it as well. Trials
    of a sampler that learns are not independent, and the leading value was chosen by its result: a guide.

    Returns:
        None if no trial can be judged, or if the key's range has no few values to compare.
    Raises:
        RecipeError: if there is no such key.
    """
    parameter = facts.space.parameters.get(recipe_key(key).name)
    if parameter is not None and not _few_values(parameter):
        return None
    judged = [trial for trial in facts.history.recipes if not trial.seen_validation]
    trials = trials_by_value(facts.space, ((trial, facts.recipes[trial.id]) for trial in judged), key)
    rung = _rung(facts, trials)
    groups = [group for group in _groups(facts, trials, rung) if group.trials]
    if not groups:
        return None
    groups.sort(key=lambda group: _standing(group), reverse=True)
    lowest = _lowest(groups)
    effects = tuple(_effect(group, groups[0], lowest) for group in groups)
    return KeyEffects(key, rung, effects, _words(key, rung, effects))


def factor_table(facts: Facts) -> list[FactorRow]:
    """A row for each known recipe of the search, and of its space if it was reported for the same data set.

    Raises:
        SearchError: if the result of a retraining is damaged.
    """
    here = ("", facts.settings.dataset)  # what was found on other data says nothing about these
    of_space = [baseline for baseline in facts.space.baselines if baseline.dataset in here]
    known = {baseline.name: baseline for baseline in (*facts.settings.known_recipes(), *of_space)}
    baselines = list(known.values())
    best = facts.history.best()
    best_found = facts.history.recipe_value(best) if best else None
    tested = _tested(facts)
    return [
        FactorRow(
            baseline.name,
            _varied(baseline, baselines[:place]),
            None if baseline.reported_accuracy is None else baseline.reported_accuracy / 100,
            *(tested.get(baseline.name) or _searched(facts, baseline.name)),
            best_found,
        )
        for place, baseline in enumerate(baselines)
    ]


def _few_values(parameter: Parameter) -> bool:
    if parameter.choices:
        return True
    return parameter.integer and len(list(parameter.values())) <= _MOST_VALUES


def _groups(facts: Facts, trials: Mapping[Value, Sequence[Trial]], rung: int) -> list[_Group]:
    groups = []
    for value, own in trials.items():
        values = values_at(rung, own, facts.rungs[:-1], facts.full_epochs)
        # What failed on the way to an earlier rung is not to be had at this one either.
        values |= {trial.id: -np.inf for trial in own if trial.status == "failed" and trial.epoch < rung}
        judged = [trial for trial in own if trial.id in values or trial.status in ("stopped", "paused")]
        groups.append(_Group(value, judged, values))
    return groups


def _rung(facts: Facts, trials: Mapping[Value, Sequence[Trial]]) -> int:
    """The last epoch to which the best third of every value came that has enough trials; else the first."""
    for rung in reversed(facts.rungs):
        groups = [group for group in _groups(facts, trials, rung) if group.trials]
        enough = [group for group in groups if len(group.trials) >= ENOUGH]
        if groups and all(group.arrived() for group in (enough if len(enough) > 1 else groups)):
            return rung
    return facts.rungs[0]


def _standing(group: _Group) -> tuple[bool, float, int]:
    """Values with enough trials come first: a single trial does not lead."""
    top = group.top_mean()
    return len(group.trials) >= ENOUGH, -np.inf if top is None else top, len(group.trials)


def _lowest(groups: Sequence[_Group]) -> float:
    """What a trial counts that failed or was stopped before the rung, when trials are drawn again."""
    return float(with_failures_worst([v for group in groups for v in group.at_rung.values()] or [0.0]).min())


def _effect(group: _Group, leading: _Group, lowest: float) -> ValueEffect:
    top, first = group.top_mean(), leading.top_mean()
    best = max((trial.best.value for trial in group.trials if trial.best), default=None)
    difference = None if group is leading or top is None or first is None else top - first
    count = len(group.trials)
    contrast = None
    if difference is not None and min(count, len(leading.trials)) >= ENOUGH:
        contrast = _Contrast(*_interval(group, leading, lowest), _by_chance(group, leading, lowest))
    return ValueEffect(
        value=group.value,
        trials=count,
        best=best,
        top_mean=top,
        top_count=group.top_count,
        difference=difference,
        low=contrast.low if contrast else None,
        high=contrast.high if contrast else None,
        words=_value_words(group, difference, contrast),
        beyond_noise=contrast is not None and contrast.beyond_noise,
    )


def _interval(group: _Group, leading: _Group, lowest: float) -> tuple[float, float]:
    rng = np.random.default_rng(_SEED)
    means = []
    for one in (group, leading):
        values = one.floored(lowest)
        means.append(_top_means(values[rng.integers(len(values), size=(_DRAWS, len(values)))], one.top_count))
    low, high = np.quantile(means[0] - means[1], [(1 - _LEVEL) / 2, (1 + _LEVEL) / 2])
    return float(low), float(high)


def _by_chance(group: _Group, leading: _Group, lowest: float) -> float:
    """How often trials that change places between two values differ as much as they do, 0 to 1."""
    ours, theirs = group.floored(lowest), leading.floored(lowest)
    pooled = np.concatenate([ours, theirs])
    rng = np.random.default_rng(_SEED)
    draws = np.vstack([pooled, rng.permuted(np.tile(pooled, (_DRAWS, 1)), axis=1)])
    first, second = draws[:, : len(ours)], draws[:, len(ours) :]
    apart = np.abs(_top_means(first, group.top_count) - _top_means(second, leading.top_count))
    return float(np.mean(apart >= apart[0] - _ROUNDING))


def _top_means(values: _Numbers, count: int) -> _Numbers:
    """The mean of the `count` largest of each row, shape (rows,)."""
    means: _Numbers = np.sort(values, axis=1)[:, values.shape[1] - count :].mean(axis=1)
    return means


def _value_words(group: _Group, difference: float | None, contrast: _Contrast | None) -> str:
    count = "1 trial" if len(group.trials) == 1 else f"{len(group.trials)} trials"
    top, failed = group.top_mean(), sum(trial.status == "failed" for trial in group.trials)
    if top is None:
        return f"all {count} failed" if failed == len(group.trials) else f"none of {count} came so far"
    short = ", fewer than its best third" if group.top_count < len(group.trials) // 3 else ""
    some_failed = f", {failed} failed" if failed else ""
    what = f"{top:.4f} over the best {group.top_count} of {count}{short}{some_failed}"
    if difference is None:
        return f"leads, {what}" + (": too few trials to tell" if len(group.trials) < ENOUGH else "")
    verdict = contrast.text() if contrast else "too few trials to tell"
    return f"{abs(difference):.4f} {'behind' if difference <= 0 else 'ahead'}, {what}: {verdict}"


def _words(key: str, rung: int, effects: Sequence[ValueEffect]) -> str:
    if len(effects) == 1:
        return f"{key}: only {effects[0].value} was tried ({effects[0].words})."
    each = "; ".join(f"{effect.value}: {effect.words}" for effect in effects)
    return f"{key} at epoch {rung}, by the best third of each value's trials: {each}."


def _tested(facts: Facts) -> dict[str, tuple[float, str]]:
    """The mean test accuracy of the known recipes that were retrained, and over how many seeds."""
    result = find_result(facts.paths)
    rows = [row for row in result["test"] if row["part"] == "train"] if result else []
    return {
        row["name"].removesuffix(" (default)"): (
            row["mean"],
            f"retrain, {_seeds(len(row['accuracies']))}, test set",
        )
        for row in rows
    }


def _searched(facts: Facts, name: str) -> tuple[float | None, str]:
    """The validation accuracy of a known recipe in the search, and from how many trainings; or why none."""
    trial = next((trial for trial in facts.history.recipes if trial.baseline == name), None)
    if trial is None:
        return None, "not tried"
    if trial.best is None:
        return None, "failed" if trial.status == "failed" else "no result yet"
    unfinished = "" if trial.status == "completed" else f", {trial.epoch} of {facts.full_epochs} epochs"
    seeds = _seeds(len(facts.history.trainings(trial)))
    return facts.history.recipe_value(trial), f"search, {seeds}{unfinished}"


def _seeds(count: int) -> str:
    return "1 seed" if count == 1 else f"{count} seeds"


def _varied(baseline: Baseline, earlier: Sequence[Baseline]) -> str:
    """`B-mnist-vgg16 with optim.lr = 0.01 (not 0.001)`: against the earlier one that differs least."""
    if not earlier:
        return "the first of them"
    nearest = min(earlier, key=lambda other: len(_differences(baseline, other)))
    changes = [f"{key} = {new} (not {old})" for key, (new, old) in _differences(baseline, nearest).items()]
    return f"{nearest.name} with {', '.join(changes)}" if changes else f"the same as {nearest.name}"


def _differences(one: Baseline, other: Baseline) -> dict[str, tuple[object, object]]:
    """By key, the value of `one` and that of `other`."""
    ours, theirs = _described(one), _described(other)
    return {key: (value, theirs[key]) for key, value in ours.items() if value != theirs[key]}


def _described(baseline: Baseline) -> dict[str, object]:
    """The whole recipe, and what its result was reported for."""
    return {
        **Recipe.from_flat(baseline.recipe).to_flat(),
        "dataset": baseline.dataset,
        "epochs": baseline.epochs,
    }
