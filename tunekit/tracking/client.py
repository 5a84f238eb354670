"""The one place that imports mlflow, quietly; the import takes seconds, so only when it is needed."""

from __future__ import annotations

import logging
import os
import warnings
from typing import TYPE_CHECKING

from tunekit.tracking.database import check_version, create_database
from tunekit.tracking.server import sqlite_file

if TYPE_CHECKING:
    from mlflow import MlflowClient

# A dead server must be noticed in seconds, since the tracker tries again by itself. What a user sets wins.
_ENVIRONMENT = {
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",  # seconds
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_CONFIGURE_LOGGING": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}
# Shows with a traceback what comes as an exception too.
_REPEATING_LOG = "mlflow.store.db.utils"
# Of MLflow about itself: nothing that a user of tunekit could mend.
_NOISE = (r"The ``noload`` loader strategy is deprecated", r".*Any type hint is inferred as AnyType")
_REFUSALS = ("INVALID_PARAMETER_VALUE", "INVALID_STATE")


def open_client(uri: str) -> MlflowClient:
    """A client of the tracking server or database `uri`; a new database gets its tables here.

    Raises:
        TrackingError: if the database has the tables of another version of MLflow.
    """
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    silence()
    from mlflow import MlflowClient

    logging.getLogger("alembic").setLevel(logging.WARNING)
    logging.getLogger(_REPEATING_LOG).setLevel(logging.CRITICAL)
    if uri.startswith("sqlite:"):
        create_database(sqlite_file(uri))
        check_version(sqlite_file(uri))
    return MlflowClient(tracking_uri=uri, registry_uri=uri)


def silence() -> None:
    """Leave out MLflow's warnings about its own code."""
    for message in _NOISE:
        warnings.filterwarnings("ignore", message)


def is_refusal(error: Exception) -> bool:
    """Whether MLflow understood and said no (a run that a person deleted): trying again cannot help."""
    return getattr(error, "error_code", None) in _REFUSALS
