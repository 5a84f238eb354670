"""Recorded curves under a policy, on a virtual clock: what it is asked and told, and when."""

import math
from collections.abc import Callable, Mapping, Sequence

import pytest

from tunekit.errors import SearchError
from tunekit.history import Event, History
from tunekit.recipe import Value
from tunekit.space import SearchSpace
from tunekit.tuning.policy import SCHEDULERS, Decision, SearchPolicy, Suggestion
from tunekit.tuning.replay import Curves, Record, Step, records_of, replay

SPACE = SearchSpace.from_dict(
    {
        "space": {
            "optim.name": {"choices": ["sgd", "adam"]},
            "optim.lr": {"low": 1e-4, "high": 1.0, "log": True},
            "optim.momentum": {"low": 0.0, "high": 0.99, "when": {"optim.name": ["sgd"]}},
        }
    }
)


def adam(lr: float) -> dict[str, Value]:
    return {"optim.name": "adam", "optim.lr": lr}


def sgd(lr: float, momentum: float) -> dict[str, Value]:
    return {"optim.name": "sgd", "optim.lr": lr, "optim.momentum": momentum}


def record(
    params: Mapping[str, Value], *values: float, seconds: float = 1.0, failed_at: int | None = None
) -> Record:
    return Record(params, values, [seconds] * len(values), failed_at, "diverged" if failed_at else None)


class Script:
    """Proposes the given params in order and decides by the given rule; remembers what it was told."""

    def __init__(
        self, params: Sequence[Mapping[str, Value]], decide: Callable[[int, int], Decision] | None = None
    ) -> None:
        self.left = [Suggestion(number, each) for number, each in enumerate(params)]
        self.decide = decide or (lambda trial, epoch: "continue")
        self.told: list[tuple[int, int, float]] = []
        self.failed: list[tuple[int, int, str]] = []

    def next(self) -> Suggestion:
        if not self.left:
            raise SearchError("nothing left")
        return self.left.pop(0)

    def report(self, trial_id: int, epoch: int, value: float) -> Decision:
        self.told.append((trial_id, epoch, value))
        return self.decide(trial_id, epoch)

    def fail(self, trial_id: int, epoch: int, reason: str) -> None:
        self.failed.append((trial_id, epoch, reason))


@pytest.mark.parametrize(
    ("params", "nearest"),
    [
        (adam(0.009), 0),  # on the log scale 0.01 lies in the middle between 1e-3 and 0.1
        (adam(0.011), 1),
        (sgd(0.1, 0.8), 3),
        (sgd(0.1, 0.2), 2),
        # Nearest in learning rate alone would be record 0; optimizer and momentum count 1 each.
        (sgd(1e-3, 0.0), 2),
    ],
)
def test_the_nearest_record_answers_on_the_scales_of_the_space(
    params: Mapping[str, Value], nearest: int
) -> None:
    known = (adam(1e-3), adam(0.1), sgd(0.1, 0.0), sgd(0.1, 0.9), adam(0.1))
    curves = Curves(SPACE, 2, [record(each, 0.5, 0.6) for each in known])
    assert curves.nearest(params) == nearest
    assert [curves.nearest(each) for each in known] == [0, 1, 2, 3, 1]


def test_epochs_are_reported_in_the_order_of_virtual_time() -> None:
    curves = Curves(
        SPACE, 3, [record(adam(1e-3), 0.1, 0.2, 0.3, seconds=10), record(adam(0.1), 0.4, 0.5, 0.6, seconds=4)]
    )
    policy = Script([adam(1e-3), adam(0.1), adam(0.1)])
    found = replay(policy, curves, workers=2, budget_epochs=100)
    # At 4, 8, 10, 12 (the second trial has ended, the third begins), 16, 20 (begun before), 20, 24, 30.
    assert [(trial, epoch) for trial, epoch, _ in policy.told] == [
        *[(1, 1), (1, 2), (0, 1), (1, 3)],
        *[(2, 1), (0, 2), (2, 2), (2, 3), (0, 3)],
    ]
    assert found.steps == (Step(4, 1, 1, 0.4), Step(8, 2, 1, 0.5), Step(12, 4, 1, 0.6))
    assert (found.epochs, found.seconds, found.trials) == (9, 30, 3)
    assert len(found.suggestion_seconds) == 3


def test_the_incumbent_is_the_trial_whose_latest_value_is_highest() -> None:
    recorded = [
        record(adam(1e-3), 0.5, 0.2),
        record(adam(0.1), 0.4, 0.3),
        record(sgd(0.1, 0.0), 0.9, failed_at=2),
    ]
    curves = Curves(SPACE, 2, recorded)
    found = replay(Script([each.params for each in recorded]), curves, workers=1, budget_epochs=100)
    # 0.5, 0.2 | 0.4, 0.3 | 0.9, failed: then the second trial is the best again.
    assert [found.incumbent(epochs) for epochs in (0.5, 1, 2, 3, 4, 5, 6)] == [None, 0, 0, 1, 1, 2, 1]
    assert found.first_with(0.45) == Step(1, 1, 0, 0.5)
    assert found.first_with(0.95) is None


def test_a_replay_ends_with_its_budget() -> None:
    curves = Curves(SPACE, 3, [record(adam(1e-3), 0.1, 0.2, 0.3)])
    found = replay(Script([adam(1e-3)] * 50), curves, workers=4, budget_epochs=7)
    assert found.epochs == 7


def test_a_recipe_that_failed_fails_again_and_frees_its_worker() -> None:
    curves = Curves(SPACE, 3, [record(adam(1e-3), 0.1, failed_at=2), record(adam(0.1), 0.2, 0.3, 0.4)])
    policy = Script([adam(1e-3), adam(0.1)])
    found = replay(policy, curves, workers=1, budget_epochs=100)
    assert policy.failed == [(0, 2, "diverged")]
    assert [(trial, epoch) for trial, epoch, _ in policy.told] == [(0, 1), (1, 1), (1, 2), (1, 3)]
    assert found.epochs == 5  # the epoch that failed was paid for
    assert math.isclose(curves.final[0], 0.4)  # as the worst that was trained


def test_a_paused_trial_goes_on_after_its_last_epoch() -> None:
    curves = Curves(SPACE, 3, [record(adam(1e-3), 0.1, 0.2, 0.3)])
    policy = Script([adam(1e-3)], lambda trial, epoch: "pause" if epoch == 1 else "continue")
    policy.left.append(Suggestion(0, adam(1e-3), resumes=True))
    replay(policy, curves, workers=1, budget_epochs=100)
    assert policy.told == [(0, 1, 0.1), (0, 2, 0.2), (0, 3, 0.3)]


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_our_policy_searches_recorded_curves_the_same_way_twice(scheduler: str) -> None:
    """A made-up landscape: the best learning rate is 0.01, and curves of good recipes rise faster."""
    rates = [10 ** (-4 + 4 * place / 30) for place in range(31)]
    heights = [1 - abs(math.log10(rate) + 2) / 4 for rate in rates]
    curves = Curves(
        SPACE,
        9,
        [record(adam(r), *[h * e / 9 for e in range(1, 10)]) for r, h in zip(rates, heights, strict=True)],
    )

    def searched() -> tuple[tuple[Step, ...], list[Event]]:
        policy = SearchPolicy(
            SPACE, max_epochs=9, seed=1, sampler="random", scheduler=scheduler, grace_period=1
        )
        found = replay(policy, curves, workers=4, budget_epochs=150)
        return found.steps, [event for event in policy.history.events if event.kind != "result"]

    (steps, events), (again, others) = searched(), searched()
    assert steps == again
    assert [(e.kind, e.trial, e.params) for e in events] == [(e.kind, e.trial, e.params) for e in others]
    assert heights[steps[-1].record] > 0.9


def test_only_trials_that_are_known_to_their_end_are_records() -> None:
    history = History()
    for trial, values in enumerate(((0.1, 0.2), (0.3,), (0.4,), (), (0.5,))):
        history.append(Event("suggest", trial, params=adam((trial + 1) / 10)))
        for epoch, value in enumerate(values, start=1):
            history.append(
                Event("result", trial, epoch=epoch, value=value, metrics={"epoch_seconds": 2.0 * epoch})
            )
    history.append(
        Event("complete", 0),
        Event("stop", 1, epoch=1),
        Event("fail", 2, epoch=2, reason="diverged"),
        Event("fail", 3, epoch=1, reason="out of memory"),
    )
    assert records_of(history, SPACE, epochs=2) == [
        Record(adam(0.1), [0.1, 0.2], [2.0, 4.0]),
        Record(adam(0.3), [0.4], [2.0], 2, "diverged"),
        Record(adam(0.4), [], [], 1, "out of memory"),
    ]


def test_a_baseline_is_a_record_if_the_space_could_propose_it() -> None:
    history = History()
    for trial, lr in enumerate((0.1, 3.0)):
        known: dict[str, Value] = {"optim.name": "adam", "optim.lr": lr, "model.name": "resnet8"}
        history.append(Event("suggest", trial, params=known, baseline="known"))
        history.append(Event("result", trial, epoch=1, value=0.5, metrics={"epoch_seconds": 1.0}))
        history.append(Event("complete", trial))
    assert [record.params for record in records_of(history, SPACE, epochs=1)] == [adam(0.1)]
