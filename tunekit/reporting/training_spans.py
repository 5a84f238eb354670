"""Who trained what when: the results of trials as spans of time, by worker and by node."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from tunekit.history import Trial
from tunekit.learning_curve import node_of

_LATE = 1.0  # seconds by which a result may come late, and its training seem to overlap the next


@dataclass(frozen=True)
class Span:
    """A time in which one worker trained one trial without a break."""

    lane: int  # of the worker, 0 is the first that began; those of a node are neighbours
    trial: int
    start: float  # seconds since 1970
    end: float
    node: str = ""  # the worker's host; empty where nobody said


def training_spans(trials: Iterable[Trial]) -> list[Span]:
    """When trials trained, by worker; where no worker is named, trials share as few lanes as they can."""
    spans = sorted(_unplaced_spans(trials), key=lambda span: span[1])
    lanes: dict[str, int] = {}
    free_from: list[float] = []  # by lane
    placed = []
    for worker, start, end, trial in spans:
        lane = lanes.get(worker) if worker else _free_lane(free_from, lanes.values(), start)
        if lane is None:
            lane = len(free_from)
            free_from.append(start)
        if worker:
            lanes[worker] = lane
        placed.append(Span(lane, trial, min(max(start, free_from[lane]), end), end, node_of(worker)))
        free_from[lane] = max(end, free_from[lane])
    return _by_node(placed)


def nodes_of_lanes(spans: Iterable[Span]) -> list[str]:
    """The node of each lane."""
    return [node for _, node in sorted({span.lane: span.node for span in spans}.items())]


def busy_share(spans: Sequence[Span]) -> float:
    """The share of all lanes' time in which something trained, 0 to 1, from first start to last end."""
    whole = max(span.end for span in spans) - min(span.start for span in spans)
    lanes = len({span.lane for span in spans})
    return min(sum(span.end - span.start for span in spans) / (whole * lanes), 1.0) if whole else 1.0


def _unplaced_spans(trials: Iterable[Trial]) -> list[tuple[str, float, float, int]]:
    """(worker, start, end, trial); epochs that follow one another at once are one span."""
    spans: list[tuple[str, float, float, int]] = []
    for trial in trials:
        for result in trial.results:
            seconds = result.metrics.get("epoch_seconds", 0.0)
            start, end = result.time - seconds, result.time
            if end <= 0:
                continue
            last = spans[-1] if spans and spans[-1][3] == trial.id else None
            if last and last[0] == result.worker and start - last[2] <= max(2.0, seconds):
                spans[-1] = (last[0], last[1], end, trial.id)
            else:
                spans.append((result.worker, max(start, last[2]) if last else start, end, trial.id))
    return spans


def _by_node(spans: Sequence[Span]) -> list[Span]:
    """The same with the lanes of each node together; the node that began first comes first."""
    nodes = list(dict.fromkeys(span.node for span in spans))
    lanes = sorted({(nodes.index(span.node), span.lane) for span in spans})
    places = {lane: place for place, (_, lane) in enumerate(lanes)}
    return [replace(span, lane=places[span.lane]) for span in spans]


def _free_lane(free_from: Sequence[float], named: Iterable[int], start: float) -> int | None:
    taken = set(named)
    free = [lane for lane, end in enumerate(free_from) if lane not in taken and end <= start + _LATE]
    return min(free, default=None)
