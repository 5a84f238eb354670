"""What a trial counts where trials are compared, on made-up values: no training."""

import itertools
from collections.abc import Callable
from typing import Any

import pytest

from tests.tuning.made_up import SPACE, drawn, number, search
from tests.tuning.test_policy import Simulation, policy, rebuilt_from
from tunekit.history import Event, History
from tunekit.space import Params
from tunekit.tuning.evidence import EarlierSearch, Evidence
from tunekit.tuning.expected_change import ExpectedChange
from tunekit.tuning.policy import Suggestion

Curve = Callable[[Params, int], float]


def slow_starters(params: Params, epoch: int) -> float:
    """Kind b is behind after 3 epochs and ahead after 27; the larger x the better, always."""
    late = {3: -0.1, 9: 0.05, 27: 0.2}[epoch]
    return 0.5 + 0.2 * number(params, "x") + (late if params["kind"] == "b" else 0.0)


def crosswise(params: Params, epoch: int) -> float:
    """The other way round."""
    late = {3: -0.1, 9: 0.05, 27: 0.2}[epoch]
    return 0.5 + 0.2 * number(params, "x") + (late if params["kind"] == "a" else 0.0)


def trained(curve: Curve, count: int = 60, in_full: int = 60) -> Evidence:
    return search(
        drawn(count, 5),
        (3, count, lambda params: curve(params, 3)),
        (9, in_full, lambda params: curve(params, 9)),
        (27, in_full, lambda params: curve(params, 27)),
    )


def compared(
    earlier: list[Evidence], curve: Curve, count: int, in_full: int
) -> Callable[[Params, int], float]:
    """What a further trial of the recipe counts at an epoch, after so many others were trained."""
    history = History()
    change = ExpectedChange(SPACE, earlier, 27, lambda trial: trial.params)
    history.subscribe(lambda event: change.see(event, history.trials[event.trial]))
    for trial, params in enumerate(drawn(count, 9)):
        history.append(Event("suggest", trial, params=params))
        for epoch in range(1, 28 if trial < in_full else 4):
            value = curve(params, next(rung for rung in (3, 9, 27) if rung >= epoch))
            change.worth(history.trials[trial], epoch, value)
            history.append(Event("result", trial, epoch=epoch, value=value))
    following = itertools.count(count)

    def worth(params: Params, epoch: int) -> float:
        trial = next(following)
        history.append(Event("suggest", trial, params=params))
        return change.worth(history.trials[trial], epoch, curve(params, epoch))

    return worth


A: Params = {"x": 0.6, "y": 0.5, "kind": "a", "z": 0.5}
B: Params = {"x": 0.6, "y": 0.5, "kind": "b"}


@pytest.mark.parametrize("epoch", [3, 9])
def test_who_begins_slowly_counts_what_it_will_be(epoch: int) -> None:
    worth = compared([trained(slow_starters)], slow_starters, count=20, in_full=0)
    assert slow_starters(B, 3) < slow_starters(A, 3)
    assert worth(B, epoch) > worth(A, epoch)
    assert worth({**B, "x": 0.9}, epoch) > worth(B, epoch)


@pytest.mark.parametrize(
    ("earlier", "count"),
    [([], 20), ([trained(slow_starters)], 7), ([trained(slow_starters, in_full=20)], 20)],
    ids=["nobody knows", "few values", "stopped early"],
)
def test_a_value_counts_as_it_is(earlier: list[Evidence], count: int) -> None:
    worth = compared(earlier, slow_starters, count, in_full=0)
    assert [worth(params, 3) for params in (A, B)] == [slow_starters(params, 3) for params in (A, B)]


def test_epochs_that_the_earlier_search_does_not_know_count_as_they_are() -> None:
    worth = compared([trained(slow_starters)], lambda params, epoch: 0.5 + 0.1 * number(params, "x"), 20, 0)
    assert worth(A, 1) == 0.5 + 0.1 * 0.6
    assert worth(A, 27) == 0.5 + 0.1 * 0.6


def test_what_does_not_come_true_is_unlearned() -> None:
    misled = [trained(crosswise)]
    before = compared(misled, slow_starters, count=60, in_full=0)
    after = compared(misled, slow_starters, count=60, in_full=60)
    assert before(A, 3) - before(B, 3) > slow_starters(A, 3) - slow_starters(B, 3) + 0.1
    assert after(A, 3) - after(B, 3) == pytest.approx(slow_starters(A, 3) - slow_starters(B, 3), abs=0.02)


def test_a_resumed_search_expects_the_same() -> None:
    earlier = (EarlierSearch("full", (), trained(slow_starters)),)
    options: dict[str, Any] = {"sampler": "rung-tpe", "max_epochs": 27, "grace_period": 3, "earlier": earlier}

    def curve(suggestion: Suggestion, epoch: int) -> float:
        rung = next(rung for rung in (3, 9, 27) if rung >= epoch)
        return slow_starters(suggestion.params, rung) + epoch / 1000

    predicted = []

    def predict(simulation: Simulation) -> None:
        predicted.append(simulation.ask(rebuilt_from(simulation.search, **options)))

    simulation = Simulation(policy(**options), 24, curve)
    simulation.run(watch=predict)
    assert simulation.steps == predicted
    plain = Simulation(policy(**{**options, "earlier": ()}), 24, curve)
    plain.run()
    assert plain.steps != simulation.steps
