"""What differs from an undisturbed search, and what breaks an invariant: each in a line."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from hashlib import sha256
from typing import Any

from torch import Tensor

from tunekit.errors import SearchError
from tunekit.history import Event, History, Trial
from tunekit.paths import SearchPaths
from tunekit.space import load_space
from tunekit.tracking.client import open_client
from tunekit.training.checkpoint import load_best
from tunekit.tuning.policy import SearchPolicy, policy_of
from tunekit.tuning.settings import SearchSettings

_CLOCK = ("epoch_seconds", "images_per_second")  # metrics that no two trainings share
_STATUS = {"completed": "FINISHED", "stopped": "KILLED", "failed": "FAILED", "lost": "FAILED"}
_SO_FAR = (
    "best_val_accuracy",
    "best_epoch",
)  # of a paused trial too, if MLflow heard of it before it went on
_TAGS = ("outcome", "seed", "default", "baseline", "repeat_of", "kind")

Facts = dict[str, Any]  # a name to anything that can be compared


def facts_of(paths: SearchPaths) -> Facts:
    """All that an undisturbed search and a disturbed one must have in common, one trial at a time."""
    history = History.read(paths.history)
    weights = {
        f"weights of trial {trial.id}": _digest(load_best(paths.trial(trial.id).best).weights)
        for trial in history.leaders(1)
    }
    return {**history_facts(history), **weights, **tracking_facts(paths)}


def _digest(weights: Mapping[str, Tensor]) -> str:
    """Of the tensors; the order of a file's header is another each time."""
    total = sha256()
    for name in sorted(weights):
        total.update(name.encode() + weights[name].contiguous().numpy().tobytes())
    return total.hexdigest()


def differences(wanted: Facts, found: Facts) -> list[str]:
    """A line for each fact that is not the same."""
    return [
        f"{name}: {found.get(name, 'nothing')!s:.300} instead of {wanted.get(name, 'nothing')!s:.300}"
        for name in {**wanted, **found}
        if wanted.get(name) != found.get(name)
    ]


def history_facts(history: History) -> Facts:
    """Params, epochs, values, decisions in their order, statuses and the best trial."""
    facts: Facts = {"trials": len(history.trials), "decisions": decisions(history)}
    best = history.best()
    facts["best trial"] = best.id if best is not None else None
    for trial in history.trials.values():
        fields = ("params", "status", "rung", "failed_at", "reason", "default", "baseline", "repeat_of")
        facts[f"trial {trial.id}"] = {name: getattr(trial, name) for name in fields}
        for result in trial.results:
            steady = {name: value for name, value in result.metrics.items() if name not in _CLOCK}
            facts[f"trial {trial.id}, epoch {result.epoch}"] = (result.value, steady)
    return facts


def decisions(history: History) -> list[tuple[str, int, int | None]]:
    """(kind, trial, epoch) of every event but two kinds.

    Left out are trials that only go on after a fault, and paused ones that are stopped because they can
    never go on: whoever hands out a trial after a fault sees that sooner.
    """
    again = History()
    kept: list[tuple[str, int, int | None]] = []
    for event in history.events:
        before = again.trials[event.trial].status if event.kind != "suggest" else None
        if (event.kind, before) not in (("resume", "running"), ("stop", "paused")):
            kept.append((event.kind, event.trial, event.epoch))
        again.append(event)
    return kept


def tracking_facts(paths: SearchPaths) -> Facts:
    """What MLflow has of the search: statuses, params, tags, and every metric step by step."""
    settings = SearchSettings.load(paths)
    client = open_client(settings.tracking_uri)
    parents, children = runs_of(settings, client)
    facts: Facts = {"MLflow: parent runs": len(parents), "MLflow: child runs": len(children)}
    for run in children:
        name = f"MLflow: trial {run.data.tags['tunekit.trial']}"
        tags = {tag: run.data.tags.get(tag) for tag in _TAGS}
        facts[name] = (run.info.run_name, run.info.status, run.data.params, tags)
        for metric in sorted(run.data.metrics):
            facts[f"{name}, {metric}"] = _points(client, run.info.run_id, metric)
    for run in parents:
        counts = {name: value for name, value in run.data.metrics.items() if value}
        facts["MLflow: search"] = (run.info.status, run.data.tags.get("best_trial"), run.data.params, counts)
    return facts


def _points(client: Any, run_id: str, metric: str) -> list[tuple[int, float | None]]:
    history = client.get_metric_history(run_id, metric)
    points = sorted((point.step, None if metric in _CLOCK else point.value) for point in history)
    return points[-1:] if metric in _SO_FAR else points


def runs_of(settings: SearchSettings, client: Any) -> tuple[list[Any], list[Any]]:
    """The parent runs (one, if all is well) and the child runs of a search."""
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    wanted = f"tags.`tunekit.search_id` = '{settings.search_id}'"
    runs = list(client.search_runs(experiments, wanted, max_results=1000))
    children = [run for run in runs if "tunekit.trial" in run.data.tags]
    return [run for run in runs if run not in children], children


def broken_invariants(paths: SearchPaths) -> Iterator[str]:
    """What must hold of every search that has ended, whatever happened to it."""
    history = History.read(paths.history)
    yield from wrong_in_history(paths, history)
    yield from unlike_the_policy(paths, history)
    yield from unlike_the_history(paths, history)


def wrong_in_history(paths: SearchPaths, history: History) -> Iterator[str]:
    """Trials that are missing or have not ended, epochs that are missing or came twice, time that falls."""
    settings = SearchSettings.load(paths)
    times = [event.time for event in history.events]
    if times != sorted(times):
        yield "the times of the history fall"
    if len(history.trials) != settings.trials:
        yield f"{len(history.trials)} trials instead of {settings.trials}"
    for trial in history.trials.values():
        epochs = [result.epoch for result in trial.results]
        if epochs != list(range(1, len(epochs) + 1)):
            yield f"trial {trial.id} has the epochs {epochs}"
        if trial.status not in ("completed", "stopped", "failed"):
            yield f"trial {trial.id} is {trial.status}: {trial.reason}"


def unlike_the_policy(paths: SearchPaths, history: History) -> Iterator[str]:
    """The first decision in the history that the policy, asked again, does not take."""
    settings = SearchSettings.load(paths)
    policy = policy_of(settings, load_space(paths.space).with_fixed(settings.fixed), History())
    for place, event in enumerate(history.events):
        replayed = len(policy.history.events)
        if replayed <= place:
            try:
                cause = next((later for later in history.events[place:] if later.kind != "stop"), event)
                _ask_again(policy, cause, settings.trials)
            except (SearchError, AssertionError, KeyError) as error:
                yield f"event {place}: the policy refuses {_short(event)}: {error!r}"
                return
        found = policy.history.events[place : place + 1]
        if not found or _short(found[0]) != _short(event):
            would = _short(found[0]) if found else "wait"
            yield f"event {place}: {_short(event)}, but the policy would {would}"
            return


def _ask_again(policy: SearchPolicy, event: Event, trials: int) -> None:
    """Bring the policy to where it decides what `event` says; stops of paused trials come before it."""
    if event.kind == "result":
        assert event.epoch is not None and event.value is not None
        policy.report(event.trial, event.epoch, event.value, event.metrics)
    elif event.kind in ("suggest", "resume"):
        if event.kind == "resume" and policy.history.trials[event.trial].unfinished:
            policy.interrupt(event.trial)  # a fault: it goes on before anything else
        policy.next(trials)
    elif event.kind == "stop":
        policy.stop_paused()
    elif event.kind == "fail":
        policy.fail(event.trial, event.epoch or 0, event.reason or "")
    else:
        raise AssertionError("nothing led to it")


def _short(event: Event) -> Facts:
    """What a decision says; the clock and the worker say nothing."""
    shown = asdict(replace(event, time=0.0, worker=None, metrics=None))
    return {name: value for name, value in shown.items() if value not in (None, 0.0) or name == "trial"}


def unlike_the_history(paths: SearchPaths, history: History) -> Iterator[str]:
    """Where MLflow does not say what the history says."""
    settings = SearchSettings.load(paths)
    client = open_client(settings.tracking_uri)
    parents, children = runs_of(settings, client)
    if [run.info.status for run in parents] != ["FINISHED"]:
        yield f"MLflow: the search's runs are {[run.info.status for run in parents]}"
    found = sorted(int(run.data.tags["tunekit.trial"]) for run in children)
    if found != sorted(history.trials):
        yield f"MLflow has runs of the trials {found}, the history has {sorted(history.trials)}"
        return
    for run in children:
        yield from _unlike_the_trial(client, run, history.trials[int(run.data.tags["tunekit.trial"])])


def _unlike_the_trial(client: Any, run: Any, trial: Trial) -> Iterator[str]:
    if run.info.status != _STATUS.get(trial.status):
        yield f"MLflow: trial {trial.id} is {run.info.status}, but {trial.status}"
    if run.info.end_time is None or run.info.end_time < run.info.start_time:
        yield f"MLflow: the run of trial {trial.id} ends before it begins"
    if not _same_params(run.data.params, trial.params):
        yield f"MLflow: trial {trial.id} has the params {run.data.params}, but {dict(trial.params)}"
    values = {"val_accuracy": [result.value for result in trial.results]}
    for name in ("train_loss", "val_loss", "learning_rate", "epoch_seconds"):
        values[name] = [result.metrics[name] for result in trial.results]
    for name, wanted in values.items():
        points = sorted((p.step, p.value) for p in client.get_metric_history(run.info.run_id, name))
        if points != list(enumerate(wanted, start=1)):
            yield f"MLflow: {name} of trial {trial.id} is {points!s:.200}, but {wanted!s:.200}"


def _same_params(found: Mapping[str, str], wanted: Mapping[str, Any]) -> bool:
    """Params have six digits in MLflow."""
    return set(found) == set(wanted) and all(
        math.isclose(float(found[name]), value, rel_tol=1e-5)
        if isinstance(value, float)
        else found[name] == str(value)
        for name, value in wanted.items()
    )
