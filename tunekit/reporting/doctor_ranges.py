"""Which ranges of a space should reach further or be narrower, by where the best trials lie.

Source: Godbole et al. 2023, "Deep Learning Tuning Playbook", section "Identifying bad search space
boundaries".
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import comb
from statistics import fmean

from tunekit.history import Trial
from tunekit.recipe import RECIPE_KEYS
from tunekit.reporting.facts import Facts
from tunekit.reporting.range_scale import RangeScale, scale_of
from tunekit.reporting.space_findings import ERROR, FEW, Change, Finding
from tunekit.space import Parameter
from tunekit.tuning.policy import params_in_space

_GOOD = 1 / 5  # of the trials are called the best
_MOST_GOOD = 20  # and no more than these
_ENDS = (0.15, 0.3)  # of a range, on its own scale: what is called its end, narrowly and widely
_THINNER = 0.75  # the best are so many times as common in the outer half of an end, or they thin out
_FURTHER = 0.5  # of its width, on its own scale, is how far a range is moved outwards
_ROOM = 0.1  # of a range is left on both sides of its best trials when it is made narrower
_NARROW = 2 / 3  # of a range is what a narrower one may keep, or it is not worth the change
_RESAMPLES = 300
_SURE = 1 / 3  # of a range: where the best lie is called known if the interval is no wider


@dataclass(frozen=True)
class _TunedRange:
    """A key that varies over a range, and the trials that have it."""

    parameter: Parameter
    scale: RangeScale
    trials: list[Trial]  # in the order in which they began
    ranked: list[Trial]  # the same, best first

    @property
    def name(self) -> str:
        return self.parameter.name

    @property
    def best(self) -> list[Trial]:
        return self.ranked[: _best_count(self.trials)]

    def values(self, trials: Iterable[Trial]) -> list[float]:
        return [float(trial.params[self.name]) for trial in trials]


@dataclass(frozen=True)
class _End:
    """One end of a range, and how far from it trials lie, as shares of the range."""

    tuned: _TunedRange
    at_high: bool

    @property
    def name(self) -> str:
        return "upper" if self.at_high else "lower"

    @property
    def value(self) -> float:
        return self.tuned.scale.high if self.at_high else self.tuned.scale.low

    def distances(self, trials: Iterable[Trial]) -> list[float]:
        places = (self.tuned.scale.place(value) for value in self.tuned.values(trials))
        return [round(1 - place if self.at_high else place, 9) for place in places]


def range_findings(facts: Facts, draws: Sequence[Trial], cut: Mapping[str, Change]) -> list[Finding]:
    """Whether the best trials crowd an end of a range, or lie close together inside of it.

    Args:
        facts: of the search.
        draws: the trials that a sampler proposed and that can be compared.
        cut: what is to be cut off because trials fail there; such an end is not moved outwards.
    """
    ranges = _tuned_ranges(facts, draws)
    level = ERROR / max(5 * len(ranges), 1)  # two ends, narrowly and widely, and a width of each
    findings: list[Finding] = []
    for tuned in ranges:
        change = cut.get(tuned.name, Change())
        findings += _at_bound(_End(tuned, at_high=False), level, fails_beyond=change.low is not None)
        findings += _at_bound(_End(tuned, at_high=True), level, fails_beyond=change.high is not None)
        findings += _narrower(facts, tuned, level)
    return findings


def best_regions(facts: Facts, draws: Sequence[Trial]) -> list[Finding]:
    """For each range, where the middle of the best trials lies, if resampled trials agree on it."""
    findings = []
    for tuned in _tuned_ranges(facts, draws):
        if len(tuned.trials) < FEW:
            continue
        low, high = _middle_of_best(tuned)
        if high - low <= _SURE:
            text = (
                f"{tuned.name}: the best trials centre between {tuned.scale.value(low):.4g} and "
                f"{tuned.scale.value(high):.4g} in 9 of 10 resamplings of {len(tuned.trials)} trials."
            )
            findings.append(Finding("best_region", tuned.name, "note", text))
    return findings


def _tuned_ranges(facts: Facts, draws: Sequence[Trial]) -> list[_TunedRange]:
    """The keys that vary over a range of more than one value."""
    ranges = []
    for parameter in facts.space.parameters.values():
        if parameter.choices or (scale := scale_of(parameter)).low == scale.high:
            continue
        trials = [trial for trial in draws if parameter.name in trial.params]
        ranges.append(_TunedRange(parameter, scale, trials, _ranked(trials, facts.rungs)))
    return ranges


def _best_count(trials: Sequence[Trial]) -> int:
    return min(round(_GOOD * len(trials)), _MOST_GOOD)


def _ranked(trials: Sequence[Trial], rungs: Sequence[int]) -> list[Trial]:
    """Trials, best first, compared at the last rung that half as many again reached as are called the best.

    With a reduction factor of 3, that is where the second cut was made.
    """
    enough = 1.5 * _best_count(trials)
    reached = [epoch for epoch in rungs if sum(t.value_at(epoch) is not None for t in trials) >= enough]
    return sorted(trials, key=lambda trial: _standing(trial, reached), reverse=True)


def _standing(trial: Trial, epochs: Sequence[int]) -> tuple[int, float]:
    """How far a trial came among `epochs`, then its value there."""
    values = [value for epoch in epochs if (value := trial.value_at(epoch)) is not None]
    return (-1, 0.0) if trial.status == "failed" or not values else (len(values), values[-1])


def _at_bound(end: _End, level: float, fails_beyond: bool) -> list[Finding]:
    """Whether the best trials crowd one end more than chance would have it."""
    tuned = end.tuned
    near, crowd = end.distances(tuned.best), end.distances(tuned.trials)
    for width in _ENDS:
        if not near or _thins_out(near, crowd, width):
            return []
        share = tuned.scale.end_share(width, end.at_high)
        count, chance, p_value = _crowding(near, crowd, width, share)
        if p_value <= level:
            text = (
                f"{tuned.name}: {count} of the {len(near)} best trials lie in the {end.name} "
                f"{100 * width:.0f} % of its range, which ends at {end.value:.4g}; chance would put "
                f"{chance * len(near):.1f} there (p = {p_value:.1g})"
            )
            return [_outwards(end, text, fails_beyond)]
    return _crowd_note(end, crowd)


def _thins_out(near: Sequence[float], crowd: Sequence[float], width: float) -> bool:
    """Whether the best are rarer in the outer half of an end than in its inner half: their peak is inside."""
    best, everyone = (sum(distance <= width / 2 for distance in some) for some in (near, crowd))
    best_inside = sum(distance <= width for distance in near) - best
    inside = sum(distance <= width for distance in crowd) - everyone
    return best * inside < _THINNER * best_inside * everyone


def _crowding(
    near: Sequence[float], crowd: Sequence[float], width: float, share: float
) -> tuple[int, float, float]:
    """How many of the best lie at an end, the chance of each to lie there, and the binomial test's p-value.

    A sampler that learns crowds a place by itself: then chance is what share of all trials lies there.
    """
    from scipy.stats import binom

    count = sum(distance <= width for distance in near)
    chance = max(share, fmean(distance <= width for distance in crowd))
    return count, chance, float(binom.sf(count - 1, len(near), chance))


def _crowd_note(end: _End, crowd: Sequence[float]) -> list[Finding]:
    """Most trials lie at an end: a sampler that learns may be right, but then there is nothing to compare."""
    width = _ENDS[0]
    count = sum(distance <= width for distance in crowd)
    few_values = end.tuned.scale.end_share(width, end.at_high) > 2 * width
    if few_values or len(crowd) < FEW or count < len(crowd) / 2:
        return []
    text = (
        f"{end.tuned.name}: the sampler put {count} of {len(crowd)} trials at the {end.name} end of "
        f"its range, {end.value:.4g}: there is little to compare."
    )
    return [Finding("at_bound", end.tuned.name, "note", text)]


def _outwards(end: _End, text: str, fails_beyond: bool) -> Finding:
    """The advice to move an end, or the note that it cannot be moved."""
    name = end.tuned.name
    if fails_beyond:
        return Finding("at_bound", name, "note", f"{text}, and what lies beyond fails.")
    moved = _moved(end)
    if moved == end.value:
        return Finding("at_bound", name, "note", f"{text}, which is as far as the key may go.")
    how = "decades" if end.tuned.scale.log else "width"
    text += f". Move it to {moved:.4g} (half of its {how} further, within what the key allows)."
    return Finding("at_bound", name, "advice", text, Change(high=moved) if end.at_high else Change(low=moved))


def _moved(end: _End) -> float | int:
    """An end, half the width of the range further out, as far as the key's rule allows."""
    scale, rule = end.tuned.scale, RECIPE_KEYS[end.tuned.name].rule
    assert rule.low is not None and rule.high is not None
    moved = scale.to_grid(scale.value(1 + _FURTHER if end.at_high else -_FURTHER), down=end.at_high)
    if not rule.low <= moved <= rule.high:
        legal = rule.high if end.at_high else rule.low
        moved = scale.to_grid(legal, down=end.at_high) if scale.step else legal
    return max(moved, scale.high) if end.at_high else min(moved, scale.low)


def _narrower(facts: Facts, tuned: _TunedRange, level: float) -> list[Finding]:
    """Whether the best trials lie closer together than chance would have it."""
    values = tuned.values(tuned.best)
    if len(values) < 3:
        return []
    low, high = min(values), max(values)
    between = sum(low <= value <= high for value in tuned.values(tuned.trials))
    # Against the range, and against where the trials are: a sampler that learns draws them together.
    by_range = _span_chance(tuned.scale.share(low, high), len(values))
    p_value = max(by_range, _rank_chance(between, len(values), len(tuned.trials)))
    change = _narrow_change(facts, tuned, low, high)
    if p_value > level or change is None:
        return []
    ends = (("low", change.low), ("high", change.high))
    moves = " and ".join(f"the {name} end to {end:.4g}" for name, end in ends if end is not None)
    text = (
        f"{tuned.name}: the {len(values)} best trials lie between {low:.4g} and {high:.4g} "
        f"(p = {p_value:.1g}), of a range of {tuned.parameter.text().split(', when')[0]}. Move {moves}."
    )
    return [Finding("narrow", tuned.name, "advice", text, change)]


def _span_chance(share: float, count: int) -> float:
    """The probability that `count` draws from a range all lie within so large a share of it."""
    share = min(share, 1.0)
    return count * share ** (count - 1) - (count - 1) * share**count


def _rank_chance(between: int, count: int, trials: int) -> float:
    """The probability that `count` of `trials`, in order, lie within `between` neighbours or fewer."""
    spans = sum((trials - far) * comb(far - 1, count - 2) for far in range(count - 1, between))
    return spans / comb(trials, count)


def _narrow_change(facts: Facts, tuned: _TunedRange, low: float, high: float) -> Change | None:
    """The ends of a narrower range, with room and with the best recipe; None if it is hardly narrower."""
    best = facts.history.best()
    params = (params_in_space(facts.space, best) if best else None) or {}
    if (value := params.get(tuned.name)) is not None:
        low, high = min(low, float(value)), max(high, float(value))
    scale = tuned.scale
    first, last = scale.place(low) - _ROOM, scale.place(high) + _ROOM
    if min(last, 1) - max(first, 0) > _NARROW:
        return None
    new_low = scale.to_grid(scale.value(first), down=True) if first > 0 else scale.low
    new_high = scale.to_grid(scale.value(last), down=False) if last < 1 else scale.high
    change = Change(new_low if new_low > scale.low else None, new_high if new_high < scale.high else None)
    return None if change == Change() else change


def _middle_of_best(tuned: _TunedRange) -> tuple[float, float]:
    """The median place of the best trials: its 90 % interval by the bootstrap (Efron 1979)."""
    import numpy as np

    trials = len(tuned.trials)
    ranks = {trial.id: rank for rank, trial in enumerate(tuned.ranked)}
    resampled = np.random.default_rng(0).integers(trials, size=(_RESAMPLES, trials))
    drawn = np.sort(np.array([ranks[trial.id] for trial in tuned.trials])[resampled], axis=1)
    places = np.array([tuned.scale.place(value) for value in tuned.values(tuned.ranked)])
    middles = np.median(places[drawn[:, : _best_count(tuned.trials)]], axis=1)
    low, high = np.quantile(middles, (0.05, 0.95))
    return float(low), float(high)
