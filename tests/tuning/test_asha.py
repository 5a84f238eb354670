"""Successive halving on plain numbers."""

import math

from tunekit.tuning.asha import rung_epochs, survives


def test_rungs_grow_by_the_factor_and_end_before_the_last_epoch() -> None:
    assert rung_epochs(27, 3, 3) == (3, 9)
    assert rung_epochs(28, 3, 3) == (3, 9, 27)
    assert rung_epochs(4, 3, 3) == (3,)
    assert rung_epochs(3, 3, 3) == ()


def test_the_first_at_a_rung_goes_on() -> None:
    assert survives(0.1, [], 3)


def test_about_one_in_three_goes_on() -> None:
    earlier = [i / 100 for i in range(100)]
    assert survives(0.67, earlier, 3)
    assert not survives(0.65, earlier, 3)


def test_equal_values_go_on() -> None:
    assert survives(0.5, [0.5, 0.5], 3)


def test_failures_count_as_the_worst_that_was_seen() -> None:
    assert survives(0.4, [-math.inf, -math.inf, 0.3], 3)
    assert not survives(0.2, [-math.inf, 0.3], 3)
    assert survives(0.2, [-math.inf, -math.inf], 3)
