"""Every `tunekit ...` that stands in `cluster/` is one that tunekit's own command line takes."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from tests.cluster.files import CLUSTER, documents
from tunekit.cli import main

_CALL = re.compile(r"(?:^|[\s\"'(])tunekit ((?:[a-z][a-z-]*)(?: .*)?)$")
_OF_A_JOB = re.compile(r"(?:slurm\.sbatch|search-or-resume\.sh) ([a-z0-9-]+) ([a-z0-9-]+ --.*)$")


def lines(file: Path) -> Iterator[str]:
    """The lines of a file that are commands: no prose, nothing behind them, continued ones as one."""
    for line in file.read_text().replace("\\\n", " ").splitlines():
        command = re.split(r"\s{2,}# ", line.removeprefix("#   "))[0].strip()
        if file.suffix == ".md" and not line.startswith("    "):
            yield from re.findall(r"`(tunekit [^`]*)`", line)
        elif not command.startswith("#"):
            yield command


def calls(file: Path) -> Iterator[str]:
    """What stands behind `tunekit`, as somebody would type it."""
    for line in lines(file):
        if found := _OF_A_JOB.search(line):
            yield f"search {found.group(2)} --name {found.group(1)}"
        elif (found := _CALL.search(line)) and "NAME DATASET" not in line:
            call = found.group(1).replace('"$@"', "digits --space resnet").replace('"$name"', "NAME")
            yield call


FILES = [file for file in sorted(CLUSTER.iterdir()) if file.suffix in (".md", ".sh", ".sbatch", ".yaml")]
CALLS = sorted({(file.name, call) for file in FILES for call in calls(file)})


def parse(words: list[str]) -> None:
    """As click would, but without running anything; a command's name alone need only exist.

    Raises:
        click.UsageError: if there is no such command or option, or a value is wrong.
    """
    group: click.Group = main
    context = click.Context(main, info_name="tunekit")
    while True:
        name, command, rest = group.resolve_command(context, words)
        assert command is not None
        if not isinstance(command, click.Group) or not rest:
            break
        group, words = command, rest
    if rest:
        command.make_context(name, rest, parent=context)


@pytest.mark.parametrize(("file", "call"), CALLS)
def test_tunekit_takes_it(file: str, call: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    parse(shlex.split(call))


def test_calls_are_found_where_they_stand() -> None:
    """The search for them misses none of those that are known."""
    found = {(file, call.split()[0]) for file, call in CALLS}
    assert found >= {
        ("README.md", "attach"),
        ("README.md", "datasets"),
        ("README.md", "extend"),
        ("README.md", "fetch"),
        ("README.md", "search"),
        ("README.md", "status"),
        ("README.md", "stop"),
        ("README.md", "ui"),
        ("kuberay.yaml", "search"),
        ("local-two-nodes.sh", "search"),
        ("search-or-resume.sh", "resume"),
        ("search-or-resume.sh", "search"),
        ("slurm.sbatch", "search"),
    }
    of_readme = [call for file, call in CALLS if file == "README.md"]
    assert any("--name cifar10-deep --address http://" in " ".join(call.split()) for call in of_readme)


def test_a_wrong_option_is_found() -> None:
    with pytest.raises(click.UsageError):
        parse(["search", "digits", "--space", "resnet", "--no-such-option"])


def test_jobs_on_nodes_that_come_late_name_their_gpus() -> None:
    entrypoints = [d["spec"]["entrypoint"] for d in documents("kuberay.yaml") if d["kind"] == "RayJob"]
    assert all("--gpus-per-trial" in entrypoint for entrypoint in entrypoints)
