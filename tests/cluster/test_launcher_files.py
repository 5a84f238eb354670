"""`aws.yaml` and `gcp.yaml`, as Ray's launcher reads them up to where it would call the cloud."""

from __future__ import annotations

import copy
import itertools
import json
import os
import re
import stat
import subprocess
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import ray
from ray.autoscaler._private.updater import NodeUpdater
from ray.autoscaler._private.util import hash_runtime_conf, prepare_config, validate_config

from tests.cluster.files import CLUSTER, ROOT, documents

both = pytest.mark.parametrize("name", ["aws.yaml", "gcp.yaml"])


def launcher_file(name: str) -> dict[str, Any]:
    (config,) = documents(name)
    return config


def fstab_line(setup: list[str]) -> str:
    """The line that the setup commands add to /etc/fstab."""
    (command,) = [command for command in setup if "tee -a /etc/fstab" in command]
    (line,) = re.findall(r"echo '([^']+)'", command)
    return str(line)


@both
def test_it_fits_the_schema_that_ray_ships(name: str) -> None:
    schema = json.loads((Path(ray.__file__).parent / "autoscaler" / "ray-schema.json").read_text())
    jsonschema.validate(launcher_file(name), schema)
    with pytest.raises(jsonschema.ValidationError, match="max_wokers"):
        jsonschema.validate({**launcher_file(name), "max_wokers": 1}, schema)


@both
def test_the_launcher_takes_it(name: str) -> None:
    config = prepare_config(copy.deepcopy(launcher_file(name)))
    validate_config(config)
    assert config["max_workers"] == config["available_node_types"]["gpu-worker"]["max_workers"]
    assert config["docker"] == {}


@both
def test_workers_start_at_none_and_none_of_them_is_the_head(name: str) -> None:
    nodes = launcher_file(name)["available_node_types"]
    assert nodes["gpu-worker"]["min_workers"] == 0
    assert nodes["head"]["resources"] == {"CPU": 0}
    assert "spot" in json.dumps(nodes["gpu-worker"]["node_config"]).lower()
    assert "spot" not in json.dumps(nodes["head"]["node_config"]).lower()


@both
def test_every_ray_start_has_the_token_and_the_dashboard_stays_at_home(name: str) -> None:
    config = launcher_file(name)
    commands = config["head_start_ray_commands"] + config["worker_start_ray_commands"]
    starts = [command for command in commands if "ray start" in command]
    assert len(starts) == 2
    assert all("RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH=$HOME/.tunekit/ray-token" in line for line in starts)
    assert "--dashboard-host=127.0.0.1" in starts[0]
    assert "0.0.0.0" not in (CLUSTER / name).read_text()


@both
def test_every_command_is_one_that_bash_can_read(name: str) -> None:
    lists = [value for key, value in launcher_file(name).items() if key.endswith("_commands")]
    for command in itertools.chain(*lists):
        subprocess.run(["bash", "-n", "-c", command], check=True)


@both
def test_what_must_be_filled_in_is_announced_at_the_top(name: str) -> None:
    lines = (CLUSTER / name).read_text().splitlines()
    assert "FILL-IN" in lines[1]
    values = [line for line in lines[2:] if "FILL-IN" in line.partition("# ")[0]]
    assert len(values) == (2 if name == "aws.yaml" else 3)


@both
def test_every_node_mounts_one_share_before_anything_uses_it(name: str) -> None:
    setup = launcher_file(name)["setup_commands"]
    line = fstab_line(setup)
    _, where, kind, options, *_ = line.split()
    assert where == "/shared"
    assert kind.startswith("nfs")
    assert {"hard", "_netdev"} <= set(options.split(",")), "a share that is away for a while is waited for"
    steps = [
        next(i for i, command in enumerate(setup) if word in command)
        for word in ("nfs-common", line, "sudo mount /shared", "/shared/results", ".bashrc")
    ]
    assert steps == sorted(steps)


@both
def test_what_the_head_starts_writes_below_the_share_where_folders_were_made(
    name: str, tmp_path: Path
) -> None:
    config = launcher_file(name)
    (tmp_path / ".bashrc").write_text("# of the image\n")
    (export,) = [command for command in config["setup_commands"] if ".bashrc" in command]
    for _ in range(2):  # `ray up` may come again
        subprocess.run(["bash", "-c", export], env={"HOME": str(tmp_path), "PATH": os.defpath}, check=True)
    assert (tmp_path / ".bashrc").read_text().count("export") == 1
    told = subprocess.run(
        ["bash", "-c", 'source ~/.bashrc; echo "$TUNEKIT_RESULTS_DIR $TUNEKIT_DATA_DIR"'],
        env={"HOME": str(tmp_path), "PATH": os.defpath},
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    (made,) = [command for command in config["setup_commands"] if "install -d" in command]
    assert told == ["/shared/results", "/shared/data"]
    assert set(told) <= set(made.split())
    (mlflow,) = [command for command in config["head_start_ray_commands"] if "mlflow-server.sh" in command]
    (artifacts,) = re.findall(r"--artifacts (\S+)", mlflow)
    assert str(Path(artifacts).parent) in made.split()


@both
def test_the_share_lies_where_the_nodes_are(name: str) -> None:
    config = launcher_file(name)
    if name == "aws.yaml":
        assert f".efs.{config['provider']['region']}." in fstab_line(config["setup_commands"])
    else:
        assert f"--zone={config['provider']['availability_zone']} " in (CLUSTER / "README.md").read_text()


@both
def test_what_it_copies_is_there_and_enough_to_install(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The launcher's own step, with `cp` for `rsync`."""
    token = tmp_path / "home" / ".tunekit" / "ray-token"
    token.parent.mkdir(parents=True)
    token.write_text("secret")
    token.chmod(0o600)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(ROOT)
    mounts = launcher_file(name)["file_mounts"]
    hash_runtime_conf(mounts, None, {})  # what `ray up` does first: it reads every file
    node = tmp_path / "node"
    _synced(mounts, node)
    assert stat.S_IMODE((node / ".tunekit/ray-token").stat().st_mode) == 0o600
    copied = {path.name for path in (node / "tunekit").iterdir()}
    assert copied == {
        *("pyproject.toml", "README.md", "requirements.lock", "tunekit", "search_spaces", "cluster")
    }
    for path in re.findall(r"~/(tunekit/\S+?)(?= |$)", " ".join(launcher_file(name)["setup_commands"])):
        assert (node / path).exists(), path


def _synced(mounts: dict[str, str], node: Path) -> None:
    """Run the launcher's copying with `cp`, and `node` as the home of the machine."""

    class Commands:
        def run(self, command: str, run_env: str) -> None:
            subprocess.run(["bash", "-c", command], check=True, env={**os.environ, "HOME": str(node)})

    def copy_to_node(source: str, target: str, docker_mount_if_possible: bool) -> None:
        to = target.replace("~", str(node))
        subprocess.run(["cp", "-a", f"{source}." if source.endswith("/") else source, to], check=True)

    node.mkdir()
    updater = NodeUpdater.__new__(NodeUpdater)
    updater.file_mounts = {remote: str(Path(local).expanduser()) for remote, local in mounts.items()}
    updater.cluster_synced_files, updater.docker_config, updater.log_prefix = [], {}, ""
    updater.cmd_runner = Commands()
    updater.sync_file_mounts(copy_to_node)


def test_both_clouds_install_and_start_alike() -> None:
    """What differs between them is what their clouds call things."""
    aws, gcp = launcher_file("aws.yaml"), launcher_file("gcp.yaml")
    for config in (aws, gcp):
        for key in ("provider", "available_node_types"):
            config.pop(key)
    told = json.dumps(aws).replace(fstab_line(aws["setup_commands"]), fstab_line(gcp["setup_commands"]))
    assert told == json.dumps(gcp)
