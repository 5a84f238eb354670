"""A figure for stacked trials counts only if a member trains as it would alone."""

from __future__ import annotations

import torch

from tests.benchmarks.speed.stacking import Stack, train_step


def test_a_member_of_a_stack_trains_as_it_would_alone() -> None:
    torch.manual_seed(0)
    members, stack = 3, Stack(3, 3)
    images, labels = torch.randn(5, members * 3, 8, 8), torch.randint(0, 10, (members, 5))
    rates = torch.tensor([0.1, 0.01, 0.001])
    alone = []
    for member in range(members):
        single = Stack(1, 3)
        for own, shared in zip(single.parameters(), stack.parameters(), strict=True):
            own.data.copy_(shared.data.reshape(members, *own.shape)[member])
        alone.append(single)
    for _ in range(3):
        train_step(stack, images, labels, rates, bf16=False)
        for member, single in enumerate(alone):
            own_images = images[:, 3 * member : 3 * member + 3]
            train_step(
                single, own_images, labels[member : member + 1], rates[member : member + 1], bf16=False
            )
    for member, single in enumerate(alone):
        for own, shared in zip(single.parameters(), stack.parameters(), strict=True):
            torch.testing.assert_close(shared.reshape(members, *own.shape)[member], own, rtol=1e-4, atol=1e-5)
