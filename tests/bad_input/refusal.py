"""What every refusal of bad input has in common: one clear line, an exit code, and nothing changed."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path

from click.testing import CliRunner

from tunekit import cli

MISTAKE, USAGE = 1, 2  # exit codes: tunekit found it, or click did

_LONGEST_LINE = 700  # characters; the working folder's path is part of many
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")


class Refusal:
    """Runs commands that must be refused, and watches folders meanwhile."""

    def __init__(self, *watched: Path) -> None:
        self._watched = watched

    def __call__(self, arguments: Sequence[str], words: str | Sequence[str], code: int = MISTAKE) -> str:
        """The line that says what is wrong, which holds all of `words`.

        An empty lock file is no change. It is taken before anything is read, because what is read may be
        written by the process that holds it, and it stays, because another process may wait for it.
        """
        before = [contents(folder) for folder in self._watched]
        result = CliRunner().invoke(cli.main, list(arguments), color=True)  # as on a terminal
        assert (result.exit_code, type(result.exception)) == (code, SystemExit), (
            result.output,
            repr(result.exception),
        )
        errors = [line for line in result.stderr.splitlines() if line.startswith("Error: ")]
        assert len(errors) == 1, result.output
        for word in [words] if isinstance(words, str) else words:
            assert word in errors[0], errors[0]
        assert "Traceback" not in result.output
        assert not _UNPRINTABLE.search(result.output.replace("\n", "")), repr(result.output)
        assert len(errors[0]) <= _LONGEST_LINE, errors[0]
        assert [contents(folder) for folder in self._watched] == before
        return errors[0]


def contents(folder: Path) -> dict[str, str]:
    """Everything below a folder by name: what kind of thing it is, its size and its SHA-256."""
    return {
        str(path.relative_to(folder)): _content(path)
        for path in sorted(folder.rglob("*"))
        if not (re.fullmatch(r"\..*lock", path.name) and path.lstat().st_size == 0)
    }


def _content(path: Path) -> str:
    if path.is_symlink():
        return f"link to {path.readlink()}"
    if not path.is_file():
        return "folder"
    content = path.read_bytes()
    return f"{len(content)} bytes, {hashlib.sha256(content).hexdigest()}"
