"""When a training is given up: on plain losses and gradients."""

import math
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from tunekit.errors import DivergedError
from tunekit.training.divergence import CHECK_EVERY, DivergenceWatch, check_epoch

START = math.log(10)


def parameter(gradient: float | None = 1.0) -> Tensor:
    weight = torch.zeros(3, requires_grad=True)
    weight.grad = None if gradient is None else torch.full((3,), gradient)
    return weight


def watch(steps_per_epoch: int = 30, epochs: int = 2) -> DivergenceWatch:
    return DivergenceWatch(10, steps_per_epoch, epochs)


def ends_at(watch: DivergenceWatch, losses: Sequence[float], first: int = 0) -> tuple[int, str] | None:
    """After how many steps in all the training is given up, and why."""
    for step, loss in enumerate(losses, start=first):
        try:
            watch.see(step, torch.tensor(loss), [parameter()])
        except DivergedError as error:
            return step + 1, str(error)
    return None


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_is_named_with_its_step(value: float) -> None:
    losses = [START] * 6 + [value] + [START] * 53
    assert ends_at(watch(), losses) == (CHECK_EVERY, f"training loss is {value} at step 7, epoch 1")


def test_steps_are_counted_in_their_epoch() -> None:
    losses = [START] * 36 + [math.nan] * 24
    assert ends_at(watch(), losses) == (30 + CHECK_EVERY, "training loss is nan at step 7, epoch 2")


def test_the_end_of_an_epoch_is_checked() -> None:
    losses = [START] * 29 + [math.nan]
    assert ends_at(watch(), losses) == (30, "training loss is nan at step 30, epoch 1")


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_gradients_that_are_not_finite_end_it_before_they_reach_the_weights(value: float) -> None:
    watched = watch()
    parameters = [parameter(), parameter(None), parameter(value)]  # the second is frozen
    for step in range(CHECK_EVERY - 1):
        watched.see(step, torch.tensor(START), parameters)
    with pytest.raises(DivergedError, match=f"the gradients' norm is {value} at step 20, epoch 1"):
        watched.see(CHECK_EVERY - 1, torch.tensor(START), parameters)


def test_a_loss_that_stays_far_above_its_start_ends_it() -> None:
    losses = [3.0] * 20 + [6.1] * 100
    ended = ends_at(watch(steps_per_epoch=20, epochs=30), losses)
    assert ended == (80, "training loss has been above twice its start (3.00) for 60 steps")


def test_a_loss_that_comes_down_in_between_is_spared() -> None:
    up, down = [9.0] * 40, [2.0] * 20
    assert ends_at(watch(steps_per_epoch=60, epochs=8), [2.0] * 20 + 4 * (up + down)) is None


def test_a_loss_around_its_start_is_spared() -> None:
    assert ends_at(watch(epochs=20), [START] + [1.9 * START] * 599) is None


def test_a_longer_training_has_more_time_to_recover() -> None:
    losses = [START] * 20 + [9.0] * 200
    for epochs, patience in ((1, 20), (10, 100)):
        ended = ends_at(watch(steps_per_epoch=100, epochs=epochs), losses)
        assert ended is not None
        assert ended[0] == 20 + patience


def test_a_network_that_begins_well_may_forget() -> None:
    assert ends_at(watch(epochs=20), [0.1] + [2.5] * 599) is None


def test_a_resumed_training_ends_at_the_same_step() -> None:
    losses = [2.0] * 20 + [9.0] * 100
    straight = ends_at(watch(steps_per_epoch=20, epochs=30), losses)
    before, after = (watch(steps_per_epoch=20, epochs=30) for _ in range(2))
    assert ends_at(before, losses[:40]) is None
    after.load_state(before.state())
    assert straight is not None
    assert ends_at(after, losses[40:], first=40) == straight


@pytest.mark.parametrize("losses", [(math.inf, 1.0), (1.0, math.nan)])
def test_the_means_of_an_epoch_are_finite(losses: tuple[float, float]) -> None:
    with pytest.raises(DivergedError, match=r"(training loss is inf|validation loss is nan) in epoch 3"):
        check_epoch(3, *losses)
