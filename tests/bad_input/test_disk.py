"""Disks that are full or read-only, and two searches of one name that begin at once."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from tests.bad_input.refusal import MISTAKE, Refusal
from tests.search_on_disk import lay_down_search
from tests.small_disk import fill
from tunekit import cli

SEARCH = ("search", "digits", "--space", "resnet", "--name", "mine")


def read_only(disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)


@pytest.mark.parametrize("leave", [0, 4096, 8192])
def test_a_search_on_a_full_disk(leave: int, refused: Refusal, disk: Path) -> None:
    (disk / "results").mkdir()
    fill(disk, leave)
    refused([*SEARCH, "--results-dir", "disk/results"], ["disk/results", "No space left on device"])


@pytest.mark.parametrize("leave", [8192, 60_000])
def test_packing_on_a_full_disk(leave: int, refused: Refusal, disk: Path) -> None:
    (disk / "packed").mkdir()
    fill(disk, leave)
    refused(["datasets", "prepare", "digits", "--data-dir", "disk"], ["digits", "No space left on device"])


def test_a_report_on_a_full_disk(refused: Refusal, disk: Path) -> None:
    lay_down_search(disk / "results", "mine")
    fill(disk, 4096)
    refused(["report", "mine", "--results-dir", "disk/results"], "No space left on device")


def test_folders_that_can_only_be_read(refused: Refusal, disk: Path) -> None:
    lay_down_search(disk / "results", "other")
    read_only(disk)
    refused([*SEARCH, "--results-dir", "disk/results"], "cannot be written: choose another --results-dir")
    refused(["datasets", "prepare", "digits", "--data-dir", "disk"], "cannot write to")
    refused(["report", "other", "--results-dir", "disk/results"], "Read-only file system")
    refused(["resume", "other", "--results-dir", "disk/results"], "Read-only file system")


@pytest.mark.parametrize("command", ["searches", "trials", "best", "choices", "compare"])
def test_who_only_looks_needs_no_room(command: str, disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lay_down_search(disk / "results", "mine")
    read_only(disk)
    name = [] if command == "searches" else ["mine"]
    result = CliRunner().invoke(cli.main, [command, *name, "--results-dir", str(disk / "results")])
    assert result.exit_code == 0, result.output


def test_images_may_lie_where_nothing_can_be_written(disk: Path, tmp_path: Path) -> None:
    from PIL import Image

    for name in ("cat", "dog"):
        (disk / name).mkdir()
        for number in range(4):
            Image.new("RGB", (6, 4), (number, 0, 0)).save(disk / name / f"{number}.png")
    read_only(disk)
    arguments = ["datasets", "prepare", str(disk), "--data-dir", str(tmp_path / "data")]
    result = CliRunner().invoke(cli.main, arguments)
    assert result.exit_code == 0, result.output


BEGIN = """
import sys, time
from pathlib import Path
from tunekit.data.datasets import open_dataset
from tunekit.errors import SearchError
from tunekit.tuning.begin import begin_search
from tunekit.tuning.progress import make_view
from tunekit.tuning.settings import SearchSettings

settings = SearchSettings(
    name="mine", dataset="digits", space="resnet", samples=4, epochs=3, seed=int(sys.argv[2]),
    data_dir=sys.argv[1], tracking_uri="sqlite:///" + sys.argv[3] + "/mlflow.db",
)
open_dataset("digits", Path(sys.argv[1]))
print("ready", flush=True)
sys.stdin.readline()
try:
    begin_search(settings, Path(sys.argv[3]), make_view(True))
    print("began")
except SearchError as error:
    print(error)
"""


def test_of_two_searches_of_one_name_one_begins(refused: Refusal, tmp_path: Path) -> None:
    data_dir, results = os.environ["TUNEKIT_DATA_DIR"], tmp_path / "results"
    command = [sys.executable, "-c", BEGIN, data_dir]
    processes = [
        subprocess.Popen(
            [*command, str(seed), results], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for seed in range(3)
    ]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    said = sorted(process.communicate()[0].strip() for process in processes)
    taken = "a search called 'mine' is there already"
    assert said[2] == "began"
    assert all(line.startswith(taken) and "\n" not in line for line in said[:2]), said
    assert [path.name for path in results.iterdir()] == ["mine"]
    assert sorted(path.name for path in (results / "mine").iterdir()) == [
        "resnet.prior.json.gz",
        "search.json",
        "space.toml",
        "split.npz",
    ]
    refused(["search", "digits", "--space", "resnet", "--name", "mine"], taken, MISTAKE)
