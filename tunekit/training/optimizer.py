"""From recipe to optimizer and schedule."""

from __future__ import annotations

import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from tunekit.recipe import OptimRecipe, ScheduleRecipe
from tunekit.training.schedule import lr_factor


def build_optimizer(recipe: OptimRecipe, model: nn.Module) -> Optimizer:
    """The optimizer of a recipe over all parameters of `model`, with torch's fused kernels."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if recipe.name == "sgd":
        return torch.optim.SGD(
            parameters,
            lr=recipe.lr,
            momentum=recipe.momentum,
            nesterov=recipe.nesterov and recipe.momentum > 0,
            weight_decay=recipe.weight_decay,
            fused=True,
        )
    kinds: dict[str, type[torch.optim.Adam]] = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}
    return kinds[recipe.name](parameters, lr=recipe.lr, weight_decay=recipe.weight_decay, fused=True)


def build_schedule(recipe: ScheduleRecipe, optimizer: Optimizer, steps: int) -> LambdaLR:
    """The schedule of a recipe over `steps` optimizer steps; call `step()` after each of them."""
    # The middle of each step: the first and the last one would waste themselves on a rate of 0.
    return LambdaLR(optimizer, lambda step: lr_factor(recipe.name, (step + 0.5) / steps, recipe.warmup))
