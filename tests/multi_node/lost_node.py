"""A search on two machines of which one is killed in the middle, and a third that joins late."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.multi_node.namespaces import Machine
from tests.multi_node.nodes import Cluster, Command, results_on, until
from tunekit.data.pack import Pack
from tunekit.history import Event, History, Trial
from tunekit.paths import pack_folder
from tunekit.space import load_space
from tunekit.tracking.client import open_client
from tunekit.tuning.assignment import Assignment
from tunekit.tuning.settings import SearchSettings
from tunekit.tuning.trial_run import TrialRun

SPACE = """
[fixed]
"model.name" = "resnet8"
"batch_size" = 32

[space]
"optim.lr" = { low = 1e-3, high = 0.3, log = true }
"""


@dataclass(frozen=True)
class Seconds:
    """How long it took."""

    kill_to_next_epoch: float  # from the death of a node to an epoch elsewhere of the trial that it trained
    start_to_first_epoch: float  # from `ray start` on a late machine to its first epoch
    join_to_first_epoch: float  # from when that node had joined


def search(cluster: Cluster, *options: str, dataset: str = "digits", name: str = "s") -> Command:
    """Start a search on the head of the cluster."""
    (cluster.folder / "small.toml").write_text(SPACE)
    joined = ("--address", cluster.address, "--data-dir", str(cluster.folder / "data"))
    return cluster.tunekit("search", dataset, "--space", "small.toml", "--name", name, *joined, *options)


def lose_a_node(
    cluster: Cluster, command: Command, say: Callable[[str], None]
) -> tuple[Seconds, Machine, Machine]:
    """Kill the second node while it trains, and add a third; returns when that one has trained an epoch.

    Returns:
        The durations, the machine that was killed and the one that came.
    """
    second = cluster.network.machines[1]
    await_epochs(cluster, command, second, 3)
    killed_at = time.time()
    second.kill()
    say(f"{second.name} was killed with {len(results_on(cluster.events('s'), second))} epochs")
    resumed = await_resumed(cluster, command, killed_at, second)
    say(f"{resumed.time - killed_at:.1f} s later trial {resumed.trial} goes on at epoch {resumed.epoch}")
    started_at = time.time()
    third = cluster.add_node(cpus=1)
    joined_at = time.time()
    await_epochs(cluster, command, third, 1)
    first = results_on(cluster.events("s"), third)[0].time
    say(
        f"{third.name} joined in {joined_at - started_at:.1f} s and trained in {first - joined_at:.1f} s more"
    )
    return Seconds(resumed.time - killed_at, first - started_at, first - joined_at), second, third


def await_epochs(cluster: Cluster, command: Command, machine: Machine, epochs: int) -> None:
    """Wait until a machine has trained so many epochs."""
    _while_running(command, lambda: len(results_on(cluster.events("s"), machine)) >= epochs)


def await_resumed(cluster: Cluster, command: Command, since: float, lost: Machine) -> Event:
    """Wait for the first epoch elsewhere of a trial that was on a machine last."""

    def resumed() -> Event | None:
        events = cluster.events("s")
        before = results_on([event for event in events if event.time <= since], lost)
        trials = {before[-1].trial}
        later = [event for event in events if event.time > since and event.trial in trials and event.worker]
        return next((event for event in later if event not in results_on(later, lost)), None)

    _while_running(command, lambda: resumed() is not None)
    found = resumed()
    assert found is not None
    return found


def _while_running(command: Command, condition: Callable[[], bool]) -> None:
    until(lambda: condition() or command.process.poll() is not None, command.output)
    assert condition(), command.output()


def check_whole(history: History, epochs: int) -> None:
    """Every trial ended with the epochs 1 to n, each of them once."""
    for trial in history.trials.values():
        assert trial.status == "completed", trial
        assert [result.epoch for result in trial.results] == list(range(1, epochs + 1)), trial.id


def check_tracked(cluster: Cluster, history: History) -> None:
    """MLflow has every trial once, with the values of the history."""
    client: Any = open_client(SearchSettings.load(cluster.paths("s")).tracking_uri)
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    runs = [run for run in client.search_runs(experiments) if "tunekit.trial" in run.data.tags]
    assert sorted(int(run.data.tags["tunekit.trial"]) for run in runs) == sorted(history.trials)
    for run in runs:
        points = client.get_metric_history(run.info.run_id, "val_accuracy")
        trial = history.trials[int(run.data.tags["tunekit.trial"])]
        assert sorted((point.step, point.value) for point in points) == _values(trial)


def _values(trial: Trial) -> list[tuple[int, float]]:
    return [(result.epoch, result.value) for result in trial.results]


def check_as_trained_straight_through(cluster: Cluster, history: History, trials: Sequence[Trial]) -> None:
    """Each trial has, bit for bit, the values of the same trial trained in this process in one go."""
    paths = cluster.paths("s")
    settings = SearchSettings.load(paths)
    pack = Pack.open(own_pack(cluster.network.machines[0]))
    for trial in trials:
        recipe = load_space(paths.space).recipe(trial.params).to_flat()
        folder = cluster.folder / "straight" / str(trial.id)
        run = TrialRun(
            Assignment(
                trial_id=trial.id,
                recipe=recipe,
                seed=settings.trial_seed(trial.id),
                epochs=settings.epochs,
                reported=0,
                pack=str(pack.folder),
                split=str(paths.split),
                folder=str(folder),
            )
        )
        for result in trial.results:
            epoch = run.step()
            assert result.value == epoch["val_accuracy"], (trial.id, result.epoch)
            for name in ("train_loss", "val_loss"):
                assert result.metrics[name] == epoch[name], (trial.id, result.epoch, name)


def shared_pack(cluster: Cluster) -> Path:
    """The copy of the images that all machines see."""
    settings = SearchSettings.load(cluster.paths("s"))
    return cluster.paths("s").shared_pack(settings.data_digest)


def own_pack(machine: Machine, dataset: str = "digits") -> Path:
    """Where a machine has its copy, or will have it."""
    return pack_folder(machine.folder / "data", dataset)
