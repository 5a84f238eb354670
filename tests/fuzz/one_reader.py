"""One reader under atheris, in a process of its own: `python -m tests.fuzz.one_reader NAME SECONDS FOLDER`.

Writes into FOLDER: `findings.jsonl`, a line for each place that raised what it must not, and the bytes that
made it do so. libFuzzer says the rest on stderr, and ends the process on a hang, a crash or too much memory.
"""

from __future__ import annotations

import importlib
import json
import sys
import traceback
from pathlib import Path
from typing import Any

_HANG = 10  # seconds
_MEMORY = 2048  # MB


def main(name: str, seconds: int, folder: Path) -> None:
    atheris: Any = importlib.import_module("atheris")  # has no types, and is not there for most
    with atheris.instrument_imports(
        include=["tunekit", "json", "tomllib", "zipfile", "pickle", "numpy.lib", "PIL"]
    ):
        from tests.fuzz.readers import READERS, refused

    reader = next(reader for reader in READERS if reader.name == name)
    work, corpus = folder / "work", folder / "corpus"
    work.mkdir()
    corpus.mkdir()
    samples = reader.samples(work)
    for number, sample in enumerate(samples):
        (corpus / str(number)).write_bytes(sample)
        assert refused(reader, work, sample) == reader.by_checksum, f"the valid file {number} is refused"
    seen: set[str] = set()

    def attempt(content: bytes) -> None:
        try:
            refused(reader, work, content)
        except Exception as error:
            place = traceback.extract_tb(error.__traceback__)[-1]
            finding = (
                f"{type(error).__name__} in {place.name}, {Path(place.filename).name} line {place.lineno}"
            )
            if finding not in seen:
                _note(folder, finding, f"{error}"[:200], content, len(seen))
            seen.add(finding)

    longest = 4 * max(map(len, samples))
    limits = (f"-timeout={_HANG}", f"-rss_limit_mb={_MEMORY}", f"-max_len={longest}", "-print_final_stats=1")
    flags = (f"-max_total_time={seconds}", f"-artifact_prefix={folder}/", "-verbosity=0", "-seed=1")
    atheris.Setup([sys.argv[0], *limits, *flags, str(corpus)], attempt)
    atheris.Fuzz()


def _note(folder: Path, finding: str, error: str, content: bytes, number: int) -> None:
    (folder / f"finding-{number}").write_bytes(content)
    with open(folder / "findings.jsonl", "a", encoding="utf-8") as file:
        file.write(json.dumps({"finding": finding, "error": error, "bytes": f"finding-{number}"}) + "\n")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]))
