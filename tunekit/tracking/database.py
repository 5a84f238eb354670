"""MLflow's SQLite file: born whole, and refused if another version of MLflow made its tables."""

from __future__ import annotations

import os
import re
import sqlite3
from contextlib import closing
from importlib.util import find_spec
from pathlib import Path

from filelock import FileLock

from tunekit.errors import TrackingError

_PATIENCE = 3.0  # seconds that another process may hold the file
_REVISION = re.compile(r"""^(down_revision|revision)\b[^=\n]*=\s*["'](\w+)["']""", re.MULTILINE)


def create_database(file: Path) -> None:
    """Let MLflow make its tables in `file`, unless something is in there. Imports mlflow.

    MLflow makes them in dozens of steps that reach the disk one by one, and cannot always go on from
    between two. So they happen in a file beside, which then takes its place: a process that is killed
    meanwhile leaves no `file`, and the next one clears away what it leaves.
    """
    if _has_content(file):
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    building = file.with_name(f".{file.name}.building")
    with FileLock(file.with_name(f".{file.name}.lock")):
        _remove(building)
        if not _has_content(file):  # else another process was faster
            try:
                _make_tables(building)
                os.replace(building, file)
            finally:
                _remove(building)


def check_version(file: Path) -> None:
    """Check that the tables in `file` are those of the installed MLflow; takes milliseconds.

    Raises:
        TrackingError: if they are not (MLflow would refuse them or migrate them without a copy), or if the
            file is damaged.
    """
    found = _version(file)
    known, newest = _installed_versions()
    if found is None or newest is None or found == newest:
        return
    if found in known:
        age, remedy = "an older", f"copy the file and run 'mlflow db upgrade sqlite:///{file}'"
    else:
        age, remedy = "a newer", "upgrade MLflow"
    raise TrackingError(
        f"{file} has the tables of {age} MLflow ({found}; the one installed needs {newest}): "
        f"{remedy}, or choose another --tracking-uri"
    )


def _has_content(file: Path) -> bool:
    return file.exists() and file.stat().st_size > 0


def _make_tables(file: Path) -> None:
    from mlflow.store.tracking import DEFAULT_LOCAL_FILE_AND_ARTIFACT_PATH
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    uri = f"sqlite:///{file}"
    try:
        SqlAlchemyStore(uri, DEFAULT_LOCAL_FILE_AND_ARTIFACT_PATH)  # type: ignore[no-untyped-call]
    finally:
        # MLflow would keep this file open, and its next attempt would write to a file that is gone.
        engine = SqlAlchemyStore._engine_map.pop(uri, None)
        if engine is not None:
            engine.dispose()


def _remove(building: Path) -> None:
    for file in (building, building.with_name(f"{building.name}-journal")):
        file.unlink(missing_ok=True)


def _version(file: Path) -> str | None:
    """What MLflow's migrations wrote into the file last; None if they did not, or it cannot be read now.

    Raises:
        TrackingError: if the file is damaged.
    """
    if not _has_content(file):
        return None
    try:
        with closing(sqlite3.connect(file, timeout=_PATIENCE)) as database:
            rows = database.execute("SELECT version_num FROM alembic_version").fetchall()
    except sqlite3.OperationalError:  # no such table, or another process holds the file
        return None
    except sqlite3.DatabaseError as error:
        raise TrackingError(f"{file} is damaged ({error}): choose another --tracking-uri") from None
    return str(rows[0][0]) if rows else None


def _installed_versions() -> tuple[set[str], str | None]:
    """All versions that the installed MLflow can upgrade, and the newest; None if its files do not tell.

    Each migration is a file that names its `revision` and its `down_revision`, the one before it.
    Asking alembic or MLflow would take seconds: both import all of MLflow.
    """
    spec = find_spec("mlflow")
    assert spec is not None and spec.origin is not None
    folder = Path(spec.origin).parent / "store" / "db_migrations" / "versions"
    lines = [line for file in folder.glob("*.py") for line in _REVISION.findall(file.read_text("utf-8"))]
    made = {version for name, version in lines if name == "revision"}
    newest = made - {version for name, version in lines if name == "down_revision"}
    return made, newest.pop() if len(newest) == 1 else None
