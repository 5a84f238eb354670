"""SLURM's commands, reduced to what a batch script needs of them on one machine that plays all nodes."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

from tests.cluster.files import CLUSTER, ROOT, program, wait_until

# `srun` runs the command once for each node of its list, notes how it was called and passes SIGTERM on.
_SRUN = r"""
echo "srun $*" >> "$STAND_IN_LOG"
for word in "$@"; do
  case $word in
    --nodelist=*) list=${word#*=} ;;
    --output=*) output=${word#*=} ;;
    --*) ;;
    *) break ;;
  esac
  shift
done
tasks=()
for node in ${list//,/ }; do
  SLURMD_NODENAME=$node "$@" >"${output/\%N/$node}" 2>&1 &
  tasks+=($!)
done
trap 'kill -TERM "${tasks[@]}" 2>/dev/null' TERM
while :; do
  wait
  kill -0 "${tasks[@]}" 2>/dev/null || break
done
"""
_SCONTROL = r"""
if [ "$1 $2" = "show hostnames" ]; then
  [ "$3" = "node[1-3]" ] && printf '%s\n' node1 node2 node3
else
  echo "scontrol $*" >> "$STAND_IN_LOG"
fi
"""
_RAY = r"""
echo "ray@$SLURMD_NODENAME $* | $RAY_AUTH_MODE $(stat -c %a "$RAY_AUTH_TOKEN_PATH")" >> "$STAND_IN_LOG"
trap 'echo "ray@$SLURMD_NODENAME ends" >> "$STAND_IN_LOG"; exit 0' TERM
echo "Ray runtime started."
while :; do sleep 0.05; done
"""


@dataclass(frozen=True)
class Job:
    """A batch job on three nodes that are this machine."""

    folder: Path
    number: int = 4711

    def __post_init__(self) -> None:
        commands = self.folder / "venv" / "bin"
        program(commands, "srun", _SRUN)
        program(commands, "scontrol", _SCONTROL)
        (commands / "activate").write_text(f"export PATH={commands}:$PATH\n")
        self.log.touch()

    @property
    def log(self) -> Path:
        return self.folder / "log"

    @property
    def said(self) -> list[str]:
        """What the stand-ins noted, in order."""
        return self.log.read_text().splitlines()

    @property
    def run(self) -> Path:
        return self.folder / "jobs" / str(self.number)

    def ray(self, body: str = _RAY) -> None:
        """What `ray` is on the nodes."""
        program(self.folder / "venv" / "bin", "ray", body)

    def tunekit(self, body: str) -> None:
        """What `tunekit` is on the first node."""
        program(self.folder / "venv" / "bin", "tunekit", body)

    def submit(self, *arguments: str) -> subprocess.Popen[str]:
        """As `sbatch` would: a copy of the script, in SLURM's environment."""
        copied = self.folder / "slurm_script"
        copied.write_text((CLUSTER / "slurm.sbatch").read_text())
        return subprocess.Popen(
            ["bash", copied, *arguments],
            env={
                **os.environ,
                "STAND_IN_LOG": str(self.log),
                "TUNEKIT_SHARED": str(self.folder),
                "SLURM_SUBMIT_DIR": str(ROOT),
                "SLURM_JOB_ID": str(self.number),
                "SLURM_JOB_NODELIST": "node[1-3]",
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def when_said(self, word: str) -> None:
        """Wait until a stand-in noted a line with `word` in it."""
        wait_until(lambda: any(word in line for line in self.said))
