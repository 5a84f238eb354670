"""An empty folder to make mistakes in, watched for changes."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.bad_input.refusal import Refusal
from tunekit.data.pack import Pack


@pytest.fixture
def refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, digits: Pack) -> Refusal:
    """Commands run in `tmp_path`, with digits packed elsewhere; both are watched, and Ray must not start."""
    import tunekit.tuning  # noqa: F401 - before Ray, whose environment it sets

    def start_ray(*_: object, **__: object) -> None:
        raise AssertionError("a mistake was found only after Ray began to start")

    monkeypatch.setattr("ray.init", start_ray)
    monkeypatch.chdir(tmp_path)
    data_dir = digits.folder.parent.parent
    monkeypatch.setenv("TUNEKIT_DATA_DIR", str(data_dir))
    return Refusal(tmp_path, data_dir)
