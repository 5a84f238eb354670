"""What failed trials have in common: the choices and the parts of ranges that cannot be trained."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from tunekit.history import Trial
from tunekit.recipe import Value
from tunekit.reporting.facts import Facts
from tunekit.reporting.range_scale import RangeScale, scale_of
from tunekit.reporting.space_findings import ERROR, Change, Finding
from tunekit.space import Parameter, Params
from tunekit.tuning.policy import params_in_space

_INFEASIBLE = 0.8  # of the trials in a part of a range have failed, or it is not cut off


@dataclass(frozen=True)
class _Cause:
    """A part of a key's values in which trials fail more often than elsewhere."""

    parameter: Parameter
    words: str
    inside: Sequence[Trial]
    p_value: float
    change: Change


def failure_findings(facts: Facts, ended: Sequence[Trial]) -> list[Finding]:
    """What failed trials share: the strongest cause, then what explains the others, and so on.

    Args:
        facts: of the search.
        ended: its trials that failed or can be compared, baselines among them.
    """
    params = {t.id: p for t in ended if (p := params_in_space(facts.space, t)) is not None}
    left = [trial for trial in ended if trial.id in params]
    failed = len(_failed(left))
    level = ERROR / max(sum(max(len(p.choices), 1) for p in facts.space.parameters.values()), 1)
    findings: list[Finding] = []
    while (cause := _strongest_cause(facts, left, params)) is not None and cause.p_value <= level:
        findings.append(_failure_finding(facts, cause))
        left = [trial for trial in left if trial not in cause.inside]
    if unexplained := len(_failed(left)):
        text = f"{unexplained} of {failed} failed trials have nothing in common beyond chance."
        findings.append(Finding("failures", None, "note", text))
    return findings


def _failed(trials: Sequence[Trial]) -> list[Trial]:
    return [trial for trial in trials if trial.status == "failed"]


def _strongest_cause(facts: Facts, trials: Sequence[Trial], params: Mapping[int, Params]) -> _Cause | None:
    causes: list[_Cause] = []
    for parameter in facts.space.parameters.values():
        have = [trial for trial in trials if parameter.name in params[trial.id]]
        if 0 < len(_failed(have)) < len(have):
            values = [(params[trial.id][parameter.name], trial) for trial in have]
            find = _choice_causes if parameter.choices else _range_cause
            causes += find(parameter, values)
    return min(causes, key=lambda cause: cause.p_value, default=None)


def _choice_causes(parameter: Parameter, values: Sequence[tuple[Value, Trial]]) -> list[_Cause]:
    """For each choice, whether trials with it fail more often than the others (Fisher's exact test)."""
    everyone = [trial for _, trial in values]
    causes = []
    for choice in parameter.choices:
        inside = [trial for value, trial in values if value == choice]
        p_value = _fisher(inside, everyone)
        causes.append(_Cause(parameter, f"= {choice}", inside, p_value, Change(without=(choice,))))
    return causes


def _range_cause(parameter: Parameter, values: Sequence[tuple[Value, Trial]]) -> list[_Cause]:
    """The end of a range where trials fail: Mann and Whitney's test says if, the best single split where."""
    from scipy.stats import mannwhitneyu

    if len({value for value, _ in values}) == 1:
        return []
    scale = scale_of(parameter)
    places = sorted(((scale.place(float(value)), trial) for value, trial in values), key=lambda pair: pair[0])
    everyone = [trial for _, trial in places]
    failed = [place for place, trial in places if trial.status == "failed"]
    others = [place for place, trial in places if trial.status != "failed"]
    at_high = fmean(failed) > fmean(others)

    def beyond(edge: float) -> list[Trial]:
        return [trial for place, trial in places if (place >= edge if at_high else place <= edge)]

    edge = min(failed, key=lambda edge: _fisher(beyond(edge), everyone))
    outside = [place for place, _ in places if (place < edge if at_high else place > edge)]
    if not outside:
        return []
    bound = _cut(scale, edge, max(outside) if at_high else min(outside))
    change = Change(high=bound) if at_high else Change(low=bound)
    words = f"{'above' if at_high else 'below'} {bound:.4g}"
    return [_Cause(parameter, words, beyond(edge), float(mannwhitneyu(failed, others).pvalue), change)]


def _cut(scale: RangeScale, failing: float, sound: float) -> float | int:
    """A bound between a place that fails and the nearest that does not, as close to the middle as can be."""
    bound = scale.to_grid(scale.value((failing + sound) / 2), down=failing > sound)
    between = min(failing, sound) <= scale.place(bound) <= max(failing, sound)
    return bound if between else scale.value(sound)


def _fisher(inside: Sequence[Trial], everyone: Sequence[Trial]) -> float:
    """The probability that so many of the failures lie inside, if it makes no difference."""
    from scipy.stats import hypergeom

    failed, within = len(_failed(everyone)), len(_failed(inside))
    return float(hypergeom.sf(within - 1, len(everyone), failed, len(inside)))


def _failure_finding(facts: Facts, cause: _Cause) -> Finding:
    """Advice to cut a part off if nearly all fail there (of a choice, all), else a note."""
    key, failed = cause.parameter.name, _failed(cause.inside)
    ((reason, _),) = Counter(trial.reason or "no reason given" for trial in failed).most_common(1)
    text = (
        f"{key} {cause.words}: {len(failed)} of {len(cause.inside)} trials failed "
        f"(p = {cause.p_value:.1g}; most often: {reason})"
    )
    nearly_all = len(failed) / len(cause.inside) >= (1 if cause.parameter.choices else _INFEASIBLE)
    if nearly_all and facts.history.best() not in cause.inside and _leaves_some(cause):
        return Finding("infeasible", key, "advice", f"{text}. Cut it off.", cause.change)
    return Finding("infeasible", key, "note", f"{text}; the others there did not.")


def _leaves_some(cause: _Cause) -> bool:
    """Whether the key still has values to vary when the part is cut off."""
    if cause.parameter.choices:
        return len(cause.parameter.choices) > 1
    scale, change = scale_of(cause.parameter), cause.change
    low = scale.low if change.low is None else change.low
    return low < (scale.high if change.high is None else change.high)
