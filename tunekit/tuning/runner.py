"""Who runs a search now, for those who look at it from another process or machine."""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field

from filelock import FileLock, Timeout

from tunekit.paths import SearchPaths, atomic_write


@dataclass(frozen=True)
class Runner:
    """The process that runs a search."""

    host: str = field(default_factory=socket.gethostname)
    pid: int = field(default_factory=os.getpid)
    since: float = field(default_factory=time.time)  # seconds since 1970


@contextmanager
def announced(paths: SearchPaths) -> Iterator[None]:
    """Inside the block this process is known as the one that runs the search; it must hold the lock."""
    with atomic_write(paths.runner) as temporary:
        temporary.write_text(json.dumps(asdict(Runner())) + "\n", encoding="utf-8")
    try:
        yield
    finally:
        paths.runner.unlink(missing_ok=True)


def is_held(paths: SearchPaths) -> bool:
    """Whether a process works on the search: runs it, or retrains its best recipes."""
    try:
        FileLock(paths.lock, timeout=0).acquire().lock.release()
    except Timeout:
        return True
    except OSError:  # a folder that only can be read: nobody runs a search there
        return False
    return False


def runner_of(paths: SearchPaths) -> Runner | None:
    """Who runs the search, as it said itself; None if nobody does, whatever a killed process left behind."""
    if not is_held(paths):
        return None
    try:
        fields = json.loads(paths.runner.read_text(encoding="utf-8"))
        return Runner(str(fields["host"]), int(fields["pid"]), float(fields["since"]))
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
