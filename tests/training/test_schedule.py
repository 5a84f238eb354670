"""Learning rates on plain numbers, against torch's own schedulers."""

import itertools
import math
import random

import pytest
import torch

from tunekit.recipe import SCHEDULES
from tunekit.training.schedule import count_plateaus, lr_factor

STEPS = 200


def optimizer() -> torch.optim.Optimizer:
    return torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0, momentum=0.9)


def test_one_cycle_is_that_of_torch() -> None:
    ours = optimizer()
    theirs = torch.optim.lr_scheduler.OneCycleLR(ours, max_lr=1.0, total_steps=STEPS + 1)
    for step in range(STEPS):
        # torch rises over 0.3 * steps - 1 steps: a step's difference
        assert lr_factor("one_cycle", step / STEPS, 0) == pytest.approx(theirs.get_last_lr()[0], abs=0.03)
        ours.step()
        theirs.step()


def test_cosine_is_that_of_torch() -> None:
    ours = optimizer()
    theirs = torch.optim.lr_scheduler.CosineAnnealingLR(ours, T_max=STEPS)
    for step in range(STEPS):
        assert lr_factor("cosine", step / STEPS, 0) == pytest.approx(theirs.get_last_lr()[0], abs=1e-6)
        ours.step()
        theirs.step()


@pytest.mark.parametrize("patience", [1, 3])
@pytest.mark.parametrize("seed", range(5))
def test_plateaus_are_those_of_torch(patience: int, seed: int) -> None:
    ours = optimizer()
    theirs = torch.optim.lr_scheduler.ReduceLROnPlateau(ours, patience=patience, threshold=0, eps=0)
    draw = random.Random(seed)
    losses: list[float] = []
    for _ in range(40):
        # Ties, slow progress, and now and then a loss that is not a number.
        losses.append(draw.choice([math.nan, *[round(draw.random() / len([*losses, 0]), 2)] * 9]))
        theirs.step(losses[-1])
        factor = lr_factor("plateau", 0.5, 0, plateaus=count_plateaus(losses, patience))
        assert factor == pytest.approx(theirs.get_last_lr()[0])
    assert count_plateaus(losses, patience) > 0


def test_no_epoch_yet_is_no_plateau() -> None:
    assert count_plateaus([], patience=1) == 0
    assert count_plateaus([1.0, 1.0], patience=1) == 0
    assert count_plateaus([1.0, 1.0, 1.0], patience=1) == 1


def test_step_falls_to_a_tenth_at_half_and_at_three_quarters() -> None:
    assert [lr_factor("step", p, 0) for p in (0.0, 0.49, 0.5, 0.74, 0.75, 0.99)] == pytest.approx(
        [1, 1, 0.1, 0.1, 0.01, 0.01]
    )


def test_wsd_is_stable_and_then_falls_linearly_to_zero() -> None:
    at = (0.05, 0.1, 0.5, 0.8, 0.9, 0.95, 1.0)
    assert [lr_factor("wsd", p, 0.1, decay=0.2) for p in at] == pytest.approx([0.5, 1, 1, 1, 0.5, 0.25, 0])
    assert lr_factor("wsd", 1.0, 0.1, decay=0.0) == 1


def test_wsd_that_falls_before_it_has_risen_is_continuous() -> None:
    factors = [lr_factor("wsd", step / 1000, 0.5, decay=1.0) for step in range(1001)]
    assert max(abs(a - b) for a, b in itertools.pairwise(factors)) < 0.003


@pytest.mark.parametrize("name", [name for name in SCHEDULES if name != "one_cycle"])
def test_warm_up_rises_linearly_and_then_the_schedule_begins(name: str) -> None:
    assert lr_factor(name, 0.05, 0.2) == pytest.approx(0.25)
    assert lr_factor(name, 0.2, 0.2) == pytest.approx(1.0)


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("warmup", [0.0, 0.5])
def test_factors_stay_between_zero_and_one(name: str, warmup: float) -> None:
    factors = [
        lr_factor(name, (step + 0.5) / STEPS, warmup, decay=0.7, plateaus=step // 50) for step in range(STEPS)
    ]
    assert min(factors) > 0
    assert max(factors) <= 1
