"""`make bench`: every part, or those that are named; figures are printed and kept in results/benchmarks/.

TUNEKIT_TEST_DATA=path/to/data python -m tests.benchmarks.speed
TUNEKIT_TEST_DATA=path/to/data python -m tests.benchmarks.speed core starts --runs 5
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path

from tests.benchmarks.speed import (
    data_path,
    memory,
    recording,
    stacking,
    training_core,
    waiting,
    whole_search,
)
from tests.benchmarks.speed.figures import Part, machine, write

_PARTS: dict[str, Callable[[Path, int], Part]] = {
    "search": lambda data, runs: whole_search.measure(data, whole_search.SHORT, runs),
    "core": training_core.measure,
    "waiting": waiting.measure,
    "memory": lambda data, _runs: memory.measure(data, 1),
    "recording": recording.measure,
    "data": data_path.measure,
    "stacking": stacking.measure,
    "long-search": lambda data, _runs: whole_search.measure(data, whole_search.LONG, 1),
}


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("parts", nargs="*", choices=[*_PARTS, []], help="[default: all]")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("results/benchmarks"))
    arguments = parser.parse_args()
    data = os.environ.get("TUNEKIT_TEST_DATA")
    if data is None:
        sys.exit("TUNEKIT_TEST_DATA must name the folder of MNIST and CIFAR-10")
    print(machine())
    for name in arguments.parts or _PARTS:
        print(name, flush=True)
        part = _PARTS[name](Path(data), arguments.runs)
        write(part, arguments.out)
        print(part.markdown(), flush=True)


if __name__ == "__main__":
    main()
