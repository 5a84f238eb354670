"""What the trials of a search say, worked out once for its report, its summary and its next space."""

from __future__ import annotations

from dataclasses import dataclass

from tunekit.reporting.doctor import examine_space
from tunekit.reporting.effects import KeyEffects, scientific_effects
from tunekit.reporting.facts import Facts
from tunekit.reporting.importance import ImportanceReport, importance_report
from tunekit.reporting.proposed_space import propose_space
from tunekit.reporting.space_findings import Finding


@dataclass(frozen=True)
class Analysis:
    """What mattered, and what is wrong with the space."""

    importance: ImportanceReport | None  # None: too few trials
    effects: list[KeyEffects]  # of the scientific keys
    findings: list[Finding]
    proposed: str | None  # a better space (TOML), if there is evidence for one


def analyse(facts: Facts) -> Analysis:
    """Work it all out; that takes seconds for 1,000 trials."""
    findings = examine_space(facts)
    return Analysis(
        importance_report(facts), scientific_effects(facts), findings, propose_space(facts, findings)
    )
