"""`python -m tests.chaos`: a table of what each kind of fault did to a search; exit code 1 if one was lost.

TUNEKIT_TEST_DATA=path/to/data python -m tests.chaos
python -m tests.chaos --faults "driver killed" SIGTERM --times 5 --seed 3 --json chaos.json
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from random import Random

from tests.chaos.campaign import Row, disturb, kinds, markdown, undisturbed
from tests.chaos.faults import Fault
from tests.chaos.search_under_fault import Plan
from tunekit.paths import atomic_write

_ROW_FIELDS = set(Row.__dataclass_fields__)


def main() -> None:
    """Disturb a search by each kind of fault, print the table as it grows and at the end."""
    arguments = _arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the search under way is ended
    # In the background of a shell Ctrl-C is ignored, and what we start would inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with tempfile.TemporaryDirectory(prefix="chaos-") as temporary:
        folder = (arguments.folder or Path(temporary)).resolve()
        rows = _run(arguments, folder)
    print(markdown(rows))
    sys.exit(any(not row.survived for row in rows))


def _run(arguments: argparse.Namespace, folder: Path) -> list[Row]:
    plan = Plan(seed=arguments.seed)
    _say("The undisturbed search ...")
    wanted = undisturbed(folder / f"undisturbed-{plan.seed}", plan, arguments.data_dir)
    rows = []
    for fault in arguments.faults:
        for at_once in sorted(set(fault.at_once) & set(arguments.at_once or fault.at_once)):
            name = f"{fault.name.replace(' ', '-')}-{at_once}-{arguments.seed}"
            random = Random(f"{arguments.seed} {name}")
            folder_of = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=folder))
            wished = replace(plan, at_once=at_once)
            row = disturb(fault, folder_of, wished, arguments.data_dir, wanted, arguments.times, random)
            _say(markdown([row]).split("\n", 2)[2])
            rows.append(row)
            if arguments.json:
                _record(arguments.json, row)
    return rows


def _record(file: Path, row: Row) -> None:
    """Put a row into the file; those of other faults stay."""
    known = json.loads(file.read_text()) if file.exists() else []
    kept = [other for other in known if (other["fault"], other["at_once"]) != (row.fault, row.at_once)]
    with atomic_write(file) as temporary:
        temporary.write_text(json.dumps([*kept, row.to_json()], indent=1) + "\n")


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__.splitlines()[0])
    parser.add_argument("--faults", nargs="+", metavar="KIND", type=_fault, help="[default: all]")
    parser.add_argument(
        "--at-once", nargs="+", type=int, help="trials at a time [default: what suits the fault]"
    )
    parser.add_argument("--times", type=int, default=3, help="faults in one search [default: 3]")
    parser.add_argument("--seed", type=int, default=0, help="of the search and of the moments [default: 0]")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows there, and keep other rows")
    parser.add_argument(
        "--folder", type=Path, help="keep the searches there; its undisturbed one is used again"
    )
    parser.add_argument(
        "--data-dir",
        type=Path,
        default=os.environ.get("TUNEKIT_TEST_DATA"),
        help="where MNIST lies [default: TUNEKIT_TEST_DATA]",
    )
    arguments = parser.parse_args()
    if arguments.data_dir is None:
        parser.error("no real images: set TUNEKIT_TEST_DATA or give --data-dir")
    arguments.data_dir = arguments.data_dir.resolve()
    arguments.faults = arguments.faults or kinds()
    return arguments


def _fault(name: str) -> Fault:
    for kind in kinds():
        if kind.name == name:
            return kind
    raise argparse.ArgumentTypeError(f"{name!r} is none of {', '.join(repr(kind.name) for kind in kinds())}")


if __name__ == "__main__":
    main()
