"""A search on two machines that share no results folder, of which one is killed or misses the storage."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.multi_node.lost_node import (
    await_epochs,
    check_as_trained_straight_through,
    check_whole,
    own_pack,
    search,
)
from tests.multi_node.namespaces import why_not
from tests.multi_node.nodes import Cluster, Command, cluster, results_on, until
from tests.tuning.places import login, on_server
from tunekit.history import History

_WHY_NOT = why_not()
pytestmark = [
    pytest.mark.slow,
    pytest.mark.ray,
    pytest.mark.extended,
    pytest.mark.timeout(600),
    pytest.mark.skipif(_WHY_NOT is not None, reason=str(_WHY_NOT)),
]

EPOCHS = 12
PORT = 5000
SIZE = ("--epochs", str(EPOCHS), "--scheduler", "none", "--train-limit", "800", "--samples", "3")


@pytest.fixture
def two_nodes(monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    login(monkeypatch)
    with cluster() as made:
        made.shares_results = False
        made.add_node(cpus=1)
        made.add_node(cpus=1)
        yield made


_ASK = """
import sys, urllib.request as web
print(web.urlopen(web.Request(sys.argv[1], method=sys.argv[2]), timeout=10).read().decode())
"""


class S3Machine:
    """A third machine, which is no node, with a bucket."""

    def __init__(self, made: Cluster) -> None:
        self.machine = made.network.add(())
        self.uri = on_server(f"{self.machine.address}:{PORT}")
        with open(made.folder / "s3.log", "w") as log:
            self.machine.start(
                [sys.executable, "-m", "moto.server", "-H", "0.0.0.0", "-p", str(PORT)], {}, log
            )
        until(lambda: self._ask("/") is not None, (made.folder / "s3.log").read_text)
        assert self._ask("/bucket", "PUT") is not None

    def objects(self) -> str:
        """What is in the bucket, as XML."""
        found = self._ask("/bucket?list-type=2")
        assert found is not None
        return found

    def _ask(self, path: str, method: str = "GET") -> str | None:
        words = [sys.executable, "-c", _ASK, f"http://127.0.0.1:{PORT}{path}", method]
        done = subprocess.run(
            self.machine.namespace.enter(words, Path("/")), capture_output=True, text=True, check=False
        )
        return None if done.returncode else done.stdout


@pytest.mark.parametrize("place", ["folder", "s3"])
def test_a_trial_of_a_killed_node_goes_on_from_what_the_storage_has(two_nodes: Cluster, place: str) -> None:
    first, second = two_nodes.network.machines
    store = S3Machine(two_nodes) if place == "s3" else None
    uri = store.uri if store else str(two_nodes.folder / "place")
    results = two_nodes.folder / "data" / "results"
    command = search(two_nodes, *SIZE, "--results-dir", str(results), "--storage", uri)
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
    left = store.objects() if store else str([*Path(uri).rglob("*")])
    assert "best.safetensors" in left and "last.pt" not in left


def test_a_node_that_loses_the_storage_is_named_and_a_resume_goes_on(two_nodes: Cluster) -> None:
    store, second = S3Machine(two_nodes), two_nodes.network.machines[1]
    results = two_nodes.folder / "data" / "results"

    def start() -> Command:
        return search(two_nodes, *SIZE, "--results-dir", str(results), "--storage", store.uri)

    second.lose_packets_to(store.machine)
    code, output = start().wait()
    assert code == 1, output
    refused = f"node {second.address} cannot use the storage: storage {store.uri} cannot be read from "
    assert f"{refused}{second.name}: When " in " ".join(output.split())  # and pyarrow's words
    assert not two_nodes.paths("s").folder.exists()

    second.lose_no_packets_to(store.machine)
    command = start()
    await_epochs(two_nodes, command, second, 3)
    second.lose_packets_to(store.machine)
    code, output = command.wait()
    assert code == 1, output
    assert f"storage {store.uri} cannot be written from {second.name}: When " in " ".join(output.split())

    second.lose_no_packets_to(store.machine)
    joined = ("--address", two_nodes.address, "--results-dir", str(results))
    code, output = two_nodes.tunekit("resume", "s", *joined).wait()
    assert code == 0, output
    history = History.read(two_nodes.paths("s").history)
    check_whole(history, EPOCHS)
    check_as_trained_straight_through(two_nodes, history, [*history.trials.values()])
