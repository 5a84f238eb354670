"""What can go wrong, one class per decision that a caller can take.

    TunekitError (ValueError)      a user's mistake or a missing thing: one line, exit code 1
    |-- RecipeError                a key or a value that no recipe can have
    |-- SpaceError                 a search space file that cannot be used
    |-- DataError                  images that are absent, unreadable or too few
    |   `-- DataAbsentError        ... absent and not downloadable: says which files go where
    |-- SearchError                a search's name, folder, lock or history
    |-- ResourceError              CPUs or GPUs that this machine does not have
    |-- TrackingError              a tracking server or database that does not answer
    `-- StorageError               a disk that is full or cannot be written
    RecipeFailure (Exception)      a recipe that cannot be trained: a result, not a mistake
    |-- DivergedError              loss or gradients not finite, or far above the start for long
    `-- OutOfMemoryFailure         the device's memory is too small for the recipe

A broken promise inside tunekit is an `assert`.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class TunekitError(ValueError):
    """A user's mistake, said in one line."""


class RecipeError(TunekitError):
    """A recipe key that does not exist or a value outside its rule."""


class SpaceError(TunekitError):
    """A search space that cannot be used; the message names file, key and rule."""


class DataError(TunekitError):
    """Images that cannot be used."""


class DataAbsentError(DataError):
    """Images that are not there and cannot be downloaded."""


class SearchError(TunekitError):
    """A search that cannot be started, found, locked or read."""


class ResourceError(TunekitError):
    """CPUs or GPUs that were asked for and are not there."""


class TrackingError(TunekitError):
    """A tracking server or database that cannot be used."""


class StorageError(TunekitError):
    """A file that cannot be written: what is there stays as it was."""


class RecipeFailure(Exception):
    """The recipe itself cannot be trained. Counts as the worst result, so that the sampler learns."""


class DivergedError(RecipeFailure):
    """The training is beyond hope; the message says why."""


class OutOfMemoryFailure(RecipeFailure):
    """The recipe needs more memory than its device has."""


def nearest(word: str, known: Iterable[str]) -> str:
    """The end of an error message that helps: the nearest known name, or all of them if few.

    Returns:
        `" (did you mean 'x'?)"`, `" (one of: x, y)"`, or `""` when there is nothing to say.
    """
    names = sorted(known)
    close = difflib.get_close_matches(word, names, n=1, cutoff=0.5)
    if close:
        return f" (did you mean {close[0]!r}?)"
    return f" (one of: {', '.join(names)})" if 0 < len(names) <= 12 else ""
