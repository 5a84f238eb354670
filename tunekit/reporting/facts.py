"""All that is known of a search, read once: what every part of its report is written from."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from tunekit.history import History, Trial
from tunekit.paths import SearchPaths
from tunekit.recipe import Recipe, Value
from tunekit.space import SearchSpace, load_space
from tunekit.tuning.policy import policy_of, recipe_of
from tunekit.tuning.settings import SearchSettings


@dataclass(frozen=True)
class Facts:
    """A search, whether it is finished, interrupted or still running."""

    paths: SearchPaths
    settings: SearchSettings
    space: SearchSpace  # with the keys that --set fixed
    history: History
    recipes: Mapping[int, Recipe]  # of each trial, by its id
    rungs: tuple[int, ...]  # epochs at which trials can be compared, rising; the last is a full training

    @property
    def trials(self) -> list[Trial]:
        """Every trial, repeats among them, in the order in which they began."""
        return list(self.history.trials.values())

    @property
    def default_trial(self) -> Trial | None:
        """The trial of the space's default recipe, which may be that of a known recipe."""
        recipe = self.space.recipe(self.space.default_params())
        return next((trial for trial in self.history.recipes if self.recipes[trial.id] == recipe), None)

    @property
    def full_epochs(self) -> int:
        """Epochs of a full training."""
        return self.settings.epochs


def trials_by_value(
    space: SearchSpace, recipes: Iterable[tuple[Trial, Recipe]], key: str
) -> dict[Value, list[Trial]]:
    """Trials by their recipe's value of `key`; those for which the key means nothing are left out."""
    groups: dict[Value, list[Trial]] = defaultdict(list)
    parameter = space.parameters.get(key)
    for trial, recipe in recipes:
        flat = recipe.to_flat()
        if parameter is None or parameter.active(flat):
            groups[flat[key]].append(trial)
    return dict(groups)


def read_facts(paths: SearchPaths) -> Facts:
    """Read a search's folder.

    Raises:
        SearchError: if the settings or the history are damaged.
    """
    settings = SearchSettings.load(paths)
    space = load_space(paths.space).with_fixed(settings.fixed)
    history = History.read(paths.history)
    rungs = policy_of(settings, space, history).rungs
    return Facts(
        paths,
        settings,
        space,
        history,
        {trial.id: recipe_of(space, trial) for trial in history.trials.values()},
        tuple(sorted({*rungs, settings.epochs})),
    )
