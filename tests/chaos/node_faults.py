"""A second node for the Ray of a search: killed while it trains, and added again."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from random import Random

import psutil

from tests.chaos.faults import Fault
from tests.chaos.search_under_fault import SearchUnderFault
from tests.driver import words

_GCS = re.compile(r"--gcs-address=(\S+)")
_PATIENCE = 60.0  # seconds


class NodeLost(Fault):
    """SIGKILL to the raylet of a second node while its worker trains; later the node is added again.

    The search's process is held while the node joins for the first time, so that its plan has a trial
    for it: a search plans once how many trials run at a time.
    """

    name = "node removed and added"
    at_once = (2,)

    def prepare(self, search: SearchUnderFault) -> None:
        self._folder = search.folder / "node"
        self._folder.mkdir()
        self._node: subprocess.Popen[bytes] | None = None

    def started(self, search: SearchUnderFault) -> None:
        found = search.wait_until(lambda: self._address(search) is not None)
        assert found, search.output()
        self.settle(search)
        search.process.send_signal(signal.SIGSTOP)
        self._add(search)
        search.process.send_signal(signal.SIGCONT)

    def await_moment(self, search: SearchUnderFault, share: float, epochs: int, random: Random) -> bool:
        reached = super().await_moment(search, share, epochs, random)
        return reached and search.wait_until(lambda: bool(self._workers(search)))

    def inject(self, search: SearchUnderFault, random: Random) -> list[str]:
        processes = self._processes(search)
        search.expect_end_of(processes)
        for process in processes:
            if "raylet/raylet" in words(process).split(" ")[0]:
                process.kill()
        search.lost.in_flight += 1
        assert self._node is not None
        self._node.wait(_PATIENCE)  # `ray start --block` ends with its raylet
        return []

    def undo(self, search: SearchUnderFault, random: Random) -> None:
        time.sleep(random.uniform(0, 5))
        if search.alive:
            self._add(search)

    def settle(self, search: SearchUnderFault) -> None:
        if self._node is not None and self._node.poll() is None:
            self._node.send_signal(signal.SIGTERM)
            self._node.wait(_PATIENCE)

    def _address(self, search: SearchUnderFault) -> str | None:
        """Of the Ray that the search has started."""
        for process in psutil.Process(search.process.pid).children():
            if "raylet/raylet" in words(process) and (found := _GCS.search(words(process))):
                return found[1]
        return None

    def _add(self, search: SearchUnderFault) -> None:
        address = self._address(search)
        if address is None:  # the search has just ended
            return
        ray = Path(sys.executable).parent / "ray"
        log = self._folder / "node.log"
        environment = {**os.environ, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": search.token}
        with open(log, "wb") as output:
            self._node = subprocess.Popen(
                [str(ray), "start", f"--address={address}", "--num-cpus=1", "--block"],
                cwd=self._folder,
                env=environment,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        deadline = time.monotonic() + _PATIENCE
        while "Ray runtime started" not in log.read_text(errors="replace"):
            assert time.monotonic() < deadline, log.read_text(errors="replace")[-2000:]
            if self._node.poll() is not None:
                break
            time.sleep(0.1)

    def _processes(self, search: SearchUnderFault) -> list[psutil.Process]:
        found = []
        for process in search.family():
            with suppress(psutil.Error):
                if Path(process.cwd()).is_relative_to(self._folder):
                    found.append(process)
        return found

    def _workers(self, search: SearchUnderFault) -> list[psutil.Process]:
        """Those of the node that train."""
        return [process for process in search.workers() if process in self._processes(search)]
