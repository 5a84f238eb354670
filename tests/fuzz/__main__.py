"""Feed changed files to every reader of foreign bytes: `python -m tests.fuzz --seconds 20`.

A finding is an exception that is no refusal, a hang over 10 s, more than 2 GB of memory, or a crash.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.fuzz.readers import READERS


def main() -> int:
    """Run all readers one after the other; 1 if there was a finding."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=20, help="for each reader")
    parser.add_argument("--reader", action="append", help="only this one; may be given again")
    parser.add_argument("--keep", type=Path, help="a folder for the bytes of each finding")
    options = parser.parse_args()
    found = 0
    print(f"{'reader':22}{'executions':>12}  findings", flush=True)
    for reader in READERS:
        if options.reader and reader.name not in options.reader:
            continue
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            if options.keep:
                folder = options.keep / reader.name.replace(" ", "-")
                folder.mkdir(parents=True)
            executions, findings = run(reader.name, options.seconds, folder)
        found += len(findings)
        print(f"{reader.name:22}{executions:>12,}  {len(findings) or ''}", flush=True)
        for finding in findings:
            print(f"    {finding}", flush=True)
    return 1 if found else 0


def run(name: str, seconds: int, folder: Path) -> tuple[int, list[str]]:
    """One reader in a process of its own: executions, and what was found, in words."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.fuzz.one_reader", name, str(seconds), str(folder)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
    )
    counted = re.search(r"stat::number_of_executed_units:\s*(\d+)", done.stderr)
    file = folder / "findings.jsonl"
    lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
    findings = ["{finding}: {error} ({bytes})".format(**json.loads(line)) for line in lines]
    if done.returncode:
        findings.append(f"ended with code {done.returncode}: {_last_words(done.stderr)}")
    return int(counted[1]) if counted else 0, findings


def _last_words(stderr: str) -> str:
    telling = re.findall(r"(?:ERROR: \w+|Uncaught|AssertionError|Error:).*", stderr)
    return (telling or stderr.splitlines() or ["nothing was said"])[-1][:300]


if __name__ == "__main__":
    sys.exit(main())
