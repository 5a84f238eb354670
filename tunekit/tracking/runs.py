"""How a search looks in MLflow: one parent run, and under it one child run a trial.

Everything here may be written twice: runs are found again by their tags, a metric point that MLflow
has (same time, step and value) is not added again, params stay and statuses are overwritten.
"""

from __future__ import annotations

import getpass
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from tunekit.history import History, Result, Trial
from tunekit.paths import SearchPaths
from tunekit.tracking.client import open_client
from tunekit.tracking.server import masked

if TYPE_CHECKING:
    from mlflow.entities import Experiment, Metric, Run

    from tunekit.tracking.model import Classifier

Outcome = Literal["finished", "interrupted"]

_BATCH = 800  # metrics in one request, so that with 100 params and 100 tags it keeps MLflow's limit of 1,000
_PAGE = 1000  # runs in one answer
_DIGEST = 36  # characters of a data set's digest, MLflow's limit
_NOT_PARAMS = ("name", "search_id", "created", "command", "note", "tracking_uri", "data_dir", "data_digest")
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
    "the tag `outcome` says how a trial ended (KILLED: stopped early, SCHEDULED: paused, can go on)."
)


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
            "stopped": f"stopped early at rung {trial.rung}",
            "failed": f"failed: {trial.reason}",
            "lost": f"lost: {trial.reason}",
        }.get(status, status)
        ended = _STATUS[status] in _ENDED and trial.ended is not None
        return cls(_STATUS[status], outcome, _milliseconds(trial.ended or 0.0) if ended else None)


@dataclass
class _Child:
    run_id: str
    state: State


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
        points = [point for result in trial.results[written:] for point in _points(trial, result)]
        if state.status != "RUNNING":
            points += _best_points(trial)
        params = {name: _text(value) for name, value in trial.params.items()} if written == 0 else {}
        tags = {"outcome": state.outcome} if state != child.state else {}
        self._log(child.run_id, points, params, tags)
        if state != child.state:
            self._set_status(child.run_id, state.status, state.end_time)
            child.state = state

    def write_end(self, outcome: Outcome, history: History) -> None:
        """Say how the search ended and what it came to."""
        counts = Counter[str](trial.status for trial in history.trials.values())
        counts["interrupted"] = counts.pop("running", 0)
        values = {f"trials_{status}": float(counts[status]) for status in _STATUS if status != "running"}
        tags = {}
        best = history.best()
        if best is not None and best.best is not None and best.id in self._children:
            values["best_val_accuracy"] = history.recipe_value(best)
            tags = {"best_trial": str(best.id), "best_child_run_id": self._children[best.id].run_id}
        ended = history.events[-1].time if history.events else self._settings["created"]
        step = len(history.events)  # so that the last end of a search that was resumed is the latest
        points = [_metric(name, value, ended, step) for name, value in values.items()]
        self._log(self.parent_id, points, {}, tags)
        self._parent_status = "FINISHED" if outcome == "finished" else "KILLED"
        self._set_status(self.parent_id, self._parent_status, _milliseconds(ended))

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
        assert trial.best is not None
        run_id = self._children[trial.id].run_id
        model_id = self._logged_model(run_id, trial.best.epoch) or self._log_model(run_id, trial, load())
        point = _metric("best_val_accuracy", trial.best.value, trial.best.time, trial.best.epoch, model_id)
        self._log(run_id, [point], {}, {})
        self._log(
            self.parent_id, [], {}, {"winner_trial": str(trial.id), "winner_model": f"models:/{model_id}"}
        )

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
        tags = {"mlflow.experimentKind": "custom_model_development", "mlflow.note.content": _EXPERIMENT_NOTE}
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
                self._children[int(trial)] = _Child(run.info.run_id, State.of_run(run))
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
        run: Run = self._client.create_run(
            self._experiment_id,
            start_time=_milliseconds(self._settings["created"]),
            tags={**self._common_tags(), "mlflow.note.content": _note(self._settings)},
            run_name=self._settings["name"],
        )
        for child in self._children.values():  # of a parent that a person deleted
            self._client.set_tag(child.run_id, "mlflow.parentRunId", run.info.run_id)
        return run

    def _create_child(self, trial: Trial) -> _Child:
        tags = {"tunekit.trial": str(trial.id), "mlflow.parentRunId": self.parent_id, "outcome": "running"}
        if trial.baseline:
            tags["baseline"] = trial.baseline
        if trial.default:
            tags["default"] = "true"
        if trial.repeat_of is not None:
            tags["repeat_of"] = str(trial.repeat_of)
        if self._trial_seed is not None:
            tags["seed"] = str(self._trial_seed(trial.id))
        run = self._client.create_run(
            self._experiment_id,
            start_time=_milliseconds(trial.started),
            tags={**self._common_tags(), **tags},
            run_name=f"{trial.id:02d} {self._describe(trial)}",
        )
        child = self._children[trial.id] = _Child(run.info.run_id, State("RUNNING", "running", None))
        return child

    def _common_tags(self) -> dict[str, str]:
        return {
            "tunekit.search_id": self._settings["search_id"],
            "tunekit.search": self._settings["name"],
            "mlflow.source.name": "tunekit",
            "mlflow.source.type": "LOCAL",
            "mlflow.user": user_name(),
        }

    def _describe_parent(self, paths: SearchPaths, parent: Run) -> None:
        """Params, tags, data set and files; written at each start, so a crash in between heals."""
        settings = self._settings
        scalars = {name: value for name, value in settings.items() if _is_param(name, value)}
        params = {**scalars, **_prefixed("fixed", settings.get("fixed"))}
        # Params cannot change in MLflow; those of the first start stay.
        new = {name: _text(value) for name, value in params.items() if name not in parent.data.params}
        tags = {
            "command": masked(settings["command"]),
            **_prefixed("version", settings.get("versions")),
            **_prefixed("git", settings.get("git")),
        }
        if settings.get("git"):
            tags["mlflow.source.git.commit"] = settings["git"]["commit"]
        self._log(self.parent_id, [], new, tags)
        self._log_data_set()
        if paths.space.exists():
            self._client.log_artifact(self.parent_id, str(paths.space))
        shown = {**settings, "tracking_uri": masked(str(settings.get("tracking_uri", "")))}
        shown["command"] = tags["command"]
        self._client.log_dict(self.parent_id, shown, paths.settings.name)

    def _log_data_set(self) -> None:
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
        tag = InputTag("mlflow.data.context", "train and validation")
        self._client.log_inputs(self.parent_id, [DatasetInput(data, [tag])])

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


def _points(trial: Trial, result: Result) -> Iterable[Metric]:
    values = {"val_accuracy": result.value, **result.metrics}
    if trial.seen_validation:
        values = {name: value for name, value in result.metrics.items() if name != "val_loss"}
    return [_metric(name, value, result.time, result.epoch) for name, value in values.items()]


def _best_points(trial: Trial) -> list[Metric]:
    """At the time and step of the best epoch, so that a better one is later and the same one the same."""
    if trial.best is None or trial.seen_validation:
        return []
    values = {"best_val_accuracy": trial.best.value, "best_epoch": trial.best.epoch}
    return [_metric(name, value, trial.best.time, trial.best.epoch) for name, value in values.items()]


def _note(settings: Mapping[str, Any]) -> str:
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


def _prefixed(prefix: str, values: Mapping[str, Any] | None) -> dict[str, str]:
    return {f"{prefix}.{name}": _text(value) for name, value in (values or {}).items()}


def _is_param(name: str, value: object) -> bool:
    return name not in _NOT_PARAMS and isinstance(value, bool | int | float | str)


def _text(value: object) -> str:
    """As a space file writes it: `0.1`, `true`, `sgd`."""
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
