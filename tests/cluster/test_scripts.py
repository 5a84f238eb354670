"""The scripts of `cluster/`: well-formed, and clear about how they are used."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from tests.cluster.files import CLUSTER, SCRIPTS, has, program, script

every_script = pytest.mark.parametrize("file", SCRIPTS, ids=lambda file: file.name)


@every_script
def test_bash_can_read_it(file: Path) -> None:
    subprocess.run(["bash", "-n", file], check=True)


@every_script
@pytest.mark.skipif(not has("shellcheck"), reason="there is no shellcheck here")
def test_shellcheck_finds_nothing(file: Path) -> None:
    found = subprocess.run(["shellcheck", file], capture_output=True, text=True)
    assert found.returncode == 0, found.stdout


@every_script
def test_no_script_ends_the_ray_of_others(file: Path) -> None:
    code = [line.partition(" #")[0] for line in file.read_text().splitlines() if line[:1] != "#"]
    assert not [line for line in code if "ray stop" in line and not line.lstrip().startswith("#")]


@pytest.mark.parametrize("name", ["local-two-nodes.sh", "mlflow-server.sh", "search-or-resume.sh"])
def test_without_arguments_it_says_how_it_is_used(name: str) -> None:
    told = script(name)
    assert told.returncode == 2
    assert f"cluster/{name} " in told.stderr
    assert "set -e" not in told.stderr


def test_artifacts_go_to_a_folder_alone(tmp_path: Path) -> None:
    told = script("mlflow-server.sh", str(tmp_path), "--artifacts", "s3://bucket/path")
    assert told.returncode == 1
    assert "--artifacts takes an absolute path, but got s3://bucket/path" in told.stderr


def test_no_file_of_a_cluster_leads_to_an_object_store() -> None:
    """They mount a folder that all nodes share; README says what to do without one."""
    for file in CLUSTER.iterdir():
        text = "" if file.name == "README.md" else file.read_text()
        assert not [word for word in ("s3://", "gs://", "--storage", "bucket", "BUCKET") if word in text], (
            file
        )


@pytest.fixture
def search_or_resume(tmp_path: Path) -> dict[str, str]:
    """An environment in which `tunekit` says what it was asked for."""
    program(tmp_path / "bin", "tunekit", 'printf "%s\\n" "$@"')
    return {"PATH": f"{tmp_path}/bin:{os.environ['PATH']}", "TUNEKIT_RESULTS_DIR": str(tmp_path / "results")}


def test_a_search_that_is_not_there_begins(search_or_resume: dict[str, str]) -> None:
    done = script("search-or-resume.sh", "mine", "digits", "--set", "a=b c", **search_or_resume)
    assert done.stdout.splitlines() == ["search", "digits", "--set", "a=b c", "--name", "mine"]


def test_a_search_that_is_there_goes_on(search_or_resume: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "results" / "mine").mkdir(parents=True)
    (tmp_path / "results" / "mine" / "search.json").touch()
    done = script("search-or-resume.sh", "mine", "digits", "--samples", "8", **search_or_resume)
    assert done.stdout.splitlines() == ["resume", "mine"]


def test_without_a_results_folder_nothing_begins(search_or_resume: dict[str, str]) -> None:
    search_or_resume["TUNEKIT_RESULTS_DIR"] = ""
    done = script("search-or-resume.sh", "mine", "digits", **search_or_resume)
    assert done.returncode != 0
    assert done.stdout == ""
    assert "TUNEKIT_RESULTS_DIR: names the folder that all nodes share" in done.stderr


@pytest.mark.parametrize("file", sorted(CLUSTER.iterdir()), ids=lambda file: file.name)
def test_no_file_names_a_registry_or_holds_a_secret(file: Path) -> None:
    text = file.read_text()
    images = re.findall(r"(?:image:|FROM) *\"?([^\s\"]+)", text)
    assert not [image for image in images if "." in image.partition("/")[0] and "/" in image]
    for word in ("--index-url", "--registry", "AKIA"):
        assert word not in text
