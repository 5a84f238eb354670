"""One kind of fault from the first start of a search to the verdict on it."""

from __future__ import annotations

import signal
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from random import Random
from typing import Any

import psutil

from tests.chaos.ending_faults import (
    CleanStop,
    DriverKilled,
    DriverKilledAtEnd,
    DriverKilledAtStart,
    PowerCut,
    StopAtStart,
)
from tests.chaos.faults import ClockJump, DiskFull, Fault, WorkerKilled
from tests.chaos.leftovers import files_left, processes_left, running_runs
from tests.chaos.node_faults import NodeLost
from tests.chaos.search_under_fault import Plan, SearchUnderFault
from tests.chaos.tracking_faults import ServerMisbehaves, ServerRestarted
from tests.chaos.verdict import Facts, broken_invariants, differences, facts_of

_MOST_STARTS = 6  # beyond one for each fault: a search that needs more does not get on
_SHOWN = 5  # problems of a row in the text; the JSON has all
_UNDELIVERED = "are not in MLflow yet"


def kinds() -> list[Fault]:
    """Every kind of fault; those that end a search's process first."""
    stops = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)
    return [
        DriverKilled(),
        DriverKilledAtStart(),
        DriverKilledAtEnd(),
        PowerCut(),
        WorkerKilled(),
        *(CleanStop(number) for number in stops),
        *(StopAtStart(number) for number in stops),
        NodeLost(),
        ServerRestarted(),
        ServerMisbehaves("500", "MLflow answers 500"),
        ServerMisbehaves("hang", "MLflow hangs"),
        ServerMisbehaves("reset", "MLflow's connections break"),
        ServerMisbehaves("slow", "MLflow is slow"),
        ClockJump(),
        DiskFull(),
    ]


@dataclass(frozen=True)
class Undisturbed:
    """A search that nothing happened to: what the disturbed ones must equal."""

    facts: Facts
    epochs: int  # that all trials trained together


@dataclass
class Row:
    """What came of one kind of fault."""

    fault: str
    at_once: int  # trials
    injected: int = 0
    resumes: int = 0
    epochs_finished: int = 0  # epochs that were finished and had to be trained again
    epochs_in_flight: int = 0  # epochs that were cut off
    seconds: float = 0.0
    last_process_seconds: float = 0.0  # how long the last process of a search that had ended lived on
    ends: list[str] = field(default_factory=list)  # exit code and last line of each process but the last
    skipped: str | None = None
    problems: list[str] = field(default_factory=list)

    @property
    def survived(self) -> bool:
        return not self.problems

    def to_json(self) -> dict[str, Any]:
        """Plain values, `survived` among them."""
        return {**asdict(self), "survived": self.survived}


def undisturbed(folder: Path, plan: Plan, data_dir: Path) -> Undisturbed:
    """Run the search with nothing happening to it; one that lies in `folder` already is used again.

    Raises:
        AssertionError: if it does not end well.
    """
    search = SearchUnderFault(folder, plan, data_dir)
    if not search.paths.report.exists():
        search.start()
        code, output = search.wait()
        assert code == 0, output
        problems = [*broken_invariants(search.paths), *files_left(search.paths), *processes_left(search)[0]]
        assert not problems, problems
    return Undisturbed(facts_of(search.paths), search.results_so_far())


def disturb(
    fault: Fault, folder: Path, plan: Plan, data_dir: Path, wanted: Undisturbed, times: int, random: Random
) -> Row:
    """Inject a kind of fault into a search several times, resume it to its end, and judge it.

    Args:
        folder: a new one, for the search.
        data_dir: where MNIST lies.
        wanted: the undisturbed search; with several trials at a time only its number of epochs counts.
        times: how often, at most: a search may end before.
        random: decides on the moments.
    """
    row = Row(fault.name, plan.at_once, skipped=fault.lacks())
    if row.skipped is not None:
        return row
    search = SearchUnderFault(folder, plan, data_dir)
    started = time.monotonic()
    fault.prepare(search)
    try:
        _inject_all(fault, search, wanted.epochs, times, random, row)
        row.problems += [] if row.injected else ["it ended before anything was injected"]
        row.problems += _go_on_to_the_end(fault, search, times)
        fault.settle(search)
        row.problems += judge(search, wanted, row)
    except Exception as error:  # whatever it is: it was not survived, and the other kinds have their turn
        row.problems.append(f"{type(error).__name__}: {error}")
    finally:
        search.end()
        fault.end(search)
    return _filled(row, search, time.monotonic() - started)


def _filled(row: Row, search: SearchUnderFault, seconds: float) -> Row:
    return replace(
        row,
        resumes=search.resumes,
        ends=search.ends,
        problems=row.problems + search.crashes,
        epochs_finished=search.lost.finished,
        epochs_in_flight=search.lost.in_flight,
        seconds=seconds,
    )


def _inject_all(
    fault: Fault, search: SearchUnderFault, epochs: int, times: int, random: Random, row: Row
) -> None:
    for number in range(times):
        if number == 0 or not search.alive:
            _start(fault, search)
        share = (number + random.random()) / times * 0.9
        if not fault.await_moment(search, share, epochs, random):
            if search.process.returncode == 0:
                return  # it came to its end before the next moment
            continue
        row.injected += 1
        row.problems += fault.inject(search, random)
        fault.undo(search, random)
        _count_lost(search)


def _start(fault: Fault, search: SearchUnderFault) -> None:
    search.start()
    fault.started(search)


def _count_lost(search: SearchUnderFault) -> None:
    """After the end of a process, once its workers are dead too."""
    if search.alive:
        return
    psutil.wait_procs(search.workers(), timeout=30)
    search.count_lost()


def _go_on_to_the_end(fault: Fault, search: SearchUnderFault, times: int) -> list[str]:
    """Resume until the search says that it has ended and MLflow has everything."""
    while True:
        code, output = search.wait()
        if code == 0 and _UNDELIVERED not in output:
            return []
        if search.starts > times + _MOST_STARTS:
            return [f"start {search.starts} ended with code {code}: {output[-1000:]}"]
        _start(fault, search)


def judge(search: SearchUnderFault, wanted: Undisturbed, row: Row) -> list[str]:
    """What is wrong with a search that has ended."""
    problems = list(broken_invariants(search.paths))
    if search.plan.at_once == 1:
        problems += differences(wanted.facts, facts_of(search.paths))
    problems += [*files_left(search.paths), *running_runs(search.paths)]
    left, row.last_process_seconds = processes_left(search)
    return problems + left


def markdown(rows: Sequence[Row]) -> str:
    """The table, and below it what went wrong."""
    lines = [
        "| fault | trials at once | injected | resumes | survived | epochs repeated: finished | in flight "
        "| last process gone after | seconds |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        if row.skipped is not None:
            lines.append(f"| {row.fault} | {row.at_once} | skipped: {row.skipped} | | | | | | |")
            continue
        lines.append(
            f"| {row.fault} | {row.at_once} | {row.injected} | {row.resumes} "
            f"| {'yes' if row.survived else 'NO'} | {row.epochs_finished} | {row.epochs_in_flight} "
            f"| {row.last_process_seconds:.0f} s | {row.seconds:.0f} |"
        )
    problems = [
        f"- {row.fault}, {row.at_once} at once: {problem}" for row in rows for problem in row.problems
    ]
    return "\n".join([*lines, *([""] if problems else []), *problems])
