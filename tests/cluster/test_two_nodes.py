"""`local-two-nodes.sh`: two real Ray nodes that end with the command."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cluster.files import CLUSTER, processes_with, program, wait_until

# Joins as tunekit would, runs a task on each node at the same time, and says what it saw.
_PROGRAM = """
import os, sys
import ray
ray.init(os.environ["RAY_ADDRESS"], log_to_driver=False, configure_logging=False)
nodes = [node for node in ray.nodes() if node["Alive"]]
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

@ray.remote(num_cpus=1)
def where():
    return ray.get_runtime_context().get_node_id()

strategies = [NodeAffinitySchedulingStrategy(node["NodeID"], soft=False) for node in nodes]
places = ray.get([where.options(scheduling_strategy=strategy).remote() for strategy in strategies])
print("nodes", len(nodes), "ran on", len(set(places)))
print("token", oct(os.stat(os.environ["RAY_AUTH_TOKEN_PATH"]).st_mode & 0o777), os.environ["RAY_AUTH_MODE"])
print("folder", os.path.dirname(os.environ["RAY_AUTH_TOKEN_PATH"]), flush=True)
sys.exit(7)
"""


# As `ray start --block`: it comes up, and ends on SIGTERM.
_RAY = r"""
echo "ray $*" >> "$STAND_IN_LOG"
trap 'echo "ray ends: $*" >> "$STAND_IN_LOG"; exit 0' TERM
echo "Ray runtime started."
while :; do sleep 0.05; done
"""
_COMMAND = r"""
trap 'echo interrupted; exit 130' INT
echo "folder $(dirname "$RAY_AUTH_TOKEN_PATH")"
while :; do sleep 0.05; done
"""


def start(*command: str, **variables: str) -> subprocess.Popen[str]:
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    return subprocess.Popen(
        [CLUSTER / "local-two-nodes.sh", *command],
        env={**os.environ, "PATH": path, **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        # A shell cannot trap Ctrl-C if it begins with it ignored, as all that runs in the background does.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def left_of(output: str) -> str:
    """What is left of the nodes; their folder stands in the environment of all that they started."""
    (folder,) = re.findall(r"^folder (/tmp/tunekit-nodes\.\w+)$", output, re.MULTILINE)
    wait_until(lambda: not processes_with(folder))
    return folder if Path(folder).exists() else ""


@pytest.fixture
def stand_in(tmp_path: Path) -> dict[str, str]:
    """Variables with which `ray` is a stand-in."""
    program(tmp_path / "bin", "ray", _RAY)
    path = f"{tmp_path}/bin:{Path(sys.executable).parent}:{os.environ['PATH']}"
    return {"PATH": path, "STAND_IN_LOG": str(tmp_path / "log")}


def test_ctrl_c_reaches_the_command_once_and_then_the_nodes_end(
    stand_in: dict[str, str], tmp_path: Path
) -> None:
    with start("bash", "-c", _COMMAND, **stand_in) as nodes:
        assert nodes.stdout is not None
        output = nodes.stdout.readline()
        os.killpg(nodes.pid, signal.SIGINT)  # what a terminal does
        rest, _ = nodes.communicate(timeout=30)
    assert nodes.returncode == 130, output + rest
    assert rest == "interrupted\n"
    head, second, *ends = (tmp_path / "log").read_text().splitlines()
    assert "--head" in head
    assert "--address=127.0.0.1:" in second
    assert [f"ray ends: {line.removeprefix('ray ')}" for line in (second, head)] == ends
    assert left_of(output) == ""


def test_a_node_that_does_not_start_is_said_with_what_ray_said(
    stand_in: dict[str, str], tmp_path: Path
) -> None:
    program(tmp_path / "bin", "ray", 'echo "no room"; exit 1')
    with start("touch", str(tmp_path / "began"), **stand_in) as nodes:
        output, _ = nodes.communicate(timeout=30)
    assert nodes.returncode == 1
    assert "a node does not start:\nno room" in output
    assert not (tmp_path / "began").exists()


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.extended
def test_a_program_runs_on_both_and_nothing_is_left(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(_PROGRAM)
    with start(sys.executable, str(tmp_path / "program.py")) as nodes:
        output, _ = nodes.communicate(timeout=200)
    assert nodes.returncode == 7, output
    assert "nodes 2 ran on 2" in output
    assert "token 0o600 token" in output
    assert left_of(output) == ""
    assert processes_with(str(tmp_path)) == []
