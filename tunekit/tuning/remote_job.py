"""A tunekit command as a job on a Ray cluster: handed to the cluster's job server, and followed from afar."""

from __future__ import annotations

import asyncio
import logging
import os
import shlex
import shutil
import tempfile
import time
import uuid
import warnings
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import urlopen

from tunekit.errors import ResourceError, SearchError, nearest
from tunekit.paths import SearchPaths, search_paths
from tunekit.space import files_of
from tunekit.tracking.server import LOGIN, TOKEN
from tunekit.tuning.parcel import is_of_parcel, unpack

_PATIENCE = 60.0  # seconds without an answer, until a job is given up on here; it runs on there
_CHECK_TIMEOUT = 5.0  # seconds
_INTERRUPTED = 130  # exit code of a search that ended before its time
_SEARCH = "tunekit_search"  # in a job's metadata
_TOKEN_HINT = "set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH to the cluster's token"

Say = Callable[[str], None]


@dataclass(frozen=True)
class RemoteCommand:
    """A tunekit command for a cluster. Paths in it are those of the cluster, but for the space's."""

    words: tuple[str, ...]  # the command and its options, `--option=value`, without --address
    arguments: tuple[str, ...] = ()
    trains: str | None = None  # the search that it trains; None for a command that ends in seconds
    space_file: Path | None = None  # a file here, which is sent along as --space


def entry_point(command: RemoteCommand) -> str:
    """The shell command of the job. It runs in the home folder there, so that relative paths have a meaning.

    Args:
        command: its words may hold anything but NUL.
    Returns:
        One command for `sh -c`; its exit code is that of tunekit.
    Raises:
        SearchError: if a word is no text.
    """
    words, arguments = ([shlex.quote(word) for word in part] for part in (command.words, command.arguments))
    before = ""
    if command.space_file:  # it lies where Ray starts the job
        before = "sent=$PWD; "
        words.append(f'--space="$sent"/{shlex.quote(command.space_file.name)}')
    text = before + 'cd "${HOME:-.}" && exec ' + " ".join(["tunekit", *words, "--", *arguments])
    try:
        text.encode()
    except UnicodeEncodeError:
        raise SearchError(f"a name or path is no text: {text!a}") from None
    return text


def run_remotely(address: str, command: RemoteCommand, say: Say, note: Say) -> int:
    """Run a command as a job on the cluster of a job server, and follow it.

    Ctrl-C leaves a job that trains running. Its submission id is `tunekit-NAME`, with `~2` and so on for
    later ones of the same search. A login of MLflow that is set here goes along where something trains.

    Args:
        address: `http://HOST:PORT` or `https://HOST`.
        command: what to run.
        say: takes each line that the command prints there, with its end.
        note: takes lines about the job itself, without their ends.
    Returns:
        The exit code of the command; 130 if it was stopped there, or interrupted here.
    Raises:
        ResourceError: if the job server does not answer or refuses the token, or Ray's client is not here.
        SearchError: if a job of this search runs already.
    """
    if command.trains is None:
        return _run_shortly(address, command, say)
    search_paths(Path(), command.trains)  # a name that suits
    with _spoken_to(address) as client:
        job = _submit(client, address, command)
        first = f"Runs as job {job} on {address}; Ctrl-C leaves it running."
        return _follow(client, address, job, command.trains, say, note, first)


def attach(address: str, name: str | None, say: Say, note: Say) -> int:
    """Follow the latest job of a search from its first line on; for the others as `run_remotely`.

    Args:
        address: of the job server.
        name: of the search; None for the latest job of any.
        say: takes each line.
        note: takes lines about the job.
    Raises:
        SearchError: if there is no such job.
    """
    with _spoken_to(address) as client:
        jobs = _jobs(client)
        mine = [job for job in jobs if name in (None, _search_of(job))]
        if not mine:
            known = nearest(name or "", {_search_of(job) for job in jobs})
            raise SearchError(f"no job of {f'search {name!r}' if name else 'a search'} on {address}{known}")
        job = max(mine, key=lambda job: (not job.status.is_terminal(), job.start_time or 0))
        return _follow(client, address, job.submission_id, _search_of(job), say, note)


def fetch(address: str, command: RemoteCommand, results_dir: Path, name: str) -> SearchPaths:
    """Bring home what is small and useful of a search on the cluster; it may still run.

    Args:
        address: of the job server.
        command: prints the search there as `parcel.pack` does.
        results_dir: where the search is laid down here.
        name: of the search.
    Raises:
        SearchError: as `parcel.unpack`, or with what the command said there.
    """
    with _spoken_to(address) as client, _short_job(client, command) as job:
        lines = _lines(client, job)
        said = ""
        for line in lines:
            if is_of_parcel(line):
                return unpack(chain([line], lines), results_dir, name)
            said += line
        raise SearchError(f"on the cluster: {said.strip().removeprefix('Error: ') or 'nothing was sent'}")


def _run_shortly(address: str, command: RemoteCommand, say: Say) -> int:
    with _spoken_to(address) as client, _short_job(client, command) as job:
        for line in _lines(client, job):
            say(line)
        return _exit_code(client, job)


@contextmanager
def _short_job(client: Any, command: RemoteCommand) -> Iterator[str]:
    """A job that leaves no entry in the list of jobs; its log stays on the head's disk."""
    job = f"tunekit-{command.words[0]}~{uuid.uuid4().hex[:8]}"
    _hand_over(client, entrypoint=entry_point(command), submission_id=job)
    try:
        yield job
    finally:
        with suppress(Exception):  # it is only tidied away
            client.delete_job(job)


def _submit(client: Any, address: str, command: RemoteCommand) -> str:
    """Hand a command that trains to the job server; the job's submission id."""
    name = command.trains
    assert name is not None
    jobs = _jobs(client)
    if any(_search_of(job) == name and not job.status.is_terminal() for job in jobs):
        raise SearchError(
            f"a job of search {name} runs on {address} already: "
            f"'tunekit attach {name} --address {address}' follows it"
        )
    taken = {job.submission_id for job in jobs}
    ids = (f"tunekit-{name}{f'~{number}' if number > 1 else ''}" for number in range(1, len(taken) + 2))
    with _environment(command) as environment:
        return _hand_over(
            client,
            entrypoint=entry_point(command),
            submission_id=next(job for job in ids if job not in taken),
            runtime_env=environment,
            metadata={_SEARCH: name},
        )


def _hand_over(client: Any, **job: Any) -> str:
    begun = time.monotonic()
    while True:
        try:
            submitted: str = client.submit_job(**job)
            return submitted
        except RuntimeError as error:  # a cluster's head answers some seconds before it takes jobs
            if "No available agent" not in str(error) or time.monotonic() - begun > _PATIENCE:
                raise
        time.sleep(1)


@contextmanager
def _environment(command: RemoteCommand) -> Iterator[dict[str, Any]]:
    """What goes along: a login of MLflow, and the space file in a folder of its own."""
    login = {name: os.environ[name] for name in (*LOGIN, TOKEN) if os.environ.get(name)}
    environment: dict[str, Any] = {"env_vars": login} if login else {}
    with tempfile.TemporaryDirectory(prefix="tunekit-space-") as folder:
        if command.space_file:
            for file in files_of(command.space_file):
                shutil.copyfile(file, Path(folder) / file.name)
            environment["working_dir"] = folder
        yield environment


def _follow(client: Any, address: str, job: str, name: str, say: Say, note: Say, first: str = "") -> int:
    there = f" {name} --address {address}"
    try:
        if first:  # here, since who reads it may press Ctrl-C at once
            note(first)
        for line in _lines(client, job):
            say(line)
        code = _exit_code(client, job)
    except KeyboardInterrupt:
        code = _INTERRUPTED
        note(
            f"\nJob {job} runs on.\nFollow it:     tunekit attach{there}\nEnd it:        tunekit stop{there}"
        )
    if code in (0, _INTERRUPTED):
        note(f"Bring it home: tunekit fetch{there}")
    return code


def _exit_code(client: Any, job: str) -> int:
    info = client.get_job_info(job)
    if info.driver_exit_code is None and info.status.name == "STOPPED":
        return _INTERRUPTED
    if info.driver_exit_code is None:
        raise ResourceError(f"job {job} did not start: {_first_line(info.message or info.status.name)}")
    if info.driver_exit_code == 127:
        raise ResourceError(f"job {job}: where the cluster's head started Ray, PATH led to no tunekit")
    # Python gives the signal that ended a command as a negative number, the shell adds it to 128.
    return int(info.driver_exit_code) if info.driver_exit_code >= 0 else 128 - int(info.driver_exit_code)


def _lines(client: Any, job: str) -> Iterator[str]:
    """The lines that the command prints, from the first on and as they come, until the job has ended."""
    # Before them the log has what Ray says of the start.
    heading = f"Running entrypoint for job {job}: {client.get_job_info(job).entrypoint}\n"
    text, begun = "", False
    for chunk in _log(client, job):
        text += chunk
        if not begun and heading in text:
            begun, text = True, text.partition(heading)[2]
        if begun:
            *whole, text = text.split("\n")
            yield from (f"{line}\n" for line in whole)
    if text:
        yield text


def _log(client: Any, job: str) -> Iterator[str]:
    """The text of a job's log. A connection that breaks is made again, and goes on where it broke."""
    seen, silent_since = 0, time.monotonic()
    while True:
        place = 0
        try:
            for chunk in _tail(client, job):
                new = chunk[max(0, seen - place) :]
                place += len(chunk)
                seen = max(seen, place)
                if new:
                    silent_since = time.monotonic()
                    yield new
            if client.get_job_status(job).is_terminal():
                return
            silent_since = time.monotonic()
        except Exception as error:  # each library under it has its own
            if time.monotonic() - silent_since > _PATIENCE:
                raise ResourceError(f"job {job} runs on, but cannot be followed: {_reason(error)}") from None
        time.sleep(1)


def _tail(client: Any, job: str) -> Iterator[str]:
    chunks = client.tail_job_logs(job)
    with asyncio.Runner() as runner:
        while (chunk := _next(runner, chunks)) is not None:
            yield chunk


def _next(runner: asyncio.Runner, chunks: AsyncIterator[str]) -> str | None:
    async def following() -> str | None:
        return await anext(chunks, None)

    with warnings.catch_warnings():  # Ray speaks to aiohttp as earlier versions of it wanted
        warnings.filterwarnings("ignore", "ssl=None is deprecated", DeprecationWarning)
        return runner.run(following())


def _jobs(client: Any) -> list[Any]:
    """The jobs that train a search, of everybody."""
    return [job for job in client.list_jobs() if job.submission_id and _search_of(job)]


def _search_of(job: Any) -> str:
    metadata: Mapping[str, str] = job.metadata or {}
    return metadata.get(_SEARCH, "")


@contextmanager
def _spoken_to(address: str) -> Iterator[Any]:
    """Ray's client of a job server; what goes wrong with it inside the block is said in one line."""
    address = _checked(address)
    # Ray prefers what these say to what it is given.
    os.environ.pop("RAY_API_SERVER_ADDRESS", None)
    os.environ["RAY_ADDRESS"] = address
    try:
        from ray.exceptions import AuthenticationError
        from ray.job_submission import JobSubmissionClient
    except ImportError:
        raise ResourceError(f"--address {address} needs Ray's client: install 'tunekit[cluster]'") from None
    logging.disable(logging.INFO)  # it says each package and each connection
    try:
        _check_answers(address)
        yield JobSubmissionClient(address)
    except AuthenticationError:
        raise ResourceError(
            f"--address {address}: the job server wants another token: {_TOKEN_HINT}"
        ) from None
    except (OSError, RuntimeError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # of a file or a pipe here, not of the connection
        raise ResourceError(f"--address {address}: {_reason(error)}") from None
    finally:
        logging.disable(logging.NOTSET)


def _checked(address: str) -> str:
    try:
        parts = urlsplit(address.rstrip("/"))
        good = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        good = False
    if not good or parts.path or parts.query or "@" in parts.netloc:
        raise ResourceError(f"--address of a job server is http://HOST:PORT, but got {address!r}")
    return address.rstrip("/")


def _check_answers(address: str) -> None:
    """Ray's client would wait for minutes."""
    try:
        with urlopen(f"{address}/api/version", timeout=_CHECK_TIMEOUT):
            return
    except HTTPError as error:
        error.close()  # something answers; what it refuses, Ray's client says
    except (URLError, OSError, ValueError) as error:
        raise ResourceError(
            f"--address {address}: no job server answers there ({_reason(error)}): is the tunnel open?"
        ) from None


def _reason(error: BaseException) -> str:
    return _first_line(str(getattr(error, "reason", error))) or type(error).__name__


def _first_line(text: str) -> str:
    return next((line.strip() for line in text.splitlines() if line.strip()), "")
