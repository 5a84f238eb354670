"""The kinds of fault that need nothing but the search: a clock, a disk, workers."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from abc import ABC, abstractmethod
from collections import Counter
from contextlib import suppress
from random import Random

from tests.chaos.search_under_fault import SearchUnderFault
from tunekit.paths import atomic_write


class Fault(ABC):
    """One kind of fault: what it needs, how it happens, how it is over."""

    name: str
    at_once: tuple[int, ...] = (1,)  # trials at a time, of the searches that it disturbs

    def lacks(self) -> str | None:
        """Why it cannot be injected on this machine; None if it can."""
        return None

    def prepare(self, search: SearchUnderFault) -> None:  # noqa: B027 - few have something to do
        """Called once, before the search starts."""

    def started(self, search: SearchUnderFault) -> None:  # noqa: B027 - few have something to do
        """Called whenever the search was started or resumed."""

    def await_moment(self, search: SearchUnderFault, share: float, epochs: int, random: Random) -> bool:
        """Wait until it is to happen: a moment after a share of the search's epochs (or one) is trained.

        Returns:
            False if the search's process ended before.
        """
        enough = max(1, int(share * epochs))
        reached = search.wait_until(lambda: search.results_so_far() >= enough)
        time.sleep(random.uniform(0, 1))
        return reached and search.alive

    @abstractmethod
    def inject(self, search: SearchUnderFault, random: Random) -> list[str]:
        """Let it happen; returns what was not as it should be."""

    def undo(self, search: SearchUnderFault, random: Random) -> None:  # noqa: B027 - few can be undone
        """Let it be over."""

    def settle(self, search: SearchUnderFault) -> None:  # noqa: B027 - few have something to do
        """Called once, when the search has ended and is about to be judged."""

    def end(self, search: SearchUnderFault) -> None:  # noqa: B027 - few have something to do
        """Called once, when it is judged."""


class WorkerKilled(Fault):
    """SIGKILL to a process that trains; a trial that dies three times in one process is lost, rightly."""

    name = "worker killed"
    at_once = (1, 2)
    _most = 2

    def prepare(self, search: SearchUnderFault) -> None:
        self._hits: Counter[int] = Counter()

    def await_moment(self, search: SearchUnderFault, share: float, epochs: int, random: Random) -> bool:
        reached = super().await_moment(search, share, epochs, random)
        return reached and search.wait_until(lambda: bool(search.workers()) and self._may_hit(search))

    def _may_hit(self, search: SearchUnderFault) -> bool:
        unfinished = search.unfinished()
        return bool(unfinished) and all(self._hits[trial.id] < self._most for trial in unfinished)

    def inject(self, search: SearchUnderFault, random: Random) -> list[str]:
        unfinished = search.unfinished()
        worker = random.choice(search.workers())
        search.expect_end_of([worker])
        worker.kill()
        worker.wait(10)
        self._hits.update(trial.id for trial in unfinished)
        if len(unfinished) == 1:  # of several nobody can say which one it trained
            search.count_lost()
        else:
            search.lost.in_flight += 1
        return []


_SHIFTED_CLOCK = """
import os
import time


def _shifted(clock, unit):
    def now():
        with open(os.environ["CHAOS_CLOCK"]) as file:
            return clock() + int(file.read()) * unit

    return now


time.time, time.time_ns = _shifted(time.time, 1), _shifted(time.time_ns, 10**9)
"""


class ClockJump(Fault):
    """The clock of the search's processes jumps by hours, forth and back; time that passes stays true.

    It is the clock of their Python code. Libfaketime 0.9.10 would give them all of it, but with a steady
    monotonic clock Python's `time.sleep` fails under it (clock_nanosleep: invalid argument).
    """

    name = "clock jumps"
    _hours = (7, -5, 26, 0)  # from the true time

    def prepare(self, search: SearchUnderFault) -> None:
        self._file = search.folder / "clock"
        self._jumps = 0
        self._set(0)
        code = search.folder / "shifted"
        code.mkdir()
        (code / "sitecustomize.py").write_text(_SHIFTED_CLOCK)  # Python imports it when it starts
        path = os.pathsep.join(filter(None, (str(code), os.environ.get("PYTHONPATH"))))
        search.environment |= {"PYTHONPATH": path, "CHAOS_CLOCK": str(self._file)}

    def inject(self, search: SearchUnderFault, random: Random) -> list[str]:
        self._set(self._hours[self._jumps % len(self._hours)])
        self._jumps += 1
        return []

    def _set(self, hours: int) -> None:
        with atomic_write(self._file) as temporary:
            temporary.write_text(str(hours * 3600))


class DiskFull(Fault):
    """The disk of the results folder fills up, and has room again before the search goes on."""

    name = "disk full"
    _size = "64m"
    _patience = 100.0  # seconds in which the search is to notice

    def lacks(self) -> str | None:
        if os.geteuid() != 0:
            return "only root can mount a small disk"
        return None if shutil.which("mount") else "there is no mount command"

    def prepare(self, search: SearchUnderFault) -> None:
        command = ["mount", "-t", "tmpfs", "-o", f"size={self._size}", "tmpfs", str(search.results)]
        subprocess.run(command, check=True)

    def inject(self, search: SearchUnderFault, random: Random) -> list[str]:
        with open(search.results / "ballast", "wb", buffering=0) as ballast:
            for size in (65536, 4096):  # a memory disk gives out pages of 4,096 bytes
                with suppress(OSError):
                    while True:
                        ballast.write(b"x" * size)
        return []

    def undo(self, search: SearchUnderFault, random: Random) -> None:
        deadline = time.monotonic() + self._patience
        while search.alive and time.monotonic() < deadline:
            time.sleep(0.2)
        (search.results / "ballast").unlink(missing_ok=True)

    def end(self, search: SearchUnderFault) -> None:
        subprocess.run(["umount", "--lazy", str(search.results)], check=True)
