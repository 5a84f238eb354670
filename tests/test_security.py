"""No secret is written down, nothing foreign runs, no name leaves its folder, nobody else is let in."""

from __future__ import annotations

import base64
import contextlib
import http.server
import io
import json
import os
import pickle
import socket
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from PIL import Image

from tests.bad_input.foreign import Payload
from tunekit.data.downloads import load_download
from tunekit.data.pack import Pack
from tunekit.data.plain_pickle import read_plain_pickle
from tunekit.errors import DataError, SearchError, TrackingError, TunekitError
from tunekit.models.pretrained import read_weights
from tunekit.paths import search_paths
from tunekit.tracking.server import check_reachable, login_withheld, masked, tracking_uri
from tunekit.training.checkpoint import load_best, load_checkpoint
from tunekit.tuning.begin import begin_search
from tunekit.tuning.ray_session import Machine, ray_session
from tunekit.tuning.settings import SearchSettings

SECRET = "s3cret-p@ss/w0rd"
IN_URI = "s3cret-p%40ss%2Fw0rd"
RIGHT = "Basic " + base64.b64encode(f"ann:{SECRET}".encode()).decode()
VARIABLES = ("MLFLOW_TRACKING_URI", "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD")


@pytest.fixture(autouse=True)
def _no_login_before_or_after(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in (*VARIABLES, "MLFLOW_TRACKING_TOKEN"):
        monkeypatch.setenv(name, "")  # so that what a test's login leaves in there goes with it
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))  # MLflow's file of logins may lie there


# Secrets.


class _Guarded(http.server.BaseHTTPRequestHandler):
    """Answers ann alone; `free` is what it answers to everybody, as MLflow's own server does with /health."""

    asked: list[tuple[str, str | None]]
    free: tuple[str, ...] = ()
    moved_to = ""

    def do_GET(self) -> None:
        login = self.headers["Authorization"]
        self.asked.append((self.path, login))
        if self.moved_to:
            self.send_response(302)
            self.send_header("Location", self.moved_to + self.path)
        else:
            self.send_response(200 if login == RIGHT or self.path in self.free else 401)
        self.end_headers()
        self.wfile.write(b"{}")

    def do_POST(self) -> None:
        self.do_GET()

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextlib.contextmanager
def guarded(**changes: Any) -> Iterator[tuple[str, list[tuple[str, str | None]]]]:
    """HOST:PORT of a server that wants a login, and what it was asked with which."""
    asked: list[tuple[str, str | None]] = []
    handler = type("Guarded", (_Guarded,), {"asked": asked, **changes})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{server.server_port}", asked
        server.shutdown()


class Heard:
    """A view that remembers what it is told."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, line: str) -> None:
        self.lines.append(line)

    def begin(self, watched: object) -> None: ...
    def event(self, event: object) -> None: ...
    def end(self) -> None: ...


def test_a_password_is_nowhere_on_disk_when_a_search_has_begun(
    tmp_path: Path, digits: Pack, monkeypatch: pytest.MonkeyPatch
) -> None:
    with guarded() as (address, asked):
        given = f"http://ann:{IN_URI}@{address}"
        monkeypatch.setattr(sys, "argv", ["tunekit", "search", "digits", "--tracking-uri", given])
        settings = SearchSettings(
            name="s",
            dataset="digits",
            space="resnet",
            samples=1,
            epochs=1,
            seed=0,
            data_dir=str(digits.folder.parent.parent),
            tracking_uri=tracking_uri(tmp_path, given),
        )
        heard = Heard()
        paths = begin_search(settings, tmp_path, heard)
    assert asked and all(login == RIGHT for _, login in asked)
    recorded = json.loads(paths.settings.read_text())
    assert recorded["tracking_uri"] == f"http://{address}"
    assert recorded["command"] == f"tunekit search digits --tracking-uri 'http://ann:***@{address}'"
    written = b"".join(file.read_bytes() for file in tmp_path.rglob("*") if file.is_file())
    for form in (SECRET, IN_URI):
        assert form.encode() not in written
        assert form not in "\n".join(heard.lines)


def test_mlflows_client_logs_in_though_its_address_has_no_password(tmp_path: Path) -> None:
    from tunekit.tracking.client import open_client

    with guarded() as (address, asked):
        client = open_client(tracking_uri(tmp_path, f"http://ann:{IN_URI}@{address}"))
        with contextlib.suppress(Exception):  # it is no MLflow
            client.search_experiments()
    assert asked and all(login == RIGHT for _, login in asked)


def test_a_resume_without_the_login_names_the_variables() -> None:
    with guarded() as (address, _), pytest.raises(TrackingError) as caught:
        check_reachable(f"http://{address}")
    assert str(caught.value) == (
        f"tracking server http://{address} wants another login (HTTP 401): "
        "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"
    )


def test_a_server_that_lets_everybody_see_its_health_wants_a_login_all_the_same() -> None:
    with (
        guarded(free=("/health",)) as (address, _),
        pytest.raises(TrackingError, match="wants another login"),
    ):
        check_reachable(f"http://{address}")


def test_a_resume_finds_the_login_in_the_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "ann")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", SECRET)
    with guarded() as (address, _):
        check_reachable(f"http://{address}")


def test_a_resume_finds_the_login_in_an_address_of_the_same_server(monkeypatch: pytest.MonkeyPatch) -> None:
    with guarded() as (address, _):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://ann:{IN_URI}@{address}/")
        check_reachable(f"http://{address}")
    assert os.environ["MLFLOW_TRACKING_PASSWORD"] == SECRET  # where MLflow's client looks for it


def test_the_login_of_another_server_is_not_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    with guarded() as (address, asked):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://ann:{IN_URI}@localhost:1")
        with pytest.raises(TrackingError, match="wants another login"):
            check_reachable(f"http://{address}")
    assert asked and {login for _, login in asked} == {None}


def test_a_login_does_not_follow_to_the_server_that_the_first_one_names() -> None:
    with (
        guarded() as (second, asked),
        guarded(moved_to=f"http://{second}") as (first, _),
        pytest.raises(TrackingError),
    ):
        check_reachable(f"http://ann:{IN_URI}@{first}")
    assert asked and {login for _, login in asked} == {None}


@pytest.mark.parametrize(
    ("uri", "words"),
    [
        ("http://ann:a b@host", "have spaces and"),
        ("http://ann:s3cret/x@host", "cannot be read"),
        ("http://ann:12/s3cret@host", "have spaces and"),
        ("http://ann:x@host/s3cret@other", "have spaces and"),
        ("http://s3cret@host", "a token goes into MLFLOW_TRACKING_TOKEN"),
        ("http://:s3cret@host", "http://USER:PASSWORD@HOST"),
        ("http://ann:s3cret@[::1", "cannot be read"),
        ("http://ann:s3cret@host:port", "cannot be read"),
    ],
)
def test_an_address_in_which_a_password_could_hide_is_refused(uri: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(TrackingError) as caught:
        tracking_uri(tmp_path, uri)
    assert words in str(caught.value)
    assert "s3cret" not in str(caught.value)


def test_an_email_address_as_user_hides_no_password() -> None:
    assert masked("at http://ann@corp.com:s3cret@host/x now") == "at http://ann@corp.com:***@host/x now"


def test_processes_started_meanwhile_do_not_get_the_login(tmp_path: Path) -> None:
    tracking_uri(tmp_path, f"http://ann:{IN_URI}@host")
    code = "import os, sys; print(sorted(set(sys.argv[1:]) & set(os.environ)))"
    with login_withheld():
        done = subprocess.run([sys.executable, "-c", code, *VARIABLES], capture_output=True, text=True)
    assert done.stdout == "[]\n"
    assert os.environ["MLFLOW_TRACKING_PASSWORD"] == SECRET


# Foreign files. What is in a pack, a split and an archive: tests/bad_input.


def _bytes_of(write: Callable[[io.BytesIO], object]) -> bytes:
    buffer = io.BytesIO()
    write(buffer)
    return buffer.getvalue()


FOREIGN: dict[str, tuple[Callable[[Payload], bytes], Callable[[Path], object]]] = {
    "checkpoint": (lambda p: _bytes_of(lambda b: torch.save({"format": 4, "x": p}, b)), load_checkpoint),
    "old checkpoint": (
        lambda p: _bytes_of(lambda b: torch.save(p, b, _use_new_zipfile_serialization=False)),
        load_checkpoint,
    ),
    "checkpoint that is a pickle": (pickle.dumps, load_checkpoint),
    "first weights": (lambda p: _bytes_of(lambda b: torch.save({"x": p}, b)), read_weights),
    "first weights that are a pickle": (pickle.dumps, read_weights),
    "best weights": (pickle.dumps, load_best),
    "batch of CIFAR": (lambda p: pickle.dumps({"data": p}), read_plain_pickle),
    "batch of CIFAR as Python 2 wrote it": (lambda p: pickle.dumps({"data": p}, 0), read_plain_pickle),
}


@pytest.mark.parametrize("name", FOREIGN)
def test_a_pickle_in_a_foreign_file_does_not_run(name: str, tmp_path: Path) -> None:
    content, read = FOREIGN[name]
    file, mark = tmp_path / "file", tmp_path / "ran"
    file.write_bytes(content(Payload(mark)))
    with pytest.raises(TunekitError) as caught:
        read(file)
    assert str(file) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not mark.exists()
    # It would have run: here it does.
    pickle.loads(pickle.dumps(Payload(mark)))
    assert mark.exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    "line",
    [
        "flavors: !!python/object/apply:os.mkdir [{mark}]",
        "flavors: {{python_function: {{loader_module: evil}}}}",
    ],
)
def test_what_an_mlmodel_file_asks_for_does_not_run(
    line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.retraining.small_classifier import new_run
    from tunekit.tracking.registry import load_logged

    mark = tmp_path / "ran"
    (tmp_path / "evil.py").write_text(f"import os; os.mkdir({str(mark)!r})")
    monkeypatch.syspath_prepend(tmp_path)
    client, run_id = new_run(tmp_path)
    model = client.create_logged_model(client.get_run(run_id).info.experiment_id, source_run_id=run_id)
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "MLmodel").write_text(line.format(mark=mark) + "\n")
    client.log_model_artifacts(model.model_id, str(folder))
    with pytest.raises(TrackingError, match="is not a model of tunekit"):
        load_logged(client, f"models:/{model.model_id}")
    assert not mark.exists()


@pytest.mark.skipif(not hasattr(tarfile, "data_filter"), reason="Python before 3.11.4 unpacks everything")
@pytest.mark.parametrize("name", ["../evil", "/{folder}/evil", "link/evil"])
def test_an_archive_cannot_write_elsewhere_even_with_the_right_checksum(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import hashlib

    from torchvision.datasets import CIFAR10

    data_dir = tmp_path / "data"
    data_dir.mkdir()
    link = tarfile.TarInfo("link")
    link.type, link.linkname = tarfile.SYMTYPE, str(tmp_path)
    evil = tarfile.TarInfo(name.format(folder=str(tmp_path).strip("/")))
    evil.size = 4
    with tarfile.open(data_dir / CIFAR10.filename, "w:gz") as archive:
        if name.startswith("link"):
            archive.addfile(link)
        archive.addfile(evil, io.BytesIO(b"evil"))
    content = (data_dir / CIFAR10.filename).read_bytes()
    monkeypatch.setattr(CIFAR10, "tgz_md5", hashlib.md5(content, usedforsecurity=False).hexdigest())
    with pytest.raises(DataError):
        load_download("cifar10", data_dir)
    assert not (tmp_path / "evil").exists()


_READ = r"""
import re, sys
from pathlib import Path
from tunekit.data.folder import read_image
read_image(Path(sys.argv[1]), 8, 8, 3)
# Its own peak: that of `getrusage` begins with the memory of the process that started this one.
print(re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())[1])
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has /proc")
def test_a_small_file_that_holds_the_most_pixels_takes_less_than_2_gb(tmp_path: Path) -> None:
    file = tmp_path / "x.png"
    Image.fromarray(np.zeros((9400, 9400), np.uint16)).save(file)  # 170 KB
    done = subprocess.run([sys.executable, "-c", _READ, file], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 2 * 2**20  # KiB


@pytest.mark.parametrize(
    "name",
    ["..", "../x", "/x", "a/b", "a\\b", "~", ".x", "-x", "", "x\n", "a\0b", "x" * 101, "é", "a b", "."],
)
def test_a_search_name_cannot_leave_its_folder(name: str, tmp_path: Path) -> None:
    with pytest.raises(SearchError):
        search_paths(tmp_path, name)


# What listens.


def _listening(process: psutil.Process) -> list[Any]:
    found = []
    for one in (process, *process.children(recursive=True)):
        with contextlib.suppress(psutil.Error):
            found += [c.laddr for c in one.net_connections("inet") if c.status == psutil.CONN_LISTEN]
    return found


@pytest.mark.slow
def test_the_ui_listens_on_this_machine_alone(tmp_path: Path) -> None:
    from tunekit.tracking.client import open_client

    (tmp_path / "results").mkdir()
    open_client(f"sqlite:///{tmp_path}/results/mlflow.db")
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    command = [sys.executable, "-m", "tunekit", "ui", "--port", str(port)]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL) as started:
        deadline = time.monotonic() + 120
        while not (addresses := _listening(psutil.Process(started.pid))) and time.monotonic() < deadline:
            time.sleep(0.3)
        started.terminate()  # it ends the server too
    assert {(address.ip, address.port) for address in addresses} == {("127.0.0.1", port)}


_CLIENT = """
import os, sys
import ray
ray.init(address=sys.argv[1], log_to_driver=False, configure_logging=False)
print("connected")
"""


def _joins(address: str, token: dict[str, str], home: Path) -> bool:
    """Whether another program can use the Ray at `address`."""
    others = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    done = subprocess.run(
        [sys.executable, "-c", _CLIENT, address],
        env={**others, "HOME": str(home), **token},  # Ray's own token lies in the home folder
        capture_output=True,
        text=True,
        timeout=120,
    )
    return "connected" in done.stdout


@pytest.mark.ray
@pytest.mark.slow
def test_a_ray_of_ours_has_no_dashboard_and_refuses_who_has_no_token(tmp_path: Path) -> None:
    import ray

    with ray_session(tmp_path / "log", Machine(1, 0)):
        address = ray.get_runtime_context().gcs_address
        session = [
            p for p in psutil.process_iter(["cmdline"]) if address in " ".join(p.info["cmdline"] or ())
        ]
        dashboards = [p for p in session if "dashboard.py" in " ".join(p.info["cmdline"])]
        assert session and not [address for p in dashboards for address in _listening(p)]
        ours = {name: os.environ[name] for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN")}
        assert ours["RAY_AUTH_MODE"] == "token" and len(ours["RAY_AUTH_TOKEN"]) == 64
        assert _joins(address, ours, tmp_path)  # so that what follows tells something
        assert not _joins(address, {}, tmp_path)
        assert not _joins(address, {**ours, "RAY_AUTH_TOKEN": "0" * 64}, tmp_path)
