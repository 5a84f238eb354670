"""Searches of recipes drawn at random, whose truth a test makes up; no training."""

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from tests.tuning.made_up import number
from tunekit.history import Event, History
from tunekit.paths import search_paths
from tunekit.recipe import Value
from tunekit.reporting.doctor import examine_space
from tunekit.reporting.facts import Facts, read_facts
from tunekit.reporting.proposed_space import propose_space
from tunekit.reporting.space_findings import Finding
from tunekit.space import Params, SearchSpace, load_space
from tunekit.tuning.samplers import suggest_random
from tunekit.tuning.settings import SearchSettings

SPACE = """# One learning rate for all.
description = "made up"
baselines = ["he2016-*"]

[fixed]
"schedule.name" = "cosine" # as everybody does

[space]
"model.name" = { choices = ["resnet8", "resnet20", "resnet32"], role = "scientific" }
"optim.name" = { choices = ["sgd", "adam", "adamw"] }
"optim.lr" = { low = 1e-3, high = 0.1, log = true } # the peak
"optim.momentum" = { low = 0.0, high = 0.95, when = { "optim.name" = ["sgd"] } }
"optim.nesterov" = { choices = [false, true], when = { "optim.name" = ["sgd"] } }
# How much noise a picture gets.
"augment.policy" = { choices = ["none", "flip+randaugment"] }
"augment.randaugment" = { low = 1, high = 10, when = { "augment.policy" = ["flip+randaugment"] } }
"augment.randaugment_ops" = { low = 1, high = 8 }
"schedule.warmup" = { low = 0.0, high = 0.2 }
"model.dropout" = { low = 0.0, high = 0.5, step = 0.05 }

[[baseline]]
name = "mine"
recipe = { "optim.lr" = 0.02 }
"""


Outcome = float | Sequence[float] | None  # the accuracy of every epoch, or of each; None: the recipe failed


def searched(
    folder: Path,
    outcome: Callable[[Params], Outcome],
    trials: int = 60,
    epochs: int = 3,
    seed: int = 0,
    space: str = SPACE,
    fixed: Mapping[str, Value] | None = None,
    draw: Callable[[SearchSpace, int], Params] = suggest_random,
    warm_starts: int = 0,
) -> Facts:
    """A search of recipes drawn at random, laid down on disk and read again; the first may be warm starts."""
    paths = search_paths(folder, f"made-up-{seed}")
    paths.folder.mkdir(parents=True)
    paths.space.write_text(space)
    settings = SearchSettings(
        name=paths.name,
        dataset="digits",
        space="mine.toml",
        samples=max(trials, 1),
        epochs=epochs,
        seed=seed,
        data_dir="",
        tracking_uri="",
        fixed=fixed or {},
        val_images=1000,
    )
    settings.save(paths)
    varied = load_space(paths.space).with_fixed(settings.fixed)
    history = History(paths.history)
    for trial in range(trials):
        params = draw(varied, 1000 * seed + trial)
        warm = True if trial < warm_starts else None
        suggested = Event("suggest", trial, params=params, warm_start=warm, to_the_end=warm)
        history.append(suggested, *events(trial, outcome(params), epochs))
    history.close()
    return read_facts(paths)


def events(trial: int, outcome: Outcome, epochs: int) -> list[Event]:
    if outcome is None:
        return [Event("fail", trial, epoch=1, reason="training loss is nan")]
    values = outcome if isinstance(outcome, Sequence) else [outcome] * epochs
    results = [Event("result", trial, epoch=e, value=value) for e, value in enumerate(values, start=1)]
    return [*results, Event("complete" if len(values) == epochs else "stop", trial, epoch=len(values))]


def noise(params: Params) -> float:
    """An accuracy that has nothing to do with the recipe but is always the same for it."""
    digits = repr(sorted(params.items())).encode()
    return 0.8 + 0.01 * float(np.random.default_rng(list(digits)).normal())


def log_lr(params: Params) -> float:
    return math.log10(number(params, "optim.lr"))


def advice(facts: Facts) -> list[Finding]:
    return [finding for finding in examine_space(facts) if finding.severity == "advice"]


def proposed(facts: Facts, folder: Path) -> SearchSpace:
    """The proposed space, written and loaded as a user would."""
    text = propose_space(facts, examine_space(facts))
    assert text is not None
    file = folder / "proposed.toml"
    file.write_text(text)
    return load_space(file)
