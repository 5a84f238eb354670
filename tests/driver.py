"""`tunekit` in a process of its own, for tests that interrupt or kill it."""

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil

from tunekit.history import History
from tunekit.paths import SearchPaths, find_search


class Driver:
    """`tunekit` in a process of its own."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        self.folder = folder
        command = [sys.executable, "-m", "tunekit", *arguments]
        self.process = subprocess.Popen(
            command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )

    def wait(self) -> tuple[int, str]:
        output, _ = self.process.communicate(timeout=280)
        return self.process.returncode, output

    def when(self, condition: Callable[[History], bool], below: str = "") -> SearchPaths:
        """Wait until the history of the search `s`, or one below it, fulfils the condition."""
        deadline = time.monotonic() + 200
        while time.monotonic() < deadline and self.process.poll() is None:
            history = self.folder / "results" / "s" / below / "history.jsonl"
            if history.exists() and condition(History.read(history)):
                return find_search(self.folder / "results", "s")
            time.sleep(0.1)
        raise AssertionError(f"did not come: {self.wait()}")

    def family(self) -> list[psutil.Process]:
        """Ray's processes of this driver, wherever it put them: they work in the driver's folder."""
        return [
            process for process in psutil.process_iter() if works_in(process, self.folder) and is_ray(process)
        ]

    def workers(self) -> list[psutil.Process]:
        """Processes in which trials run (and none of Ray's own)."""
        busy = [process for process in self.family() if words(process).startswith("ray::")]
        return [process for process in busy if not any(w in words(process) for w in ("Agent", "IDLE"))]


def words(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def works_in(process: psutil.Process, folder: Path) -> bool:
    try:
        return Path(process.cwd()) == folder.resolve()
    except (psutil.Error, OSError):
        return False


def is_ray(process: psutil.Process) -> bool:
    return words(process).startswith("ray::") or "/ray/core/src/ray/" in words(process)


def end(driver: Driver) -> None:
    """Kill it and what Ray started for it, and see that nothing is left."""
    driver.process.kill()
    driver.process.communicate()
    # Workers end with their driver; Ray's agents try to reach its dead server for a minute more.
    agents = [process for process in driver.family() if "Agent" in words(process)]
    for process in agents:
        process.kill()
    _, left = psutil.wait_procs(driver.family(), timeout=30)
    assert not left, f"a killed driver leaves processes behind: {left}"
