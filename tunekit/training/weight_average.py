"""The exponential moving average of a network's weights."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import PARAM_LIST, AveragedModel


def build_average(network: nn.Module, decay: float) -> AveragedModel:
    """A copy of `network` that `update_parameters(network)` draws towards it after each step.

    The n-th update keeps `min(decay, (1 + n) / (10 + n))` of the average, so that the first weights are
    soon forgotten. Running statistics of batch norm are averaged too: those of `network` describe what
    its own weights see, not what averaged ones do.

    Args:
        network: its device, dtypes and memory format are kept.
        decay: 0 to 1, of the average that a step keeps.
    Source: Tarvainen & Valpola 2017, arXiv:1703.01780; the warm-up is TensorFlow's ExponentialMovingAverage.
    """
    return AveragedModel(network, multi_avg_fn=_towards(decay), use_buffers=True)


def _towards(decay: float) -> Callable[[PARAM_LIST, PARAM_LIST, Tensor | int], None]:
    @torch.no_grad()
    def update(averages: PARAM_LIST, newest: PARAM_LIST, updates: Tensor | int) -> None:
        """In place; all of `averages` and `newest` share their device and dtype."""
        if not averages[0].is_floating_point():  # batch norm counts its batches
            torch._foreach_copy_(averages, newest)
            return
        # Tensors throughout: asking `updates` for its value would wait for the device.
        step = 1 - torch.as_tensor((1 + updates) / (10 + updates)).clamp(max=decay)
        change = torch._foreach_sub(newest, averages)
        torch._foreach_mul_(change, step)
        torch._foreach_add_(averages, change)

    return update
