"""How a search looks in MLflow: one parent run, and under it one child run a trial.

Everything here may be written twice: runs are found again by their tags, a metric point that MLflow
has (same time, step and value) is not added again, params stay and statuses are overwritten.
"""

from __future__ import annotations

import base64
import getpass
import json
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple
from urllib.parse import urlencode

from tunekit.history import History, Trial
from tunekit.paths import SearchPaths
from tunekit.tracking.client import open_client
from tunekit.tracking.server import masked

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Experiment, Metric, Run

    from tunekit.tracking.model import Classifier

Outcome = Literal["finished", "interrupted"]

_BATCH = 800  # metrics in one request, so that with 100 params and 100 tags it keeps MLflow's limit of 1,000
_PAGE = 1000  # runs in one answer
_DIGEST = 36  # characters of a data set's digest, MLflow's limit
# What searches are compared by; all else that was asked for is in the artifact search.json.
_PARAMS = (
    *("samples", "epochs", "seed", "sampler", "scheduler", "grace_period", "reduction_factor"),
    *("repeats", "train_limit", "val_fraction", "image_size"),
)
# What epochs are compared by, beside val_accuracy; the history has more.
_METRICS = ("train_loss", "train_accuracy", "val_loss", "learning_rate", "epoch_seconds")
_SIZE = "trainable_parameters"
_STATUS = {
    "running": "RUNNING",
    "paused": "SCHEDULED",
    "interrupted": "SCHEDULED",
    "completed": "FINISHED",
    "stopped": "KILLED",
    "failed": "FAILED",
    "lost": "FAILED",
}
_ENDED = ("FINISHED", "KILLED", "FAILED")
_EXPERIMENT_NOTE = (
    "Searches of one search space on one data set. A parent run is a search, its child runs are trials; "
    "the tag `outcome` says how a trial ended (KILLED: stopped early, SCHEDULED: paused, can go on). "
    "Under *Views*, *Trials, best first* shows them with their recipes."
)
_NOTE = "mlflow.note.content"
_ASKED = "\n\n### What was asked\n\n"
_BEST_FIRST = {"orderByKey": "metrics.`best_val_accuracy`", "orderByAsc": False}
_VIEW = "mlflow.sharedViewState.tunekit-trials"
_VIEW_PARAMS = 8  # columns, those that the space names first; the outcome stands behind them


class State(NamedTuple):
    """What MLflow says of a trial's run beside its metrics."""

    status: str  # MLflow's
    outcome: str
    end_time: int | None  # milliseconds since 1970

    @classmethod
    def of_run(cls, run: Run) -> State:
        """The state that MLflow has."""
        ended = run.info.end_time if run.info.status in _ENDED else None
        return cls(run.info.status, run.data.tags.get("outcome", ""), ended)

    @classmethod
    def of_trial(cls, trial: Trial, interrupted: bool) -> State:
        """The state that MLflow should have."""
        status = "interrupted" if interrupted and trial.unfinished else trial.status
        outcome = {
            "paused": f"paused at rung {trial.rung}",
            "interrupted": f"interrupted at epoch {trial.epoch}",
            "stopped": f"stopped {trial.reason or 'early'} at epoch {trial.rung}",
            "failed": f"failed: {trial.reason}",
            "lost": f"lost: {trial.reason}",
        }.get(status, status)
        ended = _STATUS[status] in _ENDED and trial.ended is not None
        return cls(_STATUS[status], outcome, _milliseconds(trial.ended or 0.0) if ended else None)


@dataclass
class _Child:
    run_id: str
    state: State
    has_data_set: bool


class SearchRuns:
    """The runs of one search. Opening it finds them, or creates experiment and parent run."""

    def __init__(
        self,
        paths: SearchPaths,
        settings: Mapping[str, Any],
        uri: str,
        artifacts: Path | None,
        describe: Callable[[Trial], str],
        trial_seed: Callable[[int], int] | None,
    ) -> None:
        """The arguments are those of `Tracker`. Raises whatever MLflow raises."""
        self._settings = settings
        self._describe = describe
        self._trial_seed = trial_seed
        self._client = open_client(uri)
        self._experiment_id = self._open_experiment(artifacts if uri.startswith("sqlite:") else None)
        self._children: dict[int, _Child] = {}
        parent = self._find_runs() or self._create_parent()
        self.parent_id: str = parent.info.run_id
        self._parent_status: str = parent.info.status
        self._counted = set(parent.data.metrics)
        self._describe_parent(paths, parent)

    def write_trial(self, trial: Trial, written: int, interrupted: bool = False) -> None:
        """Bring the run of `trial` up to date.

        Args:
            trial: as its events add up now.
            written: how many of its results MLflow has.
            interrupted: whether an unfinished trial waits for a resume.
        """
        child = self._children.get(trial.id)
        if child is None:
            child, written = self._create_child(trial), 0
        state = State.of_trial(trial, interrupted)
        if state.status == "RUNNING":
            self._reopen_parent()
        if not child.has_data_set:
            self._log_data_set(child.run_id)
            child.has_data_set = True
        points = [point for number in range(written, len(trial.results)) for point in _points(trial, number)]
        if state.status != "RUNNING":
            points += _best_points(trial)
        params = {name: _text(value) for name, value in trial.params.items()} if written == 0 else {}
        tags = {"outcome": state.outcome, **_nodes(trial)} if state != child.state else {}
        self._log(child.run_id, points, params, tags)
        if state != child.state:
            self._set_status(child.run_id, state.status, state.end_time)
            child.state = state

    def write_end(self, outcome: Outcome, history: History, note: str | None = None) -> None:
        """Say how the search ended and what it came to.

        Args:
            outcome: of the search.
            history: of it.
            note: what came of it, Markdown for the description; None for the best trial and the counts.
        """
        values = self._counts(history)
        tags = {}
        best = history.best() if self._is_search else None
        if best is not None and best.best is not None and best.id in self._children:
            values["best_val_accuracy"] = history.recipe_value(best)
            tags = {"best_trial": str(best.id), "best_child_run_id": self._children[best.id].run_id}
        ended = history.events[-1].time if history.events else self._settings["created"]
        step = len(history.events)  # so that the last end of a search that was resumed is the latest
        points = [_metric(name, value, ended, step) for name, value in values.items()]
        self._log(self.parent_id, points, {}, tags)
        self._counted.update(values)
        self._parent_status = "FINISHED" if outcome == "finished" else "KILLED"
        self._set_status(self.parent_id, self._parent_status, _milliseconds(ended))
        steps = next_steps(self._settings["name"], outcome) if self._is_search else ()
        renew_description(self._client, self.parent_id, note or _summary(values), steps)
        self._save_view(history)

    def upload_file(self, file: Path) -> None:
        """Put a report or a figure on the parent run, in the place of an earlier one of that name."""
        self._client.log_artifact(self.parent_id, str(file))

    def upload_checkpoint(self, trial: Trial, file: Path) -> None:
        """Put the weights of the best epoch into the artifacts of the trial's run, once an epoch."""
        assert trial.best is not None
        run_id = self._children[trial.id].run_id
        epoch = str(trial.best.epoch)
        if self._client.get_run(run_id).data.tags.get("checkpoint_epoch") != epoch:
            self._client.log_artifact(run_id, str(file), "checkpoint")
            self._client.set_tag(run_id, "checkpoint_epoch", epoch)

    def log_winner(self, trial: Trial, load: Callable[[], Classifier]) -> None:
        """Log the network of the best trial as a model, once an epoch, and name it on the parent run."""
        from mlflow.entities import LoggedModelOutput

        assert trial.best is not None
        run_id = self._children[trial.id].run_id
        model_id = self._logged_model(run_id, trial.best.epoch) or self._log_model(run_id, trial, load())
        point = _metric("best_val_accuracy", trial.best.value, trial.best.time, trial.best.epoch, model_id)
        self._log(run_id, [point], {}, {})
        self._log(self.parent_id, [], {}, {"best_model": f"models:/{model_id}"})
        outputs = self._client.get_run(self.parent_id).outputs
        if outputs is None or model_id not in {known.model_id for known in outputs.model_outputs}:
            self._client.log_outputs(self.parent_id, [LoggedModelOutput(model_id, step=0)])

    @property
    def _is_search(self) -> bool:
        """False for a retraining, where the best of many seeds would only be the luckiest."""
        return "samples" in self._settings

    def _counts(self, history: History) -> dict[str, float]:
        """How many trials ended in which way; a zero only takes back what an earlier end said."""
        counts = Counter[str](trial.status for trial in history.trials.values())
        counts["interrupted"] = counts.pop("running", 0)
        named = {f"trials_{status}": float(counts[status]) for status in _STATUS if status != "running"}
        return {name: count for name, count in named.items() if count or name in self._counted}

    def _save_view(self, history: History) -> None:
        """A view in the UI's menu, unless it is there: a person may have changed it.

        Source: mlflow/demo/generators/saved_views.py of MLflow 3.17, and what its UI stores. Nothing else
        says so; an MLflow that stores it otherwise does not show it.
        """
        if not self._is_search or _VIEW in self._client.get_experiment(self._experiment_id).tags:
            return
        keys = dict.fromkeys(key for trial in history.trials.values() for key in trial.params)
        columns = [
            *("tags.`outcome`", "metrics.`best_val_accuracy`", "metrics.`best_epoch`"),
            *("metrics.`epoch_seconds`", f"metrics.`{_SIZE}`", "tags.`tunekit.search`"),
            *(f"params.`{key}`" for key in list(keys)[:_VIEW_PARAMS]),
        ]
        state = {"searchFilter": "tags.kind = 'trial'", **_BEST_FIRST, "selectedColumns": columns}
        packed = base64.b64encode(zlib.compress(json.dumps(state).encode())).decode()
        now = _milliseconds(history.events[-1].time if history.events else self._settings["created"])
        view = {"name": "Trials, best first", "createdAt": now, "state": f"deflate;{packed}"}
        self._client.set_experiment_tag(self._experiment_id, _VIEW, json.dumps(view))

    def _open_experiment(self, artifacts: Path | None) -> str:
        """The experiment of this data set and space; one that a person deleted keeps its name, so another."""
        wanted = f"{_short(self._settings['dataset'])} {_short(self._settings['space'])}"
        name, number = wanted, 1
        while (found := self._client.get_experiment_by_name(name)) and found.lifecycle_stage == "deleted":
            number += 1
            name = f"{wanted} ({number})"
        return _experiment_id(found) if found else self._create_experiment(name, artifacts)

    def _create_experiment(self, name: str, artifacts: Path | None) -> str:
        location = artifacts.resolve().as_uri() if artifacts else None  # a server chooses its own
        tags = {
            "mlflow.experimentKind": "custom_model_development",
            "mlflow.experiment.primaryMetric.name": "best_val_accuracy",
            "mlflow.experiment.primaryMetric.greaterIsBetter": "True",
            _NOTE: _EXPERIMENT_NOTE,
        }
        created: str = self._client.create_experiment(name, location, tags)
        return created

    def _find_runs(self) -> Run | None:
        """All runs of this search with one query a thousand; returns the parent."""
        parent = None
        for run in self._search(f"tags.`tunekit.search_id` = '{self._settings['search_id']}'"):
            trial = run.data.tags.get("tunekit.trial")
            if trial is None:
                parent = run
            else:
                has_data_set = bool(run.inputs and run.inputs.dataset_inputs)
                self._children[int(trial)] = _Child(run.info.run_id, State.of_run(run), has_data_set)
        return parent

    def _search(self, condition: str) -> Iterator[Run]:
        token: str | None = ""
        while token is not None:
            page = self._client.search_runs(
                [self._experiment_id], condition, max_results=_PAGE, page_token=token or None
            )
            yield from page
            token = page.token or None

    def _create_parent(self) -> Run:
        kind = "search" if self._is_search else "retraining"
        run: Run = self._client.create_run(
            self._experiment_id,
            start_time=_milliseconds(self._settings["created"]),
            tags={**self._common_tags(), "kind": kind, _NOTE: _introduction(self._settings)},
            run_name=self._settings["name"],
        )
        for child in self._children.values():  # of a parent that a person deleted
            self._client.set_tag(child.run_id, "mlflow.parentRunId", run.info.run_id)
        return run

    def _create_child(self, trial: Trial) -> _Child:
        tags = {"tunekit.trial": str(trial.id), "mlflow.parentRunId": self.parent_id, "outcome": "running"}
        tags["kind"] = "trial" if self._is_search else "training"
        if trial.baseline:
            tags["baseline"] = trial.baseline
        if trial.default:
            tags["default"] = "true"
        if trial.warm_start:
            tags["warm_start"] = "true"
        if trial.repeat_of is not None:
            tags["repeat_of"] = str(trial.repeat_of)
        if self._trial_seed is not None:
            tags["seed"] = str(self._trial_seed(trial.id))
        run = self._client.create_run(
            self._experiment_id,
            start_time=_milliseconds(trial.started),
            tags={**self._common_tags(), **tags},
            run_name=f"{trial.id:0{self._digits}d} {self._describe(trial)}",
        )
        child = self._children[trial.id] = _Child(run.info.run_id, State("RUNNING", "running", None), False)
        return child

    @property
    def _digits(self) -> int:
        """Of a trial's number, so that sorting by name sorts by number."""
        wanted = self._settings.get("samples", 0) + len(self._settings.get("baselines", ()))
        return max(2, len(str(wanted * self._settings.get("repeats", 1) - 1)))

    def _common_tags(self) -> dict[str, str]:
        return {
            "tunekit.search_id": self._settings["search_id"],
            "tunekit.search": self._settings["name"],
            "mlflow.source.name": "tunekit",
            "mlflow.source.type": "LOCAL",
            "mlflow.user": user_name(),
        }

    def _describe_parent(self, paths: SearchPaths, parent: Run) -> None:
        """Params, data set and files; written at each start, so a crash in between heals."""
        settings = self._settings
        asked = {name: settings[name] for name in _PARAMS if settings.get(name) is not None}
        fixed = {f"fixed.{name}": value for name, value in (settings.get("fixed") or {}).items()}
        # Params cannot change in MLflow; those of the first start stay.
        new = {
            name: _text(value) for name, value in (asked | fixed).items() if name not in parent.data.params
        }
        commit = {"mlflow.source.git.commit": settings["git"]["commit"]} if settings.get("git") else {}
        self._log(self.parent_id, [], new, commit)
        self._log_data_set(self.parent_id)
        if paths.space.exists():
            self.upload_file(paths.space)
        shown = {name: value for name, value in settings.items() if name != "note"}
        for name in ("tracking_uri", "command"):
            shown[name] = masked(str(settings.get(name, "")))
        self._client.log_dict(self.parent_id, shown, paths.settings.name)

    def _log_data_set(self, run_id: str) -> None:
        from mlflow.entities import Dataset, DatasetInput, InputTag

        settings = self._settings
        counts = {name: settings[name] for name in ("train_images", "val_images") if name in settings}
        data = Dataset(
            name=_short(settings["dataset"]),
            digest=str(settings.get("data_digest", ""))[:_DIGEST] or "unknown",
            source_type="local",
            source=json.dumps({"uri": str(settings.get("data_dir", settings["dataset"]))}),
            profile=json.dumps(counts),
        )
        tag = InputTag("mlflow.data.context", "training")
        self._client.log_inputs(run_id, [DatasetInput(data, [tag])])

    def _log(
        self, run_id: str, points: Sequence[Metric], params: Mapping[str, str], tags: Mapping[str, str]
    ) -> None:
        from mlflow.entities import Param, RunTag

        if not (points or params or tags):
            return
        self._client.log_batch(
            run_id,
            points[:_BATCH],
            [Param(name, value) for name, value in params.items()],
            [RunTag(name, value) for name, value in tags.items()],
        )
        for start in range(_BATCH, len(points), _BATCH):
            self._client.log_batch(run_id, points[start : start + _BATCH])

    def _reopen_parent(self) -> None:
        if self._parent_status != "RUNNING":
            self._set_status(self.parent_id, "RUNNING", None)
            self._parent_status = "RUNNING"

    def _set_status(self, run_id: str, status: str, end_time: int | None) -> None:
        if end_time is None:
            self._client.update_run(run_id, status=status)
        else:
            self._client.set_terminated(run_id, status=status, end_time=end_time)

    def _logged_model(self, run_id: str, epoch: int) -> str | None:
        """The model of this epoch, if it was logged and its upload ended."""
        from mlflow.entities import LoggedModelStatus

        models = self._client.search_logged_models([self._experiment_id], f"source_run_id = '{run_id}'")
        for model in models:
            if model.tags.get("checkpoint_epoch") == str(epoch) and model.status == LoggedModelStatus.READY:
                found: str = model.model_id
                return found
        return None

    def _log_model(self, run_id: str, trial: Trial, classifier: Classifier) -> str:
        from tunekit.tracking.model import log_model

        assert trial.best is not None
        tags = {"checkpoint_epoch": str(trial.best.epoch), "tunekit.trial": str(trial.id)}
        name = f"{self._settings['name']}-trial-{trial.id}"
        return log_model(self._client, run_id, classifier, name, tags).removeprefix("models:/")


def _metric(name: str, value: float, when: float, step: int, model_id: str | None = None) -> Metric:
    from mlflow.entities import Metric

    return Metric(name, float(value), _milliseconds(when), step, model_id=model_id)


def _points(trial: Trial, number: int) -> Iterable[Metric]:
    """Of the trial's result `number`. A network's size is said where it changes, else its chart is a line."""
    result = trial.results[number]
    values = {name: result.metrics[name] for name in _METRICS if name in result.metrics}
    if trial.seen_validation:
        values.pop("val_loss", None)
    else:
        values["val_accuracy"] = result.value
    before = trial.results[number - 1].metrics.get(_SIZE) if number else None
    if result.metrics.get(_SIZE) != before:
        values[_SIZE] = result.metrics[_SIZE]
    return [_metric(name, value, result.time, result.epoch) for name, value in values.items()]


def _best_points(trial: Trial) -> list[Metric]:
    """At the time and step of the best epoch, so that a better one is later and the same one the same."""
    if trial.best is None or trial.seen_validation:
        return []
    values = {"best_val_accuracy": trial.best.value, "best_epoch": trial.best.epoch}
    return [_metric(name, value, trial.best.time, trial.best.epoch) for name, value in values.items()]


def renew_description(client: MlflowClient, run_id: str, note: str, steps: Iterable[str]) -> None:
    """Write another result into a run's description, on top since MLflow folds what is long.

    What stands below the result, under "What was asked", stays: be it tunekit's or a person's.

    Args:
        client: of the server or database that has the run.
        run_id: a parent run.
        note: what came of it, Markdown.
        steps: commands to go on with.
    """
    run = client.get_run(run_id)
    before = run.data.tags.get(_NOTE, "")
    parts = [note.strip(), "\n\n", " | ".join(_links(run))]
    if commands := "\n".join(steps):
        parts += ["\n\n### How to go on\n\n```\n", commands, "\n```"]
    parts += [_ASKED, before.partition(_ASKED)[2] or before]
    client.set_tag(run_id, _NOTE, "".join(parts))


def next_steps(name: str, outcome: Outcome, model: str | None = None) -> list[str]:
    """The commands that go on from a search called `name`; `model` is what its retraining registered."""
    if outcome == "interrupted":
        return [f"tunekit resume {name}"]
    if model is not None:
        return [f"tunekit predict {model} IMAGE", f"tunekit export {model}"]
    return [f"tunekit best {name}", f"tunekit choices {name}", f"tunekit retrain-best {name}"]


def _links(run: Run) -> list[str]:
    """To the runs that its tags name, and to its children in a table, best first."""
    tags, page = run.data.tags, f"#/experiments/{run.info.experiment_id}/runs"
    named = {"best trial": "best_child_run_id", "retraining": "retraining_run", "search": "search_run"}
    links = [f"[{words}]({page}/{tags[tag]})" for words, tag in named.items() if tag in tags]
    wanted = f"tags.`mlflow.parentRunId` = '{run.info.run_id}'"
    query = urlencode(
        {"searchFilter": wanted, "orderByKey": _BEST_FIRST["orderByKey"], "orderByAsc": "false"}
    )
    return [*links, f"[child runs, best first]({page}?{query})"]


def _summary(values: Mapping[str, float]) -> str:
    """Counts and the best value in words."""
    counts = {name.removeprefix("trials_"): int(value) for name, value in values.items() if "trials_" in name}
    words = [f"{count} {name}" for name, count in counts.items() if count]
    best = values.get("best_val_accuracy")
    first = "" if best is None else f"Best validation accuracy: **{best:.4f}**. "
    return f"{first}Child runs: {', '.join(words) or 'none'}."


def _introduction(settings: Mapping[str, Any]) -> str:
    if "note" in settings:
        return str(settings["note"])
    baselines = len(settings.get("baselines", ()))
    first = f"{baselines} baselines, then " if baselines else ""
    return (
        f"**{settings['name']}**: {first}{settings['samples']} trials of at most {settings['epochs']} epochs "
        f"of the space `{settings['space']}` on `{settings['dataset']}`, seed {settings['seed']}.\n\n"
        f"```\n{masked(settings['command'])}\n```\n\n"
        "Each child run is a trial; its params are the recipe keys that varied."
    )


def _nodes(trial: Trial) -> dict[str, str]:
    """Where it trained, in their order; nothing if nobody said."""
    nodes = dict.fromkeys(result.node for result in trial.results if result.node)
    return {"tunekit.nodes": ", ".join(nodes)} if nodes else {}


def _text(value: object) -> str:
    """As a space file writes it: `0.1`, `true`, `sgd`; six digits of a number, the history has all."""
    if isinstance(value, float):
        value = float(f"{value:.6g}")
    return value if isinstance(value, str) else json.dumps(value)


def _short(name_or_path: str) -> str:
    return Path(name_or_path).name.removesuffix(".toml")


def _experiment_id(experiment: Experiment) -> str:
    return str(experiment.experiment_id)


def user_name() -> str:
    """Who runs this; "unknown" where the system has no name."""
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a container's user may have no name
        return "unknown"


def _milliseconds(seconds: float) -> int:
    return int(seconds * 1000)
