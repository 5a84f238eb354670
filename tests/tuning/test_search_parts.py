"""The small parts of a search, on plain numbers and files."""

import dataclasses
import gc
import weakref
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from ray.train._internal.storage import StorageContext
from ray.tune.execution.tune_controller import TuneController
from ray.tune.experiment import Trial as RayTrial

from tests.search_on_disk import lay_down_search
from tunekit.data.pack import Pack
from tunekit.errors import ResourceError, SearchError
from tunekit.history import Event, EventKind, History, Trial
from tunekit.models.build import build_model
from tunekit.paths import SearchPaths
from tunekit.recipe import Recipe, Value
from tunekit.space import SearchSpace, load_space
from tunekit.tuning.adapters import PolicyScheduler, PolicySearcher, TrialDesk
from tunekit.tuning.assignment import Assignment
from tunekit.tuning.checkpoint_keeper import CheckpointKeeper, keeper_of
from tunekit.tuning.control import Control
from tunekit.tuning.estimate import Measurement, MeasuringProcess, NetworkCost, disk_need, estimate
from tunekit.tuning.evidence import EarlierSearch, Evidence, Observation
from tunekit.tuning.failure_watch import FailureWatch
from tunekit.tuning.policy import SCHEDULERS, SearchPolicy, Suggestion
from tunekit.tuning.ray_session import Machine, check_shares
from tunekit.tuning.resources import Room, divide, for_more_trials
from tunekit.tuning.search_work import Preparation, SearchWork
from tunekit.tuning.settings import SearchSettings
from tunekit.tuning.study_export import export_study

SPACE = SearchSpace.from_dict({"space": {"optim.lr": {"low": 0.1, "high": 1.0}}})
ROOM = Room(divide([{"CPU": 1.0}], 1), list)
RESULT = {
    "epoch": 1,
    "val_accuracy": 0.5,
    "train_loss": 1.0,
    "train_accuracy": 0.5,
    "val_loss": 1.0,
    "learning_rate": 0.1,
    "epoch_seconds": 1.0,
    "images_per_second": 10.0,
    "trainable_parameters": 1000,
    "micro_batches": 1,
}


def desk(samples: int = 2, idle: Callable[[], None] = lambda: None) -> TrialDesk:
    def assign(suggestion: Suggestion) -> Assignment:
        return Assignment(suggestion.trial_id, suggestion.params, 0, 2, 0, "pack", "split", "folder")

    return TrialDesk(SearchPolicy(SPACE, max_epochs=2), samples, assign, idle=idle)


def test_the_desk_hands_out_as_many_trials_as_were_asked_for() -> None:
    trials = desk(samples=2)
    assert trials.hand_out("a") is not None
    assert trials.hand_out("b") is not None
    assert trials.hand_out("c") is None
    assert trials.take("a", dict(RESULT))
    assert not trials.take("a", {**RESULT, "epoch": 2})
    assert not trials.take("b", {"failure": "training loss is nan in epoch 1", "epoch": 1})
    assert trials.finished
    assert [t.status for t in trials.policy.history.trials.values()] == ["completed", "failed"]
    assert trials.policy.history.trials[0].results[0].metrics["train_loss"] == 1.0


def test_a_lost_attempt_is_handed_out_again_and_given_up_after_three() -> None:
    trials = desk(samples=1)
    for attempt in ("a", "b", "c"):
        assignment = trials.hand_out(attempt)
        assert assignment is not None
        assert assignment.trial_id == 0
        assert not trials.finished
        trials.attempt_lost(attempt, "Traceback ...\nActorDiedError: the node went away")
    assert trials.hand_out("d") is None
    assert trials.finished
    trial = trials.policy.history.trials[0]
    assert (trial.status, trial.reason) == ("lost", "ActorDiedError: the node went away")


def test_a_trial_that_gets_on_between_failures_of_machines_is_not_given_up() -> None:
    trials = desk(samples=1)
    for attempt, epoch in (("a", 0), ("b", 0), ("c", 1), ("d", 1), ("e", 1)):
        assert trials.hand_out(attempt) is not None
        if attempt == "c":
            assert trials.take(attempt, {**RESULT, "epoch": epoch})
        trials.attempt_lost(attempt, "the node went away")
        assert trials.finished == (attempt == "e")
    assert trials.policy.history.trials[0].status == "lost"


def test_a_worker_that_ray_ends_for_memory_every_time_is_a_failed_recipe() -> None:
    trials = desk(samples=1)
    for attempt in ("a", "b", "c"):
        assert trials.hand_out(attempt) is not None
        trials.attempt_lost(attempt, "ray.exceptions.OutOfMemoryError: Task was killed ...\nTip: ...")
    trial = trials.policy.history.trials[0]
    assert (trial.status, trial.reason) == ("failed", "out of memory: Ray ended its worker 3 times")


def test_a_full_disk_stops_the_search_and_costs_no_trial(tmp_path: Path) -> None:
    trials = desk(samples=2)
    assert trials.hand_out("a") is not None
    assert not trials.take("a", {"problem": "last.pt cannot be written: No space left on device"})
    assert trials.problem == "last.pt cannot be written: No space left on device"
    assert trials.hand_out("b") is None
    assert trials.finished
    trials.attempt_lost("a", "ended")
    assert [event.kind for event in trials.policy.history.events] == ["suggest"]


def ended(*statuses: str) -> Iterator[Trial]:
    for number, status in enumerate(statuses):
        trial = Trial(number, {}, 0.0)
        trial.status = status  # type: ignore[assignment]
        trial.reason = {"failed": f"loss is nan at step {number}", "lost": "the node went away"}.get(status)
        yield trial


@pytest.mark.parametrize(
    ("most", "statuses", "problem"),
    [
        (5, "fff", "the first 3 trials failed: loss is nan at step 0"),
        (5, "ffl", "the first 3 trials failed: loss is nan at step 0"),
        (5, "ffc", None),
        (5, "cccccccfffff", None),
        (5, "ccccccclllffff", "6 of the last 10 trials failed: the node went away"),
        (5, "cfffcfsff", "6 of the last 9 trials failed: loss is nan at step 1"),
        (9, "cffffffffff", "10 of the last 10 trials failed: loss is nan at step 1"),
        (0, "ccf", "1 of the last 3 trials failed: loss is nan at step 2"),
        (10, "ffffffffffff", None),
    ],
)
def test_too_many_failures_stop_a_search_with_their_common_cause(
    most: int, statuses: str, problem: str | None
) -> None:
    words = {"f": "failed", "l": "lost", "c": "completed", "s": "stopped"}
    watch = FailureWatch(most)
    said = [watch.see(trial) for trial in ended(*(words[letter] for letter in statuses))]
    assert next((what for what in said if what is not None), None) == problem


def test_a_paused_trial_frees_its_worker_and_is_handed_out_again_after_the_last_sample() -> None:
    def assign(suggestion: Suggestion) -> Assignment:
        return Assignment(suggestion.trial_id, suggestion.params, 0, 9, 0, "pack", "split", "folder")

    trials = TrialDesk(
        SearchPolicy(SPACE, max_epochs=9, grace_period=1, scheduler="asha-promotion"), 4, assign
    )
    for ray_id in "abcd":
        assert trials.hand_out(ray_id) is not None
    assert trials.take("a", dict(RESULT))  # the default recipe never pauses
    assert not trials.take("b", {**RESULT, "val_accuracy": 0.9})
    assert trials.hand_out("e") is None  # wait: others run
    assert not trials.take("c", {**RESULT, "val_accuracy": 0.3})
    assert not trials.finished
    promoted = trials.hand_out("e")
    assert promoted is not None
    assert promoted.trial_id == 1
    assert trials.take("e", {**RESULT, "epoch": 2})


def test_idle_time_is_told_when_a_trial_could_begin_and_there_is_none() -> None:
    told: list[str] = []
    trials = desk(samples=2, idle=lambda: told.append("idle"))
    assert trials.hand_out("a") is not None
    assert trials.hand_out("b") is not None
    assert told == []
    assert trials.hand_out("c") is None
    assert told == ["idle"]


def work_on(paths: SearchPaths, digits: Pack, space: SearchSpace, samples: int) -> SearchWork:
    """A search that has not begun."""
    settings = dataclasses.replace(SearchSettings.load(paths), samples=samples)
    policy = SearchPolicy(space, max_epochs=settings.epochs)
    keeper = keeper_of(settings, paths, policy.history)
    control, failures = Control(paths, settings, policy), FailureWatch(5)
    return SearchWork(paths, control, digits, policy, keeper, failures, Preparation(lambda: None))


@pytest.mark.parametrize(
    ("samples", "words"),
    [
        (9, "first and in full, then 4 warm starts (3 in full); "),
        (2, ", then 1 warm start (1 in full); "),
        (1, "full; "),
    ],
)
def test_the_plan_says_what_runs_first(tmp_path: Path, digits: Pack, samples: int, words: str) -> None:
    space = dataclasses.replace(
        SPACE, warm_starts=({"optim.lr": 0.2}, {"optim.lr": 0.3}, {"optim.lr": 0.4}, {"optim.lr": 0.5})
    )
    work = work_on(lay_down_search(tmp_path, "s"), digits, space, samples)
    assert words in work.plan(divide([{"CPU": 1.0}], 1))


def test_the_plan_says_what_the_sampler_knows(tmp_path: Path, digits: Pack) -> None:
    work = work_on(lay_down_search(tmp_path, "s"), digits, SPACE, 9)
    recorded = (Observation({"optim.lr": 0.1}, {3: 0.5}),) * 2
    taught = SearchPolicy(SPACE, max_epochs=9, earlier=[EarlierSearch("mnist", (), Evidence(recorded, (3,)))])
    plan = dataclasses.replace(work, policy=taught).plan(divide([{"CPU": 1.0}], 1))
    assert "first and in full; the sampler knows 2 trials of mnist; " in plan


def test_a_preparation_is_made_once_and_waited_for() -> None:
    done: list[int] = []
    preparation = Preparation(lambda: done.append(1))
    preparation.join()  # never begun: nothing to wait for
    for _ in range(3):
        preparation.start()
    preparation.join()
    assert done == [1]


def test_no_trial_is_proposed_before_there_is_room_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    now, nodes = [0.0], [{"CPU": 1.0}]
    monkeypatch.setattr("tunekit.tuning.resources.time.monotonic", lambda: now[0])
    room = Room(divide(nodes, 9, may_grow=True), lambda: nodes)
    searcher = PolicySearcher(desk(samples=4), room)
    assert [bool(searcher.suggest(trial)) for trial in "ab"] == [True, True]  # one waits for a node
    assert searcher.suggest("c") is None
    nodes.append({"CPU": 1.0})
    assert searcher.suggest("c") is None  # the cluster is looked at once a second
    now[0] = 1.5
    assert searcher.suggest("c")
    assert searcher.suggest("d") is None
    searcher.on_trial_complete("a")
    assert searcher.suggest("d")


def test_ray_never_pickles_the_search_into_its_snapshots() -> None:
    import pickle

    trials = desk()
    for adapter in (PolicySearcher(trials, ROOM), PolicyScheduler(trials, ROOM)):
        assert b"TrialDesk" not in pickle.dumps(adapter)


@pytest.fixture
def controller(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TuneController:
    """Ray's own, which would ask a running Ray for its number of CPUs."""
    monkeypatch.setenv("TUNE_MAX_PENDING_TRIALS_PG", "1")
    return TuneController(storage=StorageContext(str(tmp_path), "experiment"))


def test_a_free_process_takes_the_oldest_trial_for_which_none_is_being_started(
    controller: TuneController,
) -> None:
    nodes = [{"CPU": 3.0}]
    handed_out = desk(samples=6)
    scheduler = PolicyScheduler(handed_out, Room(divide(nodes, 9, may_grow=True), lambda: nodes))
    trials = [RayTrial("trainable", stub=True) for _ in range(5)]

    def add(trial: RayTrial) -> None:
        assert handed_out.hand_out(trial.trial_id) is not None
        controller.add_trial(trial)
        scheduler.on_trial_add(controller._wrapped(), trial)

    def chosen() -> int | None:
        found = scheduler.choose_trial_to_run(controller._wrapped())
        return None if found is None else trials.index(found)

    for trial in trials[:4]:
        add(trial)
    trials[0].set_status(RayTrial.RUNNING)  # processes for 1 and 2 are being started, 3 waits for a node
    trials[0].set_status(RayTrial.TERMINATED)
    add(trials[4])
    assert chosen() == 3  # before 4, which came later
    trials[3].set_status(RayTrial.RUNNING)
    trials[1].set_status(RayTrial.RUNNING)
    trials[1].set_status(RayTrial.TERMINATED)
    assert chosen() == 4
    trials[4].set_status(RayTrial.RUNNING)
    assert chosen() == 2  # nothing else waits
    trials[2].set_status(RayTrial.RUNNING)
    assert chosen() is None


@pytest.mark.parametrize("end", [RayTrial.TERMINATED, RayTrial.ERROR])
def test_an_ended_trial_leaves_nothing_in_ray(controller: TuneController, end: str) -> None:
    handed_out = desk(samples=2)
    scheduler = PolicyScheduler(handed_out, ROOM)
    running, ended = RayTrial("trainable", stub=True), RayTrial("trainable", stub=True)
    for trial in (running, ended):
        assert handed_out.hand_out(trial.trial_id) is not None
        controller.add_trial(trial)
        scheduler.on_trial_add(controller._wrapped(), trial)
        controller._set_trial_status(trial, RayTrial.RUNNING)
    controller._get_trial_checkpoints()  # as for a snapshot
    controller._set_trial_status(ended, end)
    controller._mark_trial_to_checkpoint(ended)
    controller._pending_trials_list.clear()  # as Tune does when it has started them,
    controller._live_trials.discard(ended)  # and when one ends
    number = ended.trial_id
    known = weakref.ref(ended)
    del trial, ended
    gc.collect()
    assert known() is not None
    scheduler.choose_trial_to_run(controller._wrapped())
    gc.collect()
    assert known() is None
    assert set(controller._get_trial_checkpoints()) == {running.trial_id}
    assert controller.get_trials() == [running]
    assert number not in handed_out._trial_of and running.trial_id in handed_out._trial_of


def test_a_controller_that_names_its_parts_otherwise_keeps_its_trials() -> None:
    class Other:
        def __init__(self, trials: list[RayTrial]) -> None:
            self._all = trials

        def get_trials(self) -> list[RayTrial]:
            return self._all

    handed_out, trial = desk(samples=1), RayTrial("trainable", stub=True)
    scheduler = PolicyScheduler(handed_out, ROOM)
    assert handed_out.hand_out(trial.trial_id) is not None
    scheduler.on_trial_add(Other([trial]), trial)
    trial.set_status(RayTrial.TERMINATED)
    assert scheduler.choose_trial_to_run(Other([trial])) is None


def test_checkpoints_of_the_best_trials_stay(tmp_path: Path) -> None:
    paths, history = SearchPaths(tmp_path), History()
    keeper = CheckpointKeeper(paths, history, keep=2)
    history.subscribe(keeper.event)
    for trial, value in enumerate([0.3, 0.9, 0.1, 0.5]):
        files = paths.trial(trial)
        files.folder.mkdir(parents=True)
        files.best.touch()
        files.last.touch()
        history.append(Event("suggest", trial, params={}))
        history.append(Event("result", trial, epoch=1, value=value))
        if trial != 2:
            history.append(Event("complete", trial))
    assert [trial for trial in range(4) if paths.trial(trial).best.exists()] == [1, 2, 3]  # 2 still runs
    assert [trial for trial in range(4) if paths.trial(trial).last.exists()] == [2]
    history.append(Event("stop", 2, epoch=1))
    assert [trial for trial in range(4) if paths.trial(trial).best.exists()] == [1, 3]


def test_a_paused_trial_keeps_what_it_goes_on_from_until_the_search_ends(tmp_path: Path) -> None:
    paths, history = SearchPaths(tmp_path), History()
    keeper = CheckpointKeeper(paths, history, keep=1)
    history.subscribe(keeper.event)
    for trial in range(2):
        paths.trial(trial).folder.mkdir(parents=True)
        paths.trial(trial).last.touch()
        history.append(Event("suggest", trial, params={}))
        history.append(Event("result", trial, epoch=1, value=0.5))
        history.append(Event("pause", trial, epoch=1))
    history.append(Event("resume", 0))
    history.append(Event("complete", 0))
    assert [trial for trial in range(2) if paths.trial(trial).last.exists()] == [1]
    history.append(Event("stop", 1, epoch=1))
    assert not paths.trial(1).last.exists()


def test_weights_of_the_newest_attempt_become_the_trials_when_it_ends(tmp_path: Path) -> None:
    paths, history = SearchPaths(tmp_path), History()
    history.append(Event("suggest", 0, params={}), Event("result", 0, epoch=1, value=0.5))
    history.append(Event("pause", 0, epoch=1), Event("resume", 0), Event("resume", 0))
    trial = paths.trial(0)
    assert history.trials[0].attempts == 3
    for number in (9, 10):
        trial.attempt(number).folder.mkdir(parents=True)
        trial.attempt(number).best.write_text(f"weights of attempt {number}")
        trial.attempt(number).last.write_text(f"state of attempt {number}")
    assert trial.last == trial.attempt(10).last
    history.subscribe(CheckpointKeeper(paths, history, keep=1).event)
    history.append(Event("complete", 0))
    assert [file.relative_to(trial.folder).as_posix() for file in trial.checkpoints()] == ["best.safetensors"]
    assert trial.best.read_text() == "weights of attempt 10"


def test_a_disk_budget_costs_weights_but_never_the_winners_nor_what_a_rung_may_need(tmp_path: Path) -> None:
    paths, history = SearchPaths(tmp_path), History()
    keeper = CheckpointKeeper(paths, history, keep=3, budget=4000)
    history.subscribe(keeper.event)

    def train(trial: int, value: float, end: EventKind | None) -> None:
        files = paths.trial(trial)
        files.folder.mkdir(parents=True)
        files.best.write_bytes(b"x" * 1000)
        files.last.write_bytes(b"x" * 1000)
        (files.folder / f".last.pt.{'0' * 32}").touch()  # a worker was killed while it wrote
        history.append(Event("suggest", trial, params={}))
        history.append(Event("result", trial, epoch=1, value=value))
        if end:
            history.append(Event(end, trial, epoch=1))

    def on_disk() -> list[str]:
        return sorted(f"{int(file.parent.name)}/{file.name}" for file in tmp_path.glob("trials/*/*"))

    train(0, 0.9, "complete")
    train(1, 0.8, "complete")
    train(2, 0.7, "complete")
    assert on_disk() == [f"{trial}/best.safetensors" for trial in (0, 1, 2)]
    train(3, 0.1, "pause")  # 5,000 bytes: the weights of the third best go
    assert on_disk() == ["0/best.safetensors", "1/best.safetensors", "3/last.pt"]
    train(4, 0.1, "pause")
    assert on_disk() == ["0/best.safetensors", "3/last.pt", "4/last.pt"]
    assert not keeper.over_budget
    train(5, 0.1, None)
    assert keeper.over_budget
    assert keeper.taken == 5000
    again = CheckpointKeeper(paths, history, keep=3, budget=6000)
    assert (again.taken, again.over_budget) == (5000, False)


def test_the_room_that_checkpoints_need_adds_up() -> None:
    need = disk_need([100, 1000], slots=2, keep=3, paused=5)
    assert need.at_most == 2 * (8000 + 1000) + 5 * 4000 + 3 * 1000
    assert need.at_least == 300


def test_weights_of_a_recipe_stay_until_its_mean_is_known(tmp_path: Path) -> None:
    paths, history = SearchPaths(tmp_path), History()
    keeper = CheckpointKeeper(paths, history, keep=1, repeats=2)
    history.subscribe(keeper.event)

    def train(trial: int, value: float, repeat_of: int | None = None) -> None:
        files = paths.trial(trial)
        files.folder.mkdir(parents=True)
        files.best.touch()
        history.append(Event("suggest", trial, params={}, repeat_of=repeat_of))
        history.append(Event("result", trial, epoch=1, value=value))
        history.append(Event("complete", trial))

    def kept() -> list[int]:
        return [trial for trial in history.trials if paths.trial(trial).best.exists()]

    train(0, 0.8)
    train(1, 0.9)
    assert kept() == [0, 1]  # either may turn out to be the best
    train(2, 0.9, repeat_of=0)
    assert kept() == [0, 1]
    train(3, 0.5, repeat_of=1)
    assert kept() == [0]
    assert [trial.id for trial in keeper.best_trials()] == [0]


def test_the_history_can_be_read_as_an_optuna_study(tmp_path: Path) -> None:
    paths = lay_down_search(tmp_path, "mine")
    for _ in range(2):  # a second export replaces the first
        export_study(History.read(paths.history), load_space(paths.space), paths)
    study = optuna.load_study(study_name="mine", storage=JournalStorage(JournalFileBackend(str(paths.study))))
    states = [trial.state.name for trial in study.trials]
    assert states == ["PRUNED", "COMPLETE"]
    assert study.trials[1].intermediate_values == {1: 0.5, 2: 0.75, 3: 0.75}
    assert study.best_trial.params == {"optim.lr": 0.5}


def test_an_estimate_adds_up() -> None:
    plan: dict[str, Any] = {"train_images": 90, "val_images": 30, "epochs": 9}
    seconds = estimate([0.01], trials=4, slots=2, **plan)
    assert seconds.at_most == pytest.approx(2 * 9 * 1.0)
    assert seconds.expected == seconds.at_most
    seconds = estimate([0.01, 0.03], trials=4, slots=8, survivors=((3, 1 / 3),), **plan)
    assert seconds.at_most == pytest.approx(9 * 2.0)
    assert seconds.expected == pytest.approx((3 + 6 / 3) * 2.0)
    # One in full and three of which one trains to the end, so two recipes train a second time.
    seconds = estimate([0.01], trials=4, slots=1, survivors=((3, 1 / 3),), in_full=1, repeats=2, **plan)
    assert seconds.expected == pytest.approx(9 + 3 * (3 + 6 / 3) + 2 * 9)
    assert seconds.at_most == pytest.approx(2 * 4 * 9)


@pytest.mark.parametrize("name", SCHEDULERS)
def test_an_estimate_holds_for_each_scheduler_about(name: str) -> None:
    search = SearchPolicy(SPACE, max_epochs=27, sampler="random", scheduler=name)
    while search.has_next(100):  # a worker; trials differ by their learning rate alone
        suggestion = search.next()
        for epoch in range(search.history.trials[suggestion.trial_id].epoch + 1, 28):
            value = float(suggestion.params["optim.lr"]) - 0.1 / epoch
            if search.report(suggestion.trial_id, epoch, value) != "continue":
                break
    trained = sum(trial.epoch for trial in search.history.trials.values())
    survivors = search.scheduler.survivors()
    expected = estimate([1.0], 1, 0, 100, 27, 1, survivors, in_full=1).expected
    assert expected == pytest.approx(trained, rel=0.35)


def measured(*recipes: Mapping[str, Value]) -> list[NetworkCost] | None:
    process = MeasuringProcess(Measurement(recipes, (8, 8, 1), 10, cpus=1, gpus=0))
    try:
        return process.costs()
    finally:
        process.close()


def test_a_batch_is_measured_in_a_process_of_its_own() -> None:
    costs = measured({"model.name": "resnet8"}, {"model.name": "resnet8", "optim.lr": 0.5, "input.size": 12})
    assert costs is not None
    assert len(costs) == 2
    assert all(0 < cost.seconds < 10 for cost in costs)
    network = build_model(Recipe.from_flat({"model.name": "resnet8"}), (8, 8, 1), 10)
    assert costs[0].weights == sum(tensor.nbytes for tensor in network.state_dict().values())


def test_a_recipe_that_cannot_be_measured_costs_only_its_share_of_the_estimate() -> None:
    too_small = {"model.name": "lenet5"}
    costs = measured(too_small, {"model.name": "resnet8"}, {"model.name": "resnet8", "optim.lr": 0.5})
    assert costs is not None
    assert costs[0] == costs[1]  # the same network is measured once
    assert len(costs) == 2
    assert measured(too_small) is None


@pytest.mark.parametrize(
    ("cpus", "gpus", "message"),
    [
        (3.0, None, "--cpus-per-trial 3: there are 2 CPUs here"),
        (None, 0.5, "--gpus-per-trial 0.5: there is no GPU here"),
    ],
)
def test_shares_that_do_not_fit_are_refused(cpus: float | None, gpus: float | None, message: str) -> None:
    with pytest.raises(ResourceError) as error:
        check_shares(cpus, gpus, Machine(cpus=2, gpus=0))
    assert str(error.value) == message


@pytest.mark.parametrize(
    ("nodes", "shares", "slots", "cpus", "gpus"),
    [
        ([(2, 0)], (None, None), 2, 1, 0),
        ([(4, 0), (2, 0)], (3, None), 1, 3, 0),  # what is left on two nodes makes no trial
        ([(16, 4)], (None, None), 4, 4, 1),
        ([(16, 4)], (None, 0.5), 8, 2, 0.5),
        ([(16, 4), (8, 1), (32, 0)], (None, None), 5, 4, 1),  # the CPUs of the node with the fewest a GPU
        ([(16, 1)], (None, 0), 16, 1, 0),
        ([(64, 0)], (None, None), 20, 1, 0),  # no more than there are trials
        ([(64, 8)], (None, None), 8, 8, 1),
    ],
)
def test_nodes_are_divided_among_trials(
    nodes: list[tuple[int, int]],
    shares: tuple[float | None, float | None],
    slots: int,
    cpus: float,
    gpus: float,
) -> None:
    found = divide([{"CPU": cpu, "GPU": gpu} for cpu, gpu in nodes], 20, *shares)
    assert (found.slots, found.cpus_per_trial, found.gpus_per_trial) == (slots, cpus, gpus)
    assert found.most_at_once == slots


def test_an_extension_may_use_the_whole_cluster() -> None:
    nodes = [{"CPU": 64.0, "GPU": 8.0}, {"CPU": 32.0, "GPU": 4.0}, {"CPU": 16.0}]
    few = divide(nodes, 3, may_grow=True)
    assert (few.slots, few.cpus_per_trial, few.gpus_per_trial) == (3, 8, 1)  # of 3 trials none takes more
    assert Room(few, lambda: nodes).trials == 3
    extended = for_more_trials(nodes, few, 10**6)
    room = Room(extended, lambda: nodes)
    assert (room.slots, room.trials) == (12, 12 + 3)  # a trial a GPU, and some that wait so that nodes come
    assert Room(extended, lambda: [*nodes, {"CPU": 64.0, "GPU": 8.0}]).trials == 20 + 5
    shared = for_more_trials(nodes, divide(nodes, 3, gpus_per_trial=0.25, may_grow=True), 10**6)
    assert (shared.cpus_per_trial, Room(shared, lambda: nodes).trials) == (2, 48 + 12)


def test_an_extension_may_use_the_whole_machine() -> None:
    nodes = [{"CPU": 16.0, "GPU": 4.0}]
    few = divide(nodes, 1)
    assert (few.slots, few.most_at_once, few.cpus_per_trial) == (1, 1, 4)
    assert for_more_trials(nodes, few, 10**6).most_at_once == 4


def test_what_fits_no_node_waits_only_where_nodes_may_come() -> None:
    nodes = [{"CPU": 2.0}, {"CPU": 4.0}]
    with pytest.raises(ResourceError, match=r"--cpus-per-trial 6: there are 4 CPUs here"):
        divide(nodes, 20, 6)
    waiting = divide(nodes, 20, 6, may_grow=True)
    assert (waiting.slots, waiting.most_at_once) == (1, 20)


def test_settings_come_back_as_they_were_and_damage_is_named(tmp_path: Path) -> None:
    paths = lay_down_search(tmp_path, "mine")
    settings = SearchSettings.load(paths)
    settings.save(paths)
    assert SearchSettings.load(paths) == settings
    assert settings.trial_seed(3) != settings.trial_seed(4)
    paths.settings.write_text('{"name": "mine", "colour": 3}')
    with pytest.raises(SearchError, match="not the settings of a search"):
        SearchSettings.load(paths)


def test_an_automatic_share_of_a_gpu_is_kept_and_fits_every_machine(tmp_path: Path) -> None:
    paths = lay_down_search(tmp_path, "mine")
    dataclasses.replace(SearchSettings.load(paths), gpus_per_trial="auto").save(paths)
    assert SearchSettings.load(paths).gpus_per_trial == "auto"
    check_shares(None, "auto", Machine(cpus=2, gpus=0))
    paths.settings.write_text(paths.settings.read_text().replace('"auto"', '"most"'))
    with pytest.raises(SearchError, match="--gpus-per-trial must be a number or 'auto', but got 'most'"):
        SearchSettings.load(paths)
