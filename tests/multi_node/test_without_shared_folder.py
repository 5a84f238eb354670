"""A search on two machines that share no results folder, of which one is killed."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.multi_node.lost_node import (
    await_epochs,
    check_as_trained_straight_through,
    check_whole,
    own_pack,
    search,
)
from tests.multi_node.namespaces import why_not
from tests.multi_node.nodes import Cluster, cluster, results_on
from tunekit.history import History

_WHY_NOT = why_not()
pytestmark = [
    pytest.mark.slow,
    pytest.mark.ray,
    pytest.mark.extended,
    pytest.mark.timeout(240),
    pytest.mark.skipif(_WHY_NOT is not None, reason=str(_WHY_NOT)),
]

EPOCHS = 12


@pytest.fixture
def two_nodes() -> Iterator[Cluster]:
    with cluster() as made:
        made.shares_results = False
        made.add_node(cpus=1)
        made.add_node(cpus=1)
        yield made


def test_a_trial_of_a_killed_node_goes_on_from_what_the_storage_has(two_nodes: Cluster) -> None:
    first, second = two_nodes.network.machines
    results, place = two_nodes.folder / "data" / "results", two_nodes.folder / "place"
    size = ("--epochs", str(EPOCHS), "--scheduler", "none", "--train-limit", "800", "--samples", "3")
    command = search(two_nodes, *size, "--results-dir", str(results), "--storage", str(place))
    await_epochs(two_nodes, command, second, 3)
    assert own_pack(second).exists()
    assert not (second.folder / "data" / "results").exists()
    second.kill()
    code, output = command.wait()
    assert code == 0, output

    paths = two_nodes.paths("s")
    history = History.read(paths.history)
    resumed = [event for event in history.events if event.kind == "resume"]
    assert len(resumed) == 1 and results_on(history.events, first)
    check_whole(history, EPOCHS)
    check_as_trained_straight_through(two_nodes, history, [*history.trials.values()])
    assert all(paths.trial(trial).best.exists() for trial in history.trials)
    assert not list(place.rglob("last.pt"))
