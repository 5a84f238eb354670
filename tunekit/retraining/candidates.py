"""The recipes that are worth retraining: the best of a search and its default, or known recipes."""

from __future__ import annotations

from dataclasses import dataclass, replace

from tunekit.errors import SearchError
from tunekit.history import History, Trial
from tunekit.paths import SearchPaths
from tunekit.recipe import Recipe
from tunekit.space import Params, SearchSpace, load_space
from tunekit.tuning.policy import recipe_of
from tunekit.tuning.settings import SearchSettings


@dataclass(frozen=True)
class Candidate:
    """A recipe to be retrained."""

    name: str  # `trial 07`, `default recipe`, or that of a baseline
    recipe: Recipe
    params: Params  # as the search's history has them: what a person is shown
    epochs: int
    default: bool = False
    baseline: str | None = None
    reported_accuracy: float | None = None  # in %, of a baseline, on the test set
    reported_epochs: int | None = None


def choose_candidates(
    paths: SearchPaths, settings: SearchSettings, top_k: int, epochs: int | None
) -> list[Candidate]:
    """The `top_k` best recipes of a search, and its default recipe; of a search of baselines alone, those.

    Equal recipes are trained once: the first stands for the others.

    Args:
        paths: of the search.
        settings: of the search.
        top_k: how many of the best, at least 1.
        epochs: of each training; None for the search's, and for a baseline as many as were reported.
    Raises:
        SearchError: if the search has no result yet.
    """
    if settings.samples == 0:
        return _known(settings, epochs)
    space = load_space(paths.space).with_fixed(settings.fixed)
    history = History.read(paths.history)
    best = [trial for trial in history.ranked() if trial.repeat_of is None and trial.best][:top_k]
    if not best:
        raise SearchError(
            f"search {paths.name} has no result yet: 'tunekit resume {paths.name}' goes on with it"
        )
    epochs = epochs or settings.epochs
    chosen = [_of_trial(space, trial, epochs) for trial in best]
    return _distinct([*chosen, _default(space, history, epochs)])


def _known(settings: SearchSettings, epochs: int | None) -> list[Candidate]:
    candidates = [
        Candidate(
            name=known.name,
            recipe=Recipe.from_flat(known.recipe),
            params=dict(known.recipe),
            epochs=epochs or known.epochs or settings.epochs,
            baseline=known.name,
            reported_accuracy=known.reported_accuracy,
            reported_epochs=known.epochs,
        )
        for known in settings.known_recipes()
    ]
    return _distinct(candidates)


def _of_trial(space: SearchSpace, trial: Trial, epochs: int) -> Candidate:
    name = trial.baseline or f"trial {trial.id:02d}{' (default)' if trial.default else ''}"
    return Candidate(name, recipe_of(space, trial), trial.params, epochs, trial.default, trial.baseline)


def _default(space: SearchSpace, history: History, epochs: int) -> Candidate:
    trained = next((trial for trial in history.recipes if trial.default), None)
    if trained is not None:
        return _of_trial(space, trained, epochs)
    params = space.default_params()
    return Candidate("default recipe", space.recipe(params), params, epochs, default=True)


def _distinct(candidates: list[Candidate]) -> list[Candidate]:
    """Of equal recipes the first; it is the default one if any of them is."""
    distinct: dict[tuple[Recipe, int], Candidate] = {}
    for candidate in candidates:
        key = candidate.recipe, candidate.epochs
        first = distinct.setdefault(key, candidate)
        if candidate.default and not first.default:
            distinct[key] = replace(first, name=f"{first.name} (default)", default=True)
    return list(distinct.values())
