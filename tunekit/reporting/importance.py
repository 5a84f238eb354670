"""Which keys mattered: how differently the best trials chose them, and whether chance does the same.

PED-ANOVA compares how the values of a key lie among the best trials with how they lie among all of a
region: a key that the best trials choose as all others do has no share. It is local by nature, so two
regions are asked: the better half of the trials (who is in the best tenth?) and all of them (who is in the
best quarter?). Values of different rungs are never mixed.
Source: Watanabe, Bansal and Hutter 2023, PED-ANOVA, arXiv:2304.10255; for keys that not every trial has the
conditional form, arXiv:2601.20800; both as Optuna implements them. The test against chance is the largest
standardised statistic of Westfall and Young 1993, "Resampling-based multiple testing", section 2.3.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import optuna
from numpy.typing import NDArray
from optuna.importance import PedAnovaImportanceEvaluator
from optuna.trial import create_trial

from tunekit.history import Trial
from tunekit.reporting.facts import Facts
from tunekit.space import Params, SearchSpace
from tunekit.tuning.evidence import evidence_of, with_failures_worst
from tunekit.tuning.policy import params_in_space
from tunekit.tuning.samplers import distribution

ENOUGH = 20  # trials at a rung, so that the best tell something and half of them are a region
_FEWEST_BEST = 5  # trials; Optuna's documentation asks for as many
_BEST_OF_ALL = 0.25
_REGION = 0.5  # the better half
_BEST_OF_REGION = 0.2  # of the better half: the best tenth of all
_DRAWS = 40  # permutations; a key beyond noise is reached by one of them at most
_NOISE = 0.05
_SEED = 0
_NO_WIDTH = 1e-12  # a key that is the same in every permutation

_CAUTION = (
    "This says what the best trials have in common, not what made them good: a sampler that learns tries "
    "more of what did well, and changes several keys at once."
)

_Numbers = NDArray[np.float64]


@dataclass(frozen=True)
class Importance:
    """One key, and how much of the difference between the best trials and the others is its own."""

    key: str
    share: float  # 0 to 1, of what exceeds chance; the shares of a list sum to 1
    trials: int  # of those compared, that had the key
    beyond_noise: bool = False  # whether it stands out from what permuted values give


@dataclass(frozen=True)
class ImportanceReport:
    """Which keys mattered at one rung, and at every other one with enough trials."""

    rung: int  # epoch, the highest that enough trials reached
    trials: int  # with a value there, failed ones among them
    good: tuple[Importance, ...]  # within the better half, largest first; empty if its trials are all equal
    overall: tuple[Importance, ...]  # over all trials, largest first
    by_rung: Mapping[int, tuple[Importance, ...]]  # overall, by epoch, each from that epoch's values alone
    reliable: bool  # whether some key stands out from noise
    words: tuple[str, ...]  # sentences


@dataclass(frozen=True)
class _Compared:
    """Trials with their values at one rung, failures replaced."""

    space: SearchSpace
    params: Sequence[Params]
    values: _Numbers  # (trials,), larger is better

    def better_half(self) -> _Compared:
        """The trials that are not below the median; equals stay together."""
        chosen = np.flatnonzero(self.values >= np.quantile(self.values, 1 - _REGION)).tolist()
        return _Compared(self.space, [self.params[place] for place in chosen], self.values[chosen])

    def best_count(self, share: float) -> int:
        """How many trials are the best `share`: at least 5, or half where there are fewer than 10."""
        count = len(self.params)
        return max(math.ceil(share * count), min(_FEWEST_BEST, count // 2), 1)

    def keys(self) -> list[str]:
        """The keys of the space that took two values or more."""
        seen: dict[str, set[object]] = {key: set() for key in self.space.parameters}
        for params in self.params:
            for key, value in params.items():
                seen[key].add(value)
        return [key for key, values in seen.items() if len(values) > 1]


def importance_report(facts: Facts) -> ImportanceReport | None:
    """Which keys mattered in a search; None if no rung has 20 trials that differ in value and in a key.

    Repeats are left out, and so are known recipes that the space could not propose. A recipe that failed
    counts as the worst at its rung. A key that some trials do not have is compared among those that have
    it, and its share is scaled by how often the best and the others have it. Same search, same report.
    """
    compared = {rung: _compared(facts, rung) for rung in facts.rungs}
    enough = {rung: trials for rung, trials in compared.items() if len(trials.params) >= ENOUGH}
    found = {rung: _importances(trials, _BEST_OF_ALL) for rung, trials in enough.items()}
    by_rung = {rung: importances for rung, importances in found.items() if importances}
    if not by_rung:
        return None
    rung = max(by_rung)
    everyone, half, overall = enough[rung], enough[rung].better_half(), by_rung[rung]
    good = _importances(half, _BEST_OF_REGION)
    words = [_overall_words(rung, everyone, overall), _good_words(half, good), _CAUTION]
    words += _conditional_words(everyone, overall) + _selection_words({r: enough[r] for r in by_rung})
    reliable = any(one.beyond_noise for one in (*good, *overall))
    return ImportanceReport(rung, len(everyone.params), good, overall, by_rung, reliable, tuple(words))


def _compared(facts: Facts, rung: int) -> _Compared:
    def params_of(trial: Trial) -> Params | None:
        params = params_in_space(facts.space, trial)
        # A known recipe may differ in keys that the space does not vary: then they would be at work too.
        return params if params and facts.space.recipe(params) == facts.recipes[trial.id] else None

    evidence = evidence_of(facts.history, facts.rungs[:-1], facts.full_epochs, params_of)
    there = evidence.at(rung)
    values = with_failures_worst([trial.values[rung] for trial in there])
    return _Compared(facts.space, [trial.params for trial in there], values)


def _importances(compared: _Compared, best: float) -> tuple[Importance, ...]:
    """Of each key, largest first; empty if nothing tells the best from the others.

    What permuted values give on average is taken off: a key that few trials have gets much by chance. Keys
    are tested together: if none mattered, one would stand out in 5 % of searches.

    Args:
        compared: the trials of the region.
        best: the share of them that counts as the best, 0 to 1.
    """
    keys = compared.keys()
    divergences = _Divergences(compared, keys, best)
    raw = divergences.of(compared.values)
    if not raw.any():
        return ()
    rng = np.random.default_rng(_SEED)
    chance = np.array([divergences.of(rng.permutation(compared.values)) for _ in range(_DRAWS)])
    beyond = _beyond_noise(raw, chance)
    excess = np.maximum(raw - chance.mean(0), 0.0)
    shares = excess / excess.sum() if excess.any() else raw / raw.sum()
    had = [sum(key in params for params in compared.params) for key in keys]
    order = np.argsort(-shares, kind="stable").tolist()
    return tuple(Importance(keys[i], float(shares[i]), had[i], bool(beyond[i])) for i in order)


def _beyond_noise(raw: _Numbers, chance: _Numbers) -> NDArray[np.bool_]:
    """Which keys stand out further than the largest of all keys does in 95 % of permutations.

    Args:
        raw: (keys,) as measured.
        chance: (draws, keys), of permuted values.
    """
    # What was measured is one of the permutations: left out of the scale, it would stand out too often.
    every = np.vstack([raw, chance])
    scaled = (every - every.mean(0)) / np.maximum(every.std(0), _NO_WIDTH)
    reached = (scaled.max(1)[:, np.newaxis] >= scaled[0]).mean(0)
    stands: NDArray[np.bool_] = (reached <= _NOISE) & (raw > every.mean(0))
    return stands


class _Divergences:
    """Optuna's evaluator on a study in memory, whose values can be exchanged."""

    def __init__(self, compared: _Compared, keys: Sequence[str], best: float) -> None:
        self._keys = list(keys)
        # Half a trial less, so that rounding never makes it one more.
        quantile = (compared.best_count(best) - 0.5) / len(compared.params)
        self._evaluator = PedAnovaImportanceEvaluator(target_quantile=quantile)
        self._study = optuna.create_study(direction="maximize")
        ranges = {key: distribution(compared.space.parameters[key]) for key in keys}
        for params, value in zip(compared.params, compared.values, strict=True):
            held = {key: params[key] for key in keys if key in params}
            distributions = {key: ranges[key] for key in held}
            self._study.add_trial(create_trial(value=float(value), params=held, distributions=distributions))
        for trial in self._study.get_trials(deepcopy=False):
            # The study has a copy of each; to compare copies by value would take most of the time.
            trial.distributions = {key: ranges[key] for key in trial.params}

    def of(self, values: _Numbers) -> _Numbers:
        """The divergence of each key, shape (keys,), at least 0, if the trials had these values."""
        if not self._keys:
            return np.zeros(0)
        with warnings.catch_warnings():
            # It says that low targets count as good, which is why they are negated here; that a key is had
            # by one trial or none, which the report says; that all values are equal, which gives zeros.
            for message in ("PedAnova.* computes the", "Some regimes for", "Target and region quantiles"):
                warnings.filterwarnings("ignore", message=message, category=UserWarning)
            found = self._evaluator.evaluate(
                self._study, self._keys, target=lambda trial: -float(values[trial.number])
            )
        return np.array([found[key] for key in self._keys])


def _overall_words(rung: int, compared: _Compared, found: Sequence[Importance]) -> str:
    best, count = compared.best_count(_BEST_OF_ALL), len(compared.params)
    return f"Overall (the best {best} of all {count} trials at epoch {rung}): {_standing_words(found)}."


def _good_words(half: _Compared, found: Sequence[Importance]) -> str:
    if not found:
        return "In the good region nothing can be told: the better half of the trials are as good as equal."
    best, count = half.best_count(_BEST_OF_REGION), len(half.params)
    return (
        f"In the good region (the best {best} of the better half, {count} trials): {_standing_words(found)}."
    )


def _standing_words(found: Sequence[Importance]) -> str:
    """`optim.lr (40 %) stands out; not told from noise: batch_size`."""
    certain = [f"{one.key} ({one.share:.0%})" for one in found if one.beyond_noise]
    noise = [one.key for one in found if not one.beyond_noise]
    if not certain:
        return "no key is told from noise"
    verb = "stands out" if len(certain) == 1 else "stand out"
    rest = f"; not told from noise: {', '.join(noise)}" if noise else ""
    return f"{', '.join(certain)} {verb}{rest}"


def _conditional_words(compared: _Compared, found: Sequence[Importance]) -> list[str]:
    """On how many trials the keys stand that not every trial has."""
    count = len(compared.params)
    partly = [f"{one.key} on {one.trials}" for one in found if one.trials < count]
    if not partly:
        return []
    return [
        f"Some keys do not apply to every trial, and are judged by those that have them (of {count}): "
        f"{', '.join(partly)}."
    ]


def _selection_words(by_rung: Mapping[int, _Compared]) -> list[str]:
    """That later rungs have fewer trials, and chosen ones."""
    counts = [f"{len(trials.params)} at epoch {rung}" for rung, trials in by_rung.items()]
    if len({len(trials.params) for trials in by_rung.values()}) < 2:
        return []
    return [
        f"Trials compared: {', '.join(counts)}. Each rung is judged by its own values; those that came "
        "further were chosen by how they did before, so a key that decided early may look small later."
    ]
