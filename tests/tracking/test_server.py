"""Where MLflow records: the address, the check before a search, the UI's command."""

from __future__ import annotations

import http.server
import os
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tunekit.errors import TrackingError
from tunekit.tracking.server import check_reachable, masked, serve_ui, tracking_uri, ui_command


@pytest.fixture(autouse=True)
def no_server_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"):
        monkeypatch.setenv(name, "")  # so that what a test's login leaves in there goes with it
        monkeypatch.delenv(name)


class _Health(http.server.BaseHTTPRequestHandler):
    """Answers `status` to everything and remembers who asked for what."""

    status = 200
    asked: tuple[str, str | None] = ("", None)

    def do_GET(self) -> None:
        type(self).asked = (self.path, self.headers["Authorization"])
        self.send_response(self.status)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def health() -> Iterator[tuple[str, type[_Health]]]:
    """HOST:PORT of a server that only knows `/health`, and its handler."""
    handler = type("Health", (_Health,), {})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{server.server_port}", handler
        server.shutdown()


def test_the_default_is_a_database_in_the_results_folder(tmp_path: Path) -> None:
    assert tracking_uri(tmp_path, None) == f"sqlite:///{tmp_path}/mlflow.db"


def test_an_explicit_uri_wins_over_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://other:1")
    assert tracking_uri(tmp_path, None) == "http://other:1"
    assert tracking_uri(tmp_path, "http://mine:2/") == "http://mine:2"


def test_a_relative_database_becomes_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert tracking_uri(tmp_path, "sqlite:///my.db") == f"sqlite:///{tmp_path}/my.db"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("http://host:5000", "http://host:5000"),
        ("https://ann:s3cret@host/x", "https://ann:***@host/x"),
        ("https://ann:a@b/c@host:1", "https://ann:***@host:1"),
        (
            "tunekit search --tracking-uri http://ann:x@h --seed 1",
            "tunekit search --tracking-uri http://ann:***@h --seed 1",
        ),
    ],
)
def test_passwords_are_masked(text: str, shown: str) -> None:
    assert masked(text) == shown


def test_a_server_that_answers_is_reachable(health: tuple[str, type[_Health]]) -> None:
    address, handler = health
    check_reachable(f"http://{address}")
    assert handler.asked == ("/health", None)


def test_user_and_password_are_sent_as_basic_auth(health: tuple[str, type[_Health]]) -> None:
    address, handler = health
    check_reachable(f"http://ann:s%40crt@{address}/mlflow/")
    assert handler.asked == ("/mlflow/health", "Basic YW5uOnNAY3J0")


def test_a_server_that_answers_an_error_is_named_without_its_password(
    health: tuple[str, type[_Health]],
) -> None:
    address, handler = health
    handler.status = 503
    with pytest.raises(TrackingError) as caught:
        check_reachable(f"http://ann:s3cret@{address}")
    assert str(caught.value) == (
        f"tracking server http://ann:***@{address} does not answer (HTTP 503): "
        "start it, or leave out --tracking-uri to record under results/"
    )


def test_a_port_where_nobody_listens_is_not_reachable() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with pytest.raises(TrackingError, match=rf"http://127.0.0.1:{port} does not answer \(.*refused\)"):
        check_reachable(f"http://127.0.0.1:{port}")


@pytest.mark.parametrize("uri", ["results/mlruns", "/mlruns", "file:///mlruns", "ftp://host", "sqlite:x.db"])
def test_other_kinds_of_uri_are_refused_with_what_is_accepted(uri: str) -> None:
    with pytest.raises(TrackingError, match=r"a tracking URI is http://HOST:PORT, .* or sqlite:///"):
        check_reachable(uri)


def test_a_database_may_be_new_or_there(tmp_path: Path) -> None:
    check_reachable(f"sqlite:///{tmp_path}/new/folder/m.db")
    with closing(sqlite3.connect(tmp_path / "m.db")) as database:
        database.execute("create table t (x)")
    check_reachable(f"sqlite:///{tmp_path}/m.db")
    assert [path.name for path in tmp_path.iterdir()] == ["m.db"]


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    (tmp_path / "m.db").write_text("not a database at all")
    with pytest.raises(TrackingError, match=r"m\.db is not an SQLite database"):
        check_reachable(f"sqlite:///{tmp_path}/m.db")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(TrackingError, match="cannot be written"):
        check_reachable(f"sqlite:///{tmp_path}/m.db")


def test_a_database_below_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(TrackingError, match="cannot be written"):
        check_reachable(f"sqlite:///{tmp_path}/file/m.db")


def test_checking_does_not_import_mlflow(tmp_path: Path) -> None:
    code = (
        "import sys; from tunekit.tracking.server import check_reachable; "
        "from tunekit.tracking.writer import Tracker; "
        f"check_reachable('sqlite:///{tmp_path}/m.db'); assert not {{'mlflow', 'torch'}} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_ui_needs_something_recorded(tmp_path: Path) -> None:
    with pytest.raises(TrackingError, match=r"nothing recorded in .* yet"):
        serve_ui(tmp_path, None)


def test_the_ui_of_a_server_is_its_address(tmp_path: Path, health: tuple[str, type[_Health]]) -> None:
    said: list[str] = []
    serve_ui(tmp_path, f"http://ann:x@{health[0]}", say=said.append)
    assert said == [f"MLflow runs at http://{health[0]}"]


def test_a_taken_port_names_the_next_free_one(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").touch()
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(TrackingError, match=rf"cannot listen on port {port} of .*: use --port \d+"):
            serve_ui(tmp_path, None, port=port)


def test_the_ui_command_names_database_artifacts_and_address(tmp_path: Path) -> None:
    command = " ".join(ui_command(f"sqlite:///{tmp_path}/m.db", tmp_path / "a", "127.0.0.1", 5001))
    assert f"--backend-store-uri sqlite:///{tmp_path}/m.db" in command
    assert f"--artifacts-destination file://{tmp_path}/a" in command
    assert "--host 127.0.0.1 --port 5001" in command


def test_ending_the_ui_leaves_no_process(tmp_path: Path) -> None:
    """SIGTERM before the server is up: the harder half of Ctrl-C."""
    (tmp_path / "mlflow.db").touch()
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    code = (
        "from pathlib import Path; from tunekit.tracking.server import serve_ui; "
        f"serve_ui(Path({str(tmp_path)!r}), None, port={port})"
    )
    with subprocess.Popen(
        [sys.executable, "-u", "-c", code], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        _wait_for(lambda: bool(_processes_with(f"--port {port}")))
        process.terminate()
        said, _ = process.communicate(timeout=20)
    assert process.returncode == 0
    assert "Traceback" not in said
    _wait_for(lambda: not _processes_with(f"--port {port}"))


def _wait_for(condition: object, seconds: float = 10.0) -> None:
    assert callable(condition)
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def _processes_with(arguments: str) -> list[str]:
    listed = subprocess.run(["ps", "-ewwo", "args"], capture_output=True, text=True, check=True).stdout
    return [line for line in listed.splitlines() if "-m mlflow" in line and arguments in line]
