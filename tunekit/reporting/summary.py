"""A search in plain sentences: what won, by how much, what mattered, what failed, what to do next."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from tunekit.history import Trial
from tunekit.reporting.analysis import Analysis
from tunekit.reporting.effects import KeyEffects
from tunekit.reporting.facts import Facts
from tunekit.reporting.importance import ENOUGH, ImportanceReport
from tunekit.retraining.findings import Result, find_result
from tunekit.retraining.statistics import Interval, binomial_interval, seed_interval
from tunekit.retraining.test_set import openings
from tunekit.tuning.policy import policy_of
from tunekit.tuning.progress import params_text

_MOST_NAMES = 4  # keys in one sentence


def summary_sentences(facts: Facts, analysis: Analysis) -> list[str]:
    """What a search found, most important first; each sentence is true for unfinished searches too.

    Args:
        facts: of the search.
        analysis: of them.
    Raises:
        SearchError: if the result of a retraining or the record of test openings is damaged.
    """
    result = find_result(facts.paths)
    if _known_alone(facts):
        return [_nothing(facts), *_test_set(facts, result)]
    return [
        *_best(facts),
        *_gain(facts, result),
        *_mattered(facts, analysis.importance),
        *_effects(analysis.effects),
        *_failures(facts),
        *_test_set(facts, result),
        *_next(facts, result),
    ]


def combined_difference(
    ours: float, around_ours: Interval, theirs: float, around_theirs: Interval
) -> Interval:
    """The interval of `ours - theirs` from an interval around each, the two being independent.

    Source: Zou and Donner 2008, Statistics in Medicine 27(10), the method of variance estimates recovery.
    """
    gain = ours - theirs
    below = ((ours - around_ours.low) ** 2 + (around_theirs.high - theirs) ** 2) ** 0.5
    above = ((around_ours.high - ours) ** 2 + (theirs - around_theirs.low) ** 2) ** 0.5
    return Interval(gain - below, gain + above)


def _best(facts: Facts) -> list[str]:
    best = facts.history.best()
    if best is None or best.best is None:
        return [_nothing(facts)]
    trainings = facts.history.trainings(best)
    value = facts.history.recipe_value(best)
    if len(trainings) > 1:
        how = f"validation accuracy {value:.4f}, the mean of {len(trainings)} trainings"
    else:
        how = f"validation accuracy {value:.4f}, at epoch {best.best.epoch} of {facts.full_epochs}"
    recipe = "" if best.baseline else f" ({params_text(dict(best.params)) or 'nothing varied'})"
    sentences = [f"The best recipe of {_tried(facts)} is {_name(best)}{recipe}: {how}."]
    running = sum(trial.unfinished for trial in facts.trials)
    if running:
        sentences.append(f"{_count(running, 'trial')} had not ended when this was written.")
    if not best.over:
        sentences.append(f"{_name(best)} itself is not trained to its end.")
    return sentences


def _nothing(facts: Facts) -> str:
    if not facts.trials:
        return (
            "Known recipes were retrained, without a search."
            if _known_alone(facts)
            else "No trial has begun."
        )
    failed = sum(trial.status == "failed" for trial in facts.trials)
    if failed == len(facts.trials):
        return (
            f"{'The only trial' if failed == 1 else f'All {failed} trials'} failed before the first result."
        )
    return f"No trial has a result yet; {_count(len(facts.trials), 'trial')} began."


def _gain(facts: Facts, result: Result | None) -> list[str]:
    """What the best recipe gains over the default one, and how sure that is."""
    if result is not None and (retrained := _retrained_gain(result)):
        return [retrained]
    best = facts.history.best()
    default = facts.default_trial
    if best is None or facts.settings.samples == 0:
        return []
    if default is None:
        return ["The default recipe was not trained in this search, so a gain over it cannot be named."]
    if default is best:
        if sum(trial.best is not None for trial in facts.history.recipes) == 1:
            return ["That is the default recipe: no other recipe has a result."]
        return ["That is the default recipe: nothing that was tried beat it."]
    if default.best is None:
        state = "failed" if default.status == "failed" else "has no result"
        return [f"The default recipe {state}, so a gain over it cannot be named."]
    return [_searched_gain(facts, best, default)]


def _retrained_gain(result: Result) -> str | None:
    """From the networks of a retraining, which were judged by the validation images."""
    rows = result["standings"]
    default = next((row for row in rows if row["default"]), None)
    if default is None:
        return None
    seeds = len(default["accuracies"])
    if default["behind"] is None:
        words = f"Retrained with {_count(seeds, 'seed')}, the default recipe was not beaten."
        return words if len(rows) > 1 else None
    behind, interval = default["behind"], Interval(**default["behind"]["interval"])
    gain = f"Retrained, {result['winner']} gains {behind['mean']:+.4f} over the default recipe"
    if behind["seeds"] < 2:
        return f"{gain} on the validation images, with one seed of either: too few to tell it from noise."
    return (
        f"{gain} on the validation images (95 %, {seeds} seeds: {_bounds(interval)}), {_verdict(interval)}."
    )


def _searched_gain(facts: Facts, best: Trial, default: Trial) -> str:
    ours, theirs = _values(facts, best), _values(facts, default)
    mean, other = facts.history.recipe_value(best), facts.history.recipe_value(default)
    gain = f"{_name(best)} gains {mean - other:+.4f} over the default recipe ({other:.4f})"
    if not default.over:
        gain += ", which is not trained to its end yet"
    around, around_other = seed_interval(ours), seed_interval(theirs)
    if around is not None and around_other is not None:
        interval = combined_difference(mean, around, other, around_other)
        how = f"95 % over {len(ours)} and {len(theirs)} seeds, on the same validation images"
        return f"{gain} ({how}: {_bounds(interval)}), {_verdict(interval)}; it was chosen as the best."
    images = facts.settings.val_images
    if not images:
        return f"{gain}; how sure that is cannot be told."
    interval = _binomial_difference(mean, other, images)
    trained = "one training of each" if len(ours) == len(theirs) == 1 else "too few trainings of both"
    return (
        f"{gain}. With {trained} the uncertainty is at least that of drawing {images:,} validation images "
        f"(95 %, binomial: {_bounds(interval)}), and the gain {_exceeds(interval)} it; the best of many owes "
        "something to luck too."
    )


def _binomial_difference(ours: float, theirs: float, images: int) -> Interval:
    """Of two accuracies on as many images each, taken as independent."""
    around = [binomial_interval(round(value * images), images) for value in (ours, theirs)]
    return combined_difference(ours, around[0], theirs, around[1])


def _values(facts: Facts, trial: Trial) -> list[float]:
    """The accuracy of each training of a recipe, as `History.recipe_value` averages them."""
    return [one.best.value if one.best else 0.0 for one in facts.history.trainings(trial)]


def _mattered(facts: Facts, report: ImportanceReport | None) -> list[str]:
    if not facts.space.parameters or not facts.trials:
        return []
    if report is None:
        return [f"What mattered cannot be told: that takes {ENOUGH} trials that differ at one epoch."]
    where = f"at epoch {report.rung} ({_count(report.trials, 'trial')})"
    certain = [one.key for one in report.overall if one.beyond_noise]
    noise = [one.key for one in report.overall if not one.beyond_noise]
    if not certain:
        return [f"No key is told from noise {where}: which one mattered is open."]
    sentences = [f"What set the best trials apart {where}: {_listed(certain)}."]
    local = [one.key for one in report.good if one.beyond_noise]
    if local:
        sentences.append(f"Among the better half it was {_listed(local)}.")
    if noise:
        sentences.append(f"Not told from noise: {_listed(noise)}.")
    return sentences


def _effects(found: Sequence[KeyEffects]) -> list[str]:
    """Values of scientific keys that are worse beyond noise, and keys of which none is."""
    sentences, open_keys = [], []
    for effects in found:
        leading, *others = effects.values
        worse = [other for other in others if other.beyond_noise]
        if worse:
            behind = _listed([f"{other.value} by {abs(other.difference or 0.0):.4f}" for other in worse])
            where = f"{effects.key}: {leading.value} leads at epoch {effects.rung}"
            sentences.append(f"{where}; beyond noise it is ahead of {behind}.")
        else:
            open_keys.append(effects.key)
    if open_keys:
        sentences.append(f"No value is shown to be better than the others of {_listed(open_keys)}.")
    return sentences


def _failures(facts: Facts) -> list[str]:
    sentences = []
    for status, what in (
        ("failed", "failed"),
        ("lost", "lost to the machine, which says nothing of recipes"),
    ):
        trials = [trial for trial in facts.trials if trial.status == status]
        if trials:
            reasons = Counter(_reason(trial) for trial in trials)
            words = "; ".join(f"{reason} ({count})" for reason, count in reasons.most_common(_MOST_NAMES))
            verb = "was" if len(trials) == 1 else "were"
            verb = "" if status == "failed" else f"{verb} "
            of = _count(len(facts.trials), "trial")
            sentences.append(f"{len(trials)} of {of} {verb}{what}: {words}.")
    return sentences


def _reason(trial: Trial) -> str:
    """The kind of a failure: `diverged: value is nan` is `diverged`."""
    first = (trial.reason or "no reason known").splitlines()[0]
    return first.partition(":")[0].strip()


def _test_set(facts: Facts, result: Result | None) -> list[str]:
    opened = len(openings(facts.paths))
    if result is None:
        if not opened:
            return ["The test set was not opened."]
        return [f"The test set was opened {_times(opened)}, but no result of it was kept."]
    tested = [_test_words(row) for row in result["test"]]
    earlier = len(result["earlier_openings"])
    before = f" It had been opened {_times(earlier)} before: accuracies may look too good." if earlier else ""
    images = f"{result['test_images']:,} test images"
    return [f"The test set was opened {_times(opened)}; on {images}: {'; '.join(tested)}.{before}"]


def _test_words(row: Mapping[str, Any]) -> str:
    interval = Interval(**row["over_both"])
    seeds = _count(len(row["accuracies"]), "seed")
    part = "training images" if row["part"] == "train" else "training and validation images"
    return (
        f"{row['name']}, trained on the {part}, has accuracy {row['mean']:.4f} "
        f"(95 %: {interval.low:.4f} to {interval.high:.4f}, {seeds})"
    )


def _next(facts: Facts, result: Result | None) -> list[str]:
    name, best = facts.paths.name, facts.history.best()
    if not policy_of(facts.settings, facts.space, facts.history).has_ended(facts.settings.trials):
        return [f"Next: if it is not running, 'tunekit resume {name}' goes on with the search."]
    if best is None:
        return ["Next: read why the trials failed, and change the space or the machine."]
    if result is None:
        return [
            f"Next: 'tunekit retrain-best {name}' trains the best with several seeds and asks the test set."
        ]
    if default := next((row for row in result["standings"] if row["default"]), None):
        behind = default["behind"]
        if behind is None or behind["seeds"] < 2 or behind["interval"]["low"] <= 0:
            return ["Next: more seeds, or more trials; so far the default recipe is not shown to be worse."]
    if registration := result["registration"]:
        return [f"Next: use the model, as in 'tunekit predict {registration['name']} IMAGE'."]
    return [f"Next: 'tunekit retrain-best {name}' again, which puts the model into the registry."]


def _known_alone(facts: Facts) -> bool:
    """Whether `retrain-best --baseline` laid the folder down: its trainings are no trials."""
    return not facts.settings.samples and not facts.trials and facts.paths.retraining.history.exists()


def _tried(facts: Facts) -> str:
    return _count(len(facts.history.recipes), "recipe")


def _name(trial: Trial) -> str:
    return trial.baseline or f"trial {trial.id:02d}"


def _bounds(interval: Interval) -> str:
    return f"{interval.low:+.4f} to {interval.high:+.4f}"


def _verdict(interval: Interval) -> str:
    return "within noise" if interval.low <= 0 <= interval.high else "beyond noise"


def _exceeds(interval: Interval) -> str:
    return "does not exceed" if interval.low <= 0 <= interval.high else "exceeds"


def _count(number: int, what: str) -> str:
    return f"1 {what}" if number == 1 else f"{number:,} {what}s"


def _times(number: int) -> str:
    return "once" if number == 1 else f"{number} times"


def _listed(names: Sequence[str]) -> str:
    """`a`, `a and b`, `a, b, c, d and 3 more`."""
    shown = list(names[:_MOST_NAMES])
    if len(names) > _MOST_NAMES:
        shown.append(f"{len(names) - _MOST_NAMES} more")
    *most, last = shown
    return f"{', '.join(most)} and {last}" if most else last
