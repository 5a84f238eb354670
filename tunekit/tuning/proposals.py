"""What to try next: samplers chosen by name, which see of a search the values at its epochs of comparison."""

from __future__ import annotations

import numpy as np

from tunekit.recipe import Value
from tunekit.space import Params, SearchSpace
from tunekit.tuning.evidence import Evidence, telling, with_failures_worst
from tunekit.tuning.rung_model import RungModel, suggest_by_model
from tunekit.tuning.samplers import suggest_random, suggest_tpe

SAMPLERS = ("portfolio", "rung-tpe", "random")
"""
portfolio   by turns, drawn at random: the model over all rungs (rung_model.py), and rung-tpe
rung-tpe    TPE fitted on the highest rung that enough trials reached
random      an even draw

The first two draw evenly now and then too.
"""

_RANDOM_SHARE = {"portfolio": 0.1, "rung-tpe": 0.1, "random": 1.0}  # no part of the space is given up
_MODEL_SHARE = {"portfolio": 0.7, "rung-tpe": 0.0, "random": 0.0}
_LEARNS_FROM = 500  # trials of a rung at most: what TPE costs grows with their number
_ENOUGH_FOR_TPE = 16  # trials with a value at a rung
_ENOUGH_FOR_A_MODEL = 12  # trials with a value at the first rung
# With fewer, a sampler does not learn from the default recipe: chosen by hand, it is often better at first
# than at the end, where warm starts are the other way about, and as one of four trials it makes the model
# unlearn what earlier searches taught (results/README.md, "The default recipe beside a prior").
_ENOUGH_BESIDE_THE_DEFAULT = 12
_ENOUGH_AFTER_ANOTHER = 3  # the same, when an earlier search has taught the model


def propose(
    sampler: str, space: SearchSpace, evidence: Evidence, earlier: RungModel | None, seed: tuple[int, int]
) -> dict[str, Value]:
    """Params of the next trial: a pure function of its arguments.

    Args:
        sampler: one of `SAMPLERS`.
        space: what varies.
        evidence: of this search.
        earlier: what searches that came before have taught.
        seed: of every draw.
    """
    rng = np.random.default_rng(seed)
    draw_seed = int(rng.integers(2**31))
    chance = rng.random(2)
    if chance[0] < _RANDOM_SHARE[sampler]:
        return suggest_random(space, draw_seed)
    compared = len(evidence.at(evidence.epochs[0]))
    model_knows = compared >= (_ENOUGH_FOR_A_MODEL if earlier is None else _ENOUGH_AFTER_ANOTHER)
    if compared < _ENOUGH_BESIDE_THE_DEFAULT:
        evidence = evidence.without_default()
    rung = _fitting_rung(evidence)
    model_has_turn = chance[1] < _MODEL_SHARE[sampler] or (earlier is not None and rung is None)
    if model_has_turn and model_knows:
        return suggest_by_model(space, evidence, earlier, draw_seed)
    if rung is None:
        return suggest_random(space, draw_seed)
    return suggest_tpe(space, _observed(evidence, rung), evidence.pending(rung), draw_seed)


def _fitting_rung(evidence: Evidence) -> int | None:
    """The highest epoch of comparison that enough trials have reached."""
    for epoch in reversed(evidence.epochs):
        if sum(trial.values[epoch] > -np.inf for trial in evidence.at(epoch)) >= _ENOUGH_FOR_TPE:
            return epoch
    return None


def _observed(evidence: Evidence, rung: int) -> list[tuple[Params, float]]:
    """Params and value of the telling trials at the rung; what failed on the way to it as the worst."""
    trials = [trial for trial in evidence.trials if rung in trial.values or trial.failed_by(rung)]
    values = with_failures_worst([-np.inf if t.failed_by(rung) else t.values[rung] for t in trials])
    chosen = sorted(telling(values, _LEARNS_FROM)) if len(trials) > _LEARNS_FROM else range(len(trials))
    return [(trials[place].params, float(values[place])) for place in chosen]
