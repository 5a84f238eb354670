"""The results of one trial, epoch by epoch, in a few numbers each: a search holds many thousands."""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, NamedTuple, overload


@dataclass(frozen=True, slots=True)
class Result:
    """One finished epoch of a trial."""

    epoch: int  # 1 is the first
    value: float  # validation accuracy, 0 to 1
    time: float  # seconds since 1970
    metrics: Mapping[str, float] = field(default_factory=dict)
    worker: str = ""  # host and process; empty where nobody said

    @property
    def node(self) -> str:
        """The worker's host; empty where nobody said."""
        return node_of(self.worker)


def node_of(worker: str) -> str:
    """The host of a worker that the history names; empty where it names none."""
    return worker.rpartition(":")[0]


class _Labels(NamedTuple):
    """The words of a result; most results share them."""

    metrics: tuple[str, ...]
    worker: str


class LearningCurve(Sequence[Result]):
    """Results in the order of their epochs; `append` adds one. A `Result` is made when it is asked for."""

    __slots__ = ("_best", "_epochs", "_labels", "_numbers", "_starts")
    _known: ClassVar[dict[_Labels, _Labels]] = {}  # the same labels are held once

    def __init__(self, results: Iterable[Result] = ()) -> None:
        self._epochs = array("i")
        self._numbers = array("d")  # of each result: value, time, metrics
        self._starts = array("i")  # where the numbers of each result begin
        self._labels: list[_Labels] = []
        self._best = 0  # place of the first result with the highest value
        for result in results:
            self.append(result)

    def append(self, result: Result) -> None:
        """
        Raises:
            TypeError, OverflowError: if a metric is not a number, or too large for one.
        """
        numbers = array("d", [result.value, result.time, *result.metrics.values()])
        labels = _Labels(tuple(result.metrics), result.worker)
        self._epochs.append(result.epoch)
        self._starts.append(len(self._numbers))
        self._numbers.extend(numbers)
        if result.value > self._numbers[self._starts[self._best]]:
            self._best = len(self)
        self._labels.append(self._known.setdefault(labels, labels))  # last: now other threads see it

    def copy(self) -> LearningCurve:
        """A curve of its own, with the same results."""
        other = LearningCurve()
        other._epochs, other._starts, other._numbers = self._epochs[:], self._starts[:], self._numbers[:]
        other._labels, other._best = self._labels[:], self._best
        return other

    @property
    def best(self) -> Result | None:
        """The first result with the highest value."""
        return self[self._best] if self else None

    @property
    def last_epoch(self) -> int:
        """The last finished epoch; 0 before the first."""
        return self._epochs[-1] if self else 0

    def value_at(self, epoch: int) -> float | None:
        """The value at `epoch`, if that epoch was finished."""
        place = bisect_left(self._epochs, epoch)
        found = place < len(self._epochs) and self._epochs[place] == epoch
        return self._numbers[self._starts[place]] if found else None

    def __len__(self) -> int:
        return len(self._labels)

    @overload
    def __getitem__(self, place: int) -> Result: ...
    @overload
    def __getitem__(self, place: slice) -> list[Result]: ...
    def __getitem__(self, place: int | slice) -> Result | list[Result]:
        if isinstance(place, slice):
            return [self[one] for one in range(*place.indices(len(self)))]
        start, labels = self._starts[place], self._labels[place]
        value, when, *metrics = self._numbers[start : start + 2 + len(labels.metrics)]
        named = dict(zip(labels.metrics, metrics, strict=True))
        return Result(self._epochs[place], value, when, named, labels.worker)

    def __iter__(self) -> Iterator[Result]:
        return (self[place] for place in range(len(self)))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]  # it grows

    def __repr__(self) -> str:
        return f"LearningCurve({list(self)})"
