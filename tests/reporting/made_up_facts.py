"""The facts of a search made up in a test: trials with their values at epochs, no training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tunekit.baselines import Baseline
from tunekit.history import Event, EventKind, History
from tunekit.paths import search_paths
from tunekit.recipe import Value
from tunekit.reporting.facts import Facts, read_facts
from tunekit.tuning.settings import SearchSettings

SPACE = """
[space]
"model.bn_placement" = { choices = ["before_act", "after_act", "none"], role = "scientific" }
"optim.name" = { choices = ["sgd", "adam"] }
"optim.lr" = { low = 1e-4, high = 1.0, log = true }
"optim.momentum" = { low = 0.0, high = 0.99, when = { "optim.name" = ["sgd"] } }
"""


@dataclass(frozen=True)
class Made:
    """One trial: its params, its value at each epoch from 1 on, and how it ended."""

    params: Mapping[str, Value]
    values: Sequence[float]
    end: EventKind | None = "complete"
    baseline: str | None = None
    default: bool | None = None
    repeat_of: int | None = None
    reason: str | None = None


def constant(params: Mapping[str, Value], value: float, epochs: int = 9, **about: Any) -> Made:
    """A trial with the same value at every epoch."""
    return Made(params, [value] * epochs, **about)


def made_up(
    folder: Path,
    trials: Sequence[Made],
    space: str = SPACE,
    baselines: Sequence[Baseline] = (),
    **settings: Any,
) -> Facts:
    """A search of 9 epochs with a rung at epoch 3, read back from its folder."""
    paths = search_paths(folder, "made-up")
    paths.folder.mkdir(parents=True)
    paths.space.write_text(space)
    about: dict[str, Any] = {
        "name": paths.name,
        "dataset": "digits",
        "space": "mine.toml",
        "samples": len(trials),
        "epochs": 9,
        "seed": 0,
        "data_dir": str(folder),
        "tracking_uri": "",
        "baselines": [asdict(baseline) for baseline in baselines],
        "val_images": 1000,
    }
    SearchSettings(**{**about, **settings}).save(paths)
    history = History(paths.history)
    for number, trial in enumerate(trials):
        history.append(*_events(number, trial))
    history.close()
    return read_facts(paths)


def _events(number: int, trial: Made) -> list[Event]:
    begun = Event(
        "suggest",
        number,
        params=trial.params,
        baseline=trial.baseline,
        default=trial.default,
        repeat_of=trial.repeat_of,
    )
    results = [
        Event("result", number, epoch=epoch, value=value) for epoch, value in enumerate(trial.values, start=1)
    ]
    if trial.end is None:
        return [begun, *results]
    epoch = None if trial.end in ("complete", "lose") else len(trial.values)
    epoch = len(trial.values) + 1 if trial.end == "fail" else epoch
    return [begun, *results, Event(trial.end, number, epoch=epoch, reason=trial.reason)]
