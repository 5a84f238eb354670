"""A learning curve gives back what it took."""

from dataclasses import replace

import pytest

from tunekit.learning_curve import LearningCurve, Result

RESULTS = [
    Result(1, 0.25, 10.5, {"train_loss": 2.0, "val_loss": 1.5}, "host:1"),
    Result(2, 0.75, 11.5, {"train_loss": 1.0}, "host:1"),  # not every epoch has every metric
    Result(5, 0.5, 12.5),
    Result(6, 0.75, 13.5, {"val_loss": 1.0, "train_loss": 0.5}, "other.host:2"),
]


def test_results_come_back_as_they_went_in() -> None:
    curve = LearningCurve(RESULTS)
    assert list(curve) == RESULTS
    assert len(curve) == 4
    assert curve[0] == RESULTS[0] and curve[-1] == RESULTS[-1]
    assert curve[1:3] == RESULTS[1:3]
    assert list(reversed(curve)) == RESULTS[::-1]
    with pytest.raises(IndexError):
        curve[4]


def test_values_are_found_by_their_epoch() -> None:
    curve = LearningCurve(RESULTS)
    assert [curve.value_at(epoch) for epoch in range(8)] == [None, 0.25, 0.75, None, None, 0.5, 0.75, None]
    assert curve.last_epoch == 6
    assert LearningCurve().value_at(1) is None
    assert LearningCurve().last_epoch == 0


def test_the_best_is_the_first_of_equals() -> None:
    curve = LearningCurve()
    best = []
    for result in RESULTS:
        curve.append(result)
        best.append(curve.best)
    assert best == [RESULTS[0], RESULTS[1], RESULTS[1], RESULTS[1]]
    assert LearningCurve().best is None


def test_curves_are_equal_where_their_results_are() -> None:
    assert LearningCurve(RESULTS) == LearningCurve(RESULTS)
    assert LearningCurve(RESULTS) != LearningCurve(RESULTS[:3])
    assert LearningCurve(RESULTS[:1]) != LearningCurve([replace(RESULTS[0], worker="host:2")])


@pytest.mark.parametrize("metric", ["high", None, 10**400])
def test_a_metric_that_is_no_number_is_not_taken_not_even_in_part(metric: object) -> None:
    curve = LearningCurve(RESULTS)
    with pytest.raises((TypeError, OverflowError)):
        curve.append(Result(7, 0.5, 14.5, {"val_loss": metric}))  # type: ignore[dict-item]
    assert list(curve) == RESULTS


def test_a_copy_stays_as_it_was() -> None:
    curve = LearningCurve(RESULTS[:2])
    copy = curve.copy()
    curve.append(RESULTS[2])
    assert list(copy) == RESULTS[:2]
    copy.append(RESULTS[3])
    assert list(curve) == RESULTS[:3]
    assert copy.best == RESULTS[1]


def test_the_words_of_results_are_held_once() -> None:
    one = LearningCurve([Result(1, 0.5, 0.0, {"".join(["val_", "loss"]): 1.0}, "".join(["host", ":1"]))])
    two = LearningCurve([Result(1, 0.5, 0.0, {"".join(["val_", "loss"]): 1.0}, "".join(["host", ":1"]))])
    assert one[0].worker is two[0].worker
    assert next(iter(one[0].metrics)) is next(iter(two[0].metrics))
