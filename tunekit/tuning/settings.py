"""What a search was asked to do: read from the command line once, kept in `search.json` for ever."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, get_args

from tunekit.errors import SearchError
from tunekit.paths import SearchPaths, atomic_write
from tunekit.recipe import Value
from tunekit.space import Baseline
from tunekit.tuning.assignment import GpuShare, OnOom
from tunekit.tuning.storage import check_storage_uri

_PACKAGES = ("tunekit", "ray", "optuna", "mlflow", "torch", "torchvision", "timm", "numpy")


# What JSON gives for each annotation of the settings.
_JSON_TYPES: Mapping[str, tuple[type, ...]] = {
    "str": (str,),
    "OnOom": (str,),
    "GpuShare": (int, float, str),
    "int": (int,),
    "float": (int, float),
    "None": (type(None),),
    "Mapping": (dict,),
    "Sequence": (list, tuple),
}


@dataclass(frozen=True)
class SearchSettings:
    """Everything that a resume must find again. Paths are absolute."""

    name: str
    dataset: str
    space: str  # as the user named it
    samples: int
    epochs: int
    seed: int
    data_dir: str
    tracking_uri: str
    fixed: Mapping[str, Value] = field(default_factory=dict)  # of --set
    sampler: str = "portfolio"
    scheduler: str = "asha-promotion"
    grace_period: int = 3
    reduction_factor: int = 3
    repeats: int = 1  # trainings of a recipe that trained to its end
    train_limit: int | None = None
    val_fraction: float = 0.2
    image_size: int | None = None
    cpus_per_trial: float | None = None
    gpus_per_trial: GpuShare | None = None
    keep_checkpoints: int = 3
    disk_budget: int | None = None  # bytes that checkpoints may take
    max_failures: int = 5  # of the last 10 trials, before the search stops
    on_oom: OnOom = "fail"
    storage: str | None = None  # URI of where nodes keep checkpoints; None for the search's folder
    baselines: Sequence[Mapping[str, Any]] = ()  # the known recipes that run first, as `Baseline` fields
    start_from: Sequence[str] = ()  # names of earlier searches, oldest first
    # What tunekit adds when the search begins.
    search_id: str = field(default_factory=lambda: uuid.uuid4().hex)
    created: float = field(default_factory=time.time)  # seconds since 1970
    command: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)
    git: Mapping[str, str] | None = None
    data_digest: str = ""
    train_images: int = 0
    val_images: int = 0

    @property
    def trials(self) -> int:
        """Trials of the search but for repeats: the baselines, and as many proposals as were asked for."""
        return len(self.baselines) + self.samples

    def known_recipes(self) -> tuple[Baseline, ...]:
        """The baselines, in the order in which they run."""
        return tuple(Baseline(**fields) for fields in self.baselines)

    def check(self) -> None:
        """Check the numbers of a new search that no other room checks.

        Raises:
            SearchError: naming the option, its rule and what came.
        """
        if self.samples < 1 and not self.baselines:
            raise SearchError(f"--samples must be at least 1, but got {self.samples}")
        if self.storage is not None and self.disk_budget is not None:
            raise SearchError("--disk-budget is about the results folder: a search with --storage has none")
        self._check_numbers()

    def _check_numbers(self) -> None:
        for option, value, low in (
            ("--samples", self.samples, 0),
            ("--epochs", self.epochs, 1),
            ("--seed", self.seed, 0),
            ("--repeats", self.repeats, 1),
            ("--keep-checkpoints", self.keep_checkpoints, 1),
            ("--max-failures", self.max_failures, 0),
        ):
            if value < low:
                raise SearchError(f"{option} must be at least {low}, but got {value}")
        if self.storage is not None:
            check_storage_uri(self.storage)
        if self.seed >= 2**32:
            raise SearchError(f"--seed must be below 2**32, but got {self.seed}")
        if self.on_oom not in get_args(OnOom):
            raise SearchError(f"--on-oom must be 'fail' or 'retry', but got {self.on_oom!r}")
        if not 0 < self.val_fraction < 1:
            raise SearchError(f"--val-fraction must be between 0 and 1, but got {self.val_fraction}")
        check_wanted(self.cpus_per_trial, self.gpus_per_trial)

    def _check_types(self) -> None:
        """Check what JSON gave.

        Raises:
            TypeError: naming the field.
        """
        for described in dataclasses.fields(self):
            words = str(described.type).split(" | ")
            allowed = [kind for word in words for kind in _JSON_TYPES[word.partition("[")[0]]]
            value = getattr(self, described.name)
            if type(value) not in allowed:
                raise TypeError(f"{described.name} cannot be {value!r}")

    def save(self, paths: SearchPaths) -> None:
        """Write `search.json`."""
        with atomic_write(paths.settings) as temporary:
            temporary.write_text(json.dumps(dataclasses.asdict(self), indent=2) + "\n", encoding="utf-8")
            if paths.settings.exists():  # searches are listed in the order in which they began
                began = paths.settings.stat().st_mtime_ns
                os.utime(temporary, ns=(began, began))

    @classmethod
    def load(cls, paths: SearchPaths) -> SearchSettings:
        """Read `search.json`.

        Raises:
            SearchError: if it is damaged or of another version of tunekit.
        """
        try:
            text = paths.settings.read_text(encoding="utf-8")
            settings = cls(**json.loads(text, parse_constant=_refuse_constant))
            settings._check_types()
            settings._check_numbers()
            settings.known_recipes()
        except (OSError, ValueError, TypeError, RecursionError) as error:
            raise SearchError(f"{paths.settings}: not the settings of a search ({error})") from None
        return settings

    def trial_seed(self, trial_id: int) -> int:
        """The seed of one trial's weights, order and augmentation."""
        return self.seed * 100_000 + trial_id


def check_wanted(cpus_per_trial: float | None, gpus_per_trial: GpuShare | None) -> None:
    """Check what was asked for a trial; whether there is so much is `check_shares`.

    Raises:
        SearchError: naming the option, its rule and what came.
    """
    for option, share in (("--cpus-per-trial", cpus_per_trial), ("--gpus-per-trial", gpus_per_trial)):
        if isinstance(share, str):
            if share != "auto":
                raise SearchError(f"{option} must be a number or 'auto', but got {share!r}")
        elif share is not None and share < 0:
            raise SearchError(f"{option} must not be negative, but got {share:g}")


def _refuse_constant(word: str) -> float:
    raise ValueError(f"{word} is no number")


def installed_versions() -> dict[str, str]:
    """Versions of tunekit and of what it stands on; packages that are not installed are left out."""
    found = {}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def git_state(folder: Path) -> dict[str, str] | None:
    """Commit and cleanness of the repository that holds `folder`; None if there is none."""
    commit = _git(folder, "rev-parse", "HEAD")
    if commit is None:
        return None
    changed = _git(folder, "status", "--porcelain", "--untracked-files=no")
    return {"commit": commit, "state": "changed" if changed else "clean"}


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", os.fspath(folder), *arguments],
            capture_output=True,
            text=True,
            timeout=5,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
