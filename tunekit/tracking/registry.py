"""The shelf of finished models: registering them, naming the best one, finding and loading one."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from torch import nn

from tunekit.errors import TrackingError, nearest
from tunekit.tracking.archive import load_exported
from tunekit.tracking.client import silence
from tunekit.tracking.server import masked

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion, RegisteredModel
    from mlflow.models import Model

BEST = "best"  # the alias of the version that did best on the test images

_READY_TIMEOUT = 60.0  # seconds
_MODEL_ID = re.compile(r"m-[0-9a-f]{32}")


@dataclass(frozen=True)
class Promotion:
    """Whether a version is the best one now, and why, in words."""

    promoted: bool
    reason: str


@dataclass(frozen=True)
class LoggedClassifier:
    """A model of tunekit as it was logged."""

    module: nn.Module  # images (N, H, W, C), uint8, to probabilities (N, classes), float32
    classes: list[str]
    image_shape: tuple[int, int, int]  # H, W, C
    recipes: list[dict[str, Any]]  # flat, of each network in it, the best first
    mean: list[float]  # a channel, of pixels scaled to 0..1; the module applies both itself
    std: list[float]


def registered_name(dataset: str) -> str:
    """The registered model of a data set, by name or by path of a folder: `tunekit-digits`."""
    last = re.split(r"[/\\]", dataset.rstrip("/\\"))[-1]
    return "tunekit-" + (re.sub(r"[^A-Za-z0-9._-]+", "-", last).strip("-.") or "images")


def register(
    client: MlflowClient,
    name: str,
    model_uri: str,
    run_id: str,
    tags: Mapping[str, str],
    description: str,
) -> int:
    """Make a logged model a version of a registered model; again for the same model is no new version.

    Args:
        client: of the server or database that has the model.
        name: of the registered model, made if it is not there.
        model_uri: `models:/m-<id>`, what `log_model` gave.
        run_id: the run that the model came from.
        tags: of the version; `promote` reads `test_accuracy`, `test_digest` and `test_images`, and
            `classes` goes to the registered model too.
        description: in words, of the version and of a registered model that is new.
    Returns:
        The version, ready to be loaded.
    Raises:
        TrackingError: if it is not ready within a minute.
    """
    model_id = model_uri.removeprefix("models:/")
    location = client.get_logged_model(model_id).artifact_location
    _create_registered(client, name, tags, description)
    for version in client.search_model_versions(f"name = '{name}'"):
        if version.source in (model_uri, location) and version.status != "FAILED_REGISTRATION":
            return _ready(client, version)
    # On a database MLflow would look the model's URI up in the database that the process uses by default.
    source = location if client.tracking_uri.startswith("sqlite:") else model_uri
    created = client.create_model_version(
        name, source, run_id, dict(tags), description=description, await_creation_for=0, model_id=model_id
    )
    return _ready(client, created)


def promote(client: MlflowClient, name: str, version: int) -> Promotion:
    """Give a version the alias `best` if it did better on the very test images of the one that has it.

    Args:
        client: of the server or database that has the version.
        name: of the registered model.
        version: one with the tags `test_accuracy` (0 to 1), `test_digest` (same digest, same images) and
            `test_images` (their number).
    Returns:
        Whether the version has the alias now.
    """
    tags = client.get_model_version(name, str(version)).tags
    holder = client.get_registered_model(name).aliases.get(BEST)
    promotion = _compare(tags, version, client.get_model_version(name, str(holder)) if holder else None)
    if promotion.promoted:
        client.set_registered_model_alias(name, BEST, str(version))
    return promotion


def find_model(client: MlflowClient, name: str) -> str:
    """The model that a user means, as an MLflow URI that will always mean the same model.

    Args:
        client: of the server or database to look in.
        name: `x` (the version called best, else the latest), `x@alias`, `x/3`, any of these after
            `models:/`, or `models:/m-<id>`.
    Raises:
        TrackingError: if there is none.
    """
    wanted = name.removeprefix("models:/")
    if wanted != name and _MODEL_ID.fullmatch(wanted):
        _logged_location(client, wanted)
        return name
    base, mark, detail = re.fullmatch(r"([^/@]*)([/@]?)(.*)", wanted, re.DOTALL).groups()  # type: ignore[union-attr]
    model = _registered(client, base)
    if mark == "@":
        version = _version_called(model, detail)
    elif mark:
        version = _version_numbered(client, model, detail)
    else:
        version = int(model.aliases.get(BEST) or _latest(model))
    return f"models:/{base}/{version}"


def load_logged(client: MlflowClient, uri: str) -> LoggedClassifier:
    """Load a model that tunekit logged; nothing in it is trusted, no code in it runs.

    Args:
        client: of the server or database that has the model.
        uri: what `find_model` gave.
    Raises:
        TrackingError: if it cannot be fetched or is no model of tunekit.
    """
    silence()
    from mlflow.artifacts import download_artifacts
    from mlflow.models import Model

    # The bar would be drawn for a handful of files, most of them small.
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    with TemporaryDirectory() as folder:
        try:
            download_artifacts(
                artifact_uri=_location(client, uri), dst_path=folder, tracking_uri=client.tracking_uri
            )
            (file,) = Path(folder).rglob("MLmodel")
        except Exception as error:  # each kind of store has its own
            raise TrackingError(f"cannot fetch {uri}: {_first_line(error)}") from None
        try:
            return _classifier(Model.load(str(file)), file.parent)
        except Exception as error:  # a foreign file may be wrong in any way
            raise TrackingError(f"{uri} is not a model of tunekit: {_first_line(error)}") from None


def _classifier(model: Model, folder: Path) -> LoggedClassifier:
    """MLflow writes no format into MLmodel: an exported network is `data/model.pt2`, a pickle `model.pth`."""
    file = folder / "data" / "model.pt2"
    if "pytorch" not in model.flavors or not file.is_file():
        raise ValueError(f"it has the flavors {', '.join(sorted(model.flavors))} and no data/model.pt2")
    known = model.metadata or {}
    missing = [name for name in ("classes", "mean", "std") if not isinstance(known.get(name), list)]
    if missing:
        raise ValueError(f"its metadata has no {' and no '.join(missing)}")
    if model.signature is None:
        raise ValueError("it does not say which images it takes")
    height, width, channels = model.signature.inputs.inputs[0].shape[1:]
    return LoggedClassifier(
        module=load_exported(file),
        classes=[str(name) for name in known["classes"]],
        image_shape=(int(height), int(width), int(channels)),
        recipes=[dict(recipe) for recipe in known.get("recipes", ())],
        mean=[float(value) for value in known["mean"]],
        std=[float(value) for value in known["std"]],
    )


def _create_registered(client: MlflowClient, name: str, tags: Mapping[str, str], description: str) -> None:
    from mlflow.exceptions import MlflowException

    about = {"classes": tags["classes"]} if "classes" in tags else {}
    try:
        client.create_registered_model(name, about, description)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise


def _ready(client: MlflowClient, version: ModelVersion) -> int:
    """The version's number, once the server has taken it over."""
    deadline = time.monotonic() + _READY_TIMEOUT
    while version.status != "READY":
        if version.status == "FAILED_REGISTRATION" or time.monotonic() > deadline:
            raise TrackingError(
                f"version {version.version} of {version.name} is not ready: {version.status_message}"
            )
        time.sleep(0.2)
        version = client.get_model_version(version.name, version.version)
    return int(version.version)


def _compare(tags: Mapping[str, str], version: int, holder: ModelVersion | None) -> Promotion:
    if holder is None:
        return Promotion(True, "no version was best before")
    if int(holder.version) == version:
        return Promotion(True, f"version {version} is the best already")
    if "test_accuracy" not in holder.tags or holder.tags.get("test_digest") != tags["test_digest"]:
        return Promotion(False, f"version {holder.version} was tested on other images")
    accuracy, best = float(tags["test_accuracy"]), float(holder.tags["test_accuracy"])
    if accuracy > best:
        than = f"version {holder.version} with {best:.4f}"
        return Promotion(True, f"{accuracy:.4f} beats {than} on the same {tags['test_images']} test images")
    return Promotion(False, f"version {holder.version} has {best:.4f} on the same test images")


def _registered(client: MlflowClient, name: str) -> RegisteredModel:
    from mlflow.exceptions import MlflowException

    try:
        return client.get_registered_model(name)
    except MlflowException as error:
        if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            raise TrackingError(f"cannot look up {name!r}: {_first_line(error)}") from None
    known = nearest(name, [model.name for model in client.search_registered_models(max_results=1000)])
    raise TrackingError(f"no registered model called {name!r} in {masked(client.tracking_uri)}{known}")


def _version_called(model: RegisteredModel, alias: str) -> int:
    if alias not in model.aliases:
        raise TrackingError(f"no version of {model.name} is called {alias!r}{nearest(alias, model.aliases)}")
    return int(model.aliases[alias])


def _version_numbered(client: MlflowClient, model: RegisteredModel, number: str) -> int:
    from mlflow.exceptions import MlflowException

    latest = _latest(model)
    try:
        return int(client.get_model_version(model.name, str(int(number))).version)
    except (ValueError, MlflowException):
        raise TrackingError(f"no version {number!r} of {model.name} (the latest is {latest})") from None


def _latest(model: RegisteredModel) -> int:
    if not model.latest_versions:
        raise TrackingError(f"registered model {model.name} has no version")
    return max(int(version.version) for version in model.latest_versions)


def _location(client: MlflowClient, uri: str) -> str:
    """Where the files of a model lie; MLflow itself would ask the server that the process uses by default."""
    wanted = uri.removeprefix("models:/")
    if _MODEL_ID.fullmatch(wanted):
        return _logged_location(client, wanted)
    name, _, version = wanted.rpartition("/")
    return str(client.get_model_version_download_uri(name, version))


def _logged_location(client: MlflowClient, model_id: str) -> str:
    from mlflow.exceptions import MlflowException

    try:
        return str(client.get_logged_model(model_id).artifact_location)
    except MlflowException as error:
        raise TrackingError(f"no model models:/{model_id}: {_first_line(error)}") from None


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
