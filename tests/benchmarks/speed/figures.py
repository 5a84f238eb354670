"""Figures with their conditions, as they are printed and written."""

from __future__ import annotations

import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path

from tunekit.paths import atomic_write

_PACKAGES = ("torch", "ray", "optuna", "mlflow", "torchvision")
_IDLE = 0.7  # load average, in processes, above which a machine is not idle


@dataclass(frozen=True)
class Figure:
    """One thing that was measured n times."""

    what: str
    unit: str
    values: list[float]  # each of n runs

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    def words(self) -> str:
        """`12.3 s (11.9 to 13.0, n = 3)`."""
        spread = f"{number(min(self.values))} to {number(max(self.values))}, " if len(self.values) > 1 else ""
        return f"{number(self.median)} {self.unit} ({spread}n = {len(self.values)})"


@dataclass(frozen=True)
class Ratio:
    """Two figures side by side, and what the quotient of their medians should be at least."""

    what: str
    value: float
    wanted: float | None = None

    def words(self) -> str:
        """`0.83x (wanted: 0.7x)`."""
        wanted = f" (wanted: {self.wanted:g}x)" if self.wanted is not None else ""
        return f"{self.value:.2f}x{wanted}"


@dataclass
class Part:
    """What one part of the benchmark measured."""

    name: str
    conditions: str  # data, model, how
    figures: list[Figure] = field(default_factory=list)
    ratios: list[Ratio] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    load_before: float = field(default_factory=lambda: os.getloadavg()[0])

    def add(self, what: str, unit: str, values: Sequence[float]) -> Figure:
        """Keep a figure and print it."""
        figure = Figure(what, unit, list(values))
        self.figures.append(figure)
        print(f"  {what:64} {figure.words()}", flush=True)
        return figure

    def compare(self, what: str, value: float, wanted: float | None = None) -> None:
        """Keep a ratio and print it."""
        self.ratios.append(Ratio(what, value, wanted))
        print(f"  {what:64} {self.ratios[-1].words()}", flush=True)

    def markdown(self) -> str:
        """A heading, the conditions, a table."""
        lines = [f"### {self.name}", "", self.conditions, "", "| what | figure |", "|---|---|"]
        lines += [f"| {figure.what} | {figure.words()} |" for figure in self.figures]
        lines += [f"| **{ratio.what}** | **{ratio.words()}** |" for ratio in self.ratios]
        return "\n".join([*lines, *(f"\n{note}" for note in self.notes)])


def number(value: float) -> str:
    """Three digits that say something."""
    if value == 0 or abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def machine() -> dict[str, str]:
    """Hardware and versions."""
    model = next(
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    )
    versions = {package: version(package) for package in _PACKAGES}
    return {"cpu": model, "cores": str(os.cpu_count()), "python": platform.python_version(), **versions}


def wait_until_idle(patience: float = 120.0) -> bool:
    """Wait for what ran before to be over; whether the machine is idle then."""
    deadline = time.monotonic() + patience
    while os.getloadavg()[0] > _IDLE and time.monotonic() < deadline:
        time.sleep(5)
    return os.getloadavg()[0] <= _IDLE


def timed(work: Callable[[], object]) -> float:
    """Seconds of one call."""
    clock = time.perf_counter()
    work()
    return time.perf_counter() - clock


def write(part: Part, folder: Path) -> None:
    """Keep a part's figures as JSON, with the machine they were taken on."""
    record = {"machine": machine(), "date": time.strftime("%Y-%m-%d"), **asdict(part)}
    with atomic_write(folder / f"{part.name.lower().replace(' ', '-')}.json") as temporary:
        temporary.write_text(json.dumps(record, indent=1) + "\n")
