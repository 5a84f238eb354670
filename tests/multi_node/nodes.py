"""Ray nodes on machines of their own, and `tunekit` on the first of them."""

from __future__ import annotations

import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.multi_node.namespaces import Machine, Network
from tunekit.history import Event, History
from tunekit.paths import SearchPaths

PORT = 6379
_PATIENCE = 60.0  # seconds
_OWN = ("data", "ray")  # folders that each machine has for itself
_NODE = {
    "RAY_DISABLE_IMPORT_WARNING": "1",
    # A node that cannot be reached counts as lost after about 9 s instead of a minute.
    "RAY_health_check_initial_delay_ms": "5000",
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "2000",
    "RAY_health_check_failure_threshold": "3",
}


@dataclass
class Command:
    """A `tunekit` command that runs on a machine."""

    process: subprocess.Popen[str]
    _output: Path

    def wait(self, seconds: float = 200.0) -> tuple[int, str]:
        """Its exit code and all that it printed."""
        code = self.process.wait(seconds)
        return code, self.output()

    def output(self) -> str:
        """What it printed until now."""
        return self._output.read_text(encoding="utf-8")


@dataclass
class Cluster:
    """A Ray cluster of machines that share a folder; each has a data folder of its own."""

    network: Network
    token: str = field(default_factory=lambda: secrets.token_hex(32))
    shares_results: bool = True  # else they lie in the head's own data folder
    _commands: int = 0

    @property
    def folder(self) -> Path:
        """Seen by all machines, but for the data."""
        return self.network.folder

    @property
    def results(self) -> Path:
        """As this process sees them."""
        shared = self.folder / "results"
        return shared if self.shares_results else self.network.machines[0].folder / "data" / "results"

    @property
    def address(self) -> str:
        """Of the cluster."""
        return f"{self.network.machines[0].address}:{PORT}"

    def add_node(self, cpus: int, gpus: int = 0) -> Machine:
        """Start a Ray node on a machine of its own, and wait until it has joined; the first is the head."""
        machine = self.network.add(_OWN)
        head = machine.address == self.address.split(":")[0]
        log = self.folder / f"{machine.name}.log"
        place = (
            ["--head", f"--port={PORT}", f"--temp-dir={self.folder}/ray", "--include-dashboard=false"]
            if head
            else [f"--address={self.address}"]
        )
        options = [f"--node-ip-address={machine.address}", f"--num-cpus={cpus}", f"--num-gpus={gpus}"]
        small = ["--object-store-memory=100000000", "--disable-usage-stats"]
        with open(log, "w") as output:
            node = machine.start(
                [_program("ray"), "start", *place, *options, *small, "--block"], self._login() | _NODE, output
            )
        until(
            lambda: "Ray runtime started" in log.read_text() or node.poll() is not None,
            lambda: log.read_text()[-2000:],
        )
        assert node.poll() is None, log.read_text()[-2000:]
        return machine

    def tunekit(self, *arguments: str, **environment: str) -> Command:
        """Start `tunekit` on the head."""
        self._commands += 1
        output = self.folder / f"tunekit-{self._commands}.txt"
        head = self.network.machines[0]
        with open(output, "w") as file:
            process = head.start(
                [sys.executable, "-m", "tunekit", *arguments], self._login() | environment, file
            )
        return Command(process, output)

    def paths(self, name: str) -> SearchPaths:
        """Of a search in the results folder."""
        return SearchPaths(self.results / name)

    def events(self, name: str) -> list[Event]:
        """Of a search, until now."""
        file = self.paths(name).history
        return list(History.read(file).events) if file.exists() else []

    def _login(self) -> dict[str, str]:
        file = self.folder / "token"
        if not file.exists():
            file.touch(mode=0o600)
            file.write_text(self.token)
        return {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(file)}


def _program(name: str) -> str:
    return str(Path(sys.executable).parent / name)


@contextmanager
def cluster() -> Iterator[Cluster]:
    """A cluster without nodes; all of them end with the block, and its folder goes."""
    # Ray's sockets lie in here, and their paths may have 107 characters at most: so not below pytest's.
    folder = Path(tempfile.mkdtemp(prefix="nodes-", dir="/tmp")).resolve()
    try:
        with Network(folder) as network:
            yield Cluster(network)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def until(condition: Callable[[], bool], said: Callable[[], str], seconds: float = _PATIENCE) -> None:
    """Wait until the condition is fulfilled; fail with what was `said` after so many seconds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"did not come in {seconds:g} s: {said()}"
        time.sleep(0.05)


def results_on(events: Sequence[Event], machine: Machine) -> list[Event]:
    """Epochs that were trained on a machine."""
    return [event for event in events if (event.worker or "").split(":")[0] == machine.name]
