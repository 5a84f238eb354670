"""Every file and folder that tunekit reads or writes has its name here and nowhere else."""

from __future__ import annotations

import errno
import os
import re
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import FileIO
from pathlib import Path

from tunekit.errors import SearchError, SpaceError, nearest

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)  # of an `OSError`: a disk that takes no more
_LITTLE = 2**16  # bytes; a disk with less left is full
_TEMPORARY_NAME = re.compile(r"\..+\.[0-9a-f]{32}")  # of `atomic_write`
_LAST, _BEST = "last.pt", "best.safetensors"
_ATTEMPT_NAME = re.compile(r"attempt-([0-9]{1,9})")
_SEARCH_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


@dataclass(frozen=True)
class SearchPaths:
    """The files of one search, below `results/<name>/`."""

    folder: Path

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def settings(self) -> Path:
        """What was asked for, and the versions that ran it (JSON)."""
        return self.folder / "search.json"

    @property
    def space(self) -> Path:
        """The search space as it was when the search began (TOML)."""
        return self.folder / "space.toml"

    def first_weights(self, key: str) -> Path:
        """Weights that networks of the search begin with (safetensors); `key` is a plain word."""
        return self.folder / "first_weights" / f"{key}.safetensors"

    @property
    def split(self) -> Path:
        """Which images train and which validate (indices into the pack)."""
        return self.folder / "split.npz"

    @property
    def history(self) -> Path:
        """Every suggestion, result and outcome, a JSON line each, in the order they came."""
        return self.folder / "history.jsonl"

    def earlier(self, name: str) -> SearchPaths:
        """Settings, space and history of an earlier search that this one started from.

        Raises:
            SearchError: if the name could leave the folder.
        """
        _check_search_name(name)
        return SearchPaths(self.folder / "earlier" / name)

    @property
    def report(self) -> Path:
        """What came of the search, to read in a browser (HTML)."""
        return self.folder / "report.html"

    @property
    def study(self) -> Path:
        """An Optuna study exported from the history, for optuna-dashboard (Optuna's journal)."""
        return self.folder / "study.journal"

    @property
    def tracked(self) -> Path:
        """How much of the history MLflow has (JSON)."""
        return self.folder / "tracked.json"

    @property
    def log(self) -> Path:
        """What Ray and the libraries said (text)."""
        return self.folder / "search.log"

    @property
    def lock(self) -> Path:
        """Held by the process that runs the search."""
        return self.folder / ".lock"

    @property
    def runner(self) -> Path:
        """Who runs the search now (JSON); a process that was killed leaves it behind."""
        return self.folder / "running.json"

    @property
    def control(self) -> Path:
        """What other processes asked of the search, and what they were answered (JSON lines)."""
        return self.folder / "control.jsonl"

    @property
    def control_lock(self) -> Path:
        """Held while a line is added to it."""
        return self.folder / ".control.lock"

    @property
    def ray(self) -> Path:
        """Ray Tune's own files; tunekit never reads them."""
        return self.folder / "ray"

    def trial(self, trial_id: int) -> TrialPaths:
        """The files of one trial."""
        return TrialPaths(self.folder / "trials" / f"{trial_id:04d}")

    def shared_pack(self, digest: str) -> Path:
        """A pack beside the searches, from which nodes of a cluster copy it; `digest` names the data."""
        return self.folder.parent / ".packs" / digest

    @property
    def proposed_space(self) -> Path:
        """A better space for the next search, if the trials gave evidence for one (TOML)."""
        return self.folder / "proposed.toml"

    @property
    def test_openings(self) -> Path:
        """Who opened the test set, when and for which recipes, a JSON line each time."""
        return self.folder / "test_openings.jsonl"

    @property
    def retraining(self) -> RetrainingPaths:
        """The files of `tunekit retrain-best`."""
        return RetrainingPaths(self.folder / "retrain")


@dataclass(frozen=True)
class RetrainingPaths(SearchPaths):
    """The files of a search's retraining, below `results/<name>/retrain/`: a trial there is one training."""

    @property
    def name(self) -> str:
        """Of the search."""
        return self.folder.parent.name

    @property
    def settings(self) -> Path:
        """Every training that was asked for: recipe, seed, epochs (JSON). Its place is its trial's id."""
        return self.folder / "trainings.json"

    @property
    def whole_split(self) -> Path:
        """The split of trainings that see the validation images too."""
        return self.folder / "split-train+val.npz"

    def opening(self, number: int) -> Path:
        """The folder of what came of one opening of the test set."""
        return self.folder / f"opening-{number}"

    def result(self, number: int) -> Path:
        """What came of it (JSON), beside its figures."""
        return self.opening(number) / "result.json"


@dataclass(frozen=True)
class TrialPaths:
    """The files of one trial, below `results/<name>/trials/<id>/`.

    A trial that goes on after a pause or a loss is another attempt, which writes to a folder of its own: a
    worker that was cut off and comes back late can overwrite nothing of the attempt that replaced it.
    """

    folder: Path

    @property
    def last(self) -> Path:
        """All that is needed to go on after the last finished epoch, of the newest attempt that has it."""
        return self._newest(_LAST) or self.folder / _LAST

    @property
    def best(self) -> Path:
        """The weights of the epoch with the best validation accuracy; while the trial is not over, those of
        the newest attempt that has some."""
        own = self.folder / _BEST
        return own if own.exists() else self._newest(_BEST) or own

    def attempt(self, number: int) -> TrialPaths:
        """The files that one attempt writes."""
        return TrialPaths(self.folder / f"attempt-{number}")

    def attempts(self) -> dict[int, TrialPaths]:
        """Those that have a folder, oldest first."""
        folders = self.folder.iterdir() if self.folder.is_dir() else ()
        found = {attempt_number(folder.name): TrialPaths(folder) for folder in folders}
        return {number: found[number] for number in sorted(found) if number}

    def checkpoints(self) -> list[Path]:
        """The files of all attempts that are there."""
        folders = (self.folder, *(attempt.folder for attempt in self.attempts().values()))
        files = (folder / name for folder in folders for name in (_LAST, _BEST))
        return [file for file in files if file.exists()]

    def drop_best(self) -> None:
        """Remove the weights of the best epoch, of every attempt."""
        for file in self.checkpoints():
            if file.name == _BEST:
                file.unlink(missing_ok=True)

    def settle(self) -> None:
        """The trial is over: its weights of the best epoch are its own, and the rest of its attempts goes.

        What a worker that was cut off writes later is none of it.
        """
        own, best = self.folder / _BEST, self.best
        if best != own:
            os.replace(best, own)
        for attempt in self.attempts().values():
            shutil.rmtree(attempt.folder, ignore_errors=True)
        (self.folder / _LAST).unlink(missing_ok=True)

    def _newest(self, name: str) -> Path | None:
        files = (attempt.folder / name for attempt in reversed(self.attempts().values()))
        return next((file for file in files if file.exists()), None)


def attempt_number(name: str) -> int:
    """Of the attempt whose folder has this name; 0 if it is none."""
    found = _ATTEMPT_NAME.fullmatch(name)
    return int(found[1]) if found else 0


def search_paths(results_dir: Path, name: str) -> SearchPaths:
    """The folder of the search called `name`, an absolute path; it need not exist.

    Raises:
        SearchError: if the name could leave the results folder or does not suit a file name.
    """
    _check_search_name(name)
    return SearchPaths(results_dir.resolve() / name)


def _check_search_name(name: str) -> None:
    if not _SEARCH_NAME.fullmatch(name):
        raise SearchError(
            "a search name must be letters, digits, '.', '_' or '-', begin with a letter or digit "
            f"and have at most 100 characters, but got {name!r}"
        )


def list_searches(results_dir: Path) -> list[SearchPaths]:
    """The searches below `results_dir`, oldest first."""
    if not results_dir.is_dir():
        return []
    folders = [child for child in results_dir.resolve().iterdir() if _SEARCH_NAME.fullmatch(child.name)]
    found = [SearchPaths(child) for child in folders]
    return sorted(
        (paths for paths in found if paths.settings.is_file()),
        key=lambda paths: (paths.settings.stat().st_mtime_ns, paths.name),
    )


def find_search(results_dir: Path, name: str | None) -> SearchPaths:
    """The search called `name`, or the latest one.

    Raises:
        SearchError: if there is none.
    """
    searches = list_searches(results_dir)
    if name is None:
        if not searches:
            raise SearchError(f"no search in {results_dir}: start one with 'tunekit search digits'")
        return searches[-1]
    paths = search_paths(results_dir, name)
    if not paths.settings.is_file():
        known = nearest(name, [search.name for search in searches])
        raise SearchError(f"no search called {name!r} in {results_dir}{known}")
    return paths


def tracking_database(results_dir: Path) -> Path:
    """The SQLite file that MLflow uses when no server is named."""
    return results_dir.resolve() / "mlflow.db"


def tracking_artifacts(results_dir: Path) -> Path:
    """The artifact folder beside that file."""
    return results_dir.resolve() / "mlflow-artifacts"


def default_data_dir() -> Path:
    """Where data sets lie unless `--data-dir` or `TUNEKIT_DATA_DIR` says otherwise."""
    import platformdirs

    return Path(platformdirs.user_cache_dir("tunekit")) / "data"


def pack_folder(data_dir: Path, key: str) -> Path:
    """Where the packed arrays of a data set lie."""
    return data_dir / "packed" / key


def shipped_spaces() -> dict[str, Path]:
    """The search spaces that come with tunekit, by name."""
    return {path.stem: path for path in sorted(_shipped().glob("*.toml")) if path != baseline_catalogue()}


def baseline_catalogue() -> Path:
    """The known recipes that the search spaces name (TOML)."""
    return _shipped() / "baselines.toml"


def find_prior(folder: Path, name: str) -> Path:
    """The prior that a space in `folder` names: beside it, else one that comes with tunekit.

    So a copy of a shipped space finds its prior. Whether there is such a file is not checked.
    """
    beside, shipped = folder / name, _shipped() / name
    return shipped if shipped.is_file() and not beside.is_file() else beside


def _shipped() -> Path:
    package = Path(__file__).parent
    # A wheel carries them inside the package; a checkout has them beside it.
    inside, beside = package / "search_spaces", package.parent / "search_spaces"
    return inside if inside.is_dir() else beside


def find_space(name_or_path: str) -> Path:
    """The space file that a user means: a shipped name, or a path to a TOML file.

    Raises:
        SpaceError: if there is none.
    """
    shipped = shipped_spaces()
    if name_or_path in shipped:
        return shipped[name_or_path]
    path = Path(name_or_path)
    if path.suffix == ".toml" and path.is_file():
        return path
    raise SpaceError(
        f"no search space called {name_or_path!r}, and no .toml file there{nearest(name_or_path, shipped)}"
    )


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Give a temporary path beside `path`; move it into place when the block ends well.

    Raises:
        OSError: if the disk is full, whatever a library that writes makes of that.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        yield temporary
        _reach_the_medium(temporary)
        os.replace(temporary, path)
    except Exception as error:
        full = os.strerror(errno.ENOSPC)
        if isinstance(error, OSError):
            if error.errno is not None:  # else its words would be lost with it: those of an object store
                error.filename = error.filename or str(path)  # a write to an open file does not say where
            raise
        if not (full in str(error) or _is_full(path.parent)):
            raise
        raise OSError(errno.ENOSPC, full, str(path)) from None
    finally:
        temporary.unlink(missing_ok=True)


def append_whole(file: FileIO, data: bytes) -> None:
    """Add `data` to the end of a file, unbuffered, and let it reach the medium: all of it or nothing.

    Raises:
        OSError: if it cannot be written; then nothing was added.
    """
    end = os.fstat(file.fileno()).st_size
    try:
        if file.write(data) < len(data):  # there was room for a part
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        os.fsync(file.fileno())
    except OSError:
        file.truncate(end)
        raise


def _is_full(folder: Path) -> bool:
    return shutil.disk_usage(folder).free < _LITTLE


def remove_half_written(folder: Path) -> None:
    """Remove what writers that were killed left behind in `folder`; none may be at work there."""
    for file in folder.glob(".*"):
        if _TEMPORARY_NAME.fullmatch(file.name):
            file.unlink(missing_ok=True)


def _reach_the_medium(file: Path) -> None:
    """Else a machine that loses its power may keep the new name and not what it names."""
    with open(file, "rb") as written:
        os.fsync(written.fileno())
