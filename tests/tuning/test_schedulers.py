"""The rules of the schedulers on plain numbers."""

import dataclasses
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Set

import pytest

from tunekit.history import Event, Trial, TrialStatus
from tunekit.learning_curve import LearningCurve, Result
from tunekit.tuning.board import Board, Rung
from tunekit.tuning.schedulers import (
    SCHEDULERS,
    Scheduler,
    below_median,
    bracket_of,
    bracket_shares,
    make_scheduler,
    rung_epochs,
    survives,
    values_at,
)


def trial(number: int, *values: float, failed_at: int | None = None, paused_at: int | None = None) -> Trial:
    results = LearningCurve(Result(epoch, value, 0.0) for epoch, value in enumerate(values, start=1))
    status: TrialStatus = "failed" if failed_at else "paused" if paused_at else "running"
    return Trial(number, {}, 0.0, status=status, results=results, failed_at=failed_at, rung=paused_at)


def board_of(scheduler: Scheduler, trials: Iterable[Trial]) -> Board:
    """The board after all that happened to `trials`, one after the other."""
    board = scheduler.board()
    for one in trials:
        board.see(Event("suggest", one.id, params={}), one)
        for result in one.results:
            board.see(Event("result", one.id, epoch=result.epoch, value=result.value), one)
        if one.status == "paused":
            board.see(Event("pause", one.id, epoch=one.rung), one)
        if one.status == "failed":
            board.see(Event("fail", one.id, epoch=one.failed_at), one)
    return board


def rung_of(values: Mapping[int, float], waiting: Set[int]) -> Rung:
    rung = Rung()
    for number, value in values.items():
        rung.arrive(number, value)
    for number in waiting:
        rung.wait(number)
    return rung


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


def test_a_trial_that_failed_on_its_way_to_a_rung_is_the_worst_there_and_nowhere_else() -> None:
    trials = [trial(0, 0.1, 0.2, 0.3), trial(1, 0.1, failed_at=2), trial(2, 0.5, 0.5, 0.5, failed_at=4)]
    assert values_at(3, trials, (3, 9), 27) == {0: 0.3, 1: -math.inf, 2: 0.5}
    assert values_at(9, trials, (3, 9), 27) == {2: -math.inf}
    assert values_at(27, [trial(0, failed_at=10)], (3, 9), 27) == {0: -math.inf}


def test_nobody_is_promoted_before_there_are_as_many_as_the_factor() -> None:
    assert rung_of({0: 0.9, 1: 0.1}, {0, 1}).promotable(3) is None
    assert rung_of({0: 0.1, 1: 0.9, 2: 0.2}, {0, 1, 2}).promotable(3) == 1


def test_only_the_top_is_promoted_the_best_first_and_nobody_twice() -> None:
    values = {number: number / 10 for number in range(7)}  # floor(7 / 3) = 2 are promoted: 6 and 5
    rung = rung_of(values, values.keys())
    assert rung.promotable(3) == 6
    rung.leave(6)
    assert rung.promotable(3) == 5
    rung.leave(5)
    assert rung.promotable(3) is None


def test_the_earliest_of_equals_is_promoted() -> None:
    assert rung_of({3: 0.5, 1: 0.5, 2: 0.5}, {1, 2, 3}).promotable(3) == 1


def test_failures_count_among_all_and_are_never_promoted() -> None:
    failures = dict.fromkeys(range(5), -math.inf)
    assert rung_of({**failures, 5: 0.1}, {5}).promotable(3) == 5  # the second place of two is a failure's
    assert rung_of({**failures, 5: 0.1}, set()).promotable(3) is None


def test_a_trial_without_hope_is_behind_every_place_that_can_still_come() -> None:
    rung = rung_of({0: 0.9, 1: 0.8, 2: 0.7, 3: 0.6}, {1, 2, 3})
    assert rung.hopeless(12, 3) == []  # with 12 trials 4 places are promoted
    assert rung.hopeless(9, 3) == [3]
    assert rung.hopeless(6, 3) == [3, 2]
    for gone in (4, 5, 6):  # stopped before they came here: 3 places of 9 are 2 of 6
        rung.end(gone)
    assert rung.hopeless(9, 3) == [3, 2]
    rung.end(3)
    assert rung.hopeless(9, 3) == [2]


def test_the_highest_rung_promotes_first() -> None:
    scheduler = make_scheduler("asha-promotion", 27, 1, 3, 0)
    low = [trial(n, n / 10, paused_at=1) for n in range(3)]
    high = [trial(n, 0.9, 0.9, n / 10, paused_at=3) for n in range(3, 6)]
    assert scheduler.promotion(board_of(scheduler, low + high)) == 5
    assert scheduler.promotion(board_of(scheduler, low)) == 2
    assert scheduler.promotion(board_of(scheduler, low[:2])) is None


def test_a_trial_pauses_at_a_rung_unless_it_would_be_promoted_at_once() -> None:
    scheduler = make_scheduler("asha-promotion", 27, 3, 3, 0)
    others = [trial(0, 0.1, 0.1, 0.1, paused_at=3), trial(1, 0.1, 0.1, 0.2, paused_at=3)]
    board = board_of(scheduler, others)
    assert scheduler.decide(trial(2, 0.1, 0.1), 3, 0.15, board) == "pause"
    assert scheduler.decide(trial(2, 0.1, 0.1), 3, 0.3, board) == "continue"
    assert scheduler.decide(trial(2, 0.1, 0.1), 3, 0.3, board_of(scheduler, others[:1])) == "pause"
    assert scheduler.decide(trial(2, 0.1), 2, 0.0, board) == "continue"  # no rung


@pytest.mark.parametrize("name", ["asha", "asha-promotion", "hyperband"])
def test_a_trial_that_trains_just_as_another_stops_at_the_rung(name: str) -> None:
    scheduler = make_scheduler(name, 27, 3, 3, 0)
    assert scheduler.rungs_of(0)[0] == 3
    others = [trial(n, 0.1, 0.1, n / 10) for n in range(1, 4)]
    board = board_of(scheduler, [*others, trial(4, 0.1, 0.5, 0.9)])
    assert scheduler.decide(trial(0, 0.1, 0.5), 3, 0.9, board) == "stop"
    assert scheduler.decide(trial(0, 0.1, 0.4), 3, 0.9, board) != "stop"  # another in the second epoch
    assert scheduler.decide(trial(4, 0.1, 0.5), 3, 0.9, board) != "stop"  # the first one itself


def test_equal_accuracies_are_no_copies_if_losses_differ_or_epochs_are_few() -> None:
    scheduler = make_scheduler("asha-promotion", 27, 3, 3, 0)
    first, second, copy = (
        dataclasses.replace(
            trial(n), results=LearningCurve(Result(epoch, 0.5, 0.0, {"val_loss": loss}) for epoch in (1, 2))
        )
        for n, loss in enumerate((1.2, 1.3, 1.2))
    )
    board = scheduler.board()
    board.see(Event("result", first.id, epoch=3, value=0.9), first)
    assert not board.is_copy(second, 3, 0.9)
    assert board.is_copy(copy, 3, 0.9)
    early = make_scheduler("asha-promotion", 27, 1, 3, 0)
    assert early.decide(trial(1), 1, 0.5, board_of(early, [trial(0, 0.5, paused_at=1)])) == "pause"


def test_copies_take_nobodys_place() -> None:
    scheduler = make_scheduler("asha-promotion", 27, 3, 3, 0)
    trials = [trial(n, 0.1, 0.1, n / 10, paused_at=3) for n in range(5)]
    copies = [trial(n, 0.1, 0.1, 0.4) for n in range(5, 11)]  # of the best
    board = board_of(scheduler, [*trials, *copies])
    board.see(Event("resume", 4), trials[4])
    assert scheduler.promotion(board) is None  # a third of five is one
    board = board_of(scheduler, [*trials, *copies, trial(11, 0.1, 0.1, 0.0, 0.2)])
    board.see(Event("resume", 4), trials[4])
    assert scheduler.promotion(board) is None  # a copy of the worst
    board = board_of(scheduler, [*trials, *copies, trial(11, 0.1, 0.2, 0.0)])
    board.see(Event("resume", 4), trials[4])
    assert scheduler.promotion(board) == 3  # and of six two, though six copies are better


def test_a_copy_that_ends_leaves_fewer_who_can_come() -> None:
    rung = Rung()
    for number, value in enumerate((0.9, 0.8, 0.7, 0.6)):
        rung.arrive(number, value, bytes([number]))
        rung.wait(number)
    for copy in (4, 5, 6):
        rung.arrive(copy, 0.9, bytes([0]))
        assert rung.is_copy(copy, bytes([0]))
    assert rung.hopeless(9, 3) == [3]
    for copy in (4, 5, 6):
        rung.end(copy)
    assert rung.hopeless(9, 3) == [3, 2]
    assert rung.values[5] == 0.9
    assert rung.compared == {0: 0.9, 1: 0.8, 2: 0.7, 3: 0.6}


def test_brackets_are_shared_out_as_in_hyperband() -> None:
    # Li et al. 2018, algorithm 1 with 5 brackets and factor 3: 5 * 3**s / (s + 1) trials, s from 4 to 0.
    shares = bracket_shares(5, 3)
    assert [share / shares[0] * 81 for share in shares] == pytest.approx([81, 33.75, 15, 7.5, 5])
    assert sum(shares) == pytest.approx(1)


def test_the_bracket_of_a_trial_depends_on_seed_and_trial_alone() -> None:
    shares = bracket_shares(3, 3)
    drawn = [bracket_of(7, number, shares) for number in range(600)]
    assert drawn == [bracket_of(7, number, shares) for number in range(600)]
    assert drawn != [bracket_of(8, number, shares) for number in range(600)]
    counts = Counter(drawn)
    assert [counts[bracket] / 600 for bracket in range(3)] == pytest.approx(shares, abs=0.06)


def test_hyperband_compares_within_a_bracket_only() -> None:
    scheduler = make_scheduler("hyperband", 27, 3, 3, 0)
    shares = bracket_shares(3, 3)
    by_bracket = [[n for n in range(100) if bracket_of(0, n, shares) == bracket] for bracket in range(3)]
    good = [trial(n, 0.9, 0.9, 0.9) for n in (*by_bracket[1], *by_bracket[2])]
    first, *rest = (trial(n, 0.1, 0.1, 0.1) for n in by_bracket[0])
    board = board_of(scheduler, good)
    assert scheduler.decide(first, 3, 0.1, board) == "continue"  # nobody of its own bracket is there
    assert scheduler.decide(trial(by_bracket[1][0]), 3, 0.0, board) == "continue"  # its first rung is 9
    assert scheduler.decide(first, 3, 0.05, board_of(scheduler, [*good, *rest])) == "stop"
    assert scheduler.next_comparison(trial(by_bracket[1][0])) == 9
    assert scheduler.next_comparison(trial(by_bracket[2][0])) == 27


def test_the_median_rule_needs_five_others_and_lets_equals_go_on() -> None:
    assert not below_median(0.1, [0.5] * 4)
    assert below_median(0.1, [0.5] * 5)
    assert not below_median(0.5, [0.5] * 5)
    assert not below_median(0.4, [0.3, 0.3, 0.3, 0.9, 0.9])
    assert not below_median(0.1, [-math.inf] * 3 + [0.9] * 2)  # failures count as the worst


def test_the_median_rule_compares_the_best_so_far_with_running_averages() -> None:
    scheduler = make_scheduler("median", 27, 2, 3, 0)
    # On average 0.3 after two epochs, 0.5 after three.
    others = board_of(scheduler, [trial(n, 0.2, 0.4, 0.9) for n in range(5)])
    assert scheduler.decide(trial(9), 1, 0.0, others) == "continue"  # the grace period
    assert scheduler.decide(trial(9, 0.1), 2, 0.29, others) == "stop"
    assert scheduler.decide(trial(9, 0.35), 2, 0.0, others) == "continue"  # the best counts, not the last
    assert scheduler.decide(trial(9, 0.35, 0.0), 3, 0.4, others) == "stop"
    behind = board_of(scheduler, [trial(n, 0.9) for n in range(5)])  # they have not come so far yet
    assert scheduler.decide(trial(9, 0.1), 2, 0.1, behind) == "continue"


@pytest.mark.parametrize("name", SCHEDULERS)
def test_without_a_rung_nothing_is_stopped_and_the_plan_says_so(name: str) -> None:
    scheduler = make_scheduler(name, 3, 3, 3, 0)
    others = board_of(scheduler, [trial(n, 0.9, 0.9, 0.9) for n in range(9)])
    assert scheduler.decide(trial(9, 0.1), 2, 0.1, others) == "continue"
    assert scheduler.survivors() == ()
    assert scheduler.words() == "no early stopping"


@pytest.mark.parametrize(
    ("name", "words", "survivors"),
    [
        ("asha", "early stopping at epochs 3, 9", [(3, 1 / 3), (9, 1 / 9)]),
        (
            "asha-promotion",
            "pausing at epochs 3, 9, where the best 1 in 3 goes on",
            [(3, 1 / 3), (9, 1 / 9)],
        ),
        (
            "hyperband",
            "early stopping in brackets of the trials: "
            "from epoch 3 on (55%), from epoch 9 on (27%), never (18%)",
            [(3, 7 / 11), (9, 1 / 3)],  # 6/11, 3/11 and 2/11 of the trials begin in the three brackets
        ),
        ("median", "early stopping from epoch 3 on, of what is below the median", [(3, 1 / 2), (6, 1 / 4)]),
        ("none", "no early stopping", []),
    ],
)
def test_the_plan_says_what_happens_and_how_many_are_left(
    name: str, words: str, survivors: list[tuple[int, float]]
) -> None:
    scheduler = make_scheduler(name, 27, 3, 3, 0)
    assert scheduler.words() == words
    assert [epoch for epoch, _ in scheduler.survivors()] == [epoch for epoch, _ in survivors]
    left = [share for _, share in scheduler.survivors()]
    assert left == pytest.approx([share for _, share in survivors])
