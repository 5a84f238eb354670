"""Known recipes without a search: folders in which their trainings and results lie."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from tunekit.baselines import Baseline, matching_baselines
from tunekit.errors import SearchError
from tunekit.paths import SearchPaths, search_paths
from tunekit.recipe import Recipe
from tunekit.tuning.baseline_choice import find_in_spaces
from tunekit.tuning.begin import begin_search
from tunekit.tuning.progress import View
from tunekit.tuning.settings import SearchSettings

_SAME = ("dataset", "train_limit", "val_fraction", "seed", "image_size")
_LONGEST_NAME = 100  # of a search


def baselines_by_dataset(patterns: Sequence[str]) -> dict[str, list[Baseline]]:
    """The baselines that patterns such as `B-mnist-*` name, by the data set they were reported for.

    Raises:
        SpaceError: if a pattern fits none.
        SearchError: if one has no data set.
    """
    found: dict[str, list[Baseline]] = {}
    named = {known.name: known for pattern in patterns for known in matching_baselines(pattern)}
    for known in named.values():
        if not known.dataset:
            raise SearchError(f"baseline {known.name} has no data set that it was reported for")
        found.setdefault(known.dataset, []).append(known)
    return found


def folders_of_known(
    patterns: Sequence[str], settings: SearchSettings, results_dir: Path, view: View
) -> list[SearchPaths]:
    """A folder for each data set of known recipes: laid down if need be, found again if it is there.

    Args:
        patterns: names of baselines, or patterns such as `B-mnist-*`.
        settings: how to train; data set and epochs follow from the baselines, and where they are empty
            name and space too.
        results_dir: where searches lie.
        view: shown to a person.
    Raises:
        SpaceError: if a pattern fits no baseline.
        SearchError: if one has no data set, or there is another search of that name.
        TunekitError: if a recipe cannot be trained here.
    """
    groups = baselines_by_dataset(patterns)
    if settings.name and len(groups) > 1:
        raise SearchError(
            f"--name: the recipes are of {len(groups)} data sets ({', '.join(groups)}), one a folder"
        )
    return [
        _folder(replace(settings, dataset=dataset), baselines, results_dir, view)
        for dataset, baselines in groups.items()
    ]


def _folder(
    settings: SearchSettings, baselines: Sequence[Baseline], results_dir: Path, view: View
) -> SearchPaths:
    name = settings.name or _name(settings.dataset, baselines)
    space, _ = find_in_spaces(baselines[0].name, settings.space or None)
    epochs = max(known.epochs or settings.epochs for known in baselines)
    settings = replace(settings, name=name, space=space, samples=0, epochs=epochs)
    paths = search_paths(results_dir, name)
    if not paths.settings.is_file():
        return begin_search(settings, results_dir, view, baselines=baselines)
    there = SearchSettings.load(paths)
    differing = [field for field in _SAME if getattr(there, field) != getattr(settings, field)]
    if differing or there.samples or not _holds(there, baselines):
        what = differing[0] if differing else "recipes"
        raise SearchError(
            f"a search called {name!r} is there already with other {what}: choose another --name"
        )
    return paths


def _holds(there: SearchSettings, baselines: Sequence[Baseline]) -> bool:
    """Whether a folder has these recipes; those whose first weights could not be had were left out of it."""
    held = {known.name for known in there.known_recipes()}
    wanted = {known.name for known in baselines}
    sure = {known.name for known in baselines if Recipe.from_flat(known.recipe).init == "random"}
    return sure <= held <= wanted


def _name(dataset: str, baselines: Sequence[Baseline]) -> str:
    """The same for the same recipes, so that the same command goes on with them; another for others."""
    words = "-".join(["baselines", dataset, *(known.name for known in baselines)])
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", words)
    if len(name) <= _LONGEST_NAME:
        return name
    digest = hashlib.sha256(words.encode()).hexdigest()[:8]
    return f"{name[: _LONGEST_NAME - 9].rstrip('-._')}-{digest}"
