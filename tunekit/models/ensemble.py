"""Several networks as one, and a network that is as sure as it should be."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional


class Tempered(nn.Module):
    """A network whose logits are divided by a temperature; what it names stays, how sure it is changes.

    Source: Guo et al. 2017, arXiv:1706.04599, section 4.2.
    """

    temperature: Tensor

    def __init__(self, module: nn.Module, temperature: float) -> None:
        """`temperature` is above 0; above 1 the network becomes less sure."""
        assert math.isfinite(temperature) and temperature > 0, temperature
        super().__init__()
        self.module = module
        self.register_buffer("temperature", torch.tensor(float(temperature)))

    def forward(self, images: Tensor) -> Tensor:
        """Normalised images (N, C, H, W) to logits (N, classes), both of the network's dtype."""
        logits: Tensor = self.module(images)
        return logits / self.temperature


class Ensemble(nn.Module):
    """The weighted mean of several networks' probabilities.

    Source: Lakshminarayanan et al. 2017, arXiv:1612.01474, section 2.4.
    """

    log_weights: Tensor

    def __init__(self, modules: Sequence[nn.Module], weights: Sequence[float]) -> None:
        """`weights`: one a module, above 0; they are divided by their sum."""
        assert len(modules) == len(weights) > 0 and min(weights) > 0, weights
        super().__init__()
        self.members = nn.ModuleList(modules)
        shares = torch.tensor(weights, dtype=torch.float64)
        self.register_buffer("log_weights", (shares / shares.sum()).log().to(torch.float32))

    def forward(self, images: Tensor) -> Tensor:
        """Normalised images (N, C, H, W) to the log of the mean probabilities (N, classes).

        Softmax leaves probabilities as they are, so that the output serves as logits.
        """
        logs = [functional.log_softmax(member(images), dim=1) for member in self.members]
        # Adding in the log domain keeps the digits of probabilities that float32 rounds to 0.
        return torch.logsumexp(torch.stack(logs) + self.log_weights.view(-1, 1, 1), dim=0)
