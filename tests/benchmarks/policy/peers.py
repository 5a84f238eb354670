"""Other people's samplers and schedulers in a replay: the real classes, driven as their own loops drive them.

Ray Tune and Syne Tune are imported when a peer of theirs is made: one that is missing costs its rows alone.
"""

from __future__ import annotations

import importlib
import logging
from collections.abc import Mapping, Sequence
from datetime import datetime
from types import SimpleNamespace
from typing import Any

import optuna
from optuna.pruners import BasePruner
from optuna.samplers import TPESampler
from optuna.trial import TrialState

from tunekit.errors import SearchError
from tunekit.recipe import Value
from tunekit.space import Parameter, Params, SearchSpace
from tunekit.tuning.policy import Decision, Suggestion

_METRIC = "val_accuracy"


class OptunaStudy:
    """Optuna's ask, report, should_prune and tell, as its documentation drives trials by hand."""

    def __init__(self, space: SearchSpace, epochs: int, seed: int, pruner: BasePruner) -> None:
        self._space, self._epochs = space, epochs
        self._trials: dict[int, optuna.Trial] = {}
        sampler = TPESampler(seed=seed, multivariate=True, constant_liar=True)
        # Hyperband draws a trial's bracket from the study's name.
        self._study = optuna.create_study(
            direction="maximize", sampler=sampler, pruner=pruner, study_name=f"seed {seed}"
        )

    def next(self) -> Suggestion:
        trial = self._study.ask()
        self._trials[trial.number] = trial
        return Suggestion(trial.number, self._space(trial))

    def report(self, trial_id: int, epoch: int, value: float) -> Decision:
        trial = self._trials[trial_id]
        trial.report(value, step=epoch)
        if epoch == self._epochs:
            self._study.tell(trial, value)
        elif trial.should_prune():
            self._study.tell(trial, state=TrialState.PRUNED)
        else:
            return "continue"
        return "stop"

    def fail(self, trial_id: int, epoch: int, reason: str) -> None:
        self._study.tell(self._trials[trial_id], state=TrialState.FAIL)


class RayTune:
    """`OptunaSearch` and `ASHAScheduler`, called in the order in which `TuneController` calls them.

    Source: ray 2.60, tune/execution/tune_controller.py: `_update_trial_queue`, `_process_trial_result`,
    `stop_trial`, `_process_trial_failure`. A trial that ASHA stops is told to Optuna as complete with the
    value that it had. ASHA asks the controller for nothing, so there is none.
    """

    def __init__(
        self,
        space: SearchSpace,
        epochs: int,
        seed: int,
        grace_period: int,
        reduction_factor: int,
        first: Sequence[Params] = (),
    ) -> None:
        schedulers = importlib.import_module("ray.tune.schedulers")
        search = importlib.import_module("ray.tune.search.optuna")
        self._trials = 0
        self._searcher = search.OptunaSearch(
            space.__call__,
            metric=_METRIC,
            mode="max",
            seed=seed,
            points_to_evaluate=[dict(params) for params in first] or None,
        )
        self._scheduler = schedulers.ASHAScheduler(
            time_attr="training_iteration",
            metric=_METRIC,
            mode="max",
            max_t=epochs,
            grace_period=grace_period,
            reduction_factor=reduction_factor,
        )

    def next(self) -> Suggestion:
        trial_id = self._trials
        self._trials += 1
        params = self._searcher.suggest(str(trial_id))
        self._scheduler.on_trial_add(None, _ray_trial(trial_id))
        return Suggestion(trial_id, params)

    def report(self, trial_id: int, epoch: int, value: float) -> Decision:
        trial = _ray_trial(trial_id)
        result = {"training_iteration": epoch, _METRIC: value, "trial_id": trial.trial_id}
        if self._scheduler.on_trial_result(None, trial, result) != "STOP":
            self._searcher.on_trial_result(trial.trial_id, result)
            return "continue"
        result["done"] = True
        self._scheduler.on_trial_complete(None, trial, result)
        self._searcher.on_trial_complete(trial.trial_id, result=result)
        return "stop"

    def fail(self, trial_id: int, epoch: int, reason: str) -> None:
        self._scheduler.on_trial_error(None, _ray_trial(trial_id))
        self._searcher.on_trial_complete(str(trial_id), error=True)


class SyneTune:
    """A scheduler of `syne_tune.optimizer.legacy_baselines`, called as `Tuner` calls it.

    Source: syne-tune 0.14, tuner.py: `_schedule_new_task`, `_update_running_trials`. Its spaces are flat:
    every key always has a value, and the recipe takes those that are active.
    """

    def __init__(
        self,
        space: SearchSpace,
        epochs: int,
        seed: int,
        scheduler: str,
        grace_period: int,
        first: Sequence[Params] = (),
    ) -> None:
        logging.getLogger("syne_tune").setLevel(logging.ERROR)
        baselines = importlib.import_module("syne_tune.optimizer.legacy_baselines")
        self._make_trial = importlib.import_module("syne_tune.backend.trial_status").Trial
        self._space, self._epochs = space, epochs
        self._trials: dict[int, Any] = {}
        self._scheduler = getattr(baselines, scheduler)(
            {name: _domain(key) for name, key in space.parameters.items()},
            metric=_METRIC,
            mode="max",
            resource_attr="epoch",
            max_t=epochs,
            grace_period=grace_period,
            reduction_factor=3,
            random_seed=seed,
            points_to_evaluate=[self._config(params) for params in first] or None,
        )

    def next(self) -> Suggestion:
        suggestion = self._scheduler.suggest(trial_id=len(self._trials))
        if suggestion is None:
            raise SearchError("Syne Tune proposes nothing more")
        if not suggestion.spawn_new_trial_id:
            trial = self._trials[suggestion.checkpoint_trial_id]
            return Suggestion(trial.trial_id, self._params(trial.config), resumes=True)
        trial = self._make_trial(len(self._trials), suggestion.config, datetime.now())
        self._trials[trial.trial_id] = trial
        self._scheduler.on_trial_add(trial)
        return Suggestion(trial.trial_id, self._params(trial.config))

    def report(self, trial_id: int, epoch: int, value: float) -> Decision:
        trial, result = self._trials[trial_id], {_METRIC: value, "epoch": epoch}
        decision = self._scheduler.on_trial_result(trial, result)
        if decision != "CONTINUE":
            self._scheduler.on_trial_remove(trial)
            return "pause" if decision == "PAUSE" else "stop"
        if epoch == self._epochs:
            self._scheduler.on_trial_complete(trial, result)
            return "stop"
        return "continue"

    def fail(self, trial_id: int, epoch: int, reason: str) -> None:
        self._scheduler.on_trial_error(self._trials[trial_id])

    def _config(self, params: Params) -> dict[str, Value]:
        """A recipe in their flat space; keys that are not active keep what Syne Tune gives them."""
        keys = self._space.parameters
        return {
            name: str(keys[name].choices.index(value)) if keys[name].choices else value
            for name, value in params.items()
        }

    def _params(self, config: Mapping[str, Any]) -> dict[str, Value]:
        """The keys that are active, in the order in which conditions come first."""
        values: dict[str, Value] = dict(self._space.fixed)
        for name, key in self._space.parameters.items():
            if key.active(values):
                values[name] = key.choices[int(config[name])] if key.choices else config[name]
        return {name: values[name] for name in self._space.parameters if name in values}


def _ray_trial(trial_id: int) -> SimpleNamespace:
    """All that ASHA and OptunaSearch read of a Ray trial."""
    return SimpleNamespace(trial_id=str(trial_id))


def _domain(key: Parameter) -> Any:
    """A key's range as Syne Tune has it; choices by their number, whatever their types are."""
    spaces = importlib.import_module("syne_tune.config_space")
    if key.choices:
        return spaces.choice([str(number) for number in range(len(key.choices))])
    assert key.step is None, f"{key.name}: Syne Tune's ranges are not translated with a step"
    kind = {(False, False): "uniform", (False, True): "loguniform", (True, False): "randint"}
    return getattr(spaces, kind.get((key.integer, key.log), "lograndint"))(key.low, key.high)
