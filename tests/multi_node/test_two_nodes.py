"""Searches on machines that only a network joins: killed, cut off, late, too small, refused."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import tunekit
from tests.multi_node.lost_node import (
    await_epochs,
    await_resumed,
    check_as_trained_straight_through,
    check_tracked,
    check_whole,
    lose_a_node,
    own_pack,
    search,
    shared_pack,
)
from tests.multi_node.namespaces import why_not
from tests.multi_node.nodes import Cluster, cluster, results_on
from tunekit.data.pack import Pack
from tunekit.history import History

_WHY_NOT = why_not()
pytestmark = [
    pytest.mark.slow,
    pytest.mark.ray,
    pytest.mark.extended,
    pytest.mark.timeout(240),
    pytest.mark.skipif(_WHY_NOT is not None, reason=str(_WHY_NOT)),
]

EPOCHS = 30
SIZE = ("--epochs", str(EPOCHS), "--scheduler", "none", "--train-limit", "800")


@pytest.fixture
def two_nodes() -> Iterator[Cluster]:
    with cluster() as made:
        made.add_node(cpus=1)
        made.add_node(cpus=1)
        yield made


@pytest.fixture(scope="module")
def unequal_nodes() -> Iterator[Cluster]:
    """The head has one CPU, the other machine two."""
    with cluster() as made:
        made.add_node(cpus=1)
        made.add_node(cpus=2)
        yield made


def test_a_killed_node_costs_no_epoch_and_a_late_one_gets_work(two_nodes: Cluster) -> None:
    first, second = two_nodes.network.machines
    assert not own_pack(second).exists()
    command = search(two_nodes, *SIZE, "--samples", "5")
    await_epochs(two_nodes, command, second, 1)
    copied = own_pack(second).stat().st_ino
    durations, second, third = lose_a_node(two_nodes, command, print)
    code, output = command.wait()
    print(durations)
    assert code == 0, output
    assert "Traceback" not in output and "raylet" not in output and "pid=" not in output

    history = History.read(two_nodes.paths("s").history)
    assert all(results_on(history.events, machine) for machine in (first, second, third))
    assert Pack.open(own_pack(second)).files == Pack.open(shared_pack(two_nodes)).files
    assert own_pack(second).stat().st_ino == copied
    assert len(history.trials) == 5
    check_whole(history, EPOCHS)
    check_tracked(two_nodes, history)
    check_as_trained_straight_through(two_nodes, history, [*history.trials.values()])


def test_a_node_that_is_cut_off_and_comes_back_adds_nothing_twice(two_nodes: Cluster) -> None:
    _, second = two_nodes.network.machines
    command = search(two_nodes, *SIZE, "--samples", "3")
    await_epochs(two_nodes, command, second, 3)
    second.cut_off()
    began = time.time()
    resumed = await_resumed(two_nodes, command, began, second)
    print(f"{resumed.time - began:.1f} s after the cut trial {resumed.trial} goes on at {resumed.epoch}")
    second.connect()
    code, output = command.wait()
    assert code == 0, output
    assert "Traceback" not in output and "raylet" not in output and "pid=" not in output

    history = History.read(two_nodes.paths("s").history)
    check_whole(history, EPOCHS)
    check_tracked(two_nodes, history)
    check_as_trained_straight_through(two_nodes, history, [history.trials[resumed.trial]])


def test_a_trial_runs_where_it_has_room(unequal_nodes: Cluster) -> None:
    small, large = unequal_nodes.network.machines
    options = ("--samples", "2", "--epochs", "3", "--cpus-per-trial", "2", "--train-limit", "400")
    code, output = search(unequal_nodes, *options).wait()
    assert code == 0, output
    assert "1 at a time with 2 CPU each" in output
    events = unequal_nodes.events("s")
    assert len(results_on(events, large)) == 6
    assert not results_on(events, small)


def refusal(made: Cluster, *options: str, **environment: str) -> str:
    """The one line that a search ends with before it trains."""
    started = time.time()
    (made.folder / "small.toml").write_text('[space]\n"optim.lr" = { low = 1e-3, high = 0.3 }\n')
    command = made.tunekit("search", "digits", "--space", "small.toml", *options, **environment)
    code, output = command.wait()
    print(f"{time.time() - started:.1f} s: {output}")
    assert code == 1, output
    *before, last = output.splitlines()
    assert all(line.startswith(("Search ", "Joining ")) for line in before), output
    assert last.startswith("Error: ")
    return last


def test_a_folder_that_another_node_does_not_see_is_refused(unequal_nodes: Cluster) -> None:
    results = str(unequal_nodes.folder / "data" / "results")  # each machine has its own
    joined = ("--address", unequal_nodes.address, "--data-dir", "data", "--name", "unseen")
    line = refusal(unequal_nodes, *joined, "--results-dir", results)
    assert f"node {unequal_nodes.network.machines[1].address} does not see {results}/unseen" in line
    assert "--results-dir" in line


def test_a_wrong_token_is_refused(unequal_nodes: Cluster) -> None:
    joined = ("--address", unequal_nodes.address, "--data-dir", "data", "--name", "foreign")
    line = refusal(unequal_nodes, *joined, RAY_AUTH_TOKEN="0" * 64)
    assert f"--address {unequal_nodes.address}" in line
    assert "token" in line


def test_an_address_without_a_cluster_is_refused(unequal_nodes: Cluster) -> None:
    nobody = f"{unequal_nodes.network.machines[1].address}:6379"
    line = refusal(unequal_nodes, "--address", nobody, "--data-dir", "data", "--name", "nobody")
    assert f"--address {nobody}" in line
    assert "no Ray cluster answers there" in line
    assert not unequal_nodes.paths("nobody").folder.exists()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ('__version__ = "0.0.9"', "has tunekit 0.0.9, but this is " + tunekit.__version__),
        (
            "import no_such_library",
            "cannot run tunekit: ModuleNotFoundError: No module named 'no_such_library'",
        ),
    ],
)
def test_a_node_with_another_tunekit_is_refused(unequal_nodes: Cluster, content: str, words: str) -> None:
    file, other = Path(str(tunekit.__file__)), unequal_nodes.folder / "other.py"
    other.write_text(content + "\n")
    second = unequal_nodes.network.machines[1]
    second.namespace.run(f"mount --bind {other} {file}")
    try:
        name = f"other-{len(content)}"
        line = refusal(
            unequal_nodes, "--address", unequal_nodes.address, "--data-dir", "data", "--name", name
        )
    finally:
        second.namespace.run(f"umount {file}")
    assert line == f"Error: node {second.address} {words}"
