"""The history of a search: an append-only list of events, and what they add up to.

The history is the only memory of a search. The policy decides from it, a resume starts from it,
MLflow and the reports are written from it. On disk it is one JSON object a line, on the medium before
anybody acts on it; a line that a crash tore off is dropped when the file is next opened for writing.
"""

from __future__ import annotations

import dataclasses
import json
import math
import re
import threading
import time
from array import array
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from io import FileIO
from pathlib import Path
from statistics import fmean
from typing import Any, Literal, overload

from sortedcontainers import SortedList

from tunekit.errors import SearchError, StorageError
from tunekit.learning_curve import LearningCurve, Result
from tunekit.paths import append_whole
from tunekit.recipe import Value

EventKind = Literal["suggest", "result", "complete", "stop", "pause", "resume", "fail", "lose"]
"""
suggest   a new trial, with params                     stop    stopped early at the rung `epoch`
result    one epoch's value and metrics                pause   stopped at a rung, may be resumed
complete  trained to the last epoch                    resume  goes on from its last checkpoint
fail      the recipe cannot be trained (`reason`)      lose    the machine failed it (`reason`)
"""

TrialStatus = Literal["running", "paused", "completed", "stopped", "failed", "lost"]

_Standing = tuple[int, float, int, int]  # trainings, value, and the earlier of equals

_STATUS_AFTER: dict[str, TrialStatus] = {
    "suggest": "running",
    "resume": "running",
    "pause": "paused",
    "complete": "completed",
    "stop": "stopped",
    "fail": "failed",
    "lose": "lost",
}


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that happened to one trial."""

    kind: EventKind
    trial: int
    time: float = 0.0  # seconds since 1970
    epoch: int | None = None
    value: float | None = None  # validation accuracy, 0 to 1
    params: Mapping[str, Value] | None = None
    metrics: Mapping[str, float] | None = None
    worker: str | None = None  # host and process that trained the epoch
    reason: str | None = None
    baseline: str | None = None  # name of the known recipe that the trial trains; then `params` are its keys
    default: bool | None = None  # True: the trial trains the space's default recipe
    warm_start: bool | None = None  # True: not the sampler proposed it, but the space or an earlier search
    to_the_end: bool | None = None  # True: no scheduler may end it early, though it is a warm start
    repeat_of: int | None = None  # the trial whose recipe this one trains again, with another seed
    seen_validation: bool | None = (
        None  # True: it trains on the validation images too, its values say nothing
    )

    def to_line(self) -> str:
        """The event as one line of JSON, absent fields left out."""
        fields = {name: value for name in _EVENT_FIELDS if (value := getattr(self, name)) is not None}
        return json.dumps(fields) + "\n"


_EVENT_FIELDS = tuple(field.name for field in dataclasses.fields(Event))


@dataclass(slots=True)
class Trial:
    """What the events of one trial add up to."""

    id: int
    params: Mapping[str, Value]
    started: float
    baseline: str | None = None
    default: bool = False
    warm_start: bool = False
    to_the_end: bool = False
    repeat_of: int | None = None
    seen_validation: bool = False
    status: TrialStatus = "running"
    results: LearningCurve = field(default_factory=LearningCurve)
    ended: float | None = None
    rung: int | None = None  # the epoch at which it was stopped or paused
    failed_at: int | None = None  # the epoch in which the recipe failed
    reason: str | None = None
    attempts: int = 1  # how often it was handed out: at its start, and each time it went on

    @property
    def epoch(self) -> int:
        """The last finished epoch; 0 before the first."""
        return self.results.last_epoch

    @property
    def best(self) -> Result | None:
        """The first epoch with the highest value."""
        return self.results.best

    @property
    def unfinished(self) -> bool:
        """Whether it is being trained, or was when the search was interrupted."""
        return self.status == "running"

    @property
    def over(self) -> bool:
        """Whether it will never train again; a paused trial may."""
        return self.status not in ("running", "paused")

    @property
    def in_full(self) -> bool:
        """Whether no scheduler may end it early: `to_the_end`, baselines, the default recipe, repeats."""
        return self.baseline is not None or self.default or self.to_the_end or self.repeat_of is not None

    @property
    def recipe_id(self) -> int:
        """The first trial with this trial's recipe: itself, unless it is a repeat."""
        return self.id if self.repeat_of is None else self.repeat_of

    def value_at(self, epoch: int) -> float | None:
        """The value at `epoch`, if that epoch was finished."""
        return self.results.value_at(epoch)


class EventLog(Sequence[Event]):
    """The events of a search in their order. Of a result it keeps where it stands: its trial has the rest."""

    def __init__(self, trials: Mapping[int, Trial]) -> None:
        self._trials = trials
        self._others: list[Event] = []
        self._places = array("q")  # of each event: of a result in its trial, else -1 - that in `_others`
        self._trial_of = array("q")

    def append(self, event: Event) -> None:
        """Add an event that its trial has taken in already."""
        if event.kind != "result":
            self._others.append(event)
        self._trial_of.append(event.trial)
        self._places.append(
            len(self._trials[event.trial].results) - 1 if event.kind == "result" else -len(self._others)
        )

    def trial_ids_since(self, place: int) -> list[int]:
        """The ids of the trials of the events from `place` on, each once."""
        return list(dict.fromkeys(self._trial_of[place:]))

    def __len__(self) -> int:
        return len(self._places)

    @overload
    def __getitem__(self, place: int) -> Event: ...
    @overload
    def __getitem__(self, place: slice) -> list[Event]: ...
    def __getitem__(self, place: int | slice) -> Event | list[Event]:
        if isinstance(place, slice):
            return [self[one] for one in range(*place.indices(len(self)))]
        number, trial = self._places[place], self._trial_of[place]
        if number < 0:
            return self._others[-1 - number]
        result = self._trials[trial].results[number]
        return Event(
            "result",
            trial,
            result.time,
            result.epoch,
            result.value,
            metrics=result.metrics or None,
            worker=result.worker or None,
        )


class History:
    """Events in order, and the trials that they make. Without a path it lives in memory only."""

    def __init__(self, path: Path | None = None, events: Iterable[Event] = ()) -> None:
        self.path = path
        self.trials: dict[int, Trial] = {}
        self.events = EventLog(self.trials)
        self.recipes: list[Trial] = []  # the trials that are no repeats, in their order
        self.running: set[int] = set()  # trials that are being trained
        self._repeats: dict[int, list[Trial]] = defaultdict(list)  # by the first trial of their recipe
        self._scored = SortedList()  # the standing of each recipe that has a value which says something
        self._standing_of: dict[int, _Standing] = {}  # by trial
        self._file: FileIO | None = None
        self._opened = time.time(), time.monotonic()
        self._latest = 0.0  # the time of the last event
        self._lock = threading.Lock()  # held while a trial changes
        self._listeners: list[Callable[[Event], None]] = []
        for event in events:
            self._take(event)

    @classmethod
    def read(cls, path: Path) -> History:
        """The history in the file `path`; no file is an empty history.

        Raises:
            SearchError: if a line is not an event (a torn last line is no error).
        """
        return cls(path, _read_events(path)[0])

    def append(self, *events: Event) -> None:
        """Add events, to the file and to memory; those of one call reach the file together, or none does.

        Events without a time get the present one; the machine's clock may jump, theirs never falls.

        Raises:
            StorageError: if the disk is full or cannot be written; then nothing was added.
        """
        now = self._now()
        events = tuple(event if event.time else dataclasses.replace(event, time=now) for event in events)
        if self.path is not None:
            self._write(self.path, "".join(event.to_line() for event in events).encode())
        for event in events:
            self._take(event)
        for event in events:
            for listener in self._listeners:
                listener(event)

    def subscribe(self, listener: Callable[[Event], None]) -> None:
        """Call `listener` with each event once it is on disk. It must return at once and never raise."""
        self._listeners.append(listener)

    def trials_since(self, place: int) -> Iterator[Trial]:
        """The trials of the events from `place` on, each once, as it is when it is given.

        For other threads: what is given does not change when more happens.
        """
        for trial_id in self.events.trial_ids_since(place):
            with self._lock:
                trial = self.trials[trial_id]
                trial = dataclasses.replace(trial, results=trial.results.copy())
            yield trial

    def close(self) -> None:
        """Close the file; the next `append` opens it again."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def repeats(self, trial: Trial) -> list[Trial]:
        """The trials that train the recipe of `trial` again."""
        return self._repeats.get(trial.recipe_id, [])

    def trainings(self, trial: Trial) -> list[Trial]:
        """What judges the recipe of `trial`: its first trial, and its repeats that completed or failed."""
        repeats = [other for other in self.repeats(trial) if other.status in ("completed", "failed")]
        return [self.trials[trial.recipe_id], *repeats]

    def recipe_value(self, trial: Trial) -> float:
        """The mean over `trainings` of the value at the best epoch.

        A repeat that failed before it had a value counts as 0; a recipe without any value is -inf.
        """
        first, *repeats = self.trainings(trial)
        if first.best is None:
            return -math.inf
        return fmean([first.best.value, *(other.best.value if other.best else 0.0 for other in repeats)])

    def best(self) -> Trial | None:
        """The first trial of the best recipe; the earliest of equals. `ranked` says what is best."""
        return next(iter(self.leaders(1)), None)

    def leaders(self, count: int) -> list[Trial]:
        """The first trials of the `count` best recipes that have a value, best first."""
        return [self.trials[-standing[-1]] for standing in reversed(self._scored[-count:])]

    def ranked(self) -> list[Trial]:
        """Trials by what their recipe is worth, best first; those without a value last.

        Recipes that were trained more often come before those that were trained less, so that the mean
        of several trainings never loses to one lucky training; then the higher `recipe_value` decides.
        """
        return sorted(self.trials.values(), key=self._standing, reverse=True)

    def _standing(self, trial: Trial) -> _Standing:
        return len(self.trainings(trial)), self.recipe_value(trial), -trial.recipe_id, -trial.id

    def _now(self) -> float:
        """Seconds since 1970 by the clock as it was in the beginning: later jumps of it do not count."""
        wall, steady = self._opened
        return max(self._latest, wall + time.monotonic() - steady)

    def _write(self, path: Path, lines: bytes) -> None:
        try:
            self._file = self._file or _open_for_append(path)
            append_whole(self._file, lines)
        except OSError as error:
            raise StorageError(f"{path} cannot be written: {error.strerror}") from None

    def _take(self, event: Event) -> None:
        with self._lock:
            self._add_up(event)

    def _add_up(self, event: Event) -> None:
        if event.kind == "suggest":
            assert event.trial not in self.trials and event.params is not None
            self._begin(event, event.params)
        else:
            self._go_on(event, self.trials[event.trial])
        trial = self.trials[event.trial]
        self.events.append(event)
        self._latest = event.time
        if trial.unfinished:
            self.running.add(trial.id)
        else:
            self.running.discard(trial.id)
        self._rank(self.trials[trial.recipe_id])

    def _rank(self, first: Trial) -> None:
        """Put a recipe where it stands now, by its first trial."""
        if first.best is None or first.seen_validation:
            return
        before, now = self._standing_of.get(first.id), self._standing(first)
        if before != now:
            if before is not None:
                self._scored.remove(before)
            self._scored.add(now)
            self._standing_of[first.id] = now

    def _go_on(self, event: Event, trial: Trial) -> None:
        if event.kind == "result":
            assert event.epoch is not None and event.value is not None
            metrics, worker = event.metrics or {}, event.worker or ""
            trial.results.append(Result(event.epoch, event.value, event.time, metrics, worker))
            return
        trial.status = _STATUS_AFTER[event.kind]
        trial.attempts += event.kind == "resume"
        trial.reason = event.reason
        trial.rung = event.epoch if event.kind in ("stop", "pause") else None
        trial.failed_at = event.epoch if event.kind == "fail" else None
        trial.ended = None if trial.unfinished else event.time

    def _begin(self, event: Event, params: Mapping[str, Value]) -> None:
        trial = Trial(
            event.trial,
            params,
            event.time,
            event.baseline,
            bool(event.default),
            bool(event.warm_start),
            bool(event.to_the_end),
            event.repeat_of,
            bool(event.seen_validation),
        )
        self.trials[trial.id] = trial
        if trial.repeat_of is None:
            self.recipes.append(trial)
        else:
            self._repeats[trial.repeat_of].append(trial)


def commonest_reason(trials: Iterable[Trial]) -> str | None:
    """The first reason of the commonest kind: those that differ in numbers alone are of one kind."""
    reasons = [trial.reason or "no reason known" for trial in trials]
    kinds = [re.sub(r"[\d.]+", "", reason) for reason in reasons]
    if not kinds:
        return None
    ((commonest, _),) = Counter(kinds).most_common(1)
    return reasons[kinds.index(commonest)]


def _read_events(path: Path) -> tuple[list[Event], int]:
    """The events of a file, and the length in bytes of the whole lines that hold them."""
    if not path.exists():
        return [], 0
    events: list[Event] = []
    reached: dict[int, int] = {}  # the last epoch of each trial
    length = 0
    lines = path.read_bytes().split(b"\n")
    for number, line in enumerate(lines[:-1], start=1):  # what follows the last newline was torn off
        try:
            events.append(_event(json.loads(line)))
            _check_order(events[-1], reached)
        except (ValueError, TypeError, KeyError, RecursionError, OverflowError) as error:
            raise SearchError(f"{path}: line {number} is not an event of a history ({error})") from None
        length += len(line) + 1
    return events, length


_FIELD_TYPES: Mapping[str, tuple[type, ...]] = {
    **dict.fromkeys(("trial", "epoch", "repeat_of"), (int,)),
    **dict.fromkeys(("time", "value"), (int, float)),
    **dict.fromkeys(("params", "metrics"), (dict,)),
    **dict.fromkeys(("default", "warm_start", "to_the_end", "seen_validation"), (bool,)),
}


_LARGEST = 2**31 - 1  # id of a trial, or epoch


def _event(fields: Any) -> Event:
    for name, value in dict(fields).items():
        if type(value) not in _FIELD_TYPES.get(name, (str,)):
            raise ValueError(f"{name} cannot be {value!r}")
    event = Event(**fields)
    array(
        "d", [event.value or 0.0, event.time, *(event.metrics or {}).values()]
    )  # TypeError for what is no number
    for name, number in (("trial", event.trial), ("epoch", event.epoch or 0)):
        if not 0 <= number <= _LARGEST:
            raise ValueError(f"{name} cannot be {number}")
    if event.kind != "result" and event.kind not in _STATUS_AFTER:
        raise ValueError(f"unknown kind {event.kind!r}")
    return event


def _check_order(event: Event, reached: dict[int, int]) -> None:
    """Check that an event can follow those before it, and take it in."""
    if event.kind == "suggest":
        if event.trial in reached or event.params is None:
            raise ValueError(f"trial {event.trial} has begun before, or has no params")
        if event.repeat_of is not None and event.repeat_of not in reached:
            raise ValueError(f"there is no trial {event.repeat_of} to repeat")
        reached[event.trial] = 0
    elif event.trial not in reached:
        raise ValueError(f"trial {event.trial} has not begun")
    elif event.kind == "result":
        if event.epoch is None or event.epoch <= reached[event.trial]:
            raise ValueError(f"epoch {event.epoch} of trial {event.trial} is out of order")
        if event.value is None or not math.isfinite(event.value):
            raise ValueError(f"epoch {event.epoch} of trial {event.trial} has no finite value")
        reached[event.trial] = event.epoch
    elif event.kind in ("stop", "pause", "fail") and event.epoch is None:
        raise ValueError(f"{event.kind} of trial {event.trial} has no epoch")


def _open_for_append(path: Path) -> FileIO:
    path.parent.mkdir(parents=True, exist_ok=True)
    _, length = _read_events(path)
    file = open(path, "ab", buffering=0)  # noqa: SIM115 - closed by `History.close`
    file.truncate(length)
    return file
