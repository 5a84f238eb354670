"""MLflow's SQLite file: it is whole or it is not there, and another MLflow's is refused in one line."""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from tunekit.errors import TrackingError
from tunekit.tracking.client import open_client
from tunekit.tracking.server import check_reachable

# Forks processes that have imported MLflow already, so that their moments mean something.
_MANY_AT_ONCE = """
import os, signal, sys, time
from tunekit.tracking.client import open_client

uri = sys.argv[1]

open_client(f"{uri}.first")

def child():
    pid = os.fork()
    if pid == 0:
        open_client(uri).create_experiment(f"of {os.getpid()}")
        os._exit(0)
    return pid

for moment in (0.05, 0.2, 0.4, 0.8):
    pid = child()
    time.sleep(moment)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    print("whole" if os.path.exists(uri.removeprefix("sqlite:///")) else "absent")
children = [child() for _ in range(3)]
print("codes", *(os.waitpid(pid, 0)[1] for pid in children))
"""


@pytest.fixture(scope="module")
def born(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A new database, where a search that was killed has left an empty file and half of one."""
    file = tmp_path_factory.mktemp("born") / "mlflow.db"
    for name in ("mlflow.db", ".mlflow.db.building", ".mlflow.db.building-journal"):
        file.with_name(name).touch()
    open_client(f"sqlite:///{file}").create_experiment("mine")
    return file


@pytest.fixture
def file(born: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(born, tmp_path))


def set_version(file: Path, version: str) -> None:
    with closing(sqlite3.connect(file)) as database, database:
        database.execute("UPDATE alembic_version SET version_num = ?", (version,))


def test_a_new_database_can_be_used_and_leaves_nothing_beside(born: Path) -> None:
    check_reachable(f"sqlite:///{born}")
    assert open_client(f"sqlite:///{born}").get_experiment_by_name("mine")
    assert {path.name for path in born.parent.iterdir()} <= {"mlflow.db", ".mlflow.db.lock"}


def test_a_creation_that_fails_half_way_leaves_no_database(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_engine: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("mlflow.store.db.utils._upgrade_db", fail)  # after the first tables
    for _ in range(2):
        with pytest.raises(OSError, match="disk full"):
            open_client(f"sqlite:///{tmp_path}/mlflow.db")
        assert {path.name for path in tmp_path.iterdir()} <= {".mlflow.db.lock"}


@pytest.mark.parametrize(
    ("version", "remedy"),
    [
        ("451aebb31d03", "an older MLflow .*run 'mlflow db upgrade sqlite:///{file}'"),
        ("ffffffffffff", "a newer MLflow .*upgrade MLflow, or choose another --tracking-uri"),
    ],
)
def test_tables_of_another_mlflow_are_refused_with_what_to_do(file: Path, version: str, remedy: str) -> None:
    set_version(file, version)
    for refuse in (check_reachable, open_client):
        with pytest.raises(TrackingError, match=remedy.format(file=file)) as refusal:
            refuse(f"sqlite:///{file}")
        assert "\n" not in str(refusal.value)


def test_a_database_without_mlflows_tables_is_left_to_mlflow(tmp_path: Path) -> None:
    file = tmp_path / "other.db"
    with closing(sqlite3.connect(file)) as database, database:
        database.execute("CREATE TABLE mine (number INTEGER)")
    check_reachable(f"sqlite:///{file}")


@pytest.mark.slow
def test_kills_leave_nothing_and_searches_that_begin_at_once_share_one_database(tmp_path: Path) -> None:
    file = tmp_path / "mlflow.db"
    command = [sys.executable, "-c", _MANY_AT_ONCE, f"sqlite:///{file}"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    *killed, codes = done.stdout.splitlines()
    assert killed == ["absent"] * 4
    assert codes == "codes 0 0 0"
    assert not list(tmp_path.glob(".*building*"))
    experiments = open_client(f"sqlite:///{file}").search_experiments()
    assert len([experiment for experiment in experiments if experiment.name.startswith("of ")]) == 3
