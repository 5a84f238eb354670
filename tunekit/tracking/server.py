"""Where MLflow records: finding the place, checking it before a search, and showing it. Imports no mlflow."""

from __future__ import annotations

import base64
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.client import HTTPException
from pathlib import Path
from types import FrameType
from urllib.error import HTTPError
from urllib.parse import SplitResult, unquote, urlsplit
from urllib.request import Request, urlopen

from tunekit.errors import TrackingError
from tunekit.paths import tracking_artifacts, tracking_database
from tunekit.tracking.database import check_version

_SQLITE = "sqlite:///"
_SQLITE_MAGIC = b"SQLite format 3\0"
_CHECK_TIMEOUT = 3.0  # seconds
_START_TIMEOUT = 90.0  # seconds; the first start reads some 100 MB of Python
_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_ACCEPTED = "http://HOST:PORT, https://HOST or sqlite:////ABSOLUTE/PATH.db"
_URI = "MLFLOW_TRACKING_URI"
LOGIN = ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD")  # where MLflow's client looks for them
TOKEN = "MLFLOW_TRACKING_TOKEN"
# MLflow's own server answers /health to everybody, this one only after a login.
_LISTING = "/api/2.0/mlflow/experiments/search?max_results=1"


def tracking_uri(results_dir: Path, uri: str | None) -> str:
    """Where to record: `uri`, else `MLFLOW_TRACKING_URI`, else an SQLite file in the results folder.

    The path of an SQLite file comes back absolute, so that a resume from another folder finds it. A user and
    a password are not in what comes back, so that they are written nowhere: they go into this process's
    MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, where MLflow's client looks for them.

    Raises:
        TrackingError: if the address of a server cannot be read for certain.
    """
    chosen = uri or os.environ.get(_URI)
    if not chosen:
        return f"{_SQLITE}{tracking_database(results_dir)}"
    if not chosen.isprintable():
        raise TrackingError(f"a tracking URI is {_ACCEPTED}, but got {masked(chosen)!r}")
    if chosen.startswith(_SQLITE):
        return f"{_SQLITE}{sqlite_file(chosen).resolve()}"
    parts = _parts(chosen.rstrip("/"))
    if parts.scheme not in ("http", "https"):
        return chosen.rstrip("/")
    if login := _login(parts):
        os.environ.update(zip(LOGIN, login, strict=True))
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


def masked(text: str) -> str:
    """A URI, or a text with URIs in it, with every password replaced by `***`."""
    return re.sub(r"(://[^\s:]*):\S*@", r"\1:***@", text)


@contextmanager
def login_withheld() -> Iterator[None]:
    """Processes that are started inside the block do not get what opens the tracking server."""
    kept = {name: os.environ.pop(name) for name in (_URI, *LOGIN, TOKEN) if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(kept)


def check_reachable(uri: str) -> None:
    """Check, within 3 seconds and without importing mlflow, that `uri` can be recorded to.

    A user and a password are taken from MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, else from
    MLFLOW_TRACKING_URI if it names the same server.

    Raises:
        TrackingError: if a server does not answer or wants another login, a file is no SQLite database, has
            the tables of another MLflow or cannot be written, or the kind of URI is one that tunekit does
            not record to.
    """
    parts = _parts(uri)
    if parts.scheme in ("http", "https"):
        _find_login(parts)
        _check_server(uri, _authorization(parts))
    elif uri.startswith(_SQLITE):
        _check_database(sqlite_file(uri))
    else:
        raise TrackingError(f"cannot record to {masked(uri)!r}: a tracking URI is {_ACCEPTED}")


def ui_command(uri: str, artifacts: Path, host: str, port: int) -> list[str]:
    """The command that serves the MLflow UI on the database `uri`."""
    return [
        *(sys.executable, "-m", "mlflow", "server"),
        *("--backend-store-uri", uri),
        *("--artifacts-destination", artifacts.as_uri()),
        *("--host", host),
        *("--port", str(port)),
        *("--workers", "1"),
        *("--uvicorn-opts", "--log-level error"),
    ]


def serve_ui(
    results_dir: Path,
    uri: str | None,
    host: str = "127.0.0.1",
    port: int = 5000,
    say: Callable[[str], None] = print,
) -> None:
    """Serve the MLflow UI until Ctrl-C, leaving no process behind; of a server, only say its address.

    Raises:
        TrackingError: if nothing was recorded yet, the port is taken or MLflow cannot start.
    """
    uri = tracking_uri(results_dir, uri)
    check_reachable(uri)
    if not uri.startswith(_SQLITE):
        say(f"MLflow runs at {masked(uri)}")
        return
    if not sqlite_file(uri).exists():
        raise TrackingError(f"nothing recorded in {results_dir} yet: start with 'tunekit search digits'")
    _check_port(host, port)
    say("Starting MLflow ...")
    _serve(ui_command(uri, tracking_artifacts(results_dir), host, port), host, port, say)


def sqlite_file(uri: str) -> Path:
    """The file of an SQLite URI."""
    return Path(uri.removeprefix(_SQLITE))


def _parts(uri: str) -> SplitResult:
    """The parts of an address. What cannot be read for certain is refused: a password might stay in it."""
    try:
        parts = urlsplit(uri)
        readable = parts.port != 0
    except ValueError:
        readable = False
    if not readable:
        raise TrackingError(
            f"a tracking URI is {_ACCEPTED}, but the host and port of this one cannot be read"
        )
    is_server = parts.scheme in ("http", "https")
    if is_server and (re.search(r"[\s\x00-\x1f]", uri) or "@" in parts.path + parts.query + parts.fragment):
        raise TrackingError(
            "in a tracking URI a user and a password have spaces and / ? # @ as %20 %2F %3F %23 %40"
        )
    return parts


def _login(parts: SplitResult) -> tuple[str, str] | None:
    """User and password of an address."""
    if "@" not in parts.netloc:
        return None
    if not (parts.username and parts.password):
        raise TrackingError(
            f"a tracking URI with a login is http://USER:PASSWORD@HOST; a token goes into {TOKEN}"
        )
    login = unquote(parts.username), unquote(parts.password)
    if not "".join(login).isprintable():
        raise TrackingError("a tracking URI has a user or a password with signs that cannot be printed")
    return login


def _find_login(parts: SplitResult) -> None:
    """What a search recorded has no login: take that of MLFLOW_TRACKING_URI if it is for the same server."""
    if any(os.environ.get(name) for name in (*LOGIN, TOKEN)) or "@" in parts.netloc:
        return
    named = _parts(os.environ.get(_URI, ""))
    if _address(named) == _address(parts) and (login := _login(named)):
        os.environ.update(zip(LOGIN, login, strict=True))


def _address(parts: SplitResult) -> tuple[str, str | None, int | None]:
    return parts.scheme, parts.hostname, parts.port


def _authorization(parts: SplitResult) -> str | None:
    """The header that MLflow's client will send."""
    user, password = _login(parts) or (os.environ.get(name) for name in LOGIN)
    if user and password:
        return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()
    return f"Bearer {os.environ[TOKEN]}" if os.environ.get(TOKEN) else None


def _check_server(uri: str, authorization: str | None = None) -> None:
    reason = _refusal(uri, _LISTING, authorization)
    if reason == "HTTP 401" and not _logs_in_by_itself():
        raise TrackingError(
            f"tracking server {masked(uri)} wants another login (HTTP 401): set {' and '.join(LOGIN)}"
        )
    if not reason or reason.startswith("HTTP "):
        reason = _refusal(uri, "/health", authorization)
    if reason:
        raise TrackingError(
            f"tracking server {masked(uri)} does not answer ({masked(reason)}): "
            "start it, or leave out --tracking-uri to record under results/"
        )


def _refusal(uri: str, path: str, authorization: str | None) -> str:
    """Why a server does not answer a GET of `path`; empty if it does."""
    parts = urlsplit(uri)
    base = parts._replace(netloc=parts.netloc.rpartition("@")[2], path=parts.path.rstrip("/"), query="")
    request = Request(base.geturl() + path)
    if authorization:
        request.add_unredirected_header("Authorization", authorization)  # for this server alone
    try:
        with urlopen(request, timeout=_CHECK_TIMEOUT):
            return ""
    except HTTPError as error:
        error.close()
        return f"HTTP {error.code}"
    except (OSError, ValueError, HTTPException) as error:
        return (str(getattr(error, "reason", error)).splitlines() or [type(error).__name__])[0]


def _logs_in_by_itself() -> bool:
    """Whether MLflow's client has ways to log in that are not tried here."""
    others = ("MLFLOW_TRACKING_AUTH", "MLFLOW_TRACKING_AWS_SIGV4")
    return any(map(os.environ.get, others)) or Path("~/.mlflow/credentials").expanduser().exists()


def _check_database(file: Path) -> None:
    existing = next(path for path in (file, *file.parents) if path.exists())
    if existing == file:
        if not file.is_file() or file.read_bytes()[:16] not in (b"", _SQLITE_MAGIC):
            raise TrackingError(f"{file} is not an SQLite database: choose another --tracking-uri")
        check_version(file)
        existing = file.parent
    # SQLite writes a journal beside its file, so the folder must be writable too.
    writable = os.access(existing, os.W_OK | os.X_OK) and (not file.exists() or os.access(file, os.W_OK))
    if not (existing.is_dir() and writable):
        raise TrackingError(f"{file} cannot be written: choose another --tracking-uri or --results-dir")


def _check_port(host: str, port: int) -> None:
    if _is_free(host, port):
        return
    free = next((other for other in range(port + 1, min(port + 100, 65536)) if _is_free(host, other)), None)
    hint = f": use --port {free}" if free else ""
    raise TrackingError(f"cannot listen on port {port} of {host}{hint}")


def _is_free(host: str, port: int) -> bool:
    try:
        with socket.create_server((host, port)):
            return True
    except OSError:
        return False


def _serve(command: list[str], host: str, port: int, say: Callable[[str], None]) -> None:
    early: list[int] = []  # signals that came before there was a process to end
    kept = {number: signal.signal(number, lambda number, _: early.append(number)) for number in _ENDING}
    try:
        process = _start(command)
        try:
            for number in _ENDING:
                signal.signal(number, _interrupt)
            if early:
                return
            _wait_until_up(process, host, port)
            page = f"http://{host}:{port}/#/experiments?workflowType=machine_learning"
            say(f"MLflow UI: {page} (Ctrl-C ends it)")
            process.wait()
        except KeyboardInterrupt:
            return
        finally:
            _end_group(process)
    finally:
        for number, handler in kept.items():
            signal.signal(number, handler)
    raise TrackingError(f"MLflow ended by itself with code {process.returncode}")


def _start(command: list[str]) -> subprocess.Popen[bytes]:
    quiet = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    # In a session of its own Ctrl-C reaches only us, and we can end the server and all its children.
    with login_withheld():
        return subprocess.Popen(
            command,
            env={**os.environ, "MLFLOW_LOGGING_LEVEL": "WARNING", **quiet},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _wait_until_up(process: subprocess.Popen[bytes], host: str, port: int) -> None:
    deadline = time.monotonic() + _START_TIMEOUT
    while process.poll() is None and time.monotonic() < deadline:
        try:
            _check_server(f"http://{host}:{port}")
            return
        except TrackingError:
            time.sleep(0.3)
    raise TrackingError(f"MLflow did not start; '{' '.join(process.args)}' says why")  # type: ignore[arg-type]


def _end_group(process: subprocess.Popen[bytes]) -> None:
    """End the server and its workers: politely, then after 5 seconds by force."""
    for number, patience in ((signal.SIGTERM, 5.0), (signal.SIGKILL, 5.0)):
        try:
            os.killpg(process.pid, number)
            process.wait(patience)
        except (ProcessLookupError, subprocess.TimeoutExpired):
            continue
