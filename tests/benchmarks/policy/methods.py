"""The methods that are compared, by name."""

from __future__ import annotations

import argparse
import importlib.util
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from optuna.pruners import HyperbandPruner, NopPruner

from tests.benchmarks.policy import peers
from tunekit.errors import nearest
from tunekit.history import History
from tunekit.space import Params
from tunekit.tuning import encoding, replay
from tunekit.tuning.policy import SearchPolicy
from tunekit.tuning.prior import read_prior
from tunekit.tuning.replay import Curves, Policy


@dataclass(frozen=True)
class Method:
    """A row of the table."""

    title: str
    make: Callable[[Curves, int], Policy]  # of the curves and a seed
    library: str = "tunekit"  # that it needs
    usual: bool = True  # whether it is replayed unless one asks for others


def ours(sampler: str, scheduler: str, grace_period: int = 3) -> Method:
    """A sampler and a scheduler of tunekit."""

    def make(curves: Curves, seed: int) -> Policy:
        return SearchPolicy(
            curves.space,
            max_epochs=curves.epochs,
            seed=seed,
            sampler=sampler,
            scheduler=scheduler,
            grace_period=grace_period,
        )

    grace = "" if scheduler == "none" else f", grace period {grace_period}"
    return Method(f"tunekit: {sampler}, {scheduler}{grace}", make)


def _default(curves: Curves, seed: int) -> SearchPolicy:
    prior = read_prior(Path(), curves.space)
    return SearchPolicy(curves.space, max_epochs=curves.epochs, seed=seed, earlier=prior)


def _from_scratch(curves: Curves, seed: int) -> SearchPolicy:
    space = replace(curves.space, warm_starts=())
    return SearchPolicy(space, max_epochs=curves.epochs, seed=seed)


def _ray(grace_period: int, reduction_factor: int, title: str, *, default_first: bool = False) -> Method:
    def make(curves: Curves, seed: int) -> Policy:
        first = _first(curves, default_first)
        return peers.RayTune(curves.space, curves.epochs, seed, grace_period, reduction_factor, first)

    title = f"Ray OptunaSearch + ASHAScheduler, {title}{_first_words(default_first)}"
    return Method(title, make, "ray", usual=not default_first)


def _syne_tune(
    scheduler: str, grace_period: int, *, usual: bool = True, default_first: bool = False
) -> Method:
    def make(curves: Curves, seed: int) -> Policy:
        first = _first(curves, default_first)
        return peers.SyneTune(curves.space, curves.epochs, seed, scheduler, grace_period, first)

    title = f"Syne Tune {scheduler}, grace period {grace_period}{_first_words(default_first)}"
    return Method(title, make, "syne_tune", usual and not default_first)


def _tpe(curves: Curves, seed: int) -> Policy:
    return peers.OptunaStudy(curves.space, curves.epochs, seed, NopPruner())


def _hyperband(curves: Curves, seed: int) -> Policy:
    pruner = HyperbandPruner(min_resource=1, max_resource=curves.epochs, reduction_factor=3)
    return peers.OptunaStudy(curves.space, curves.epochs, seed, pruner)


def _first(curves: Curves, default_first: bool) -> list[Params]:
    """What a peer is told to try first: nothing, or the recipe that tunekit always tries."""
    return [curves.space.default_params()] if default_first else []


def _first_words(default_first: bool) -> str:
    return ", the default recipe first" if default_first else ""


_RAY_DEFAULTS = "its defaults: grace period 1, factor 4"
_RAY_AT_3 = "grace period 3, factor 3"
METHODS = {
    "tunekit": Method("**tunekit's defaults**", _default),
    "from-scratch": Method("tunekit without warm starts and prior", _from_scratch, usual=False),
    "random": ours("random", "none"),
    "random+asha": ours("random", "asha"),
    "tpe": Method("Optuna TPE, no early stopping", _tpe, "optuna"),
    "ray": _ray(1, 4, _RAY_DEFAULTS),
    "ray-default": _ray(1, 4, _RAY_DEFAULTS, default_first=True),
    "ray@3": _ray(3, 3, _RAY_AT_3),
    "ray@3-default": _ray(3, 3, _RAY_AT_3, default_first=True),
    "hyperband": Method("Optuna TPE + HyperbandPruner", _hyperband, "optuna"),
    "bohb": _syne_tune("BOHB", 3),
    "bohb-default": _syne_tune("BOHB", 3, default_first=True),
    "bohb@1": _syne_tune("BOHB", 1, usual=False),
    "mobster": _syne_tune("MOBSTER", 3),
    "mobster-default": _syne_tune("MOBSTER", 3, default_first=True),
    "mobster@1": _syne_tune("MOBSTER", 1, usual=False),
    "cqr": _syne_tune("ASHACQR", 3, usual=False),
}


def method(name: str) -> Method:
    """A method by its name, or `SAMPLER+SCHEDULER[@GRACE]` of tunekit.

    Raises:
        KeyError: if it is neither.
    """
    if name in METHODS:
        return METHODS[name]
    words, _, grace = name.partition("@")
    sampler, plus, scheduler = words.partition("+")
    if not plus or not (grace or "3").isdecimal():
        raise KeyError(name)
    return ours(sampler, scheduler, int(grace or 3))


def method_name(typed: str) -> str:
    """A method's name as an argument of a command.

    Raises:
        argparse.ArgumentTypeError: naming the nearest one, if there is no such method.
    """
    try:
        method(typed)
    except KeyError:
        raise argparse.ArgumentTypeError(f"no method {typed!r}{nearest(typed, METHODS)}") from None
    return typed


def installed(name: str) -> bool:
    """Whether the library that a method needs is here."""
    return importlib.util.find_spec(method(name).library) is not None


def sources(name: str) -> list[Path]:
    """The files that decide what a method finds: if they change, it must be replayed."""
    own = [module for key, module in sorted(sys.modules.items()) if key.startswith("tunekit.tuning.")]
    modules = own if method(name).library == "tunekit" else [replay, encoding, peers]
    return [Path(str(module.__file__)) for module in modules]


def suggestion_ms_after(trials: int, curves: Curves) -> list[float]:
    """Milliseconds of each of sixty suggestions of tunekit's defaults with so many trials in the history.

    Those by chance take a millisecond, those of the model most.
    """
    history = History()
    cheap = SearchPolicy(curves.space, max_epochs=curves.epochs, sampler="random", history=history)
    while len(history.trials) < trials:
        suggestion = cheap.next()
        curve = curves.values[curves.nearest(suggestion.params)]
        for epoch, value in enumerate(curve, start=1):
            if cheap.report(suggestion.trial_id, epoch, float(value)) != "continue":
                break
    policy = SearchPolicy(curves.space, max_epochs=curves.epochs, history=history)
    seconds = []
    for _ in range(60):
        clock = time.perf_counter()
        policy.next()
        seconds.append(time.perf_counter() - clock)
    return [1000 * each for each in seconds]
