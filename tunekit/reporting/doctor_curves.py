"""Whether a search's budget fits: the epochs of a training, and the number of trials.

Source: Godbole et al. 2023, "Deep Learning Tuning Playbook", sections "Examining the training curves" and
"Not sampling enough points in the search space".
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from math import comb
from statistics import fmean

from tunekit.history import Trial
from tunekit.reporting.facts import Facts
from tunekit.reporting.space_findings import FEW, Finding

_MAJORITY = 0.05  # p-value at which more than half of all trainings are said to behave alike

_Habit = Callable[[Trial, float], bool]
"""Whether a training, given the standard error of its best value, behaves in some way."""


def enough_trials(facts: Facts, draws: Sequence[Trial]) -> Finding:
    """What half as many trials would have found, on average over all halves.

    Args:
        facts: of the search.
        draws: the trials that a sampler proposed and that can be compared.
    """
    if len(draws) < FEW:
        text = f"{len(draws)} trials to compare are too few to say whether there were enough; try {2 * FEW}."
        return Finding("trials", None, "note", text)
    values = sorted((trial.best.value if trial.best else 0.0 for trial in draws), reverse=True)
    trials, half = len(values), len(values) // 2
    chances = [comb(trials - place - 1, half - 1) / comb(trials, half) for place in range(trials)]
    lost = values[0] - sum(chance * value for chance, value in zip(chances, values, strict=True))
    noise = _noise(facts, values[0])
    more = "more trials will probably help" if lost > noise else "twice as many would hardly help"
    text = (
        f"With half of its {trials} trials, drawn at random, the search would have found "
        f"{lost:.4f} less on average; the standard error of one accuracy is {noise:.4f}: {more}."
    )
    return Finding("trials", None, "note", text)


def curve_findings(facts: Facts) -> list[Finding]:
    """What most of the trainings that reached the last epoch do, and those that broke late."""
    overfitted = "overfitted: validation loss rose while training loss fell, long after the best epoch"
    milder = "Add augmentation, weight decay or label smoothing to the space, or train for fewer epochs"
    idled = "stopped improving before half of the epochs"
    return [
        *_late_divergence(facts),
        *_shared_habit(facts, _overfits, overfitted, milder),
        *_shared_habit(facts, _improves, "still improved at the end", "Train for more epochs"),
        *_shared_habit(facts, _idles, idled, "Fewer epochs would do"),
    ]


def _noise(facts: Facts, accuracy: float) -> float:
    """The standard error of an accuracy over the validation images; 0 if their number is not on record."""
    images = facts.settings.val_images
    return math.sqrt(accuracy * (1 - accuracy) / images) if images else 0.0


def _late_divergence(facts: Facts) -> list[Finding]:
    """Trials that failed, or lost half of their accuracy, after a quarter of a full training."""
    late = [trial for trial in facts.history.recipes if _breaks_late(trial, facts.full_epochs / 4)]
    if not late:
        return []
    count = "1 trial" if len(late) == 1 else f"{len(late)} trials"
    names = ", ".join(str(trial.id) for trial in late[:5]) + (", ..." if len(late) > 5 else "")
    text = (
        f"{count} broke late, after a quarter of the epochs (trial {names}): a lower learning "
        "rate, a longer warm-up (schedule.warmup) or clipped gradients (optim.clip_norm) may hold them."
    )
    return [Finding("curves", None, "note", text)]


def _breaks_late(trial: Trial, early: float) -> bool:
    if trial.best is None or trial.epoch <= early:
        return False
    return trial.status == "failed" or trial.results[-1].value < trial.best.value / 2


def _shared_habit(facts: Facts, habit: _Habit, what: str, remedy: str) -> list[Finding]:
    """How many full trainings have a habit; advice if it is more than half, beyond chance (sign test)."""
    from scipy.stats import binom

    full = [trial for trial in facts.history.recipes if _trained_in_full(trial)]
    count = sum(habit(trial, _noise(facts, trial.best.value)) for trial in full if trial.best)
    if not count:
        return []
    text = f"Of the {len(full)} trials that trained to the end, {count} {what}."
    if float(binom.sf(count - 1, len(full), 0.5)) > _MAJORITY:
        return [Finding("curves", None, "note", text)]
    return [Finding("curves", None, "advice", f"{text} {remedy}.")]


def _trained_in_full(trial: Trial) -> bool:
    """Whether it reached the last epoch with a curve long enough to be judged, and is this search's own."""
    own = trial.baseline is None and not trial.seen_validation
    return own and trial.status == "completed" and len(trial.results) >= 8


def _overfits(trial: Trial, noise: float) -> bool:
    """Whether, since the best epoch, the validation loss rose by a tenth and the training loss fell."""
    epochs = [result.metrics for result in trial.results]
    if not all("val_loss" in metrics for metrics in epochs):
        return False
    train = [metrics["train_loss"] for metrics in epochs]
    validation = [metrics["val_loss"] for metrics in epochs]
    best = validation.index(min(validation))
    last = slice(-max(len(epochs) // 10, 2), None)
    rises = fmean(validation[last]) > 1.1 * validation[best] and fmean(train[last]) < train[best]
    return rises and best + 1 <= 0.6 * len(epochs)


def _improves(trial: Trial, noise: float) -> bool:
    """Whether the last eighth of the epochs is better than the eighth before by more than the noise.

    A schedule that ends near 0 brings a rise too, but an earlier one than that.
    """
    values = [result.value for result in trial.results]
    part = len(values) // 8
    rise = fmean(values[-part:]) - fmean(values[-2 * part : -part])
    return rise > max(noise, 1e-4) and max(values) in values[-part:]


def _idles(trial: Trial, noise: float) -> bool:
    """Whether it was as good as ever, but for noise, before half of the epochs."""
    values = [result.value for result in trial.results]
    first = next(place for place, value in enumerate(values) if value >= max(values) - noise)
    return first + 1 < len(values) / 2 and not _overfits(trial, noise)
