"""How much of a search is still to be trained: what its scheduler is built to do, and what it did so far."""

from __future__ import annotations

from collections.abc import Sequence

from tunekit.history import Trial
from tunekit.tuning.estimate import epochs_of_proposal
from tunekit.tuning.policy import SearchPolicy
from tunekit.tuning.settings import SearchSettings

# So many trials' worth is what the scheduler is built to do, beside the trials that ended. Of the totals of
# emulated searches of 20, 50 and 100 trials: results/README.md, "What is left of a search".
_BELIEF = 10


def epochs_left(policy: SearchPolicy, settings: SearchSettings) -> float:
    """Epochs that the trials of a search are expected to train yet, repeats among them.

    Trials to come are taken to be like those that have ended or wait, as far as these could end early.
    """
    trials = list(policy.history.trials.values())  # at once: another thread may add to them
    recipes = [trial for trial in trials if trial.repeat_of is None]
    survivors = policy.scheduler.survivors() if settings.samples else ()
    proposal, to_the_end = epochs_of_proposal(settings.epochs, survivors)
    typical = _typical(recipes, proposal)
    to_begin = max(settings.trials - len(recipes), 0)
    in_full = min(_in_full_to_begin(policy, settings, recipes), to_begin)
    running = sum(
        max(policy.next_comparison(trial), 0.0 if trial.in_full else typical) - trial.epoch
        for trial in trials
        if trial.unfinished
    )
    completed = sum(trial.status == "completed" or (trial.unfinished and trial.in_full) for trial in recipes)
    to_complete = completed + in_full + (to_begin - in_full) * to_the_end
    repeats = max((settings.repeats - 1) * to_complete - (len(trials) - len(recipes)), 0.0)
    return running + (in_full + repeats) * settings.epochs + (to_begin - in_full) * typical


def _typical(recipes: Sequence[Trial], proposal: float) -> float:
    """Epochs of a trial that may end early."""
    ended = [trial.epoch for trial in recipes if not trial.unfinished and not trial.in_full]
    return (_BELIEF * proposal + sum(ended)) / (_BELIEF + len(ended))


def _in_full_to_begin(policy: SearchPolicy, settings: SearchSettings, recipes: Sequence[Trial]) -> int:
    """Baselines, the default recipe and warm starts that nothing may end early."""
    baselines = len(settings.baselines) - sum(trial.baseline is not None for trial in recipes)
    default = settings.samples > 0 and not any(trial.baseline is None for trial in recipes)
    return baselines + default + (policy.warm_starts_in_full_left() if settings.samples else 0)
