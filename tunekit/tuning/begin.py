"""The beginning of a search: everything that was asked for is checked, then its folder is laid down."""

from __future__ import annotations

import dataclasses
import errno
import os
import shlex
import shutil
import sys
import tempfile
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tunekit.data.datasets import open_dataset
from tunekit.data.pack import Pack
from tunekit.data.split import Split, make_split
from tunekit.errors import SearchError, StorageError, TunekitError
from tunekit.history import History
from tunekit.paths import SearchPaths, find_space, search_paths
from tunekit.recipe import Recipe
from tunekit.space import Baseline, files_of, load_space
from tunekit.tracking.server import check_reachable, masked
from tunekit.tuning.earlier_search import find_earlier, keep_memory
from tunekit.tuning.policy import policy_of
from tunekit.tuning.prior import read_prior
from tunekit.tuning.progress import View, tenths
from tunekit.tuning.provision import Provision, reachable_networks
from tunekit.tuning.ray_session import Machine, check_shares
from tunekit.tuning.settings import SearchSettings, git_state, installed_versions
from tunekit.tuning.stored_search import check_storage


def begin_search(
    settings: SearchSettings,
    results_dir: Path,
    view: View,
    machine: Machine | None = None,
    baselines: Sequence[Baseline] = (),
) -> SearchPaths:
    """Check everything that was asked for and lay down the folder of a new search.

    Args:
        settings: what was asked for.
        results_dir: where searches lie.
        view: shown to a person.
        machine: what Ray may hand out.
        baselines: known recipes to try first; with others to try, those that cannot be had here
            (say, weights that cannot be downloaded) are left out and named.
    Returns:
        The folder, with settings, space, split and first weights in it.
    Raises:
        TunekitError: naming what is wrong; then nothing was written.
    """
    settings = _with_baselines(settings, baselines)
    settings.check()
    paths = search_paths(results_dir, settings.name)
    space_file = find_space(settings.space)
    space = load_space(space_file).with_fixed(settings.fixed)
    if settings.samples and not space.parameters:
        raise SearchError(f"{space_file}: nothing is left to vary: [space] is empty or all of it is fixed")
    policy_of(settings, space, History())  # its arguments are checked before any work
    read_prior(space_file.parent, space)
    _check_free(paths)
    earlier = find_earlier(results_dir, settings.start_from, space)
    settings = dataclasses.replace(settings, start_from=[search.name for search in earlier])
    check_shares(settings.cpus_per_trial, settings.gpus_per_trial, machine or Machine())
    check_reachable(settings.tracking_uri)
    check_storage(settings)
    pack = open_dataset(
        settings.dataset, Path(settings.data_dir), settings.image_size, progress=tenths(view.say)
    )
    with tempfile.TemporaryDirectory() as folder:
        weights = Provision(Path(folder), paths.folder.parent, pack.shape)
        if settings.samples:
            for recipe in reachable_networks(space):
                weights.provide(recipe)
        settings = _with_baselines(settings, _possible(baselines, weights, settings.samples, view))
        return _lay_down(settings, paths, space_file, pack, Path(folder), earlier, view)


def discard_unbegun(paths: SearchPaths) -> None:
    """Take back the folder of a search that could not start, so that its name is free again."""
    if not paths.history.exists():
        shutil.rmtree(paths.folder, ignore_errors=True)


def _with_baselines(settings: SearchSettings, baselines: Sequence[Baseline]) -> SearchSettings:
    return dataclasses.replace(settings, baselines=[dataclasses.asdict(known) for known in baselines])


def _possible(baselines: Sequence[Baseline], weights: Provision, samples: int, view: View) -> list[Baseline]:
    """The baselines that can be trained here; an error only if nothing is left to train."""
    possible: list[Baseline] = []
    for place, baseline in enumerate(baselines, start=1):
        try:
            weights.provide(Recipe.from_flat(baseline.recipe))
            possible.append(baseline)
        except TunekitError as error:
            if not (samples or possible) and place == len(baselines):
                raise
            view.say(f"Baseline {baseline.name} is left out: {error}")
    return possible


def _lay_down(
    settings: SearchSettings,
    paths: SearchPaths,
    space_file: Path,
    pack: Pack,
    weights: Path,
    earlier: Sequence[SearchPaths],
    view: View,
) -> SearchPaths:
    split = make_split(pack.train()[1], settings.val_fraction, settings.seed, settings.train_limit)
    settings = dataclasses.replace(
        settings,
        command=shlex.join(["tunekit", *map(masked, sys.argv[1:])]),
        versions=installed_versions(),
        git=git_state(Path.cwd()),
        data_digest=pack.digest,
        train_images=len(split.train),
        val_images=len(split.validation),
    )
    with _claimed(paths) as laid:
        shutil.copyfile(space_file, laid.space)
        for beside in files_of(space_file)[1:]:
            shutil.copyfile(beside, laid.folder / beside.name)
        split.save(laid.split)
        for file in weights.iterdir():
            target = laid.first_weights(file.stem)
            target.parent.mkdir(exist_ok=True)
            shutil.move(file, target)
        for search in earlier:
            keep_memory(search, laid.earlier(search.name))
        settings.save(laid)
    view.say(f"Search {settings.name}: {settings.dataset}, {_counts(pack, split)}, space {settings.space}")
    return paths


@contextmanager
def _claimed(paths: SearchPaths) -> Iterator[SearchPaths]:
    """A folder beside the search's, which gets its name when all is in it: of two that want it, one does.

    Raises:
        SearchError: if another was sooner.
        StorageError: if the disk is full or cannot be written.
    """
    paths.folder.parent.mkdir(parents=True, exist_ok=True)
    folder = paths.folder.with_name(f".{paths.name}.{uuid.uuid4().hex}")
    try:
        folder.mkdir()
        yield SearchPaths(folder)
        folder.rename(paths.folder)
    except OSError as error:
        if error.errno in (errno.EEXIST, errno.ENOTEMPTY):
            raise _taken(paths) from None
        raise StorageError(f"{paths.folder} cannot be written: {error.strerror}") from None
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _check_free(paths: SearchPaths) -> None:
    """A new search takes a name that is free, in a folder that can be written."""
    if paths.settings.exists():
        raise _taken(paths)
    if paths.folder.exists() and (not paths.folder.is_dir() or any(paths.folder.iterdir())):
        raise SearchError(f"{paths.folder} is there and is no search: choose another --name")
    existing = next(folder for folder in (paths.folder, *paths.folder.parents) if folder.exists())
    if not (existing.is_dir() and os.access(existing, os.W_OK | os.X_OK)):
        raise SearchError(f"{existing} cannot be written: choose another --results-dir")


def _taken(paths: SearchPaths) -> SearchError:
    return SearchError(
        f"a search called {paths.name!r} is there already: "
        f"'tunekit resume {paths.name}' goes on with it, another --name starts a new one"
    )


def _counts(pack: Pack, split: Split) -> str:
    height, width, channels = pack.shape
    return (
        f"{len(split.train):,} training and {len(split.validation):,} validation images "
        f"of {height}x{width}x{channels} in {len(pack.classes)} classes"
    )
