"""Learning rates on plain numbers, against torch's own schedulers."""

import pytest
import torch

from tunekit.recipe import SCHEDULES
from tunekit.training.schedule import lr_factor

STEPS = 200


def test_one_cycle_is_that_of_torch() -> None:
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0, momentum=0.9)
    theirs = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=1.0, total_steps=STEPS + 1)
    for step in range(STEPS):
        # torch rises over 0.3 * steps - 1 steps: a step's difference
        assert lr_factor("one_cycle", step / STEPS, 0) == pytest.approx(theirs.get_last_lr()[0], abs=0.03)
        optimizer.step()
        theirs.step()


def test_cosine_is_that_of_torch() -> None:
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    theirs = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=STEPS)
    for step in range(STEPS):
        assert lr_factor("cosine", step / STEPS, 0) == pytest.approx(theirs.get_last_lr()[0], abs=1e-6)
        optimizer.step()
        theirs.step()


def test_step_falls_to_a_tenth_at_half_and_at_three_quarters() -> None:
    assert [lr_factor("step", p, 0) for p in (0.0, 0.49, 0.5, 0.74, 0.75, 0.99)] == pytest.approx(
        [1, 1, 0.1, 0.1, 0.01, 0.01]
    )


@pytest.mark.parametrize("name", [name for name in SCHEDULES if name != "one_cycle"])
def test_warm_up_rises_linearly_and_then_the_schedule_begins(name: str) -> None:
    assert lr_factor(name, 0.05, 0.2) == pytest.approx(0.25)
    assert lr_factor(name, 0.2, 0.2) == pytest.approx(1.0)


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("warmup", [0.0, 0.5])
def test_factors_stay_between_zero_and_one(name: str, warmup: float) -> None:
    factors = [lr_factor(name, (step + 0.5) / STEPS, warmup) for step in range(STEPS)]
    assert min(factors) > 0
    assert max(factors) <= 1
