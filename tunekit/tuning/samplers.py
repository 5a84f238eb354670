"""What to try next: pure functions of observations and a seed, on Optuna's samplers."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.trial import FrozenTrial, TrialState, create_trial

from tunekit.recipe import Value
from tunekit.space import Parameter, Params, SearchSpace

# Each suggestion makes a study of its own; Optuna would announce every one of them.
optuna.logging.set_verbosity(optuna.logging.WARNING)


def suggest_random(space: SearchSpace, seed: int) -> dict[str, Value]:
    """A recipe drawn from the space's ranges, evenly (on a log scale where the range is one)."""
    return _ask(RandomSampler(seed=seed), space, ())


def suggest_tpe(
    space: SearchSpace,
    observations: Sequence[tuple[Params, float]],
    pending: Iterable[Params],
    seed: int,
) -> dict[str, Value]:
    """A recipe from a tree-structured Parzen estimator, fitted on values of one rung.

    Args:
        space: what varies.
        observations: params and value (larger is better, finite) of trials at that rung.
        pending: params of trials that have no value there yet; they count as bad, so that parallel
            trials spread out (the constant liar).
        seed: of the draw.
    Source: Bergstra et al. 2011; Falkner et al. 2018, arXiv:1807.01774, for the multivariate form.
    """
    sampler = TPESampler(seed=seed, n_startup_trials=0, multivariate=True, constant_liar=True)
    trials = [
        create_trial(
            state=TrialState.COMPLETE, value=value, params=dict(params), distributions=_of(space, params)
        )
        for params, value in observations
    ]
    trials += [
        create_trial(state=TrialState.RUNNING, params=dict(params), distributions=_of(space, params))
        for params in pending
    ]
    return _ask(sampler, space, trials)


def distribution(parameter: Parameter) -> BaseDistribution:
    """Optuna's description of a parameter's range."""
    if parameter.choices:
        return CategoricalDistribution(parameter.choices)
    assert parameter.low is not None and parameter.high is not None
    if parameter.integer:
        low, high, step = int(parameter.low), int(parameter.high), int(parameter.step or 1)
        return IntDistribution(low, high - (high - low) % step, log=parameter.log, step=step)
    return FloatDistribution(parameter.low, parameter.high, log=parameter.log, step=parameter.step)


def _of(space: SearchSpace, params: Params) -> dict[str, BaseDistribution]:
    return {name: distribution(space.parameters[name]) for name in params}


def _ask(sampler: BaseSampler, space: SearchSpace, trials: Iterable[FrozenTrial]) -> dict[str, Value]:
    study = optuna.create_study(direction="maximize", sampler=sampler)
    study.add_trials(trials)
    with warnings.catch_warnings():
        # A range whose end is not a whole number of steps away: Optuna shortens it, as we mean it.
        warnings.filterwarnings("ignore", message="The distribution is specified by", category=UserWarning)
        return space(study.ask())
