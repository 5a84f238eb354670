"""Which choice was better, by how much, over how many trials: on histories written by hand."""

from collections.abc import Sequence

import pytest

from tunekit.history import Event, History
from tunekit.recipe import Value
from tunekit.reporting.choices import Comparison, compare
from tunekit.space import SearchSpace

KEY = "model.bn_placement"
SPACE = SearchSpace.from_dict(
    {
        "space": {
            KEY: {"choices": ["before_act", "after_act", "none"], "role": "scientific"},
            "optim.lr": {"low": 1e-3, "high": 1.0},
            "optim.name": {"choices": ["sgd", "adam"]},
            "optim.nesterov": {"choices": [False, True], "when": {"optim.name": ["sgd"]}},
        }
    }
)


def history(*trials: tuple[str, Sequence[float] | None]) -> History:
    """Trials as (placement, accuracies by epoch); those of one epoch were stopped, None failed."""
    made = History()
    for number, (placement, values) in enumerate(trials):
        params: dict[str, Value] = {KEY: placement, "optim.lr": (number + 1) / 100, "optim.name": "adam"}
        made.append(Event("suggest", number, params=params))
        for epoch, value in enumerate(values or (), start=1):
            made.append(Event("result", number, epoch=epoch, value=value))
        if values is None:
            made.append(Event("fail", number, epoch=1, reason="diverged"))
        else:
            made.append(Event("stop" if len(values) == 1 else "complete", number, epoch=len(values)))
    return made


def compared(*trials: tuple[str, Sequence[float] | None], key: str = KEY) -> Comparison:
    comparison = compare(SPACE, history(*trials), key)
    assert comparison is not None
    return comparison


def test_medians_are_taken_where_every_trial_was_and_failures_count_as_the_worst() -> None:
    comparison = compared(
        ("before_act", [0.5]),
        ("before_act", [0.6, 0.9]),
        ("before_act", None),
        ("after_act", [0.7, 0.8]),
        ("none", None),
    )
    assert comparison.epoch == 1
    rows = [(c.value, c.trials, c.failed, c.best, c.median) for c in comparison.choices]
    assert rows == [
        ("after_act", 1, 0, 0.8, 0.7),
        ("before_act", 3, 1, 0.9, 0.5),
        ("none", 1, 1, None, None),
    ]
    assert comparison.choices[1].behind == pytest.approx(0.2)


def test_a_clear_difference_is_called_one_and_noise_is_called_noise() -> None:
    good, bad = (
        [("after_act", [0.9 + n / 100]) for n in range(8)],
        [("none", [0.1 + n / 100]) for n in range(8)],
    )
    clear = compared(*good, *bad)
    assert clear.verdict() == (
        "model.bn_placement: after_act did best (median 0.9350 at epoch 1, best 0.9700, 8 trials); "
        "none is 0.8000 behind (best 0.1700, 8 trials): beyond noise (p = 0.00016)"
    )
    mixed = compared(*[(("after_act", "none")[n % 2], [0.5 + n / 100]) for n in range(16)])
    assert "within noise (p = 0.7" in mixed.verdict()


def test_how_far_a_trial_came_counts_before_its_accuracy_there() -> None:
    stopped = [("none", [0.9]) for _ in range(6)]
    finished = [("after_act", [0.9, 0.5]) for _ in range(6)]
    p_value = compared(*stopped, *finished).choices[1].p_value
    assert p_value is not None
    assert p_value < 0.05


def test_two_trials_of_a_value_are_too_few_to_tell() -> None:
    verdict = compared(*[("after_act", [0.9])] * 2, *[("none", [0.1])] * 9).verdict()
    assert verdict.endswith("too few trials to tell")


def test_twins_that_differ_in_nothing_else_are_compared_directly() -> None:
    made = History()
    for number, (placement, lr, value) in enumerate(
        [("after_act", 0.1, 0.8), ("before_act", 0.1, 0.7), ("after_act", 0.2, 0.9), ("before_act", 0.3, 0.2)]
    ):
        made.append(Event("suggest", number, params={KEY: placement, "optim.lr": lr}))
        made.append(Event("result", number, epoch=1, value=value), Event("complete", number))
    comparison = compare(SPACE, made, KEY)
    assert comparison is not None
    assert comparison.choices[1].twins == 1
    assert "twins: 0.1000 behind in 1 pair" in comparison.verdict()


def test_trials_for_which_a_key_means_nothing_are_left_out() -> None:
    assert compare(SPACE, history(("none", [0.1])), "optim.nesterov") is None


def test_one_value_alone_is_not_compared() -> None:
    assert compared(("none", [0.1])).verdict() == f"{KEY}: only none was tried (1 trial)"


def test_before_a_trial_ended_there_is_nothing_to_compare() -> None:
    assert compare(SPACE, History(), KEY) is None
