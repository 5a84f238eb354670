"""A search in a process of its own that is going to be disturbed."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from tests.driver import words
from tunekit.history import History, Trial
from tunekit.paths import SearchPaths
from tunekit.training.checkpoint import load_checkpoint

NAME = "s"
SPACE = """
[fixed]
"model.name" = "lenet5"
"batch_size" = 64
"augment.policy" = "shift_crop"

[space]
"optim.lr" = { low = 1e-3, high = 0.3, log = true }
"optim.name" = { choices = ["sgd", "adam"] }
"optim.momentum" = { low = 0.0, high = 0.95, when = { "optim.name" = ["sgd"] } }
"model.dropout" = { choices = [0.0, 0.25] }
"""
_PATIENCE = 280.0  # seconds for anything that a search may do


@dataclass(frozen=True)
class Plan:
    """What is searched: the same plan with one trial at a time gives the same search."""

    at_once: int = 1  # trials
    samples: int = 12
    epochs: int = 9
    grace_period: int = 1
    train_limit: int = 1500  # images; an epoch of them takes 0.2 s on an idle core
    seed: int = 0

    def options(self) -> list[str]:
        """Of `tunekit search`."""
        cpus = psutil.cpu_count() or 1
        # More than half of the CPUs leaves room for one trial, and gives it fewer threads than all of them.
        share = cpus / 2 + 0.5 if self.at_once == 1 else cpus / self.at_once
        return [
            *("--samples", str(self.samples), "--epochs", str(self.epochs), "--seed", str(self.seed)),
            *("--grace-period", str(self.grace_period), "--train-limit", str(self.train_limit)),
            *("--cpus-per-trial", f"{share:g}"),
        ]


@dataclass
class Lost:
    """Epochs that were trained and must be trained again."""

    finished: int = 0  # that the history has and no checkpoint
    in_flight: int = 0  # that were being trained

    def add(self, other: Lost) -> None:
        """Count those too."""
        self.finished += other.finished
        self.in_flight += other.in_flight


class Ending:
    """Watches processes that should end by themselves."""

    longest = 90.0  # seconds that they may take: Ray's agents look for their dead server for a minute

    def __init__(self, processes: Iterable[psutil.Process]) -> None:
        self.left = list(processes)
        self.seconds = 0.0  # that the last one lived on
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def wait(self) -> None:
        """Wait until all have ended, or 90 s are over."""
        self._thread.join()

    def _watch(self) -> None:
        started = time.monotonic()
        while self.seconds < self.longest:
            self.left = [process for process in self.left if _lives(process)]
            if not self.left:
                return
            self.seconds = time.monotonic() - started
            time.sleep(0.5)


def _lives(process: psutil.Process) -> bool:
    """One that has ended and waits for its adopted parent to take note does not."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@dataclass
class SearchUnderFault:
    """Starts a search and goes on with it, and knows its processes by their working folder."""

    folder: Path
    plan: Plan
    data_dir: Path
    uri: str | None = None  # of MLflow; None for the SQLite file in the results folder
    environment: dict[str, str] = field(default_factory=dict)
    token: str = field(default_factory=lambda: secrets.token_hex(32))
    starts: int = 0
    ends: list[str] = field(default_factory=list)  # how each process but the present one ended
    crashes: list[str] = field(default_factory=list)  # those of them that ended with a traceback
    lost: Lost = field(default_factory=Lost)
    process: subprocess.Popen[bytes] = field(init=False)
    started: float = field(init=False)  # when, by the monotonic clock
    _events_before: int = 0  # that the history had then
    endings: list[Ending] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.results.mkdir(parents=True, exist_ok=True)
        (self.folder / "chaos.toml").write_text(SPACE)

    @property
    def results(self) -> Path:
        return self.folder / "results"

    @property
    def paths(self) -> SearchPaths:
        return SearchPaths(self.results.resolve() / NAME)

    def start(self) -> None:
        """Begin the search, or go on with it if its folder is there."""
        if self.starts:
            self._note_end()
        self._events_before = len(self.history().events)
        begun = self.paths.settings.exists()
        command = ["resume", NAME] if begun else ["search", "mnist", *self._what()]
        self.starts += 1
        self.started = time.monotonic()
        with open(self.log, "wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tunekit", *command],
                cwd=self.folder,
                env=self._environment(),
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    def _note_end(self) -> None:
        """How the present process ended; one that was not killed owes its user a line and no traceback."""
        lines = self.output().strip().splitlines() or [""]
        self.ends.append(f"{self.process.returncode}: {lines[-1][:200]}")
        if self.process.returncode >= 0 and "Traceback" in self.output():
            self.crashes.append(f"a process ended with a traceback: {self.ends[-1]}")

    def _what(self) -> list[str]:
        uri = ["--tracking-uri", self.uri] if self.uri else []
        return [
            "--space",
            "chaos.toml",
            "--name",
            NAME,
            "--data-dir",
            str(self.data_dir),
            *self.plan.options(),
            *uri,
        ]

    def _environment(self) -> Mapping[str, str]:
        unset = ("TUNEKIT_DATA_DIR", "TUNEKIT_RESULTS_DIR", "MLFLOW_TRACKING_URI")
        ours = {name: value for name, value in os.environ.items() if name not in unset}
        # What other programs do to this machine's memory is no fault of ours: Ray's watch over it is off.
        quiet = {"RAY_memory_monitor_refresh_ms": "0"}
        return {**ours, **quiet, "RAY_AUTH_TOKEN": self.token, **self.environment}

    @property
    def log(self) -> Path:
        """What the present process says."""
        return self.folder / f"driver-{self.starts}.log"

    @property
    def resumes(self) -> int:
        return self.starts - 1

    @property
    def alive(self) -> bool:
        return self.process.poll() is None

    def wait(self, seconds: float = _PATIENCE) -> tuple[int, str]:
        """Wait for the process's end; returns exit code and output.

        Raises:
            AssertionError: if it does not end.
        """
        try:
            code = self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(
                f"tunekit did not end within {seconds:g} s: {self.output()[-2000:]}"
            ) from None
        return code, self.output()

    def output(self) -> str:
        return self.log.read_text(errors="replace")

    def history(self) -> History:
        return History.read(self.paths.history)

    def results_so_far(self) -> int:
        """Epochs that the history has."""
        return sum(len(trial.results) for trial in self.history().trials.values())

    def wait_until(self, condition: Callable[[], bool], pause: float = 0.05) -> bool:
        """Wait for the condition; False if the process ended first."""
        deadline = time.monotonic() + _PATIENCE
        while not condition():
            if not self.alive:
                return False
            assert time.monotonic() < deadline, f"it did not come: {self.output()[-2000:]}"
            time.sleep(pause)
        return True

    def family(self) -> list[psutil.Process]:
        """Every process of the search: the driver, Ray's servers and the workers, of earlier starts too."""
        return [process for process in psutil.process_iter() if _works_in(process, self.folder)]

    def workers(self) -> list[psutil.Process]:
        """Processes in which trials train."""
        busy = [process for process in self.family() if words(process).startswith("ray::")]
        return [process for process in busy if not any(w in words(process) for w in ("Agent", "IDLE"))]

    def expect_end_of(self, processes: Iterable[psutil.Process]) -> None:
        """Watch that these are gone soon; `leftovers.py` says which are not."""
        self.endings.append(Ending(processes))

    def count_lost(self) -> None:
        """Count the epochs that the death of workers has cost: call it when they are dead."""
        handed_out = {event.trial for event in self.history().events[self._events_before :]}
        for trial in (trial for trial in self.unfinished() if trial.id in handed_out):
            checkpoint = load_checkpoint(self.paths.trial(trial.id).last)
            saved = len(checkpoint["results"]) if checkpoint is not None else 0
            # A checkpoint that is ahead of the history was saved but not reported: nothing is trained again.
            self.lost.add(Lost(max(0, trial.epoch - saved), int(saved <= trial.epoch)))

    def end(self) -> None:
        """Kill what is left of it, so that a search that did not survive disturbs no other."""
        for process in self.family():
            with suppress(psutil.NoSuchProcess):
                process.kill()

    def unfinished(self) -> list[Trial]:
        """Trials that were being trained."""
        return [trial for trial in self.history().trials.values() if trial.unfinished]


def _works_in(process: psutil.Process, folder: Path) -> bool:
    try:
        return Path(process.cwd()).is_relative_to(folder) and process.status() != psutil.STATUS_ZOMBIE
    except (psutil.Error, OSError):
        return False
