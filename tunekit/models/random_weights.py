"""Random first weights of the families that tunekit puts together itself."""

from __future__ import annotations

from typing import Literal

from torch import nn


def initialise(module: nn.Module, convolutions: Literal["fan_in", "fan_out"]) -> None:
    """Weights of all layers of `module` as in He et al. 2015 (arXiv:1502.01852), biases at zero.

    Args:
        module: its convolutions and linear layers are changed in place.
        convolutions: keep the size of the signals on their way up (fan_in), which is what joined
            branches need where no norm follows, or of the gradients on their way down (fan_out),
            as VGG and the residual networks are published.
    """
    for part in module.modules():
        if isinstance(part, nn.Conv2d):
            nn.init.kaiming_normal_(part.weight, mode=convolutions, nonlinearity="relu")
        elif isinstance(part, nn.Linear):
            nn.init.kaiming_normal_(part.weight, nonlinearity="relu")
        if isinstance(part, nn.Conv2d | nn.Linear) and part.bias is not None:
            nn.init.zeros_(part.bias)
