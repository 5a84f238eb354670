"""Which known recipes a search tries first."""

from __future__ import annotations

from collections.abc import Iterable

from tunekit.errors import SpaceError, nearest
from tunekit.paths import find_space, shipped_spaces
from tunekit.recipe import Recipe
from tunekit.space import Baseline, load_space


def baselines_for(dataset: str, known: Iterable[Baseline]) -> list[Baseline]:
    """Those reported for `dataset`, or all if none is; of equal recipes the first.

    Args:
        dataset: as a search names it.
        known: the baselines of a space.
    """
    known = list(known)
    reported_here = [baseline for baseline in known if baseline.dataset in ("", dataset)]
    distinct: dict[Recipe, Baseline] = {}
    for baseline in reported_here or known:
        distinct.setdefault(Recipe.from_flat(baseline.recipe), baseline)
    return list(distinct.values())


def find_in_spaces(name: str, space: str | None) -> tuple[str, Baseline]:
    """The baseline called `name`, and the space that lists it.

    Args:
        name: of the baseline.
        space: a space by name or file; None for the shipped one that lists it among the fewest.
    Raises:
        SpaceError: if there is none; the message names the nearest.
    """
    listed = {
        candidate: {baseline.name: baseline for baseline in load_space(find_space(candidate)).baselines}
        for candidate in ([space] if space else shipped_spaces())
    }
    holding = [candidate for candidate in listed if name in listed[candidate]]
    if not holding:
        known = {baseline for baselines in listed.values() for baseline in baselines}
        where = f"in {space}" if space else "in the shipped spaces"
        raise SpaceError(f"no baseline called {name!r} {where}{nearest(name, known)}")
    closest = min(holding, key=lambda candidate: len(listed[candidate]))
    return closest, listed[closest][name]
