"""What is wrong with a search's space and its budget.

The questions are those of "Deep Learning Tuning Playbook" (Godbole et al. 2023). Advice needs evidence: the
tests about ranges share one error rate (Bonferroni), those about failed trials another. Of 230 made-up
searches in which nothing mattered (random draws in the spaces resnet and scratch, 40 or 60 trials, every
seventh or tenth failing by chance) 2 got advice.
"""

from __future__ import annotations

from tunekit.reporting.doctor_curves import curve_findings, enough_trials
from tunekit.reporting.doctor_failures import failure_findings
from tunekit.reporting.doctor_ranges import best_regions, range_findings
from tunekit.reporting.facts import Facts
from tunekit.reporting.space_findings import Finding


def examine_space(facts: Facts) -> list[Finding]:
    """What the trials say about the space and the budget; advice first, then notes.

    Baselines and the default recipe were not drawn from the space, so only the number of failures and
    the curves speak of the latter. Trials that ended early count at the last epoch of comparison that
    enough trials reached; failed recipes count as the worst, lost trials not at all.
    """
    first = facts.rungs[0]
    ended = [t for t in facts.history.recipes if t.status == "failed" or t.value_at(first) is not None]
    draws = [trial for trial in ended if not (trial.baseline or trial.default or trial.seen_validation)]
    failures = failure_findings(facts, ended)
    cut = {finding.key: finding.change for finding in failures if finding.change and finding.key}
    findings = [
        *failures,
        *range_findings(facts, draws, cut),
        *best_regions(facts, draws),
        enough_trials(facts, draws),
        *curve_findings(facts),
    ]
    return sorted(findings, key=lambda finding: finding.severity)
