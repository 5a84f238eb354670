"""What a search's driver puts into its storage, for nodes that do not see its folder."""

from __future__ import annotations

import tempfile
from pathlib import Path

from tunekit.data.pack import Pack
from tunekit.paths import RetrainingPaths, SearchPaths
from tunekit.tuning.settings import SearchSettings
from tunekit.tuning.storage import Storage

_ID_LENGTH = 12  # hex digits of the search's id: a later search of the same name has a folder of its own


def storage_of(settings: SearchSettings, paths: SearchPaths) -> Storage | None:
    """Where the files of a search and of its retraining lie for its nodes; None if they see its folder.

    Args:
        settings: of the search.
        paths: of the search, or of its retraining.
    """
    if settings.storage is None:
        return None
    search = paths.folder.parent if isinstance(paths, RetrainingPaths) else paths.folder
    return Storage(settings.storage, _folder(settings), str(search))


def _folder(settings: SearchSettings) -> str:
    return f"{settings.name}-{settings.search_id[:_ID_LENGTH]}"


def check_storage(settings: SearchSettings) -> None:
    """Check, before anything else is written, that the storage of a search takes files, if it has one.

    Raises:
        StorageError: if it cannot be reached or refuses.
    """
    if settings.storage is None:
        return
    with tempfile.TemporaryDirectory() as folder:
        tried = Path(folder) / "tried"
        tried.touch()
        storage = Storage(settings.storage, _folder(settings), folder)
        storage.push(tried)
        storage.drop(tried)


def push_inputs(storage: Storage) -> None:
    """Put all there that trials need and that is small: settings, splits, first weights.

    Raises:
        StorageError: if it cannot be reached.
    """
    paths = SearchPaths(Path(storage.root))
    weights = paths.first_weights("any").parent
    there = storage.files(weights)
    for file in (paths.settings, paths.split, paths.retraining.whole_split, *weights.glob("[!.]*")):
        if file.exists() and file not in there:
            storage.push(file)


def push_pack(storage: Storage, pack: Pack) -> str:
    """Put the packed images there, once for all searches; returns the folder's name below the URI.

    Raises:
        StorageError: if it cannot be reached.
    """
    folder = f"packs/{pack.digest}-{pack.test_digest}"
    packs = Storage(storage.uri, folder, str(pack.folder))
    description = pack.folder / "pack.json"
    if description not in packs.files(pack.folder):
        for name in pack.files:
            packs.push(pack.folder / name)
        packs.push(description)  # last: where it is, all is
    return folder
