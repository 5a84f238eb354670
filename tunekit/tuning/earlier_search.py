"""What an earlier search, on the same or other data, has to say to a new one."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from tunekit.errors import SearchError
from tunekit.history import History, Trial
from tunekit.paths import SearchPaths, find_search
from tunekit.space import Params, SearchSpace, load_space
from tunekit.tuning.evidence import EarlierSearch, evidence_of
from tunekit.tuning.policy import policy_of, recipe_of
from tunekit.tuning.prior import read_prior
from tunekit.tuning.settings import SearchSettings

_BEST = 5  # recipes that a new search tries first


def earlier_searches(paths: SearchPaths, names: Sequence[str], space: SearchSpace) -> list[EarlierSearch]:
    """What the prior and the searches whose memory was kept in the folder of a search have to say."""
    return [*read_prior(paths.folder, space), *(read_earlier(paths.earlier(name), space) for name in names)]


def find_earlier(results_dir: Path, names: Sequence[str], space: SearchSpace) -> list[SearchPaths]:
    """The searches called `names`, each once.

    Raises:
        SearchError: if there is none of that name, or none of its trials lies in `space`.
    """
    found = [find_search(results_dir, name) for name in dict.fromkeys(names)]
    for paths in found:
        read_earlier(paths, space)
    return found


def keep_memory(earlier: SearchPaths, kept: SearchPaths) -> None:
    """Copy what `read_earlier` reads, so that a resume needs nothing but the new search's own folder."""
    kept.folder.mkdir(parents=True, exist_ok=True)  # a begin that a crash cut short
    for source, target in (
        (earlier.settings, kept.settings),
        (earlier.space, kept.space),
        (earlier.history, kept.history),
    ):
        shutil.copyfile(source, target)


def read_earlier(paths: SearchPaths, space: SearchSpace) -> EarlierSearch:
    """What a search found, as far as `space` can propose it; keys that `space` does not vary are passed over.

    Raises:
        SearchError: if none of its trials with a result lies in `space`, or a file of it is damaged.
    """
    settings = SearchSettings.load(paths)
    own_space = load_space(paths.space).with_fixed(settings.fixed)
    history = History.read(paths.history)

    def params_of(trial: Trial) -> Params | None:
        return space.params_of(recipe_of(own_space, trial))

    policy = policy_of(settings, own_space, history)
    evidence = evidence_of(history, policy.rungs, policy.max_epochs, params_of)
    if not any(trial.values for trial in evidence.trials):
        raise SearchError(
            f"--start-from {paths.name}: none of its {len(history.trials)} trials reached epoch "
            f"{evidence.epochs[0]} with a recipe that lies in this space"
        )
    scored = [trial for trial in history.ranked() if trial.best is not None and trial.repeat_of is None]
    best = [params for trial in scored if (params := params_of(trial)) is not None]
    return EarlierSearch(paths.name, tuple(best[:_BEST]), evidence)
