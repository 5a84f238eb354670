"""What other processes ask of a search, on plain numbers and files: no Ray."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from filelock import FileLock
from hypothesis import given
from hypothesis import strategies as st

from tests.search_on_disk import lay_down_search
from tunekit.errors import SearchError
from tunekit.history import Event, History
from tunekit.paths import SearchPaths, list_searches
from tunekit.reporting.leaderboard import search_state
from tunekit.space import SearchSpace, load_space
from tunekit.tuning.control import Control, ask, wait_for_end
from tunekit.tuning.control_file import Answer, ControlFile, Request
from tunekit.tuning.policy import SearchPolicy, policy_of
from tunekit.tuning.runner import Runner, announced, runner_of
from tunekit.tuning.settings import SearchSettings

Driver = Callable[..., tuple[Control, SearchPolicy]]


@pytest.fixture
def paths(tmp_path: Path) -> SearchPaths:
    """Of 4 samples trial 0 is stopped, trial 1 completed and trial 2 unfinished."""
    return lay_down_search(tmp_path / "results", "mine")


@pytest.fixture
def alone(paths: SearchPaths) -> Iterator[None]:
    """Another process works on the search."""
    lock = FileLock(paths.lock, thread_local=False)
    with lock:
        yield


def policy(paths: SearchPaths) -> SearchPolicy:
    settings = SearchSettings.load(paths)
    space = load_space(paths.space).with_fixed(settings.fixed)
    return policy_of(settings, space, History.read(paths.history))


@pytest.fixture
def driver(paths: SearchPaths) -> Iterator[Driver]:
    """Gives the search as the process that runs it has it, again and again."""
    histories: list[History] = []

    def start(said: list[str] | None = None) -> tuple[Control, SearchPolicy]:
        decides = policy(paths)
        histories.append(decides.history)
        say = (said if said is not None else []).append
        return Control(paths, SearchSettings.load(paths), decides, say), decides

    yield start
    for history in histories:
        history.close()


def look(control: Control) -> None:
    control._next_look = 0.0
    control.attend()


def answers(paths: SearchPaths) -> list[Answer]:
    return [entry for entry in ControlFile(paths).new() if isinstance(entry, Answer)]


def test_a_running_search_is_extended_and_a_resume_knows_and_does_not_do_it_again(
    paths: SearchPaths, driver: Driver
) -> None:
    said: list[str] = []
    control, _ = driver(said)
    ControlFile(paths).append(Request("extend", more=50, by="alice@there"))
    assert control.settings.samples == 4
    look(control)
    look(control)
    assert control.settings.samples == 54
    assert SearchSettings.load(paths).samples == 54
    assert said == ["Asked by alice@there: search mine goes on to 54 samples (4 before)"]
    assert [(answer.done, answer.samples, answer.running) for answer in answers(paths)] == [(True, 54, True)]
    again, _ = driver()
    assert again.settings.samples == 54
    assert len(answers(paths)) == 1


def test_an_answer_that_a_crash_kept_from_being_carried_out_is_carried_out_by_the_next_run(
    paths: SearchPaths,
    driver: Driver,
) -> None:
    file = ControlFile(paths)
    extend, end = Request("extend", more=50), Request("stop_trial", trial=2)
    for entry in (extend, end, Answer(extend.id, True, "x", 54, True), Answer(end.id, True, "x")):
        file.append(entry)
    control, decides = driver()
    assert SearchSettings.load(paths).samples == control.settings.samples == 54
    assert decides.history.trials[2].status == "stopped"
    assert len(answers(paths)) == 2


def test_the_file_is_looked_at_about_once_a_second(paths: SearchPaths, driver: Driver) -> None:
    control, _ = driver()
    look(control)
    ControlFile(paths).append(Request("extend", more=1))
    control.attend()
    assert control.settings.samples == 4
    look(control)
    assert control.settings.samples == 5


def test_a_trial_in_training_ends_after_its_epoch_and_keeps_its_values(
    paths: SearchPaths, driver: Driver
) -> None:
    control, decides = driver()
    assert decides.next(4).trial_id == 2
    assert decides.report(2, 1, 0.3) == "continue"
    ControlFile(paths).append(Request("stop_trial", trial=2, by="alice@there"))
    look(control)
    trial = decides.history.trials[2]
    assert trial.status == "running"
    assert answers(paths)[-1].words == "trial 02 ends after epoch 2, which it is in"
    assert decides.report(2, 2, 0.4) == "stop"
    assert (trial.status, trial.rung, trial.reason) == ("stopped", 2, "asked by alice@there")
    assert [result.value for result in trial.results] == [0.3, 0.4]
    assert not decides.has_ended(4)  # the fourth sample is still to come
    assert decides.next(4).trial_id == 3


def test_a_trial_that_was_to_end_and_loses_its_machine_does_not_go_on(
    paths: SearchPaths, driver: Driver
) -> None:
    control, decides = driver()
    decides.next(4)
    ControlFile(paths).append(Request("stop_trial", trial=2))
    look(control)
    decides.interrupt(2)
    assert decides.history.trials[2].status == "stopped"
    assert decides.next(4).trial_id == 3


def test_a_trial_that_completes_in_the_epoch_in_which_it_was_to_end_is_completed(
    paths: SearchPaths, driver: Driver
) -> None:
    control, decides = driver()
    decides.next(4)
    decides.report(2, 1, 0.3)
    decides.report(2, 2, 0.3)
    ControlFile(paths).append(Request("stop_trial", trial=2))
    look(control)
    assert decides.report(2, 3, 0.3) == "stop"
    assert decides.history.trials[2].status == "completed"


def test_a_trial_that_a_person_ends_is_not_held_against_its_recipe() -> None:
    space = SearchSpace.from_dict({"space": {"optim.lr": {"low": 0.1, "high": 1.0}}})
    decides = SearchPolicy(space, max_epochs=9, grace_period=1, scheduler="asha-promotion")
    for value in (0.8, 0.6, 0.7, 0.5):
        decides.report(decides.next().trial_id, 1, value)
    assert decides.history.trials[3].status == "paused"
    decides.stop_early(3, "asked by alice@there")
    decides.next()
    decides.stop_early(4, "asked by alice@there")
    assert decides.report(4, 1, 0.9) == "stop"  # else it would have gone on as the best of five
    assert decides.values_at(1) == [0.8, 0.6, 0.7, 0.5, 0.9]
    assert decides.values_at(3) == []
    assert decides.evidence().pending(3) == [decides.history.trials[0].params]
    assert not decides.history.trials[3].unfinished
    assert decides.next().trial_id == 5  # what was ended is not promoted


def test_a_paused_trial_ends_at_once_and_its_checkpoint_goes(paths: SearchPaths) -> None:
    history = History.read(paths.history)
    history.append(Event("result", 2, epoch=1, value=0.1), Event("pause", 2, epoch=1))
    history.close()
    last = paths.trial(2).last
    last.parent.mkdir(parents=True)
    last.write_bytes(b"state")
    answer = ask(paths, Request("stop_trial", trial=2))
    assert answer is not None
    assert (answer.words, answer.running) == ("trial 02 ends at epoch 1", False)
    trial = History.read(paths.history).trials[2]
    assert (trial.status, trial.rung) == ("stopped", 1)
    assert not last.exists()


def test_a_stop_ends_the_search_and_not_the_next_run_of_it(paths: SearchPaths, driver: Driver) -> None:
    control, _ = driver()
    ControlFile(paths).append(Request("stop"))
    assert not control.stopping
    look(control)
    assert control.stopping
    again, _ = driver()
    look(again)
    assert not again.stopping


def test_a_stop_that_nobody_read_in_time_does_not_end_the_next_run(
    paths: SearchPaths, driver: Driver
) -> None:
    ControlFile(paths).append(Request("stop"))
    control, _ = driver()
    assert not control.stopping
    (answer,) = answers(paths)
    assert not answer.done
    assert "ask again" in answer.words


def test_what_is_asked_after_the_last_trial_is_for_the_next_run(paths: SearchPaths, driver: Driver) -> None:
    control, _ = driver()
    ControlFile(paths).append(Request("extend", samples=80))
    ControlFile(paths).append(Request("stop"))
    control.close()
    assert not control.stopping
    assert SearchSettings.load(paths).samples == 80
    assert [(answer.done, answer.running) for answer in answers(paths)] == [(True, False), (True, False)]


FOREIGN = [
    b"",
    b"no JSON",
    b"\xff\xfe",
    b"5",
    b"[" * 100_000,
    b'"answers"',
    b'{"kind": "extend", "more": 5}',
    b'{"id": "1", "kind": "explode"}',
    b'{"id": "1", "kind": "extend"}',
    b'{"id": "1", "kind": "extend", "more": 1.5}',
    b'{"id": "1", "kind": "extend", "more": -5}',
    b'{"id": "1", "kind": "extend", "samples": 1e400}',
    b'{"id": "1", "kind": "extend", "samples": 99999999}',
    b'{"id": "1", "kind": "stop", "trial": 1}',
    b'{"id": "1", "kind": "stop_trial"}',
    b'{"id": "1", "kind": "stop_trial", "trial": true}',
    b'{"id": "1", "kind": "stop", "by": "\\u001b[2J"}',
    b'{"id": ["1"], "kind": "stop"}',
    b'{"answers": "1", "done": true, "words": "x", "samples": "many"}',
    b'{"answers": "nothing that was asked", "done": true, "words": "x", "samples": 9}',
]


@pytest.mark.parametrize("line", FOREIGN, ids=lambda line: line[:60].decode(errors="replace"))
def test_a_line_that_nobody_understands_changes_nothing(
    paths: SearchPaths, driver: Driver, line: bytes
) -> None:
    paths.control.write_bytes(line + b"\n")
    control, _ = driver()
    ControlFile(paths).append(Request("extend", more=1))
    look(control)
    assert (control.settings.samples, control.stopping) == (5, False)


@given(content=st.binary(max_size=300))
def test_no_file_stops_a_search(content: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    paths = SearchPaths(tmp_path_factory.mktemp("any"))
    paths.control.write_bytes(content)
    file = ControlFile(paths)
    file.new()
    request = Request("extend", more=1)
    ControlFile(paths).append(request)
    assert file.new()[-1:] == [request]


def test_an_answer_about_a_trial_that_does_not_exist_changes_nothing(
    paths: SearchPaths, driver: Driver
) -> None:
    request = Request("stop_trial", trial=99)
    ControlFile(paths).append(request)
    ControlFile(paths).append(Answer(request.id, True, "x"))
    events = len(driver()[1].history.events)
    assert events == len(History.read(paths.history).events)


def test_a_torn_line_is_passed_over_and_what_follows_is_read(paths: SearchPaths, driver: Driver) -> None:
    control, _ = driver()
    paths.control.write_bytes(b'{"id": "1", "kind": "ext')
    look(control)
    ControlFile(paths).append(Request("extend", more=3))
    look(control)
    assert control.settings.samples == 7


def test_a_file_that_was_emptied_is_read_anew(paths: SearchPaths, driver: Driver) -> None:
    control, _ = driver()
    for _ in range(3):
        ControlFile(paths).append(Request("extend", more=1))
    look(control)
    paths.control.write_bytes(b"")
    look(control)
    ControlFile(paths).append(Request("extend", more=1))
    look(control)
    assert control.settings.samples == 8


def test_a_search_that_nobody_runs_is_extended_on_the_spot(paths: SearchPaths) -> None:
    answer = ask(paths, Request("extend", more=2))
    assert answer is not None
    assert (answer.words, answer.samples) == ("search mine may go on to 6 samples (4 before)", 6)
    assert not answer.running
    assert SearchSettings.load(paths).samples == 6
    same = ask(paths, Request("extend", samples=6))
    assert same is not None
    assert same.samples == 6


def test_a_finished_search_goes_on_when_it_is_extended(paths: SearchPaths) -> None:
    history = History.read(paths.history)
    history.append(Event("result", 2, epoch=1, value=0.1), Event("stop", 2, epoch=1))
    history.append(Event("suggest", 3, params={"optim.lr": 0.3}), Event("fail", 3, epoch=1, reason="nan"))
    history.close()

    def state() -> str:
        return search_state(paths, SearchSettings.load(paths), History.read(paths.history))

    assert state() == "finished"
    assert ask(paths, Request("extend", samples=5)) is not None
    assert state() == "interrupted"
    decides = policy(paths)
    assert decides.next(5).trial_id == 4
    assert [trial.status for trial in decides.history.trials.values()] == [
        *("stopped", "completed", "stopped", "failed", "running")
    ]
    decides.history.close()


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        (Request("extend", samples=3), "--samples must be at least the 4 of search mine, but got 3"),
        (Request("extend", more=0), "must add at least 1, but got +0"),
        (Request("extend", more=10**6), "at most 1000000 in all, but got 1000004"),
        (Request("stop_trial", trial=0), "trial 00 of search mine has ended: it is stopped"),
        (Request("stop_trial", trial=1), "it is completed"),
        (Request("stop_trial", trial=9), "search mine has no trial 9 yet (there are 0 to 2)"),
        (Request("stop"), "search mine is not running: there is nothing to stop"),
    ],
    ids=lambda value: value.kind if isinstance(value, Request) else "",
)
def test_what_cannot_be_done_is_refused_and_nothing_is_written(
    paths: SearchPaths, request_: Request, words: str
) -> None:
    with pytest.raises(SearchError) as refused:
        ask(paths, request_)
    assert words in str(refused.value)
    assert not paths.control.exists()


def test_the_driver_refuses_what_has_become_wrong_since_it_was_asked(
    paths: SearchPaths, driver: Driver
) -> None:
    control, decides = driver()
    ControlFile(paths).append(Request("stop_trial", trial=2))
    decides.fail(2, 1, "nan")
    look(control)
    (answer,) = answers(paths)
    assert (answer.done, answer.words) == (False, "trial 02 of search mine has ended: it is failed")


@pytest.mark.usefixtures("alone")
def test_who_asks_waits_for_the_driver_and_hears_its_refusal(paths: SearchPaths, driver: Driver) -> None:
    control, decides = driver()
    ended = threading.Event()

    def drive() -> None:
        decides.fail(2, 1, "nan")
        while not ended.is_set():
            look(control)
            time.sleep(0.01)

    with announced(paths):
        thread = threading.Thread(target=drive)
        thread.start()
        try:
            answer = ask(paths, Request("extend", more=1))
            assert answer is not None
            assert (answer.samples, answer.running) == (5, True)
            with pytest.raises(SearchError, match="has ended: it is failed"):
                ask(paths, Request("stop_trial", trial=2))
            answer = ask(paths, Request("stop"))
            assert answer is not None
            assert answer.words == "search mine ends"
        finally:
            ended.set()
            thread.join()
    assert control.stopping


@pytest.mark.usefixtures("alone")
def test_a_request_that_nobody_answers_stands(paths: SearchPaths, driver: Driver) -> None:
    assert ask(paths, Request("extend", more=1), patience=0.0) is None
    assert SearchSettings.load(paths).samples == 4
    assert not wait_for_end(paths, patience=0.0)
    control, _ = driver()
    assert control.settings.samples == 5


@pytest.mark.usefixtures("alone")
def test_a_search_that_another_command_works_on_is_not_stopped(paths: SearchPaths) -> None:
    with pytest.raises(SearchError, match=r"another command works on it \(say, retrain-best\)"):
        ask(paths, Request("stop"))


def test_a_search_of_known_recipes_alone_has_nothing_to_extend(paths: SearchPaths) -> None:
    fields = json.loads(paths.settings.read_text())
    known = [{"name": "a", "recipe": {}}]
    paths.settings.write_text(json.dumps({**fields, "samples": 0, "baselines": known}))
    with pytest.raises(SearchError, match="known recipes alone"):
        ask(paths, Request("extend", more=1))


def test_an_extended_search_keeps_its_place_among_the_others(tmp_path: Path, paths: SearchPaths) -> None:
    time.sleep(0.01)
    lay_down_search(tmp_path / "results", "later")
    ask(paths, Request("extend", more=1))
    assert [search.name for search in list_searches(tmp_path / "results")] == ["mine", "later"]


def test_who_runs_a_search_is_believed_while_its_lock_is_held(paths: SearchPaths) -> None:
    assert runner_of(paths) is None
    with FileLock(paths.lock), announced(paths):
        found = runner_of(paths)
        assert found is not None
        assert (found.host, found.pid) == (Runner().host, Runner().pid)
        said = paths.runner.read_text()
    assert not paths.runner.exists()
    paths.runner.write_text(said)  # left behind by a process that was killed
    assert runner_of(paths) is None
    with FileLock(paths.lock):
        paths.runner.write_text('{"host": 3}')
        assert runner_of(paths) is None
