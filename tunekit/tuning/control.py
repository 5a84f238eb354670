"""What other processes ask of a search is carried out: by the process that runs it, or where none does, here.

Each request is answered once, in the file where it stands. An answer is written before it is carried out
and carried out again when it is read, which changes nothing the second time: after a crash between the
two the next run of the search sees to it.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from contextlib import closing, suppress

from filelock import FileLock, Timeout

from tunekit.errors import SearchError, StorageError
from tunekit.history import History, Trial
from tunekit.paths import SearchPaths
from tunekit.space import load_space
from tunekit.tuning.checkpoint_keeper import keeper_of
from tunekit.tuning.control_file import MOST_SAMPLES, Answer, ControlFile, Request
from tunekit.tuning.policy import SearchPolicy, policy_of
from tunekit.tuning.runner import is_held, runner_of
from tunekit.tuning.settings import SearchSettings

_LOOK_EVERY = 1.0  # seconds
_ANSWER_PATIENCE = 10.0  # seconds; longer than a driver ever is between two looks while trials run
_POLL = 0.2  # seconds


class Control:
    """Carries out what is asked of one search, in the process that holds its lock."""

    def __init__(
        self,
        paths: SearchPaths,
        settings: SearchSettings,
        policy: SearchPolicy,
        say: Callable[[str], None] | None = None,
    ) -> None:
        """Carry out what was asked before.

        Args:
            paths: of the search.
            settings: of the search, as they are on disk.
            policy: of the search.
            say: shows a line to whoever runs the search; None where nobody runs it: then nothing goes on
                by itself.
        Raises:
            StorageError: if the disk is full or cannot be written.
        """
        self.settings = settings  # with the samples that were asked for
        self.stopping = False  # whether the search was asked to end
        self._paths = paths
        self._policy = policy
        self._say = say
        self._file = ControlFile(paths)
        self._requests: dict[str, Request] = {}
        self._answered: set[str] = set()
        self._beginning = True
        self._look()
        self._beginning = False
        self._next_look = time.monotonic() + _LOOK_EVERY

    def attend(self) -> None:
        """Carry out what was asked meanwhile. May be called often: looks about once a second.

        Raises:
            StorageError: if the disk is full or cannot be written.
        """
        if time.monotonic() >= self._next_look:
            self._next_look = time.monotonic() + _LOOK_EVERY
            self._look()

    def close(self) -> None:
        """No trial runs any more: what is asked from now on is for the next run of the search."""
        self._say = None
        with suppress(StorageError):  # then it is the next run that answers
            self._look()

    def _look(self) -> None:
        for entry in self._file.new():
            if isinstance(entry, Request):
                self._requests.setdefault(entry.id, entry)
            elif entry.answers in self._requests:
                self._answered.add(entry.answers)
                self._carry_out(self._requests[entry.answers], entry)
        for request in self._requests.values():
            if request.id not in self._answered:
                self._answer(request)

    def _answer(self, request: Request) -> None:
        try:
            answer = self._judge(request)
        except SearchError as refusal:
            answer = Answer(request.id, False, str(refusal))
        self._file.append(answer)
        self._answered.add(request.id)
        self._carry_out(request, answer)
        self.stopping = self.stopping or (request.kind == "stop" and answer.running)
        if self._say is not None:
            self._say(f"Asked by {request.by}: {answer.words}")

    def _judge(self, request: Request) -> Answer:
        """What will be done.

        Raises:
            SearchError: saying why nothing will be.
        """
        name, running = self._paths.name, self._say is not None
        if request.kind == "extend":
            samples = samples_wanted(request, self.settings)
            how = "goes on to" if running else "may go on to"
            words = f"search {name} {how} {samples} samples ({self.settings.samples} before)"
            return Answer(request.id, True, words, samples, running)
        if request.kind == "stop_trial":
            words = self._end_words(trial_to_stop(request, self._policy.history, name))
            return Answer(request.id, True, words, running=running)
        if running and self._beginning:  # it may have been meant for a run that is over
            raise SearchError(f"search {name} was only beginning when it was asked to stop: ask again")
        words = f"search {name} ends" if running else f"search {name} has ended"
        return Answer(request.id, True, words, running=running)

    def _end_words(self, trial: Trial) -> str:
        if self._policy.in_training(trial.id):
            return f"trial {trial.id:02d} ends after epoch {trial.epoch + 1}, which it is in"
        return f"trial {trial.id:02d} ends at epoch {trial.epoch}"

    def _carry_out(self, request: Request, answer: Answer) -> None:
        """Do what was answered, unless it is done."""
        if not answer.done:
            return
        if request.kind == "extend" and answer.samples is not None:
            self._extend(answer.samples)
        elif request.kind == "stop_trial" and request.trial is not None:
            trial = self._policy.history.trials.get(request.trial)
            if trial is not None and not trial.over:
                self._policy.stop_early(trial.id, f"asked by {request.by}")

    def _extend(self, samples: int) -> None:
        if samples <= self.settings.samples:
            return
        extended = dataclasses.replace(self.settings, samples=samples)
        try:
            extended.save(self._paths)
        except OSError as error:
            raise StorageError(f"{self._paths.settings} cannot be written: {error.strerror}") from None
        self.settings = extended


def samples_wanted(request: Request, settings: SearchSettings) -> int:
    """How many samples a search is to have in all.

    Raises:
        SearchError: if that are fewer than it has, or more than any search may have.
    """
    has = settings.samples
    if has == 0:
        raise SearchError(f"search {settings.name} trains known recipes alone: it has no samples to extend")
    if request.more is not None and request.more < 1:
        raise SearchError(f"--samples must add at least 1, but got +{request.more}")
    wanted = has + request.more if request.more is not None else request.samples
    if wanted is None or wanted < has:
        raise SearchError(f"--samples must be at least the {has} of search {settings.name}, but got {wanted}")
    if wanted > MOST_SAMPLES:
        raise SearchError(f"--samples must be at most {MOST_SAMPLES} in all, but got {wanted}")
    return wanted


def trial_to_stop(request: Request, history: History, name: str) -> Trial:
    """The trial that is to end.

    Raises:
        SearchError: if the search `name` has no such trial, or it has ended.
    """
    assert request.trial is not None
    trial = history.trials.get(request.trial)
    if trial is None:
        begun = f"0 to {len(history.trials) - 1}" if history.trials else "none"
        raise SearchError(f"search {name} has no trial {request.trial} yet (there are {begun})")
    if trial.over:
        raise SearchError(f"trial {trial.id:02d} of search {name} has ended: it is {trial.status}")
    return trial


def ask(paths: SearchPaths, request: Request, patience: float = _ANSWER_PATIENCE) -> Answer | None:
    """Ask something of a search. Where no process works on it, it is carried out here.

    Args:
        paths: of the search.
        request: what is asked.
        patience: seconds to wait for an answer.
    Returns:
        What came of it; None if no answer came in time: the request stands, and is carried out later.
    Raises:
        SearchError: if it is refused, saying why; then nothing changed.
        StorageError: if it cannot be written.
    """
    _check(paths, request)
    ControlFile(paths).append(request)
    file, deadline = ControlFile(paths), time.monotonic() + patience
    while True:
        _carry_out_here(paths)
        for entry in file.new():
            if isinstance(entry, Answer) and entry.answers == request.id:
                if not entry.done:
                    raise SearchError(entry.words)
                return entry
        if time.monotonic() >= deadline:
            return None
        time.sleep(_POLL)


def wait_for_end(paths: SearchPaths, patience: float) -> bool:
    """Wait at most `patience` seconds until no process works on the search; returns whether that came."""
    deadline = time.monotonic() + patience
    while is_held(paths):
        if time.monotonic() >= deadline:
            return False
        time.sleep(_POLL)
    return True


def _check(paths: SearchPaths, request: Request) -> None:
    """Refuse what cannot be done before anything is written; whoever carries it out checks again."""
    if request.kind == "extend":
        samples_wanted(request, SearchSettings.load(paths))
    elif request.kind == "stop_trial":
        trial_to_stop(request, History.read(paths.history), paths.name)
    elif not is_held(paths):
        raise SearchError(f"search {paths.name} is not running: there is nothing to stop")
    elif runner_of(paths) is None:
        raise SearchError(
            f"search {paths.name} is not running, but another command works on it (say, retrain-best): "
            "end that one where it runs"
        )


def _carry_out_here(paths: SearchPaths) -> None:
    """Carry out what is asked, unless another process works on the search: then that one does."""
    try:
        with FileLock(paths.lock, timeout=0):
            settings = SearchSettings.load(paths)
            space = load_space(paths.space).with_fixed(settings.fixed)
            history = History.read(paths.history)
            with closing(history), closing(keeper_of(settings, paths, history)) as keeper:
                history.subscribe(keeper.event)
                Control(paths, settings, policy_of(settings, space, history))
    except Timeout:
        return
