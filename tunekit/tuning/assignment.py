"""What a worker needs to run one trial: plain values only, so that any engine can carry it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from tunekit.recipe import Value

OnOom = Literal["fail", "retry"]
GpuShare = float | Literal["auto"]
"""GPUs of a trial; a fraction shares one, and "auto" leaves it to what is measured before trials run."""


@dataclass(frozen=True)
class Assignment:
    """One trial as the driver hands it to a worker."""

    trial_id: int
    recipe: Mapping[str, Value]  # every key, dotted
    seed: int
    epochs: int  # of a full training
    reported: int  # epochs of this trial that the history has
    pack: str  # folder
    split: str  # file
    folder: str  # of the trial
    attempt: int = 1  # a higher number than that of every attempt before
    weights: str | None = None  # file of first weights; None for random ones
    cpus: float = 1.0
    gpus: float = 0.0
    keep_last: bool = False  # keep the weights of the last epoch instead of the best one's
    on_oom: OnOom = (
        "fail"  # when memory is too small: the recipe fails, or goes on with smaller parts of a batch
    )
    shared_pack: str | None = None  # folder that every node sees, or of the storage, from which one without a
    # pack copies it
    storage: str | None = None  # URI of the place that nodes have in common if they see no common folder
    storage_folder: str = ""  # of the search, below that URI
    storage_root: str = ""  # what it stands for: the search's folder on the driver's machine
