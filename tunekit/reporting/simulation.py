"""Which sampler and scheduler would have found a search's best recipe sooner: its own curves, replayed."""

from __future__ import annotations

import math
import os
import signal
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from statistics import median
from typing import Any

from rich.table import Table

from tunekit.errors import SearchError
from tunekit.history import History
from tunekit.paths import SearchPaths
from tunekit.space import load_space
from tunekit.tuning.policy import SAMPLERS, SCHEDULERS, Decision, SearchPolicy, Suggestion
from tunekit.tuning.progress import duration
from tunekit.tuning.replay import Curves, Replay, records_of, replay
from tunekit.tuning.settings import SearchSettings

_ENOUGH = 8  # recipes trained in full; fewer are no search to speak of
_GRACE_PERIODS = (1, 3, 9)


@dataclass(frozen=True)
class Combination:
    """One way to search."""

    sampler: str
    scheduler: str
    grace_period: int | None  # epochs; None for a scheduler that stops nothing

    def text(self) -> str:
        """`rung-tpe + asha, grace period 3`."""
        grace = "" if self.grace_period is None else f", grace period {self.grace_period}"
        return f"{self.sampler} + {self.scheduler}{grace}"


@dataclass(frozen=True)
class Finding:
    """How a combination fared over all seeds; None where half of them or fewer found the recipe."""

    sampler: str
    scheduler: str
    grace_period: int | None
    epochs: float | None  # median over the seeds, until the best recipe was found
    share: float | None  # of the epochs of the whole search, 0 to 1
    seconds: float | None  # until then, as fast as they were recorded
    found: float  # share of the seeds that found it, 0 to 1


@dataclass(frozen=True)
class Recording:
    """A search as something to replay."""

    name: str
    curves: Curves
    trials: int
    known: int  # of them, to their end
    best_value: float  # validation accuracy, 0 to 1
    epochs: int  # of the whole search: the budget of every replay
    found_after: int  # epochs after which the search itself had that value
    rank_correlation: float  # how well the most similar recipe tells the result of another, -1 to 1
    reduction_factor: int

    def text(self) -> str:
        """What is replayed, in words."""
        lines = [
            f"Search {self.name}: the best recipe that was trained to its end has validation accuracy "
            f"{self.best_value:.4f}, seen after {self.found_after:,} of {self.epochs:,} epochs.",
            f"{self.known} of {self.trials} trials are known to their end and are replayed.",
        ]
        if self.known < self.trials:
            lines.append(
                "The others are left out. If they were stopped early, those that are left are the better "
                "ones, which flatters every row: record with --scheduler none to compare fairly."
            )
        lines.append(
            "The most similar of the others tells a recipe's result with a rank correlation of "
            f"{self.rank_correlation:.2f}."
        )
        if self.rank_correlation < 2 / math.sqrt(self.known):  # two standard errors of none at all
            lines.append(
                f"That is no more than chance would give with {self.known} recipes: which sampler came "
                "first below says little. Record more trials."
            )
        return "\n".join(lines)


def combinations(
    epochs: int, samplers: Sequence[str], schedulers: Sequence[str], grace_periods: Sequence[int]
) -> list[Combination]:
    """Every sampler with every scheduler and grace period; empty sequences mean those that there are."""
    graces = grace_periods or [grace for grace in _GRACE_PERIODS if grace < epochs] or [1]
    return [
        Combination(sampler, scheduler, grace)
        for sampler in samplers or SAMPLERS
        for scheduler in schedulers or SCHEDULERS
        for grace in ([None] if scheduler == "none" else graces)
    ]


def recorded(paths: SearchPaths) -> Recording:
    """The curves of a search.

    Raises:
        SearchError: if fewer than 8 of its trials were trained in full.
    """
    settings, history = SearchSettings.load(paths), History.read(paths.history)
    space = load_space(paths.space).with_fixed(settings.fixed)
    if any(
        "epoch_seconds" not in result.metrics for one in history.trials.values() for result in one.results
    ):
        raise SearchError(f"{paths.history}: does not say how long epochs took, which a replay needs to know")
    records = records_of(history, space, settings.epochs)
    full = sum(record.failed_at is None for record in records)
    if full < _ENOUGH:
        raise SearchError(
            f"search {paths.name}: {full} of {len(history.trials)} trials were trained for all "
            f"{settings.epochs} epochs, but a replay needs {_ENOUGH}: record curves with --scheduler none"
        )
    curves = Curves(space, settings.epochs, records)
    best_value = max(max(record.values) for record in records if record.failed_at is None)
    values = [event.value or 0.0 for event in history.events if event.kind == "result"]
    return Recording(
        paths.name,
        curves,
        len(history.trials),
        len(records),
        best_value,
        len(values),
        next(epochs for epochs, value in enumerate(values, start=1) if value >= best_value),
        curves.rank_correlation(),
        settings.reduction_factor,
    )


def simulate(
    recording: Recording,
    ways: Sequence[Combination],
    seeds: int,
    workers: int,
    say: Callable[[str], None],
) -> list[Finding]:
    """Replay the search in each way, with each seed; those that found its best recipe soonest come first.

    Replays run in processes, one a core; `say` hears of each way that is done.
    """
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    # Ctrl-C reaches all processes: this one ends the others.
    pool = ProcessPoolExecutor(
        mp_context=get_context("spawn"), initializer=signal.signal, initargs=(signal.SIGINT, signal.SIG_IGN)
    )
    try:
        futures = [[pool.submit(_replay, recording, w, seed, workers) for seed in range(seeds)] for w in ways]
        findings = []
        for number, (way, replays) in enumerate(zip(ways, futures, strict=True), start=1):
            findings.append(_finding(recording, way, [future.result() for future in replays]))
            say(f"Replayed {number} of {len(ways)}: {way.text()}")
    finally:
        pool.shutdown(cancel_futures=True)
    return sorted(findings, key=lambda f: (f.epochs is None, f.epochs or 0.0, -f.found))


def simulation_json(recording: Recording, findings: Sequence[Finding]) -> dict[str, Any]:
    """The findings as plain data."""
    return {
        "search": recording.name,
        "trials": recording.trials,
        "trials_known": recording.known,
        "best_val_accuracy": recording.best_value,
        "epochs": recording.epochs,
        "found_after": recording.found_after,
        "rank_correlation": recording.rank_correlation,
        "replays": [asdict(finding) for finding in findings],
    }


def simulation_table(findings: Sequence[Finding]) -> Table:
    """The findings for a terminal."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("sampler", "scheduler"):
        table.add_column(name, no_wrap=True)
    for name in ("grace period", "epochs until found", "of the search", "time", "seeds that found it"):
        table.add_column(name, justify="right", no_wrap=True)
    for finding in findings:
        table.add_row(
            finding.sampler,
            finding.scheduler,
            str(finding.grace_period or "-"),
            "-" if finding.epochs is None else f"{finding.epochs:,.0f}",
            "-" if finding.share is None else f"{finding.share:.0%}",
            "-" if finding.seconds is None else duration(finding.seconds),
            f"{finding.found:.0%}",
        )
    return table


def _replay(recording: Recording, way: Combination, seed: int, workers: int) -> Replay:
    policy = SearchPolicy(
        recording.curves.space,
        max_epochs=recording.curves.epochs,
        seed=seed,
        grace_period=way.grace_period or 1,
        reduction_factor=recording.reduction_factor,
        sampler=way.sampler,
        scheduler=way.scheduler,
    )
    bounded = _Bounded(policy, recording.trials)
    return replay(bounded, recording.curves, workers, recording.epochs, recording.best_value)


@dataclass(frozen=True)
class _Bounded:
    """A policy that suggests no more trials than the search had."""

    policy: SearchPolicy
    trials: int

    def next(self) -> Suggestion:
        if not self.policy.has_next(self.trials):
            raise SearchError(f"all {self.trials} trials were suggested")
        return self.policy.next(self.trials)

    def report(self, trial_id: int, epoch: int, value: float) -> Decision:
        return self.policy.report(trial_id, epoch, value)

    def fail(self, trial_id: int, epoch: int, reason: str) -> None:
        self.policy.fail(trial_id, epoch, reason)


def _finding(recording: Recording, way: Combination, replays: Sequence[Replay]) -> Finding:
    found = [step for each in replays if (step := each.first_with(recording.best_value))]
    missed = [math.inf] * (len(replays) - len(found))  # they would have taken longer than all
    epochs = _median([step.epochs for step in found] + missed)
    return Finding(
        way.sampler,
        way.scheduler,
        way.grace_period,
        epochs,
        None if epochs is None else epochs / recording.epochs,
        _median([step.seconds for step in found] + missed),
        len(found) / len(replays),
    )


def _median(figures: Sequence[float]) -> float | None:
    """The median; None if it is infinite."""
    middle = median(figures)
    return middle if math.isfinite(middle) else None
