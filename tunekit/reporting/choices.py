"""Which choices mattered: how the values of one recipe key fared over the trials of a search."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from statistics import mean, median
from typing import Any

from rich.table import Table

from tunekit.errors import SearchError
from tunekit.history import History, Trial
from tunekit.paths import SearchPaths
from tunekit.recipe import Value, recipe_key
from tunekit.reporting.facts import trials_by_value
from tunekit.space import SearchSpace, load_space
from tunekit.tuning.policy import recipe_of
from tunekit.tuning.settings import SearchSettings

_ENOUGH = 3  # trials of a value before a rank test says anything
_NOISE = 0.05  # a difference with a larger p-value is called noise
_MOST_WORDS = 3  # values that a verdict speaks of beside the leading one


@dataclass(frozen=True)
class Choice:
    """One value of a key, and how the trials that had it fared."""

    value: Value
    trials: int  # that ended, recipes that failed among them
    failed: int
    best: float | None  # validation accuracy, 0 to 1, at any epoch
    median: float | None  # validation accuracy at the epoch of comparison; failed recipes count as the worst
    behind: float | None  # median of the leading value minus this one
    p_value: float | None  # of the rank test against the leading value; None for it, or with too few trials
    twins: int  # pairs of a trial of the leading value and one of this that differ in nothing else
    twins_behind: float | None  # mean of (leading minus this) over them, at the epoch of comparison


@dataclass(frozen=True)
class Comparison:
    """The values of one key, the leading one first."""

    key: str
    epoch: int  # the last epoch that every trial reached whose recipe did not fail
    choices: tuple[Choice, ...]

    def verdict(self) -> str:
        """The answer in words; a difference within noise is called that."""
        first, *others = self.choices
        if not others:
            return f"{self.key}: only {first.value} was tried ({_trials(first.trials)})"
        more = f"; {len(others) - _MOST_WORDS} more" if len(others) > _MOST_WORDS else ""
        return (
            f"{self.key}: {first.value} did best (median {_accuracy(first.median)} at epoch {self.epoch}, "
            f"best {_accuracy(first.best)}, {_trials(first.trials)}); "
            f"{'; '.join(_words(other) for other in others[:_MOST_WORDS])}{more}"
        )


def scientific_comparisons(paths: SearchPaths) -> list[Comparison]:
    """A comparison for each key that the space calls scientific and that took at least two values."""
    space, history = _space_of(paths), History.read(paths.history)
    keys = [p.name for p in space.parameters.values() if p.role == "scientific" and p.choices]
    found = [compare(space, history, key) for key in keys]
    return [comparison for comparison in found if comparison is not None and len(comparison.choices) > 1]


def compare_key(paths: SearchPaths, key: str) -> Comparison:
    """How the values of `key` fared in a search.

    Raises:
        RecipeError: if there is no such key.
        SearchError: if no trial has ended.
    """
    comparison = compare(_space_of(paths), History.read(paths.history), recipe_key(key).name)
    if comparison is None:
        raise SearchError(f"search {paths.name}: no trial with {key} has ended yet")
    return comparison


def compare(space: SearchSpace, history: History, key: str) -> Comparison | None:
    """Compare the values of `key` over all trials that ended; None if there is none.

    Trials are ranked by how far they came and then by their accuracy there, which holds for trials
    that were stopped early too; the test is Mann and Whitney's (1947) on those ranks. A sampler
    that learns does not draw its trials independently: read p-values as a guide.
    """
    ended = [trial for trial in history.recipes if trial.status in ("completed", "stopped", "failed")]
    groups = trials_by_value(space, ((trial, recipe_of(space, trial)) for trial in ended), key)
    if not groups:
        return None
    epoch = min((t.epoch for g in groups.values() for t in g if t.status != "failed"), default=0)
    order = sorted(groups, key=lambda value: _standing(groups[value], epoch), reverse=True)
    twins = {value: _by_rest(space, key, groups[value], epoch) for value in order}
    leading, its_twins = groups[order[0]], twins[order[0]]
    return Comparison(
        key,
        epoch,
        tuple(
            _choice(value, groups[value], leading, epoch, _gains(its_twins, twins[value]) if place else [])
            for place, value in enumerate(order)
        ),
    )


def choice_table(comparison: Comparison) -> Table:
    """A comparison for a terminal."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in (comparison.key, "trials", "failed", "best", f"median at epoch {comparison.epoch}", "behind"):
        table.add_column(name, justify="left" if name == comparison.key else "right", no_wrap=True)
    table.add_column("")
    table.add_column("twins")
    for place, choice in enumerate(comparison.choices):
        row = [str(choice.value), str(choice.trials), str(choice.failed)]
        row += [_accuracy(choice.best), _accuracy(choice.median)]
        table.add_row(*row, *([_behind(choice), _certainty(choice), _twins(choice)] if place else ()))
    return table


def _space_of(paths: SearchPaths) -> SearchSpace:
    return load_space(paths.space).with_fixed(SearchSettings.load(paths).fixed)


def _choice(
    value: Value, trials: list[Trial], leading: list[Trial], epoch: int, gains: list[float]
) -> Choice:
    middle, top = _median(trials, epoch), _median(leading, epoch)
    best = max((trial.best.value for trial in trials if trial.best), default=None)
    return Choice(
        value,
        len(trials),
        sum(trial.status == "failed" for trial in trials),
        best,
        middle,
        top - middle if top is not None and middle is not None else None,
        None if trials is leading else _rank_test(leading, trials),
        len(gains),
        mean(gains) if gains else None,
    )


def _standing(trials: list[Trial], epoch: int) -> tuple[float, float]:
    best = max((trial.best.value for trial in trials if trial.best), default=-math.inf)
    middle = _median(trials, epoch)
    return (middle if middle is not None else -math.inf, best)


def _median(trials: Iterable[Trial], epoch: int) -> float | None:
    value = median(_value(trial, epoch) for trial in trials)
    return value if math.isfinite(value) else None


def _value(trial: Trial, epoch: int) -> float:
    value = trial.value_at(epoch) if trial.status != "failed" else None
    return -math.inf if value is None else value


def _outcome(trial: Trial) -> tuple[int, float]:
    """Trials in order of success: failed ones, then by the epoch reached, then by the accuracy there."""
    if trial.status == "failed":
        return (-1, 0.0)
    return (trial.epoch, _value(trial, trial.epoch))


def _rank_test(first: list[Trial], second: list[Trial]) -> float | None:
    if min(len(first), len(second)) < _ENOUGH:
        return None
    from scipy.stats import mannwhitneyu

    outcomes = [_outcome(trial) for trial in (*first, *second)]
    rank = {outcome: place for place, outcome in enumerate(sorted(set(outcomes)))}
    ranks = [rank[outcome] for outcome in outcomes]
    return float(mannwhitneyu(ranks[: len(first)], ranks[len(first) :]).pvalue)


def _by_rest(space: SearchSpace, key: str, trials: list[Trial], epoch: int) -> dict[Any, float]:
    """Accuracy at `epoch` by the recipe without `key`: twins share it."""
    rest = [{**recipe_of(space, trial).to_flat(), key: ""} for trial in trials]
    return {tuple(r.items()): _value(t, epoch) for r, t in zip(rest, trials, strict=True)}


def _gains(first: Mapping[Any, float], second: Mapping[Any, float]) -> list[float]:
    """What each trial of `first` is ahead of its twin in `second`; none if a recipe of a pair failed."""
    gains = [value - second[rest] for rest, value in first.items() if rest in second]
    return [gain for gain in gains if math.isfinite(gain)]


def _words(choice: Choice) -> str:
    twins = f", twins: {_twins(choice)}" if choice.twins else ""
    failed = f", {choice.failed} failed" if choice.failed else ""
    behind = f"is {_behind(choice)} behind" if choice.behind is not None else "is behind"
    return (
        f"{choice.value} {behind} (best {_accuracy(choice.best)}, {_trials(choice.trials)}{failed}{twins}): "
        f"{_certainty(choice)}"
    )


def _behind(choice: Choice) -> str:
    return f"{choice.behind:.4f}" if choice.behind is not None else ""


def _twins(choice: Choice) -> str:
    """`0.0120 behind in 2 pairs that differ in nothing else`."""
    if choice.twins_behind is None:
        return ""
    pairs = "1 pair" if choice.twins == 1 else f"{choice.twins} pairs"
    side = "behind" if choice.twins_behind >= 0 else "ahead"
    return f"{abs(choice.twins_behind):.4f} {side} in {pairs}"


def _certainty(choice: Choice) -> str:
    if choice.p_value is None:
        return "too few trials to tell"
    if choice.p_value > _NOISE:
        return f"within noise (p = {choice.p_value:.2f})"
    return f"beyond noise (p = {choice.p_value:.2g})"


def _accuracy(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _trials(count: int) -> str:
    return "1 trial" if count == 1 else f"{count} trials"
