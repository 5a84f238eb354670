"""What lies in `cluster/`, as the tests read it."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import yaml

ROOT = Path(__file__).parent.parent.parent
CLUSTER = ROOT / "cluster"
SCRIPTS = sorted([*CLUSTER.glob("*.sh"), *CLUSTER.glob("*.sbatch")])


def documents(name: str) -> list[dict[str, Any]]:
    """The documents of a YAML file of `cluster/`."""
    return list(yaml.safe_load_all((CLUSTER / name).read_text()))


def script(name: str, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a script of `cluster/` to its end."""
    return subprocess.run(
        [CLUSTER / name, *arguments],
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        timeout=60,
    )


def program(folder: Path, name: str, body: str) -> None:
    """Put an executable bash script called `name` into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / name
    file.write_text(f"#!/usr/bin/env bash\n{body}\n")
    file.chmod(0o755)


def has(name: str) -> bool:
    """Whether there is such a program."""
    return shutil.which(name) is not None


def wait_until(condition: Callable[[], object], seconds: float = 60.0) -> None:
    """Wait for something that comes soon, or fail."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "did not come"
        time.sleep(0.05)


def processes_with(text: str) -> list[str]:
    """The command lines of living processes that hold `text`, their own arguments or their environment's."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            line = " ".join(process.cmdline())
            if process.status() != psutil.STATUS_ZOMBIE and (
                text in line or text in " ".join(process.environ().values())
            ):
                found.append(line)
    return found
