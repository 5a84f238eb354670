"""`slurm.sbatch` with stand-ins for SLURM's commands; what they start runs on this machine."""

from __future__ import annotations

import re
import shutil
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.files import CLUSTER, processes_with, wait_until
from tests.cluster.slurm_stand_in import Job

# A driver that notes how it was called, writes what a search writes first, and then trains until it is told.
_SEARCH = r"""
echo "tunekit $*" >> "$STAND_IN_LOG"
echo "sees $RAY_ADDRESS $RAY_AUTH_MODE $TUNEKIT_RESULTS_DIR $TUNEKIT_DATA_DIR" >> "$STAND_IN_LOG"
mkdir -p "$TUNEKIT_RESULTS_DIR/mine" && touch "$TUNEKIT_RESULTS_DIR/mine/search.json"
save() { echo "driver got USR1"; sleep 0.3; echo "driver saved"; }
trap 'save >> "$STAND_IN_LOG"; exit 130' USR1
if [ "$1" = search ]; then
  echo "driver trains" >> "$STAND_IN_LOG"
  while :; do sleep 0.05; done
fi
exit "${DRIVER_CODE:-0}"
"""
_WORDS = ("mine", "digits", "--space", "resnet", "--samples", "8")


@pytest.fixture
def job(tmp_path: Path) -> Iterator[Job]:
    job = Job(tmp_path)
    job.ray()
    job.tunekit(_SEARCH)
    yield job
    assert processes_with(str(tmp_path)) == []


def options() -> dict[str, str]:
    """The `#SBATCH` lines that SLURM reads: those before the first command."""
    text = (CLUSTER / "slurm.sbatch").read_text()
    head = text[: text.index("\nset -euo")]
    return dict(re.findall(r"^#SBATCH --([a-z-]+)=?(.*)$", head, re.MULTILINE))


def test_slurm_is_asked_for_a_warning_and_for_another_turn() -> None:
    asked = options()
    assert asked["signal"] == "B:USR1@120"
    assert asked["ntasks-per-node"] == "1"
    assert {"requeue", "no-kill", "exclusive"} <= set(asked)


def test_a_head_then_the_others_then_the_search(job: Job) -> None:
    with job.submit(*_WORDS) as batch:
        job.when_said("driver trains")
        batch.send_signal(signal.SIGUSR1)
        batch.communicate(timeout=60)
    steps = [line for line in job.said if line.startswith("srun")]
    assert ["--nodes=1 " in steps[0], "--nodelist=node1 " in steps[0], "--head" in steps[0]] == [True] * 3
    assert ["--nodes=2 " in steps[1], "--nodelist=node2,node3 " in steps[1]] == [True] * 2
    assert all("--block" in step and "--no-kill" in step for step in steps)
    starts = [line for line in job.said if line.startswith("ray@") and "start" in line]
    assert [line.split()[0] for line in starts[:1]] == ["ray@node1"]
    assert {line.split()[0] for line in starts[1:]} == {"ray@node2", "ray@node3"}
    assert job.said.index(starts[-1]) < job.said.index("driver trains")
    assert all(line.endswith("| token 600") for line in starts)
    (head_port,) = re.findall(r"--port=(\d+)", starts[0])
    (address,) = {re.findall(r"--address=(\S+)", line)[0] for line in starts[1:]}
    assert address.endswith(f":{head_port}")
    assert "tunekit search digits --space resnet --samples 8 --name mine" in job.said
    assert f"sees {address} token {job.folder}/results {job.folder}/data" in job.said


def test_when_time_is_up_the_driver_saves_and_the_job_goes_back_into_the_queue(job: Job) -> None:
    with job.submit(*_WORDS) as batch:
        job.when_said("driver trains")
        batch.send_signal(signal.SIGUSR1)
        output, _ = batch.communicate(timeout=60)
    assert batch.returncode == 130, output
    told = [job.said.index(word) for word in ("driver got USR1", "driver saved", "scontrol requeue 4711")]
    assert told == sorted(told)
    ends = [line for line in job.said if line.endswith(" ends")]
    assert ends[-1] == "ray@node1 ends", "the head goes last"
    assert len(ends) == 3
    assert not (job.run / "token").exists()


def test_out_of_the_queue_again_the_search_goes_on_to_its_end(job: Job) -> None:
    with job.submit(*_WORDS) as batch:
        job.when_said("driver trains")
        batch.send_signal(signal.SIGUSR1)
        batch.communicate(timeout=60)
    with job.submit(*_WORDS) as again:
        output, _ = again.communicate(timeout=60)
    assert again.returncode == 0, output
    assert "tunekit resume mine" in job.said
    assert sum(line.startswith("scontrol requeue") for line in job.said) == 1


def test_a_cancelled_job_saves_and_stays_away(job: Job) -> None:
    with job.submit(*_WORDS) as batch:
        job.when_said("driver trains")
        batch.send_signal(signal.SIGTERM)
        batch.communicate(timeout=60)
    assert batch.returncode == 130
    assert "driver saved" in job.said
    assert not [line for line in job.said if line.startswith("scontrol requeue")]


def test_a_search_that_fails_is_not_tried_again(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DRIVER_CODE", "1")
    (job.folder / "results" / "mine").mkdir(parents=True)
    (job.folder / "results" / "mine" / "search.json").touch()
    with job.submit(*_WORDS) as batch:
        batch.communicate(timeout=60)
    assert batch.returncode == 1
    assert not [line for line in job.said if line.startswith("scontrol requeue")]
    assert len([line for line in job.said if line.endswith(" ends")]) == 3


def test_a_head_that_does_not_start_is_said_with_what_ray_said(job: Job) -> None:
    job.ray('echo "no token here"; exit 1')
    with job.submit(*_WORDS) as batch:
        output, _ = batch.communicate(timeout=200)
    assert batch.returncode == 1
    assert "no token here" in output
    assert not [line for line in job.said if line.startswith("tunekit")]


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.extended
def test_the_steps_make_one_ray_of_all_nodes(job: Job) -> None:
    """Real `ray start` three times, and a driver that joins them as tunekit would."""
    real = shutil.which("ray") or Path(sys.executable).parent / "ray"
    job.ray(f'exec "{real}" "$@" --num-cpus=1')
    code = (
        "import os, ray; ray.init(os.environ['RAY_ADDRESS'], log_to_driver=False, configure_logging=False); "
        "print('nodes', sum(node['Alive'] for node in ray.nodes()), 'CPUs', ray.cluster_resources()['CPU'])"
    )
    job.tunekit(f'exec {sys.executable} -c "{code}"')
    with job.submit(*_WORDS) as batch:
        output, _ = batch.communicate(timeout=200)
    assert batch.returncode == 0, output
    assert "nodes 3 CPUs 3.0" in output
    wait_until(lambda: not processes_with(str(job.folder)))
