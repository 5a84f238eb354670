"""Processes, files, locks and runs that nobody may leave behind."""

from __future__ import annotations

import re
from collections.abc import Iterator

from filelock import FileLock, Timeout

from tests.chaos.search_under_fault import SearchUnderFault
from tests.chaos.verdict import runs_of
from tests.driver import words
from tunekit.history import History
from tunekit.paths import SearchPaths
from tunekit.tracking.client import open_client
from tunekit.tuning.settings import SearchSettings

_HALF_FILE = re.compile(r"\..+\.[0-9a-f]{32}")


def processes_left(search: SearchUnderFault) -> tuple[list[str], float]:
    """Wait for the end of every process of a search that has ended.

    Returns:
        What is left after 90 s, and how many seconds the last one lived on.
    """
    search.expect_end_of(search.family())
    for ending in search.endings:
        ending.wait()
    left = [process for ending in search.endings for process in ending.left]
    words_left = [f"process {process.pid} is left: {words(process)[:100]}" for process in left]
    return words_left, max(ending.seconds for ending in search.endings)


def files_left(paths: SearchPaths) -> Iterator[str]:
    """Half files, states that no trial needs, a lock that is held."""
    results = paths.folder.parent
    half = [file for file in results.rglob(".*") if _HALF_FILE.fullmatch(file.name)]
    yield from (f"half a file is left: {file.relative_to(results)}" for file in half)
    for trial in History.read(paths.history).trials.values():
        if trial.over and paths.trial(trial.id).last.exists():
            yield f"trial {trial.id} is over and has a state to go on from"
    try:
        FileLock(paths.lock, timeout=1).acquire().lock.release()
    except Timeout:
        yield "the lock is held"


def running_runs(paths: SearchPaths) -> Iterator[str]:
    """MLflow runs that look as if somebody still trained them."""
    settings = SearchSettings.load(paths)
    parents, children = runs_of(settings, open_client(settings.tracking_uri))
    for run in (*parents, *children):
        if run.info.status == "RUNNING":
            yield f"MLflow shows {run.info.run_name!r} as RUNNING"
