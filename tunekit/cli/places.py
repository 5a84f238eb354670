"""Names and folders as a command means them when they are not given."""

from __future__ import annotations

import re
import time
from pathlib import Path


def default_name(dataset: str, space: str) -> str:
    words = [Path(dataset).name, Path(space).stem, time.strftime("%Y%m%d-%H%M%S")]
    return re.sub(r"[^A-Za-z0-9._-]+", "-", "-".join(filter(None, words))).lstrip("-._")[:100]


def absolute_if_folder(name: str) -> str:
    """Paths are recorded whole, so that a resume from another folder finds them; names stay names."""
    path = Path(name)
    is_path = bool(name) and path.exists() and ("/" in name or path.suffix == ".toml" or path.is_dir())
    return str(path.resolve()) if is_path else name


def data_folder(data_dir: Path | None) -> Path:
    from tunekit.paths import default_data_dir

    return (data_dir or default_data_dir()).resolve()


def results_flag(results_dir: Path) -> str:
    return "" if results_dir == Path("results").resolve() else f" --results-dir {results_dir}"
