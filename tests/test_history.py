"""The history survives crashes and adds up to trials."""

import resource
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tunekit.errors import SearchError, StorageError
from tunekit.history import Event, History
from tunekit.recipe import Value


def filled(path: Path | None) -> History:
    history = History(path)
    history.append(Event("suggest", 0, params={"optim.lr": 0.1}))
    history.append(Event("result", 0, epoch=1, value=0.5, metrics={"train_loss": 1.0}))
    history.append(Event("result", 0, epoch=2, value=0.7))
    history.append(Event("result", 0, epoch=3, value=0.7))
    history.append(Event("stop", 0, epoch=3))
    history.append(Event("suggest", 1, params={"optim.lr": 0.2}))
    history.append(Event("fail", 1, epoch=1, reason="diverged"))
    history.append(Event("suggest", 2, params={"optim.lr": 0.3}))
    return history


def test_events_add_up_to_trials() -> None:
    trials = filled(None).trials
    assert [trial.status for trial in trials.values()] == ["stopped", "failed", "running"]
    assert trials[0].rung == 3
    assert trials[0].best is not None
    assert trials[0].best.epoch == 2  # the first of equals
    assert trials[1].reason == "diverged"
    assert trials[1].ended is not None
    assert trials[2].ended is None


def test_what_is_read_back_is_what_was_written(tmp_path: Path) -> None:
    history = filled(tmp_path / "history.jsonl")
    history.close()
    again = History.read(tmp_path / "history.jsonl")
    assert list(again.events) == list(history.events)
    assert again.trials == history.trials


def test_numbers_of_an_epoch_are_a_mapping_like_any_other() -> None:
    told = {"train_loss": 0.25, "epoch_seconds": 3.0}
    metrics = Event("result", 0, epoch=1, value=0.5, metrics=told).metrics
    assert metrics == told and {**metrics} == told and list(metrics) == list(told) and len(metrics) == 2
    assert metrics.get("val_loss") is None and "val_loss" not in metrics
    with pytest.raises(KeyError, match="val_loss"):
        metrics["val_loss"]


def test_each_event_is_on_disk_before_append_returns(tmp_path: Path) -> None:
    history = filled(tmp_path / "history.jsonl")
    assert len(History.read(tmp_path / "history.jsonl").events) == len(history.events)
    history.close()


def test_a_value_is_found_by_its_epoch() -> None:
    trial = filled(None).trials[0]
    assert [trial.value_at(epoch) for epoch in range(5)] == [None, 0.5, 0.7, 0.7, None]


def repeated(*values: float | None, repeat_of: int | None = None) -> list[Event]:
    """Trials that completed with these values, or failed before they had one."""
    events = []
    for trial, value in enumerate(values, start=0 if repeat_of is None else repeat_of):
        events.append(Event("suggest", trial, params={}))
        events.append(
            Event("fail", trial, epoch=1) if value is None else Event("result", trial, epoch=1, value=value)
        )
    return events


def test_a_recipe_is_worth_the_mean_of_its_trainings() -> None:
    history = History(events=repeated(0.9, 0.8, 0.85))
    assert [trial.id for trial in history.ranked()] == [0, 2, 1]
    for trial, first, value in ((3, 0, 0.6), (4, 1, 0.9)):
        history.append(Event("suggest", trial, params={}, repeat_of=first))
        history.append(Event("result", trial, epoch=1, value=value))
        assert history.recipe_value(history.trials[first]) == [0.9, 0.8][first]  # it still runs
        history.append(Event("complete", trial))
    trials = history.trials
    assert [history.recipe_value(trials[n]) for n in range(5)] == pytest.approx(
        [0.75, 0.85, 0.85, 0.75, 0.85]
    )
    assert [trial.id for trial in history.ranked()] == [1, 4, 0, 3, 2]  # trained twice before trained once
    best = history.best()
    assert best is not None
    assert best.id == 1
    assert [trial.id for trial in history.recipes] == [0, 1, 2]
    assert [trial.id for trial in history.repeats(trials[1])] == [4]


def test_a_repeat_that_failed_counts_against_its_recipe_and_a_lost_one_does_not() -> None:
    history = History(events=repeated(0.9))
    history.append(Event("suggest", 1, params={}, repeat_of=0), Event("lose", 1, reason="node"))
    assert history.recipe_value(history.trials[0]) == 0.9
    history.append(Event("suggest", 2, params={}, repeat_of=0), Event("fail", 2, epoch=1, reason="nan"))
    assert history.recipe_value(history.trials[0]) == 0.45


def test_a_torn_last_line_is_dropped_and_written_over(tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    filled(path).close()
    whole = path.read_bytes()
    path.write_bytes(whole[:-9])
    history = History.read(path)
    assert len(history.events) == 7
    history.append(Event("suggest", 2, params={"optim.lr": 0.4}))
    history.close()
    assert [event.kind for event in History.read(path).events][-2:] == ["fail", "suggest"]


def test_a_damaged_line_is_named(tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    filled(path).close()
    lines = path.read_text().splitlines()
    lines[2] = "{nonsense"
    path.write_text("\n".join(lines) + "\n")
    with pytest.raises(SearchError, match="line 3 is not an event"):
        History.read(path)


def test_best_is_the_earliest_of_equals_and_ranks_put_failures_last() -> None:
    history = filled(None)
    history.append(Event("result", 2, epoch=1, value=0.7))
    best = history.best()
    assert best is not None
    assert best.id == 0
    assert [trial.id for trial in history.ranked()] == [0, 2, 1]


def test_listeners_hear_every_event_after_it_counts() -> None:
    history, heard = History(), []
    history.subscribe(lambda event: heard.append((event.kind, len(history.events))))
    history.append(Event("suggest", 0, params={}))
    history.append(Event("complete", 0))
    assert heard == [("suggest", 1), ("complete", 2)]


@contextmanager
def room_for(size: int) -> Iterator[None]:
    """No file of this process grows beyond `size` bytes inside the block, as on a disk that gets full."""
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))


def test_events_for_which_there_is_no_room_are_not_added_not_even_in_part(tmp_path: Path) -> None:
    history = filled(tmp_path / "history.jsonl")
    size, before = history.path.stat().st_size, list(history.events)  # type: ignore[union-attr]
    result, pause = Event("result", 2, epoch=1, value=0.5), Event("pause", 2, epoch=1)
    with (
        room_for(size + len(result.to_line()) + 40),
        pytest.raises(StorageError, match=r"history\.jsonl cannot"),
    ):
        history.append(result, pause)
    assert list(history.events) == before
    assert history.trials[2].status == "running"
    history.append(result)
    history.close()
    assert list(History.read(tmp_path / "history.jsonl").events) == list(history.events)


def test_times_never_fall_whatever_the_clock_does(tmp_path: Path) -> None:
    before = filled(None).events
    later = History(events=[Event("suggest", 0, params={}, time=before[-1].time + 3600)])
    later.append(Event("result", 0, epoch=1, value=0.5))  # the machine's clock was turned back by an hour
    assert later.events[1].time == later.events[0].time


def test_events_are_given_as_they_came() -> None:
    came = [
        Event("suggest", 0, 1.0, params={"optim.lr": 0.1}),
        Event("suggest", 1, 2.0, params={"optim.lr": 0.2}, default=True),
        Event("result", 1, 3.0, epoch=1, value=0.5, metrics={"val_loss": 1.0}, worker="host:4711"),
        Event("result", 0, 4.0, epoch=2, value=0.25),
        Event("pause", 0, 5.0, epoch=2),
        Event("result", 1, 6.0, epoch=2, value=0.75, metrics={"val_loss": 0.5, "train_loss": 0.25}),
        Event("resume", 0, 7.0),
    ]
    history = History(events=came)
    assert list(history.events) == came
    assert history.events[-1] == came[-1]
    assert history.events[2:5] == came[2:5]
    with pytest.raises(IndexError):
        history.events[len(came)]


def test_trials_since_an_event_are_given_as_they_are_now() -> None:
    history = filled(None)
    assert [trial.id for trial in history.trials_since(0)] == [0, 1, 2]
    given = list(history.trials_since(6))
    assert [trial.id for trial in given] == [1, 2]
    assert given == [history.trials[1], history.trials[2]]
    history.append(Event("result", 2, epoch=1, value=0.5), Event("stop", 2, epoch=1))
    assert given[1].status == "running" and not given[1].results
    assert [trial.id for trial in history.trials_since(8)] == [2]
    assert list(history.trials_since(10)) == []


def test_a_trial_takes_little_memory() -> None:
    def run(first: int) -> None:
        for trial in range(first, first + 100):
            history.append(Event("suggest", trial, params=params))
            for epoch in range(1, 11):
                metrics = {f"metric {number}": epoch + number / 7 for number in range(8)}
                history.append(
                    Event("result", trial, epoch=epoch, value=epoch / 11, metrics=metrics, worker="host:4711")
                )
            history.append(Event("complete", trial))

    params: dict[str, Value] = {"optim.lr": 0.1}  # shared, so that only the rest is counted
    history = History()
    run(0)
    tracemalloc.start()
    try:
        run(100)
        taken, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert taken / 100 < 3500  # bytes; of which 10 results of 10 numbers are 800
