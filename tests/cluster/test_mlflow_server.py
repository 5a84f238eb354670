"""`mlflow-server.sh`: a search is recorded in PostgreSQL while the server stops and starts again."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path

import pytest

from tests.cluster.files import CLUSTER, processes_with, script, wait_until
from tests.tracking.test_writer import Place, Search
from tunekit.errors import TrackingError
from tunekit.tracking.client import open_client
from tunekit.tracking.server import check_reachable

_PASSWORD = "only for this test"
_LOGIN = "Basic YWRtaW46b25seSBmb3IgdGhpcyB0ZXN0"  # admin and the password, as a browser sends them
_HAS_POSTGRES = any(Path("/usr/lib/postgresql").glob("*/bin/initdb")) or shutil.which("initdb")
needs_postgres = pytest.mark.skipif(not _HAS_POSTGRES, reason="there is no PostgreSQL here")
_PATH = f"{Path(sys.executable).parent}:{os.environ['PATH']}"


@dataclass
class Server:
    """The script, with a folder of its own and the same port at every start."""

    folder: Path
    port: int
    process: subprocess.Popen[bytes] | None = None

    @property
    def uri(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        password = self.folder.parent / "password"
        password.write_text(f"{_PASSWORD}\n")
        process = self.process = subprocess.Popen(
            [
                *(CLUSTER / "mlflow-server.sh", self.folder, "--port", str(self.port), "--workers", "1"),
                *("--password-file", password, "--allowed-hosts", f"mlflow.lab:{self.port}"),
            ],
            env={**os.environ, "PATH": _PATH},
            stdout=subprocess.DEVNULL,
        )
        wait_until(lambda: process.poll() is not None or self._is_up(), 120)
        assert process.poll() is None, (self.folder / "mlflow.log").read_text()[-2000:]

    def _is_up(self) -> bool:
        try:
            return self.asked("/health") == 200
        except OSError:
            return False

    def asked(self, path: str, host: str = "localhost", login: str = _LOGIN) -> int:
        """The HTTP status that the server answers."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            connection.request("GET", path, headers={"Host": f"{host}:{self.port}", "Authorization": login})
            return connection.getresponse().status
        finally:
            connection.close()

    def stop(self, number: signal.Signals = signal.SIGTERM) -> None:
        if self.process:
            self.process.send_signal(number)
            self.process.wait(60)

    def select(self, query: str) -> str:
        """What PostgreSQL itself answers."""
        command = [
            "psql",
            f"--host={self.folder}/socket",
            "--username=tunekit",
            "--no-psqlrc",
            "--tuples-only",
        ]
        answer = subprocess.run([*command, "-c", query, "mlflow"], capture_output=True, text=True, check=True)
        return answer.stdout.strip()


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    # Not below pytest's folder, which nobody else may enter: as root, PostgreSQL runs as another user.
    place = Path(tempfile.mkdtemp(prefix="tunekit-server-"))
    place.chmod(0o711)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    server = Server(place / "mlflow", port)
    yield server
    server.stop()
    wait_until(lambda: not processes_with(str(place)))
    if (server.folder / "socket").is_symlink():  # it was killed
        shutil.rmtree((server.folder / "socket").readlink())
    shutil.rmtree(place)


@pytest.fixture(scope="module")
def recorded(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Search]:
    """Three trials: one before the server stops, one while it is away, one after it came back."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_USERNAME", "admin")
        patch.setenv("MLFLOW_TRACKING_PASSWORD", _PASSWORD)
        patch.setattr("tunekit.tracking.writer._LONGEST_WAIT", 1.0)
        server.start()
        folder = tmp_path_factory.mktemp("results")
        search = Search(Place(folder, server.uri, open_client(server.uri)), "on-postgresql")
        with search.tracker() as tracker:
            _train(search, 0)
            wait_until(lambda: bool(search.children))
            server.stop()
            _train(search, 1)
            wait_until(lambda: tracker.report().error)
            server.start()
            _train(search, 2)
            tracker.finish("finished", [(trial, search.paths.trial(trial).best) for trial in range(3)])
            assert tracker.close(120).undelivered == 0
        yield search
        search.history.close()


def _train(search: Search, trial: int) -> None:
    best = search.paths.trial(trial).best
    best.parent.mkdir(parents=True)
    best.write_bytes(b"weights of %d" % trial)
    search.suggest(trial)
    search.train(trial, 0.1, 0.5 + trial / 10, 0.4)
    search.happen("complete", trial, epoch=3)


@needs_postgres
@pytest.mark.slow
def test_everything_is_there_once(recorded: Search, server: Server) -> None:
    assert recorded.parent.info.status == "FINISHED"
    assert sorted(recorded.children) == [0, 1, 2]
    for trial in range(3):
        values = [(point.step, point.value) for point in recorded.points(trial, "val_accuracy")]
        assert values == [(1, 0.1), (2, 0.5 + trial / 10), (3, 0.4)]
    assert (
        server.select(
            "select count(*) from metrics where key = 'val_accuracy' and run_uuid in "
            "(select run_uuid from tags where key = 'tunekit.trial')"
        )
        == "9"
    )


@needs_postgres
@pytest.mark.slow
def test_artifacts_went_through_the_server_into_its_folder(recorded: Search, server: Server) -> None:
    files = sorted((server.folder / "artifacts").rglob("best.safetensors"))
    assert sorted(file.read_bytes() for file in files) == [b"weights of %d" % trial for trial in range(3)]
    run = recorded.children[1].info.run_id
    (listed,) = recorded.place.client.list_artifacts(run, "checkpoint")
    assert listed.path == "checkpoint/best.safetensors"


@needs_postgres
@pytest.mark.slow
def test_it_answers_its_names_and_who_has_the_password(
    recorded: Search, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    listing = "/api/2.0/mlflow/experiments/search?max_results=1"
    assert server.asked(listing, host="mlflow.lab") == 200
    assert server.asked(listing, host="evil.example.com") == 403
    assert server.asked(listing, login="") == 401
    check_reachable(server.uri)
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "another one than that")
    with pytest.raises(TrackingError, match="wants another login"):
        check_reachable(server.uri)


@needs_postgres
@pytest.mark.slow
def test_secrets_and_database_are_for_nobody_else(recorded: Search, server: Server) -> None:
    for name in ("secret-key", "login.ini", "postgresql", "artifacts"):
        assert (server.folder / name).stat().st_mode & 0o077 == 0, name
    listens = server.select("show listen_addresses")
    assert listens == ""


@needs_postgres
@pytest.mark.slow
def test_killed_it_leaves_no_process_and_its_database_whole(recorded: Search, server: Server) -> None:
    server.stop(signal.SIGKILL)
    wait_until(lambda: not processes_with(str(server.folder)))
    log = (server.folder / "postgresql.log").read_text()
    assert log.rstrip().endswith("database system is shut down")


@needs_postgres
def test_it_does_not_let_others_in_without_a_password(tmp_path: Path) -> None:
    refused = script("mlflow-server.sh", str(tmp_path), "--host", "0.0.0.0", PATH=_PATH)
    assert refused.returncode == 1
    assert "--host 0.0.0.0 lets others in: give --password-file" in refused.stderr
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_option_is_named(tmp_path: Path) -> None:
    refused = script("mlflow-server.sh", str(tmp_path), "--hots", "0.0.0.0")
    assert refused.returncode == 1
    assert refused.stderr == "mlflow-server.sh: no option --hots\n"
