"""Whether early stopping was right: how well the rungs foretold the last epoch, and what was saved."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import norm, spearmanr

from tunekit.history import Trial
from tunekit.reporting.facts import Facts

_ENOUGH = 5  # trials before a correlation of ranks says anything
_LEVEL = 0.95
_WELL, _BADLY = 0.7, 0.4  # correlations that are called close and loose


@dataclass(frozen=True)
class RungCorrelation:
    """How the order of the trials at a rung agrees with their order at the last epoch."""

    rung: int  # epoch
    final: int  # the last epoch of a full training
    trials: int  # that have a value at both
    correlation: float | None  # Spearman's, -1 to 1; None for fewer than 5 trials or equal values
    low: float | None  # 95 % interval
    high: float | None


@dataclass(frozen=True)
class EarlyStopping:
    """What the rungs foretold, and the epochs that early stopping saved."""

    correlations: tuple[RungCorrelation, ...]  # by rung, rising; none if trials are never compared early
    words: str
    epochs_spent: int  # by every trial, repeats among them
    epochs_without: int  # if each trial that was stopped or paused had been trained in full


def early_stopping(facts: Facts) -> EarlyStopping:
    """How well a value at each rung foretold the value at the last epoch, and what stopping early saved.

    Only trials that reached the last epoch can be asked; repeats are left out. Trials that are being
    trained, failed or were lost count in both sums of epochs with those that they had.
    """
    finals = [trial for trial in facts.history.recipes if trial.value_at(facts.full_epochs) is not None]
    correlations = tuple(_correlation(facts, rung, finals) for rung in facts.rungs[:-1])
    spent = sum(len(trial.results) for trial in facts.trials)
    ended_early = [trial for trial in facts.trials if trial.status in ("stopped", "paused")]
    without = spent + sum(facts.full_epochs - len(trial.results) for trial in ended_early)
    words = [*_saving_words(spent, without, ended_early), *_correlation_words(correlations, ended_early)]
    return EarlyStopping(correlations, " ".join(words), spent, without)


def rank_interval(correlation: float, count: int) -> tuple[float, float] | None:
    """The 95 % interval of a Spearman correlation, by Fisher's transformation.

    Args:
        correlation: -1 to 1.
        count: of pairs.
    Returns:
        Within -1 to 1; None for fewer than 4 pairs, and where all ranks agree or all are reversed, which
        leaves no spread to judge by.
    Source: Bonett and Wright 2000, Psychometrika 65(1), for the variance with ranks.
    """
    if count < 4 or abs(correlation) > 1 - 1e-9:
        return None
    half = float(norm.ppf((1 + _LEVEL) / 2)) * ((1 + correlation**2 / 2) / (count - 3)) ** 0.5
    middle = np.arctanh(correlation)
    return float(np.tanh(middle - half)), float(np.tanh(middle + half))


def _correlation(facts: Facts, rung: int, finals: Sequence[Trial]) -> RungCorrelation:
    final = facts.full_epochs
    both = [(there, trial.value_at(final)) for trial in finals if (there := trial.value_at(rung)) is not None]
    early, late = [pair[0] for pair in both], [pair[1] for pair in both]
    if len(both) < _ENOUGH or len(set(early)) == 1 or len(set(late)) == 1:
        return RungCorrelation(rung, final, len(both), None, None, None)
    correlation = float(spearmanr(early, late).statistic)
    low, high = rank_interval(correlation, len(both)) or (None, None)
    return RungCorrelation(rung, final, len(both), correlation, low, high)


def _saving_words(spent: int, without: int, ended_early: Sequence[Trial]) -> list[str]:
    if not spent:
        return ["No epoch was trained yet."]
    if not ended_early:
        return [f"No trial was stopped early; {_epochs(spent)} trained."]
    paused = sum(trial.status == "paused" for trial in ended_early)
    waiting = f" ({paused} of them paused: they may still go on)" if paused else ""
    trials = "the trial" if len(ended_early) == 1 else f"the {len(ended_early)} trials"
    return [
        f"{_epochs(spent)} trained. If {trials} that ended early{waiting} had been trained in full, it would "
        f"have been {without:,}: {1 - spent / without:.0%} saved."
    ]


def _correlation_words(correlations: Sequence[RungCorrelation], ended_early: Sequence[Trial]) -> list[str]:
    if not correlations:
        return []
    known = [_one(each) for each in correlations if each.correlation is not None]
    if not known:
        most = max(each.trials for each in correlations)
        return [
            f"Too few trials to say how well early values foretold the last epoch: {most} have both, "
            f"and {_ENOUGH} that differ are needed."
        ]
    words = [f"Order at a rung against the order at epoch {correlations[0].final}: {'; '.join(known)}."]
    if ended_early:
        words.append(
            "Only trials that were trained to the end are compared, and most of those were chosen at the "
            "rungs: among all trials the correlation may be quite another, usually a higher one."
        )
    return words


def _one(each: RungCorrelation) -> str:
    """`epoch 3: 0.62 (95 %: 0.10 to 0.87) over 12 trials, loose`."""
    assert each.correlation is not None
    if each.low is None or each.high is None:
        return f"epoch {each.rung}: {each.correlation:.2f} over {each.trials} trials, too few for an interval"
    interval = f"95 %: {each.low:.2f} to {each.high:.2f}"
    return (
        f"epoch {each.rung}: {each.correlation:.2f} ({interval}) over {each.trials} trials, {_verdict(each)}"
    )


def _verdict(each: RungCorrelation) -> str:
    assert each.low is not None and each.high is not None
    if each.low <= 0 <= each.high:
        return "not told from none"
    if each.high < 0:
        return "the wrong way round"
    if each.low >= _WELL:
        return "close"
    return "loose" if each.high <= _BADLY else "of some use"


def _epochs(count: int) -> str:
    return "1 epoch was" if count == 1 else f"{count:,} epochs were"
