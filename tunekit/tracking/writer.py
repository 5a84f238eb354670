"""The one writer of MLflow: a thread that projects the history onto it, and never disturbs the search.

The history on disk is the spool. `tracked.json` says how many of its events MLflow has; what a dead
server, a crash or the end of the process left over is delivered by the next `Tracker` of the search.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple

from tunekit.history import Event, History, Trial
from tunekit.paths import SearchPaths, atomic_write
from tunekit.tracking.client import is_refusal
from tunekit.tracking.runs import Outcome, SearchRuns
from tunekit.tracking.server import masked

if TYPE_CHECKING:
    from tunekit.tracking.model import Classifier

_log = logging.getLogger("tunekit.tracking")

_FIRST_WAIT = 1.0  # seconds before the second try
_LONGEST_WAIT = 30.0  # seconds
_TRIES_AT_CLOSE = 3  # a server that is away then is away; nothing is lost by giving up
_GRACE_AFTER_ERROR = 10.0  # seconds that a search that crashed waits for MLflow


class Account(NamedTuple):
    """What is told of a search in MLflow when it ends."""

    note: str  # what came of it, Markdown
    files: Sequence[Path]  # a report and figures; those that are not there are left out


# Gives an account of a search that ends in this state. It comes from a room above: it knows what mattered.
Teller = Callable[[SearchPaths, Outcome], Account]


@dataclass(frozen=True)
class TrackerReport:
    """What MLflow does not have when the tracker ends."""

    undelivered: int  # events, and one for the end of the search
    error: str | None  # the last thing that went wrong, in one line


@dataclass(frozen=True)
class _End:
    outcome: Outcome
    checkpoints: Sequence[tuple[int, Path]]
    winner: Callable[[], Classifier] | None
    note: str | None
    files: Sequence[Path]


class Tracker:
    """Records one search in MLflow. Methods return at once and never raise what MLflow raises."""

    def __init__(
        self,
        paths: SearchPaths,
        history: History,
        settings: Mapping[str, Any],
        uri: str,
        artifacts: Path | None,
        describe: Callable[[Trial], str],
        trial_seed: Callable[[int], int] | None = None,
    ) -> None:
        """
        Args:
            paths: of the search.
            history: of the search; it may hold events already, and more come while the tracker runs.
            settings: what `search.json` holds; `search_id` tells this search from all others, and `note`
                takes the place of the description that is made from the rest.
            uri: of a tracking server or an SQLite database.
            artifacts: the folder for artifacts beside an SQLite database; a server has its own.
            describe: a trial in a few words, for the name of its run.
            trial_seed: the seed of a trial, for a tag of its run.
        """
        self._paths = paths
        self._uri = uri
        self._open_runs = partial(SearchRuns, paths, settings, uri, artifacts, describe, trial_seed)
        self._history = history
        self._thread = threading.Thread(target=self._work, name="tunekit-tracker", daemon=True)
        self._wanted = threading.Event()
        self._news = threading.Event()
        self._closing = threading.Event()
        self._expired = threading.Event()
        self._delivered = 0  # events that MLflow has
        self._end: _End | None = None
        self._error: str | None = None
        # Of the thread alone:
        self._runs: SearchRuns | None = None
        self._written: Counter[int] = Counter()  # results of each trial that MLflow has
        self._ended = False

    def start(self) -> None:
        """Start the thread: it opens MLflow and delivers what is left of earlier sessions."""
        self._delivered = min(tracked(self._paths.tracked).events, len(self._history.events))
        self._thread.start()

    def record(self, event: Event) -> None:
        """Note that an event was appended to the history; returns at once."""
        self._news.set()
        if event.kind == "result":
            self._wanted.set()

    def finish(
        self,
        outcome: Outcome,
        checkpoints: Sequence[tuple[int, Path]] = (),
        winner: Callable[[], Classifier] | None = None,
        note: str | None = None,
        files: Sequence[Path] = (),
    ) -> None:
        """Queue the end of the search, after all events; returns at once.

        Args:
            outcome: `interrupted` leaves unfinished trials SCHEDULED, to go on after a resume.
            checkpoints: trials and their files to upload; files that are not there are left out.
            winner: loads the network of the history's best trial, to be logged as a model.
            note: what came of the search, Markdown for the description of its run.
            files: a report and figures to show on its run; those that are not there are left out.
        """
        self._end = _End(outcome, checkpoints, winner, note, files)
        self._news.set()

    def close(self, timeout_s: float) -> TrackerReport:
        """Deliver what is queued, for at most `timeout_s` seconds, and end the thread.

        With MLflow away it ends after a few tries. Closing again only reports again.
        """
        self._closing.set()
        self._wanted.set()
        self._news.set()
        if self._thread.ident is not None:
            self._thread.join(timeout_s)
        self._expired.set()
        return self.report()

    def report(self) -> TrackerReport:
        """What MLflow does not have now; returns at once."""
        end_is_due = self._end is not None and not self._ended
        return TrackerReport(len(self._history.events) - self._delivered + end_is_due, self._error)

    def __enter__(self) -> Tracker:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._closing.is_set():
            return
        if error is not None and self._end is None:
            self.finish("interrupted")
        self.close(_GRACE_AFTER_ERROR)

    def _work(self) -> None:
        """The thread: deliver, wait for more; when MLflow is away, wait longer each time."""
        self._wanted.wait()  # importing MLflow takes seconds, better spent on starting the workers
        failures = 0
        while not self._expired.is_set():
            try:
                self._deliver()
            except Exception as error:  # whatever it is, it must not end the search
                failures += 1
                self._runs = None  # a run may have been created though the answer got lost: look again
                self._note(error, failures)
                if self._closing.is_set() and failures >= _TRIES_AT_CLOSE:
                    return
                self._wait(failures)
                continue
            if failures:
                _log.info("MLflow at %s has all events again", masked(self._uri))
            failures = 0
            if self._closing.is_set() and not self._news.is_set():
                return
            self._news.wait()

    def _wait(self, failures: int) -> None:
        seconds = min(_FIRST_WAIT * 2 ** (failures - 1), _LONGEST_WAIT)
        if self._closing.is_set():
            time.sleep(_FIRST_WAIT)
        else:
            self._closing.wait(seconds)

    def _note(self, error: Exception, failures: int) -> None:
        self._error = _one_line(error)
        level = logging.WARNING if failures == 1 else logging.DEBUG
        _log.log(level, "MLflow at %s: %s; the history keeps what it lacks", masked(self._uri), self._error)

    def _deliver(self) -> None:
        """Write everything that is waiting. What failed half-way is written again by the next call."""
        runs = self._runs = self._runs or self._open()
        self._news.clear()  # before looking: what happens from here on is news again
        recorded = len(self._history.events)
        if recorded > self._delivered:
            for trial in self._history.trials_since(self._delivered):
                if self._expired.is_set():
                    return
                self._attempt(trial.id, partial(runs.write_trial, trial, self._written[trial.id]))
                self._written[trial.id] = len(trial.results)
            self._delivered = recorded
            self._save_tracked(runs)
        if self._end is not None and not self._ended and self._delivered == len(self._history.events):
            self._write_end(runs, self._end)
            self._ended = True

    def _open(self) -> SearchRuns:
        runs = self._open_runs()
        known = tracked(self._paths.tracked)
        same = known.run_id == runs.parent_id  # else it is another MLflow, and knows nothing yet
        self._delivered = min(known.events, len(self._history.events)) if same else 0
        delivered = self._history.events[: self._delivered]
        self._written = Counter(event.trial for event in delivered if event.kind == "result")
        return runs

    def _write_end(self, runs: SearchRuns, end: _End) -> None:
        """The status first: should an upload fail, the search still reads as what it is."""
        trials = self._history.trials
        for trial in trials.values():
            if trial.unfinished:
                self._attempt(
                    trial.id, partial(runs.write_trial, trial, len(trial.results), interrupted=True)
                )
        runs.write_end(end.outcome, self._history, end.note)
        for shown in end.files:
            if shown.exists():
                runs.upload_file(shown)
        for trial_id, file in end.checkpoints:
            if file.exists():
                self._attempt(trial_id, partial(runs.upload_checkpoint, trials[trial_id], file))
        best = self._history.best()
        if best is not None and end.winner is not None:
            self._attempt(best.id, partial(runs.log_winner, best, end.winner))

    def _attempt(self, trial_id: int, write: Callable[[], None]) -> None:
        """Write something of one trial. If MLflow refuses it, only that is lost and the rest goes on."""
        try:
            write()
        except Exception as error:
            if not is_refusal(error):
                raise
            self._error = f"trial {trial_id}: {_one_line(error)}"
            _log.warning("MLflow refuses what it is told of %s", self._error)

    def _save_tracked(self, runs: SearchRuns) -> None:
        content = {"events": self._delivered, "run_id": runs.parent_id, "tracking_uri": masked(self._uri)}
        with atomic_write(self._paths.tracked) as temporary:
            temporary.write_text(json.dumps(content) + "\n", encoding="utf-8")


class Tracked(NamedTuple):
    """How far MLflow has a history."""

    events: int
    run_id: str  # of the parent run that has them


def tracked(file: Path) -> Tracked:
    """What `tracked.json` says; nothing of it is known if it is absent or damaged."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        return Tracked(int(content["events"]), content["run_id"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return Tracked(0, "")  # nothing is lost: what MLflow has is not added again


def _one_line(error: Exception) -> str:
    lines = str(error).splitlines() or [type(error).__name__]
    return masked(lines[0])[:500]
