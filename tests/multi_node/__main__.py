"""`python -m tests.multi_node`: one of three machines is killed in a search. About 4 minutes; root only.

With TUNEKIT_TEST_DATA=path/to/data it trains on a part of CIFAR-10 found there, else on digits.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from tests.multi_node.lost_node import (
    check_as_trained_straight_through,
    check_tracked,
    check_whole,
    lose_a_node,
    own_pack,
    search,
)
from tests.multi_node.namespaces import why_not
from tests.multi_node.nodes import Cluster, cluster, results_on
from tunekit.history import History

EPOCHS = {"digits": 40, "cifar10": 12}  # so that the late node finds work


def main() -> None:
    """Lose a node in the middle of a search, say what became of it, and check all of that."""
    if reason := why_not():
        sys.exit(reason)
    started = time.monotonic()

    def say(words: str) -> None:
        print(f"[{time.monotonic() - started:5.1f} s] {words}", flush=True)

    with cluster() as made:
        for cpus in (1, 1):
            machine = made.add_node(cpus)
            say(f"a Ray node runs on {machine.name}, {machine.address}")
        dataset = _data(made)
        epochs = ("--epochs", str(EPOCHS[dataset]), "--scheduler", "none")
        command = search(made, *epochs, "--samples", "4", "--train-limit", "1000", dataset=dataset)
        lose_a_node(made, command, say)
        code, output = command.wait(400)
        say(f"the search ended with code {code}:\n\n{output}")
        _check(made, dataset)
        say("no epoch is missing, none came twice, MLflow has all, and all values are those of one training")


def _data(made: Cluster) -> str:
    """Put the images on the head; the others have to copy them."""
    if (found := os.environ.get("TUNEKIT_TEST_DATA")) is None:
        return "digits"
    name = "cifar-10-batches-py"
    (made.network.machines[0].folder / "data" / name).symlink_to(Path(found).resolve() / name)
    return "cifar10"


def _check(made: Cluster, dataset: str) -> None:
    history = History.read(made.paths("s").history)
    for machine in made.network.machines:
        epochs = len(results_on(history.events, machine))
        print(f"{machine.name} trained {epochs} epochs; its images lie in {own_pack(machine, dataset)}")
    check_whole(history, EPOCHS[dataset])
    check_tracked(made, history)
    check_as_trained_straight_through(made, history, [*history.trials.values()])


if __name__ == "__main__":
    main()
