"""The Dockerfile, by Docker's own parser."""

from __future__ import annotations

import pytest

from tests.cluster.files import CLUSTER, ROOT

dockerfile = pytest.importorskip("dockerfile", reason="needs the package dockerfile")
COMMANDS = dockerfile.parse_file(str(CLUSTER / "Dockerfile"))
KNOWN = {"from", "run", "copy", "user", "workdir", "env"}


def test_docker_can_read_it() -> None:
    assert COMMANDS[0].cmd.lower() == "from"
    assert {command.cmd.lower() for command in COMMANDS} <= KNOWN


def test_everything_that_it_copies_is_in_the_checkout() -> None:
    copied = [
        source for command in COMMANDS if command.cmd.lower() == "copy" for source in command.value[:-1]
    ]
    assert copied
    assert [source for source in copied if not (ROOT / source).exists()] == []


def test_everything_that_is_installed_was_copied_before() -> None:
    lines = [(command.cmd.lower(), " ".join(command.value)) for command in COMMANDS]
    install = next(i for i, (_, text) in enumerate(lines) if "--no-deps /tunekit" in text)
    before = " ".join(text for kind, text in lines[:install] if kind == "copy")
    for needed in ("pyproject.toml", "README.md", "search_spaces", "tunekit /tunekit/tunekit"):
        assert needed in before


def test_packages_are_pinned_by_hash_and_nothing_runs_as_root() -> None:
    installs = [line for c in COMMANDS if c.cmd.lower() == "run" for line in c.value if "pip install" in line]
    assert all("--require-hashes" in line or "--no-deps /tunekit" in line for line in installs)
    assert [command.value for command in COMMANDS if command.cmd.lower() == "user"] == [("tunekit",)]
    assert "user" in [command.cmd.lower() for command in COMMANDS][-3:]
