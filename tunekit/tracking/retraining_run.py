"""The run of a retraining in MLflow: what the test set said, and the model that is handed over."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tunekit.errors import TrackingError
from tunekit.paths import SearchPaths
from tunekit.tracking.client import open_client
from tunekit.tracking.model import Classifier, log_model
from tunekit.tracking.registry import Promotion, promote, register
from tunekit.tracking.runs import next_steps, renew_description
from tunekit.tracking.server import masked
from tunekit.tracking.writer import tracked

if TYPE_CHECKING:
    from mlflow import MlflowClient


@dataclass(frozen=True)
class Registration:
    """Where the model is in MLflow's registry."""

    name: str
    version: int
    best: bool  # whether it has the alias `best`
    reason: str  # why, or why not


@dataclass(frozen=True)
class HandedModel:
    """A model on its way into the registry."""

    name: str
    classifier: Classifier
    example: NDArray[np.uint8]  # (n, H, W, C), n at least 2
    metadata: Mapping[str, Any]
    tags: Mapping[str, str]  # `test_accuracy`, `test_digest` and `test_images` decide on the alias
    description: str


class RetrainingRun:
    """A retraining's run, once its trainings are in MLflow."""

    def __init__(self, paths: SearchPaths, uri: str) -> None:
        """
        Args:
            paths: of the search.
            uri: of the tracking server or database.
        Raises:
            TrackingError: if the trainings are not in MLflow.
        """
        self.uri = uri
        self._search = paths.name
        self._run_id = tracked(paths.retraining.tracked).run_id
        self._search_run_id = tracked(paths.tracked).run_id
        if not self._run_id:
            raise TrackingError(f"the trainings of {paths.name} are not in MLflow yet")
        self._client: MlflowClient = open_client(uri)

    def record(
        self, number: int, metrics: Mapping[str, float], tags: Mapping[str, str], folder: Path
    ) -> None:
        """What one opening of the test set found: metrics at step `number`, files below `opening-<number>`.

        The search's run and this one are linked by tags.
        """
        for name, value in metrics.items():
            self._client.log_metric(self._run_id, name, value, step=number)
        for name, text in {**tags, "test_openings": str(number)}.items():
            self._client.set_tag(self._run_id, name, text)
        self._client.log_artifacts(self._run_id, str(folder), f"opening-{number}")
        self._link(number)

    def _link(self, number: int) -> None:
        def link(search_run: str) -> None:
            self._client.set_tag(search_run, "test_openings", str(number))
            self._client.set_tag(search_run, "retraining_run", self._run_id)
            self._client.set_tag(self._run_id, "search_run", search_run)

        self._on_search_run(link)

    def describe(
        self, note: str, search_note: str, model: str | None = None, files: Sequence[Path] = ()
    ) -> None:
        """Renew the descriptions of this run and of the search's, after `record` and `hand_over`.

        Args:
            note: what the test set said, Markdown.
            search_note: what came of the search, with the above, Markdown.
            model: how `predict` and `export` may call what was registered, as `tunekit-digits@best`.
            files: a report and figures to show on the search's run; those that are not there are left out.
        """
        steps = next_steps(self._search, "finished", model)
        renew_description(self._client, self._run_id, note, steps if model else ())

        def renew(search_run: str) -> None:
            renew_description(self._client, search_run, search_note, steps)
            for file in filter(Path.exists, files):
                self._client.log_artifact(search_run, str(file))

        self._on_search_run(renew)

    def _on_search_run(self, write: Callable[[str], None]) -> None:
        """The search's run may be in another MLflow, or a person deleted it: then there is none to write."""
        from mlflow.exceptions import MlflowException

        if not self._search_run_id:
            return
        try:
            write(self._search_run_id)
        except MlflowException as error:
            if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
                raise

    def hand_over(self, model: HandedModel) -> Registration:
        """Log the model, register it as a new version, and make it `best` if it is."""
        uri = log_model(
            self._client,
            self._run_id,
            model.classifier,
            model.name,
            model.tags,
            metadata=model.metadata,
            example=model.example,
        )
        version = register(self._client, model.name, uri, self._run_id, model.tags, model.description)
        promotion: Promotion = promote(self._client, model.name, version)
        return Registration(model.name, version, promotion.promoted, promotion.reason)


def problem(error: Exception, uri: str) -> str:
    """What went wrong with MLflow, in one line."""
    if isinstance(error, TrackingError):
        return str(error)
    lines = str(error).splitlines() or [type(error).__name__]
    return f"MLflow at {masked(uri)}: {masked(lines[0])[:300]}"
