"""A registered model where there is no tunekit: loaded by MLflow, and served over HTTP."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.error import URLError
from urllib.request import Request, urlopen

import numpy as np
import psutil
import pytest
import torch

from tests.retraining.small_classifier import SHAPE, registered, small_classifier
from tunekit.tracking.model import PixelsToProbabilities

pytestmark = pytest.mark.slow

MODEL = "models:/tunekit-pets/1"

# -I leaves out the current folder and PYTHONPATH; the hook hides the installed tunekit.
WITHOUT_TUNEKIT = """
import sys

class Hidden:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "tunekit":
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Hidden())
try:
    import tunekit
except ModuleNotFoundError:
    pass
else:
    sys.exit("tunekit can be imported")

import mlflow, numpy
uri, model, file = sys.argv[1:]
mlflow.set_tracking_uri(uri)
numpy.save(file, mlflow.pyfunc.load_model(model).predict(numpy.load(file)))
"""


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A results folder with one registered model."""
    folder = tmp_path_factory.mktemp("results")
    registered(folder)
    return folder


@pytest.fixture
def images() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (5, *SHAPE), dtype=np.uint8)


def expected(images: np.ndarray) -> np.ndarray:
    found: np.ndarray = PixelsToProbabilities(small_classifier())(torch.from_numpy(images)).numpy()
    return found


def test_it_loads_where_tunekit_cannot_be_imported(results: Path, images: np.ndarray, tmp_path: Path) -> None:
    file = tmp_path / "images.npy"
    np.save(file, images)
    command = [
        sys.executable,
        "-I",
        "-c",
        WITHOUT_TUNEKIT,
        f"sqlite:///{results}/mlflow.db",
        MODEL,
        str(file),
    ]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    np.testing.assert_allclose(np.load(file), expected(images), atol=1e-5)


@pytest.mark.timeout(300)
def test_it_answers_over_http(results: Path, images: np.ndarray, tmp_path: Path) -> None:
    with serving(results, tmp_path) as (address, group):
        answer = ask(address, images)
        children = members(group)
        assert children
    found = np.asarray(answer["predictions"])
    np.testing.assert_array_equal(found.argmax(1), expected(images).argmax(1))
    np.testing.assert_allclose(found, expected(images), atol=1e-5)
    assert members(group) == []
    assert not any(child.is_running() and child.status() != psutil.STATUS_ZOMBIE for child in children)


@contextmanager
def serving(results: Path, folder: Path) -> Iterator[tuple[str, int]]:
    """`mlflow models serve` in a process group of its own: its address, and the group."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [
        sys.executable,
        "-m",
        "mlflow",
        "models",
        "serve",
        "--model-uri",
        MODEL,
        "--env-manager",
        "local",
    ]
    environment = {
        **os.environ,
        "MLFLOW_TRACKING_URI": f"sqlite:///{results}/mlflow.db",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        # MLflow starts `uvicorn` and `python` by name.
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }
    log = folder / "server.log"
    with log.open("wb") as output:
        server = subprocess.Popen(
            [*command, "--host", "127.0.0.1", "--port", str(port), "--workers", "1"],
            cwd=folder,
            env=environment,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        wait_until_up(f"http://127.0.0.1:{port}", server, log)
        yield f"http://127.0.0.1:{port}", server.pid
    finally:
        end(server)


def wait_until_up(address: str, server: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 240
    while time.monotonic() < deadline and server.poll() is None:
        try:
            with urlopen(f"{address}/ping", timeout=5):
                return
        except (URLError, OSError):
            time.sleep(0.5)
    raise AssertionError(log.read_text()[-3000:])


def ask(address: str, images: np.ndarray) -> dict[str, list[list[float]]]:
    request = Request(
        f"{address}/invocations",
        data=json.dumps({"inputs": images.tolist()}).encode(),
        headers={"Content-Type": "application/json"},
    )
    with urlopen(request, timeout=60) as response:
        answer: dict[str, list[list[float]]] = json.load(response)
    return answer


def end(server: subprocess.Popen[bytes]) -> None:
    """End the server and all its children, by force if need be, and wait until they are gone."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(server.pid, number)
        except ProcessLookupError:
            break
        deadline = time.monotonic() + 10
        while members(server.pid) and time.monotonic() < deadline:
            server.poll()
            time.sleep(0.1)
    server.wait(10)


def members(group: int) -> list[psutil.Process]:
    """The living processes of a process group."""
    found = []
    for process in psutil.process_iter():
        try:
            if os.getpgid(process.pid) == group and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except (ProcessLookupError, psutil.NoSuchProcess):
            continue
    return found
