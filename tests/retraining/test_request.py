"""What a person may wish for, and when two wishes are one."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tunekit.errors import SearchError
from tunekit.recipe import Recipe
from tunekit.retraining.candidates import Candidate
from tunekit.retraining.request import Request


def candidate(lr: float, name: str = "trial 07", epochs: int = 10) -> Candidate:
    return Candidate(name, Recipe.from_flat({"optim.lr": lr}), {"optim.lr": lr}, epochs)


BEST = [candidate(0.1), candidate(0.2), candidate(0.3)]
USUAL = Request()


@pytest.mark.parametrize(
    "request_",
    [
        Request(),
        Request(top_k=1, seeds=1, epochs=1),
        Request(top_k=1000, seeds=1000, epochs=1_000_000),
        Request(refit=True),
        Request(ensemble=True, calibrate=True),
    ],
)
def test_what_can_be_done_may_be_wished_for(request_: Request) -> None:
    request_.check()


@pytest.mark.parametrize(
    ("wish", "message"),
    [
        (Request(top_k=0), "--top-k must be 1 to 1,000, but got 0"),
        (Request(top_k=1001), "--top-k must be 1 to 1,000, but got 1001"),
        (Request(seeds=0), "--seeds must be 1 to 1,000, but got 0"),
        (Request(seeds=-2), "--seeds must be 1 to 1,000, but got -2"),
        (Request(epochs=0), "--epochs must be 1 to 1,000,000, but got 0"),
        (Request(epochs=10**7), "--epochs must be 1 to 1,000,000, but got 10000000"),
        (
            Request(refit=True, ensemble=True),
            "--ensemble needs validation images to choose by: not with --refit-on train+val",
        ),
        (
            Request(refit=True, calibrate=True),
            "--calibrate needs validation images to choose by: not with --refit-on train+val",
        ),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(wish: Request, message: str) -> None:
    with pytest.raises(SearchError) as raised:
        wish.check()
    assert str(raised.value) == message


def test_the_same_wish_has_the_same_key() -> None:
    equal = [candidate(0.1), candidate(0.2), candidate(0.3)]
    assert Request().key(equal) == USUAL.key(BEST)
    assert len(USUAL.key(BEST)) == 16
    int(USUAL.key(BEST), 16)


@pytest.mark.parametrize(
    "other",
    [
        replace(USUAL, seeds=3),
        replace(USUAL, refit=True),
        replace(USUAL, ensemble=True),
        replace(USUAL, calibrate=True),
    ],
)
def test_an_option_that_changes_the_result_changes_the_key(other: Request) -> None:
    assert other.key(BEST) != USUAL.key(BEST)


@pytest.mark.parametrize(
    "others",
    [
        BEST[:2],
        [*BEST, candidate(0.4)],
        [*BEST[:2], candidate(0.4)],
        [replace(one, epochs=20) for one in BEST],
        [*BEST[:2], replace(BEST[2], epochs=20)],
    ],
    ids=["fewer", "more", "another", "longer", "one longer"],
)
def test_other_recipes_or_epochs_change_the_key(others: list[Candidate]) -> None:
    assert USUAL.key(others) != USUAL.key(BEST)


def test_what_gives_the_same_networks_does_not_change_the_key() -> None:
    # CPUs and GPUs; what recipes are called; numbers of options that came to the same recipes.
    assert replace(USUAL, cpus_per_trial=2.0, gpus_per_trial=0.5).key(BEST) == USUAL.key(BEST)
    assert USUAL.key([replace(one, name="default recipe") for one in BEST]) == USUAL.key(BEST)
    assert replace(USUAL, top_k=99, epochs=10).key(BEST) == USUAL.key(BEST)


def test_the_order_of_the_recipes_does_not_change_the_key() -> None:
    # A search that went on may rank the same best recipes otherwise: no reason to open the test set again.
    assert USUAL.key([BEST[2], BEST[0], BEST[1]]) == USUAL.key(BEST)
