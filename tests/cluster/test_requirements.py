"""What a cluster needs on top of `requirements.lock`."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

from tests.cluster.files import CLUSTER, ROOT

_PIN = re.compile(r"^([a-z0-9-]+)==(\S+)( ;.*)? \\$", re.MULTILINE)
_NAME = re.compile(r"^[A-Za-z0-9._-]+(\[[a-z,]+\])?")


def pinned(file: Path) -> set[str]:
    return {name for name, _, _ in _PIN.findall(file.read_text())}


def names(lines: list[str]) -> set[str]:
    found = [_NAME.match(line) for line in lines]
    return {match.group() for match in found if match}


def test_no_package_is_pinned_twice() -> None:
    """pip refuses two files that name one package."""
    assert not pinned(ROOT / "requirements.lock") & pinned(CLUSTER / "requirements.lock")


def test_every_pin_has_hashes_and_no_address() -> None:
    text = (CLUSTER / "requirements.lock").read_text()
    assert "://" not in text
    for block in re.split(r"\n(?=[a-z])", text.strip()):
        assert "--hash=sha256:" in block, block


def test_all_that_is_asked_for_is_pinned() -> None:
    wanted = names((CLUSTER / "requirements.in").read_text().splitlines())
    plain = {name.partition("[")[0].lower() for name in wanted}
    assert plain <= pinned(CLUSTER / "requirements.lock") | pinned(ROOT / "requirements.lock")


def test_the_extra_for_clusters_asks_for_nothing_else() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert names(extras["cluster"]) <= names((CLUSTER / "requirements.in").read_text().splitlines())
