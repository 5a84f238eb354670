"""An MLflow server that stops and starts, and a proxy before it that misbehaves."""

from __future__ import annotations

import os
import signal
import socket
import struct
import subprocess
import threading
import time
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Literal

from tests.chaos.faults import Fault
from tests.chaos.search_under_fault import SearchUnderFault
from tunekit.errors import TrackingError
from tunekit.tracking.server import check_reachable, ui_command

Manner = Literal["well", "500", "hang", "reset", "slow", "away"]

_START_TIMEOUT = 120.0  # seconds
_SLOW = 3.0  # seconds before each answer


class MlflowServer:
    """A real one with its own SQLite file, on the same port whenever it starts."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port: int = free.getsockname()[1]
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def uri(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start it; it answers after some seconds."""
        database, artifacts = self._folder / "server.db", self._folder / "artifacts"
        command = ui_command(f"sqlite:///{database}", artifacts, "127.0.0.1", self.port)
        quiet = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
        with open(self._folder / "server.log", "ab") as log:
            self._process = subprocess.Popen(
                command,
                cwd=self._folder,
                env={**os.environ, **quiet},
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def wait_until_up(self) -> None:
        """Wait for its first answer."""
        deadline = time.monotonic() + _START_TIMEOUT
        while True:
            try:
                return check_reachable(self.uri)
            except TrackingError:
                assert time.monotonic() < deadline, (self._folder / "server.log").read_text()[-2000:]
                time.sleep(0.3)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> None:
        """End it and its workers."""
        if self._process is None:
            return
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)
        self._process.wait(30)
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process = None


class Proxy:
    """Passes bytes on to a server and back, and misbehaves when it is told to.

    What misbehaves is the answer: the server has done what it was asked, and nobody hears of it. With
    `500` and `away` it was never asked.
    """

    def __init__(self, server: MlflowServer) -> None:
        self._server = server
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.manner: Manner = "well"
        self.disturbed = 0  # requests that did not end well
        threading.Thread(target=self._listen, daemon=True).start()

    @property
    def uri(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def close(self) -> None:
        """Take no more connections."""
        self._listener.close()

    def _listen(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        """Requests of one connection, until either side or the manner ends it."""
        with suppress(OSError), client:
            upstream: socket.socket | None = None
            while request := client.recv(65536):
                if self.manner in ("500", "away"):
                    self._refuse(client)
                    return
                if upstream is None:
                    upstream = socket.create_connection(("127.0.0.1", self._server.port))
                    threading.Thread(target=self._answer, args=(upstream, client), daemon=True).start()
                upstream.sendall(request)

    def _refuse(self, client: socket.socket) -> None:
        self.disturbed += 1
        if self.manner == "away":
            _reset(client)
        else:
            client.sendall(b"HTTP/1.1 500 Broken\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")

    def _answer(self, upstream: socket.socket, client: socket.socket) -> None:
        """Answers of one connection, on their way back."""
        with suppress(OSError), upstream, client:
            while answer := upstream.recv(65536):
                manner = self.manner
                self.disturbed += manner != "well"
                if manner == "reset":
                    _reset(client)
                    return
                if manner == "slow":
                    time.sleep(_SLOW)
                if manner != "hang":
                    client.sendall(answer)


def _reset(client: socket.socket) -> None:
    """Close with RST, as a machine does that has just started again."""
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()


class TrackingFault(Fault):
    """Something between a search and its MLflow server."""

    def prepare(self, search: SearchUnderFault) -> None:
        self._server = MlflowServer(search.folder.parent / f"{search.folder.name}-mlflow")
        self._server.start()
        self._server.wait_until_up()
        self._proxy = Proxy(self._server)
        search.uri = self._proxy.uri

    def end(self, search: SearchUnderFault) -> None:
        self._proxy.close()
        self._server.stop()


class ServerRestarted(TrackingFault):
    """The MLflow server is killed, and started again after a while."""

    name = "MLflow server stopped"

    def inject(self, search: SearchUnderFault, random: Random) -> list[str]:
        self._server.stop(random.choice((signal.SIGTERM, signal.SIGKILL)))
        return []

    def undo(self, search: SearchUnderFault, random: Random) -> None:
        time.sleep(random.uniform(0, 10))
        self._server.start()
        self._server.wait_until_up()


class ServerMisbehaves(TrackingFault):
    """Requests to MLflow end badly for a while."""

    def __init__(self, manner: Manner, name: str) -> None:
        self._manner = manner
        self.name = name

    def inject(self, search: SearchUnderFault, random: Random) -> list[str]:
        self._proxy.manner = self._manner
        return []

    def undo(self, search: SearchUnderFault, random: Random) -> None:
        before = self._proxy.disturbed
        time.sleep(random.uniform(5, 15))
        # It is no fault unless it met a request; a hung one keeps the tracker waiting for 10 s.
        search.wait_until(lambda: self._proxy.disturbed > before)
        self._proxy.manner = "well"
