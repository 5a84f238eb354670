"""The kinds of fault after which the search's process has ended: kills and requests to stop."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from random import Random

import psutil

from tests.chaos.faults import Fault
from tests.chaos.leftovers import running_runs
from tests.chaos.search_under_fault import SearchUnderFault

_START_UP = 15.0  # seconds in which a search imports, starts Ray and trains nothing
_AT_THE_END = 8.0  # seconds in which it writes its report, its study and MLflow


class DriverKilled(Fault):
    """SIGKILL to the search's own process while trials train."""

    name = "driver killed"
    at_once: tuple[int, ...] = (1, 2)

    def inject(self, search: SearchUnderFault, random: Random) -> list[str]:
        search.expect_end_of(search.family())
        search.process.kill()
        search.process.wait(30)
        return []


class DriverKilledAtStart(DriverKilled):
    """SIGKILL before anything is trained: while it imports, lays down its folder or starts Ray."""

    name = "driver killed at its start"
    at_once = (1,)

    def await_moment(self, search: SearchUnderFault, share: float, epochs: int, random: Random) -> bool:
        moment = search.started + random.uniform(0.3, _START_UP)
        return search.wait_until(lambda: time.monotonic() >= moment)


class DriverKilledAtEnd(DriverKilled):
    """SIGKILL when all trials are over and the books are closed."""

    name = "driver killed at its end"
    at_once = (1,)

    def await_moment(self, search: SearchUnderFault, share: float, epochs: int, random: Random) -> bool:
        reached = search.wait_until(lambda: self._all_over(search))
        time.sleep(random.uniform(0, _AT_THE_END))
        return reached and search.alive

    def _all_over(self, search: SearchUnderFault) -> bool:
        trials = search.history().trials.values()
        return len(trials) == search.plan.samples and all(trial.over for trial in trials)


class PowerCut(Fault):
    """SIGKILL to every process at once, at a moment when one of them writes a file."""

    name = "all killed while writing"

    def await_moment(self, search: SearchUnderFault, share: float, epochs: int, random: Random) -> bool:
        if not super().await_moment(search, share, epochs, random):
            return False
        # Found before: looking for processes takes longer than writing a file.
        driver = psutil.Process(search.process.pid)
        self._victims = [driver, *driver.children(recursive=True)]
        # A checkpoint, or one of the driver's own files.
        pattern = random.choice(("trials/*/attempt-*/.*", ".*.????????????????????????????????"))
        return search.wait_until(lambda: any(_half_files(search.paths.folder, pattern)), pause=0)

    def inject(self, search: SearchUnderFault, random: Random) -> list[str]:
        for process in self._victims:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        search.process.wait(30)
        search.expect_end_of(search.family())
        return []


def _half_files(folder: Path, pattern: str) -> Iterator[Path]:
    """Files that are being written, by their temporary names."""
    try:
        yield from folder.glob(pattern)
    except FileNotFoundError:  # the folder of an attempt that is over now
        return


class CleanStop(Fault):
    """A signal that asks the search to stop: it ends in order and says how to go on."""

    def __init__(self, number: signal.Signals) -> None:
        self._signal = number
        self.name = number.name

    def inject(self, search: SearchUnderFault, random: Random) -> list[str]:
        return [*self.stop(search), *running_runs(search.paths)]

    def stop(self, search: SearchUnderFault) -> list[str]:
        """Send the signal and wait for the end; returns what the search does not do as it should."""
        search.process.send_signal(self._signal)
        code, output = search.wait()
        wrong = [] if code == 130 else [f"the exit code is {code}"]
        wrong += [] if "tunekit resume s" in output else ["it does not say how to go on"]
        wrong += ["it shows a traceback"] if "Traceback" in output else []
        return [f"after {self._signal.name} {what}: {output[-500:]}" for what in wrong]


class StopAtStart(CleanStop):
    """The same before anything is trained; if nothing is laid down yet, there is nothing to go on with."""

    def __init__(self, number: signal.Signals) -> None:
        super().__init__(number)
        self.name = f"{number.name} at its start"

    def await_moment(self, search: SearchUnderFault, share: float, epochs: int, random: Random) -> bool:
        moment = search.started + random.uniform(0.3, _START_UP)
        return search.wait_until(lambda: time.monotonic() >= moment)

    def inject(self, search: SearchUnderFault, random: Random) -> list[str]:
        search.process.send_signal(self._signal)
        code, output = search.wait()
        if not search.paths.settings.exists():
            return []  # the interpreter's own end: nothing was promised yet
        seconds = time.monotonic() - search.started
        wrong = [] if code == 130 else [f"{self.name} ({seconds:.1f} s): exit code {code}: {output[-300:]}"]
        return wrong + (["it shows a traceback"] if "Traceback" in output else [])
